/** Checks block after block what no single block can show: the chain, and each process's sequence, links and positions. */
import { decodeBlock } from "../format/block.ts";
import type { BlockHeader } from "../format/block-header.ts";
import { EVENT_KIND, type EventColumns } from "../format/event-columns.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import { hasCode } from "../model/errors.ts";

/** A place that is damaged, and how. */
export interface Damage {
  readonly place: string;
  readonly why: string;
}

interface Track extends ProcessHead {
  /** [checkpoint, position] of the effective history, oldest first; undefined: what came before is not kept. */
  readonly checkpoints: [number, number][];
  /** Positions of the effective history's gaps, oldest first. */
  readonly gapLines: number[];
}

/** Instead of a number: the irregular block that links lead to was removed, its gaps stand in the base. */
const REMOVED = -1;

/** Where each rollback led back to, by process: [sequence of its block, last position it kept]. */
export type Rollbacks = ReadonlyMap<string, readonly (readonly [number, number])[]>;

export class ChainCheck {
  readonly damages: Damage[] = [];
  events = 0;
  bytes = 0;
  blocks = 0;
  gaps = 0;
  readonly rollbacks = new Map<string, [number, number][]>();
  readonly #tracks = new Map<string, Track>();
  readonly #application: string | undefined;
  readonly #firstChain: number;
  #next: number;
  /** Hash of the block before `#next`, or undefined where that one is missing or damaged. */
  #hash: Uint8Array | undefined;

  /** `baseHash`: of the block before `firstChain`. */
  constructor(application: string | undefined, firstChain: number, baseHash: Uint8Array | undefined) {
    this.#application = application;
    this.#firstChain = firstChain;
    this.#next = firstChain;
    this.#hash = baseHash;
  }

  get processes(): ReadonlyMap<string, ProcessHead> {
    return this.#tracks;
  }

  get next(): number {
    return this.#next;
  }

  /** Hash of the last block, if that one was whole. */
  get hash(): Uint8Array | undefined {
    return this.#hash;
  }

  /** Blocks up to number `last` had to come. */
  expectUpTo(last: number): void {
    if (last < this.#next) return;
    const place = last === this.#next ? `block ${last}` : `blocks ${this.#next} to ${last}`;
    this.damages.push({ place, why: "missing" });
    this.#next = last + 1;
    this.#hash = undefined;
  }

  /** The blocks that stand for removed ones: each process goes on where its last one ends, and links back to it. */
  beginWith(blocks: readonly Uint8Array[]): void {
    for (const bytes of blocks) {
      try {
        const { header, columns } = decodeBlock(bytes);
        const before = this.#tracks.get(header.process);
        const faults = before === undefined ? [] : [...linkFaults(header, before)];
        faults.push(...this.#history(header, columns, before ?? this.#firstTrack(header)));
        const track = this.#tracks.get(header.process) as Track;
        if (header.sequence > 1) this.#tracks.set(header.process, { ...track, irregular: REMOVED });
        if (header.chain >= this.#firstChain) faults.push("stands behind the first block that is kept");
        if (this.#application !== undefined && header.application !== this.#application)
          faults.push(`is of application "${header.application}"`);
        for (const why of faults)
          this.damages.push({
            place: `block ${header.chain} of the base (process "${header.process}")`,
            why,
          });
      } catch (error) {
        if (!hasCode(error, "RL_BAD_BLOCK")) throw error;
        this.damages.push({ place: "the base", why: error.message });
      }
    }
  }

  /** The bytes found under `chain`, which rises. */
  add(chain: number, bytes: Uint8Array): void {
    this.expectUpTo(chain - 1);
    this.#next = chain + 1;
    this.blocks += 1;
    this.bytes += bytes.length;
    try {
      const { header, columns } = decodeBlock(bytes);
      this.events += header.rows;
      for (const why of this.#faults(chain, header, columns))
        this.damages.push({ place: `block ${chain} (process "${header.process}")`, why });
      this.#hash = header.hash;
    } catch (error) {
      if (!hasCode(error, "RL_BAD_BLOCK")) throw error;
      this.damages.push({ place: `block ${chain}`, why: error.message });
      this.#hash = undefined;
    }
  }

  *#faults(chain: number, header: BlockHeader, columns: EventColumns): Generator<string> {
    if (header.chain !== chain) yield `says that it is block ${header.chain}`;
    if (this.#application !== undefined && header.application !== this.#application)
      yield `is of application "${header.application}"`;
    if (this.#hash !== undefined && Buffer.compare(this.#hash, header.previousHash) !== 0)
      yield "does not follow the block before it";
    const before = this.#tracks.get(header.process) ?? this.#firstTrack(header);
    yield* linkFaults(header, before);
    yield* this.#history(header, columns, before);
  }

  /** A process that begins here, or whose earlier blocks were dropped: then its first block is believed. */
  #firstTrack(header: BlockHeader): Track {
    const dropped = header.previousBlock > 0 && header.previousBlock < this.#firstChain;
    if (!dropped)
      return {
        chain: 0,
        sequence: 0,
        control: 0,
        irregular: 0,
        position: 0,
        greatestCheckpoint: 0,
        checkpoints: [],
        gapLines: [],
      };
    return {
      chain: header.previousBlock,
      sequence: header.sequence - 1,
      control: header.previousControl,
      irregular: header.previousIrregular,
      position: header.position,
      greatestCheckpoint: 0,
      checkpoints: [],
      gapLines: [],
    };
  }

  *#history(header: BlockHeader, columns: EventColumns, before: Track): Generator<string> {
    const { checkpoints, gapLines } = before;
    let position = header.position;
    let greatest = before.greatestCheckpoint;
    for (let row = 0; row < columns.count; row += 1) {
      position += 1;
      if (columns.kind[row] === EVENT_KIND.gap) {
        this.gaps += 1;
        gapLines.push(position);
      }
      const event = columns.extras.get(row);
      if (event?.type === "checkpoint") {
        if (event.checkpoint <= (checkpoints.at(-1)?.[0] ?? 0))
          yield `checkpoint ${event.checkpoint} does not rise`;
        checkpoints.push([event.checkpoint, position]);
        greatest = Math.max(greatest, event.checkpoint);
      } else if (event?.type === "rollback") position = this.#rollBack(header, event.checkpoint, before);
    }
    if (position !== header.positionAfter)
      yield `leads to position ${position} and says ${header.positionAfter}`;
    // Earlier checkpoints may have been dropped, never later ones.
    const whole = before.chain === 0 || this.#tracks.has(header.process);
    if (whole && this.#firstChain === 1 && header.greatestCheckpoint !== greatest)
      yield `says greatest checkpoint ${header.greatestCheckpoint}, it is ${greatest}`;
    this.#tracks.set(header.process, {
      chain: header.chain,
      sequence: header.sequence,
      control: header.controls > 0 ? header.chain : header.previousControl,
      irregular: header.irregular ? header.chain : header.previousIrregular,
      position: header.positionAfter,
      greatestCheckpoint: header.greatestCheckpoint,
      checkpoints,
      gapLines,
    });
  }

  /**
   * The position of the rollback's line, behind its checkpoint or the first gap that can hide it; a checkpoint that is not kept is
   * believed to stand where the header says.
   */
  #rollBack(header: BlockHeader, checkpoint: number, { checkpoints, gapLines }: Track): number {
    let above = Number.POSITIVE_INFINITY;
    while (checkpoints.length > 0 && checkpoints.at(-1)![0] > checkpoint) above = checkpoints.pop()![1];
    const [index, line] = checkpoints.at(-1) ?? [0, 0];
    const hiding = gapLines.find((gap) => gap > line && gap < above);
    const whole = this.#firstChain === 1 ? (hiding ?? Number.NaN) : header.positionAfter - 1;
    const believed = index === checkpoint ? line : whole;
    while (gapLines.length > 0 && gapLines.at(-1)! > believed) gapLines.pop();
    const list = this.rollbacks.get(header.process) ?? [];
    list.push([header.sequence, header.positionAfter - 1]);
    this.rollbacks.set(header.process, list);
    return believed + 1;
  }
}

function* linkFaults(header: BlockHeader, before: ProcessHead): Generator<string> {
  if (header.sequence !== before.sequence + 1)
    yield `is number ${header.sequence} of its process, ${before.sequence + 1} was due`;
  if (header.previousBlock !== before.chain)
    yield `links back to block ${header.previousBlock}, it should to ${before.chain}`;
  if (header.previousControl !== before.control)
    yield `links back to control block ${header.previousControl}, it should to ${before.control}`;
  if (before.irregular !== REMOVED && header.previousIrregular !== before.irregular)
    yield `links back to irregular block ${header.previousIrregular}, it should to ${before.irregular}`;
  if (header.position !== before.position)
    yield `begins at position ${header.position}, ${before.position} was due`;
}
