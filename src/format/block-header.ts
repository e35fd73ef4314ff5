/** The header of a log block: values ↔ the first 160 bytes. */
import { hash } from "node:crypto";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_BLOCK_EVENTS, MAX_EVENT_BLOCK_BYTES } from "../model/limits.ts";
import {
  AT,
  BLOCK_FLAG,
  BLOCK_FLAGS_KNOWN,
  BLOCK_MAGIC,
  BLOCK_VERSION,
  HASH_BYTES,
  HEADER_BYTES,
  LEADING_NAMES,
  layOut,
  type Sections,
  type Shape,
  VERSION_WITH_OUTSIDE,
} from "./block-layout.ts";

/** What the writer must say of a block; everything else follows from its events. */
export interface BlockPlace {
  readonly application: string;
  /** Global number of the block in the application's log, ≥ 1, without holes. */
  readonly chain: number;
  /** SHA-256 of the block with the number before; zeros for the first. */
  readonly previousHash: Uint8Array;
  /** Number of the block among its process's, ≥ 1, without holes. */
  readonly sequence: number;
  /** Chain number of the process's block before; 0 = none. */
  readonly previousBlock: number;
  /** Chain number of the newest earlier block of the process that holds control events; 0 = none. */
  readonly previousControl: number;
  /** Lines of the process that are not undone, before the block (docs/semantics.md, 1). */
  readonly position: number;
  /** The same after it: position + rows, unless the last row is a rollback. */
  readonly positionAfter: number;
  /** Greatest checkpoint index the process ever logged, this block included; 0 = none. */
  readonly greatestCheckpoint: number;
  /** Chain number of the newest earlier block of the process that is irregular; absent or 0 = none. */
  readonly previousIrregular?: number;
  /** Every cut in the block covers all that its process did before it (`log/cut-coverage.ts`). Absent: nobody knows. */
  readonly covers?: boolean;
  /** A cut in the block, or one before it in effect, leaves out channels that older ones named: they are closed. Absent: none does. */
  readonly forgets?: boolean;
  /** The block holds a cut or ends in a rollback, and its process has `outside` rows here or anywhere before, undone ones too. Absent: none. */
  readonly outside?: boolean;
}

export interface BlockHeader extends Required<BlockPlace> {
  readonly process: string;
  /** A row is no send, receive, peek, outside, page fault or checkpoint with a cut: such blocks are found without reading the others. */
  readonly irregular: boolean;
  readonly rows: number;
  readonly sends: number;
  readonly receives: number;
  /** Checkpoints, stables, gaps and rollbacks, count. */
  readonly controls: number;
  /** A checkpoint with a cut is among them. */
  readonly hasCut: boolean;
  /** The last row is a rollback; a rollback is always the last row of its block. */
  readonly endsInRollback: boolean;
  /** SHA-256 of the block: its trailer. */
  readonly hash: Uint8Array;
}

/** A header with what is needed to decode the rest. */
export interface ParsedBlock {
  readonly header: BlockHeader;
  readonly shape: Shape;
  readonly sections: Sections;
  /** The block in memory aligned to 8 bytes. */
  readonly bytes: Uint8Array;
  readonly hasExtras: boolean;
}

export function badBlock(why: string, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_BAD_BLOCK",
    `log block: ${why}`,
    "The block is damaged or of another version; `recovery-line verify` names the place.",
    cause,
  );
}

function require(condition: boolean, why: string): asserts condition {
  if (!condition) throw badBlock(why);
}

/** SHA-256 of `bytes`, 32 bytes. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return hash("sha256", bytes, "buffer");
}

/**
 * Checks size, checksum and header, and finds the sections. Throws only RL_BAD_BLOCK.
 * Rows, extras and channel names are NOT looked at; `decodeBlock` does that.
 */
export function parseBlock(input: Uint8Array): ParsedBlock {
  require(input.length >= HEADER_BYTES + HASH_BYTES, `${input.length} bytes are too few`);
  require(input.length <= MAX_EVENT_BLOCK_BYTES, `${input.length} bytes are too many`);
  const bytes = input.byteOffset % 8 === 0 ? input : Uint8Array.from(input);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  require(view.getUint32(AT.magic, true) === BLOCK_MAGIC, "wrong magic number");
  const version = view.getUint8(AT.version);
  require(version >= 1 && version <= BLOCK_VERSION, `unknown version ${version}`);
  require(view.getUint32(AT.size, true) === bytes.length, "wrong size");
  const trailer = bytes.length - HASH_BYTES;
  const digest = sha256(bytes.subarray(0, trailer));
  require(Buffer.compare(digest, bytes.subarray(trailer)) === 0, "wrong checksum");
  return parseChecked(bytes, view, digest);
}

function parseChecked(bytes: Uint8Array, view: DataView, digest: Uint8Array): ParsedBlock {
  const flags = view.getUint8(AT.flags);
  const reserved = view.getUint16(AT.reserved16, true);
  const reserved24 = bytes[AT.reserved24]! | bytes[AT.reserved24 + 1]! | bytes[AT.reserved24 + 2]!;
  require(reserved === 0 && reserved24 === 0, "reserved bits are set");
  const known =
    bytes[AT.version]! >= VERSION_WITH_OUTSIDE ? BLOCK_FLAGS_KNOWN : BLOCK_FLAGS_KNOWN & ~BLOCK_FLAG.outside;
  require((flags & ~known) === 0, "a flag of a later version");
  const shape = readShape(view);
  const sections = layOut(shape);
  require(sections.size === bytes.length, "sections do not fill the block");
  const [application, process] = leadingNames(bytes, sections);
  const header: BlockHeader = {
    application,
    process,
    ...readNumbers(view),
    irregular: (flags & BLOCK_FLAG.irregular) !== 0,
    covers: (flags & BLOCK_FLAG.covers) !== 0,
    forgets: (flags & BLOCK_FLAG.forgets) !== 0,
    outside: (flags & BLOCK_FLAG.outside) !== 0,
    previousHash: bytes.slice(AT.previousHash, AT.previousHash + HASH_BYTES),
    hasCut: (flags & BLOCK_FLAG.cut) !== 0,
    endsInRollback: (flags & BLOCK_FLAG.rollback) !== 0,
    hash: digest,
  };
  checkNumbers(header, flags);
  return { header, shape, sections, bytes, hasExtras: (flags & BLOCK_FLAG.extras) !== 0 };
}

function readShape(view: DataView): Shape {
  const u32 = (at: number): number => view.getUint32(at, true);
  const shape: Shape = {
    rows: u32(AT.rows),
    channels: u32(AT.channels),
    threads: u32(AT.threads),
    beginExceptions: u32(AT.beginExceptions),
    timeExceptions: u32(AT.timeExceptions),
    channelWidth: view.getUint8(AT.channelWidth),
    lengthWidth: view.getUint8(AT.lengthWidth),
    timeWidth: view.getUint8(AT.timeWidth),
    threadWidth: view.getUint8(AT.threadWidth),
    beginWidth: view.getUint8(AT.beginWidth),
    nameBytes: u32(AT.nameBytes),
    extraBytes: u32(AT.extraBytes),
  };
  require(shape.rows >= 1 && shape.rows <= MAX_BLOCK_EVENTS, `${shape.rows} rows`);
  require([1, 2, 4].includes(shape.channelWidth), "channel width");
  require([1, 2, 4, 8].includes(shape.lengthWidth), "length width");
  require([0, 1, 2, 4, 8].includes(shape.timeWidth), "time width");
  require([0, 1, 2, 4].includes(shape.threadWidth), "thread width");
  require([4, 8].includes(shape.beginWidth), "begin width");
  return shape;
}

function readNumbers(view: DataView) {
  const u64 = (at: number): number => {
    const high = view.getUint32(at + 4, true);
    require(high < 2 ** 21, "a number beyond 2^53");
    return view.getUint32(at, true) + high * 2 ** 32;
  };
  const chain = u64(AT.chain);
  const back = view.getUint32(AT.irregularBack, true);
  return {
    chain,
    previousIrregular: back === 0 ? 0 : chain - back,
    sequence: u64(AT.sequence),
    previousBlock: u64(AT.previousBlock),
    previousControl: u64(AT.previousControl),
    position: u64(AT.position),
    positionAfter: u64(AT.positionAfter),
    greatestCheckpoint: u64(AT.greatestCheckpoint),
    rows: view.getUint32(AT.rows, true),
    sends: view.getUint32(AT.sends, true),
    receives: view.getUint32(AT.receives, true),
    controls: view.getUint32(AT.controls, true),
  };
}

function checkNumbers(header: BlockHeader, flags: number): void {
  const {
    chain,
    sequence,
    previousBlock,
    previousControl,
    previousIrregular,
    position,
    positionAfter,
    rows,
  } = header;
  require(chain >= 1 && sequence >= 1 && previousBlock < chain, "numbers do not rise");
  require(previousIrregular >= 0 &&
    previousIrregular <= previousBlock, "the irregular block before is not before");
  require(header.hasCut || !(header.covers || header.forgets), "covering without a cut");
  require(header.hasCut || header.endsInRollback || !header.outside, "outside without a cut or a rollback");
  require(previousControl <= previousBlock, "the control block before is not before");
  require((sequence === 1) === (previousBlock === 0), "only the first block of a process has none before");
  require(((flags & BLOCK_FLAG.control) !== 0) === header.controls > 0, "control flag and count differ");
  require(header.endsInRollback || positionAfter === position + rows, "positions do not add up");
  require(positionAfter <= position + rows, "a rollback can't lead forward");
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A well-formed, non-empty UTF-8 name. */
export function readName(bytes: Uint8Array, from: number, length: number, limitBytes: number): string {
  require(length > 0 && length <= limitBytes, `a name of ${length} bytes`);
  try {
    return strictUtf8.decode(bytes.subarray(from, from + length));
  } catch (cause) {
    throw badBlock("a name is not UTF-8", cause);
  }
}

function leadingNames(bytes: Uint8Array, sections: Sections): [string, string] {
  const lengths = new Uint16Array(bytes.buffer, bytes.byteOffset + sections.nameLengths, LEADING_NAMES);
  const [application, process] = [lengths[0]!, lengths[1]!];
  require(application + process <= sections.extras - sections.names, "names leave their section");
  return [
    readName(bytes, sections.names, application, 255),
    readName(bytes, sections.names + application, process, 255),
  ];
}
