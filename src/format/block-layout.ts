/**
 * Where everything stands in a log block (logs-format.md, "Block"). Little endian. One definition for writer and reader.
 */
export const BLOCK_MAGIC = 0x424c_5252; // "RRLB"
/**
 * The newest version. A block has the least one that can hold its rows: 2 where rows carry page versions; 3 for peek and outside rows, cuts
 * that say `seen` or of a process that has outside rows, gaps with a reason.
 */
export const BLOCK_VERSION = 3;
/** SHA-256, in bytes. */
export const HASH_BYTES = 32;
export const HEADER_BYTES = 160;

/** Offsets of the header's fields, in bytes. */
export const AT = {
  magic: 0, // u32
  version: 4, // u8
  flags: 5, // u8
  reserved16: 6, // u16, zero
  size: 8, // u32, whole block in bytes, trailer included
  rows: 12, // u32
  chain: 16, // u64
  sequence: 24, // u64
  previousBlock: 32, // u64
  previousControl: 40, // u64
  position: 48, // u64
  positionAfter: 56, // u64
  greatestCheckpoint: 64, // u64
  sends: 72, // u32
  receives: 76, // u32
  controls: 80, // u32
  channels: 84, // u32
  threads: 88, // u32
  beginExceptions: 92, // u32
  timeExceptions: 96, // u32
  channelWidth: 100, // u8: 1 2 4
  lengthWidth: 101, // u8: 1 2 4 8
  timeWidth: 102, // u8: 0 1 2 4 8
  threadWidth: 103, // u8: 0 1 2 4
  beginWidth: 104, // u8: 4 8
  reserved24: 105, // 3 bytes, zero
  nameBytes: 108, // u32
  extraBytes: 112, // u32
  irregularBack: 116, // u32, chain - previousIrregular; 0 = none
  previousHash: 120, // 32 bytes
  timeBase: 152, // f64, ns
} as const;

/** Bits of `flags`: what a reader may skip a block for. */
export const BLOCK_FLAG = {
  control: 1,
  cut: 2,
  extras: 4,
  rollback: 8,
  irregular: 16,
  covers: 32,
  forgets: 64,
  outside: 128,
} as const;
export const BLOCK_FLAGS_KNOWN = 255;
/** The least versions that know this flag, these kinds. */
export const VERSION_WITH_OUTSIDE = 3;

/** What decides where the sections of a block stand. */
export interface Shape {
  readonly rows: number;
  /** Entries of the channel dictionary, count. */
  readonly channels: number;
  /** Entries of the thread dictionary, count. */
  readonly threads: number;
  readonly beginExceptions: number;
  readonly timeExceptions: number;
  /** Widths of a column's cells, in bytes; 0 = the column is not there. */
  readonly channelWidth: number;
  readonly lengthWidth: number;
  readonly timeWidth: number;
  readonly threadWidth: number;
  readonly beginWidth: number;
  readonly nameBytes: number;
  readonly extraBytes: number;
}

/** Offsets of the sections, in bytes from the start of the block. */
export interface Sections {
  readonly timeExceptionValues: number;
  readonly beginExceptionValues: number;
  readonly length: number;
  readonly time: number;
  readonly beginExceptionRows: number;
  readonly timeExceptionRows: number;
  readonly threadValues: number;
  readonly channel: number;
  readonly thread: number;
  readonly nameLengths: number;
  readonly kind: number;
  readonly names: number;
  readonly extras: number;
  readonly trailer: number;
  readonly size: number;
}

/** Names in front of the channel names: application and process. */
export const LEADING_NAMES = 2;

/** Lays the sections out one behind the other, each aligned to its cell width. */
export function layOut(shape: Shape): Sections {
  let at = HEADER_BYTES;
  const place = (cells: number, width: number): number => {
    const start = width > 1 ? Math.ceil(at / width) * width : at;
    at = start + cells * width;
    return start;
  };
  const { rows } = shape;
  const timeExceptionValues = place(shape.timeExceptions, 8);
  const beginExceptionValues = place(shape.beginExceptions, shape.beginWidth);
  const length = place(rows, shape.lengthWidth);
  const time = place(rows, shape.timeWidth);
  const beginExceptionRows = place(shape.beginExceptions, 4);
  const timeExceptionRows = place(shape.timeExceptions, 4);
  const threadValues = place(shape.threads, 4);
  const channel = place(rows, shape.channelWidth);
  const thread = place(rows, shape.threadWidth);
  const nameLengths = place(LEADING_NAMES + shape.channels, 2);
  const kind = place(rows, 1);
  const names = place(shape.nameBytes, 1);
  const extras = place(shape.extraBytes, 1);
  const trailer = place(HASH_BYTES, 1);
  return {
    timeExceptionValues,
    beginExceptionValues,
    length,
    time,
    beginExceptionRows,
    timeExceptionRows,
    threadValues,
    channel,
    thread,
    nameLengths,
    kind,
    names,
    extras,
    trailer,
    size: at,
  };
}

/** Smallest unsigned cell width, in bytes, that holds 0 … `greatest`. */
export function unsignedWidth(greatest: number): 1 | 2 | 4 | 8 {
  if (greatest <= 0xff) return 1;
  if (greatest <= 0xffff) return 2;
  return greatest <= 0xffff_ffff ? 4 : 8;
}

/** A view on unsigned cells; width 8 are f64. The offset must be aligned in the underlying memory. */
export function unsignedView(
  bytes: Uint8Array,
  offset: number,
  cells: number,
  width: number,
): Uint8Array | Uint16Array | Uint32Array | Float64Array {
  const at = bytes.byteOffset + offset;
  if (width === 1) return new Uint8Array(bytes.buffer, at, cells);
  if (width === 2) return new Uint16Array(bytes.buffer, at, cells);
  if (width === 4) return new Uint32Array(bytes.buffer, at, cells);
  return new Float64Array(bytes.buffer, at, cells);
}

/** A view on signed cells; width 8 are f64. */
export function signedView(
  bytes: Uint8Array,
  offset: number,
  cells: number,
  width: number,
): Int8Array | Int16Array | Int32Array | Float64Array {
  const at = bytes.byteOffset + offset;
  if (width === 1) return new Int8Array(bytes.buffer, at, cells);
  if (width === 2) return new Int16Array(bytes.buffer, at, cells);
  if (width === 4) return new Int32Array(bytes.buffer, at, cells);
  return new Float64Array(bytes.buffer, at, cells);
}
