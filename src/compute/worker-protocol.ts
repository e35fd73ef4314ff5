/**
 * What the main thread and the workers that read blocks tell each other.
 *
 * One task is a run of blocks, one answer their reduced lines: all rows of all blocks in four typed arrays that change hands without a
 * copy, however many blocks there are. Errors travel as plain values, since a class does not survive the way between threads.
 */
import { type BlockHeader, badBlock, parseBlock } from "../format/block-header.ts";
import { HASH_BYTES } from "../format/block-layout.ts";
import { reduceBlock } from "../graph/evidence/reduce-block.ts";
import type { ReducedControl, ReducedLines } from "../graph/evidence/reduced-lines.ts";
import { type ErrorCode, RecoveryLineError } from "../model/errors.ts";

export interface ReduceTask {
  /** Whole blocks; their memory belongs to the worker from now on. */
  readonly blocks: readonly Uint8Array[];
  /** Join ranges that touch (reduced-lines.ts). */
  readonly join: boolean;
}

export type ReduceAnswer =
  | { readonly kind: "stretches"; readonly stretches: PackedStretches }
  /** Joining was asked for and a `stable` line forbids it. */
  | { readonly kind: "stable" }
  /** `block` counts the task's blocks from 0. */
  | {
      readonly kind: "error";
      readonly block: number;
      readonly code: ErrorCode;
      readonly message: string;
      readonly advice: string;
    };

/** `ReducedLines` of block 0, 1, …, and where each stands in its process's history. `…Start[block]` are CSR offsets. */
export interface PackedStretches {
  /** Of all blocks. */
  readonly application: string;
  readonly chain: Float64Array;
  /** SHA-256 of the block before and of the block itself, 32 bytes each. */
  readonly previousHash: Uint8Array;
  readonly hash: Uint8Array;
  readonly process: readonly string[];
  readonly lines: Uint32Array;
  /** Lines of the process before and after the block, rollbacks counted. */
  readonly position: Float64Array;
  readonly positionAfter: Float64Array;
  readonly channelStart: Uint32Array;
  readonly channels: readonly string[];
  readonly controlStart: Uint32Array;
  readonly controls: readonly ReducedControl[];
  readonly rowStart: Uint32Array;
  readonly tag: Uint32Array;
  readonly line: Uint32Array;
  readonly begin: Float64Array;
  readonly end: Float64Array;
}

/** Does the task. Throws nothing: what goes wrong with a block is part of the answer; a bug throws. */
export function reduceBlocks({ blocks, join }: ReduceTask): ReduceAnswer {
  let at = -1;
  try {
    const headers: BlockHeader[] = [];
    const reduced: ReducedLines[] = [];
    for (const bytes of blocks) {
      at += 1;
      const parsed = parseBlock(bytes);
      const lines = reduceBlock(parsed, join);
      if (join && lines.controls.some(({ event }) => event.type === "stable")) return { kind: "stable" };
      if (parsed.header.application !== (headers[0] ?? parsed.header).application)
        throw badBlock("it is of another application than the one before it");
      headers.push(parsed.header);
      reduced.push(lines);
    }
    return { kind: "stretches", stretches: pack(headers, reduced) };
  } catch (error) {
    if (!(error instanceof RecoveryLineError)) throw error;
    return { kind: "error", block: at, code: error.code, message: error.message, advice: error.advice };
  }
}

function pack(headers: readonly BlockHeader[], reduced: readonly ReducedLines[]): PackedStretches {
  const rowStart = starts(reduced, ({ tag }) => tag.length);
  const rows = rowStart[reduced.length] as number;
  const hashes = (of: (header: BlockHeader) => Uint8Array): Uint8Array => {
    const all = new Uint8Array(headers.length * HASH_BYTES);
    headers.forEach((header, block) => {
      all.set(of(header), block * HASH_BYTES);
    });
    return all;
  };
  const packed = {
    application: headers[0]?.application ?? "",
    chain: Float64Array.from(headers, ({ chain }) => chain),
    previousHash: hashes(({ previousHash }) => previousHash),
    hash: hashes(({ hash }) => hash),
    process: reduced.map(({ process }) => process),
    lines: Uint32Array.from(reduced, ({ lines }) => lines),
    position: Float64Array.from(headers, ({ position }) => position),
    positionAfter: Float64Array.from(headers, ({ positionAfter }) => positionAfter),
    channelStart: starts(reduced, ({ channels }) => channels.length),
    channels: reduced.flatMap(({ channels }) => channels),
    controlStart: starts(reduced, ({ controls }) => controls.length),
    controls: reduced.flatMap(({ controls }) => controls),
    rowStart,
    tag: new Uint32Array(rows),
    line: new Uint32Array(rows),
    begin: new Float64Array(rows),
    end: new Float64Array(rows),
  };
  reduced.forEach(({ tag, line, begin, end }, block) => {
    const at = rowStart[block] as number;
    packed.tag.set(tag, at);
    packed.line.set(line, at);
    packed.begin.set(begin, at);
    packed.end.set(end, at);
  });
  return packed;
}

function starts(reduced: readonly ReducedLines[], count: (lines: ReducedLines) => number): Uint32Array {
  const start = new Uint32Array(reduced.length + 1);
  reduced.forEach((lines, block) => {
    start[block + 1] = (start[block] as number) + count(lines);
  });
  return start;
}

/** What of an answer changes hands instead of being copied. */
export function transferred(answer: ReduceAnswer): ArrayBuffer[] {
  if (answer.kind !== "stretches") return [];
  const { lines, position, positionAfter, tag, line, begin, end } = answer.stretches;
  return [lines, position, positionAfter, tag, line, begin, end].map(({ buffer }) => buffer as ArrayBuffer);
}

/** The stretches of an answer, in order; views on its memory. */
export function* unpack(
  packed: PackedStretches,
): Generator<ReducedLines & { position: number; positionAfter: number }> {
  for (let block = 0; block < packed.process.length; block += 1) {
    const of = <T>(start: Uint32Array, take: (from: number, to: number) => T): T =>
      take(start[block] as number, start[block + 1] as number);
    yield {
      process: packed.process[block] as string,
      lines: packed.lines[block] as number,
      position: packed.position[block] as number,
      positionAfter: packed.positionAfter[block] as number,
      channels: of(packed.channelStart, (from, to) => packed.channels.slice(from, to)),
      controls: of(packed.controlStart, (from, to) => packed.controls.slice(from, to)),
      tag: of(packed.rowStart, (from, to) => packed.tag.subarray(from, to)),
      line: of(packed.rowStart, (from, to) => packed.line.subarray(from, to)),
      begin: of(packed.rowStart, (from, to) => packed.begin.subarray(from, to)),
      end: of(packed.rowStart, (from, to) => packed.end.subarray(from, to)),
    };
  }
}
