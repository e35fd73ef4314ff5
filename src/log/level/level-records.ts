/**
 * LevelDB's format of records, which its MANIFEST and its WAL have in common: blocks of 32 KiB, in them fragments with a
 * checksum each. What follows the first fragment that is cut off or damaged is not read: LevelDB would look for the next whole
 * one behind it, and so lose what stands between.
 */
import { crc32c, unmasked } from "./crc32c.ts";

const LOG_BLOCK_BYTES = 32 * 1024;
const HEADER_BYTES = 7; // masked CRC-32C u32, length u16, type u8
const TYPE_AT = 6;
const TYPE = { none: 0, full: 1, first: 2, middle: 3, last: 4 } as const;

export interface LevelRecords {
  /** One record behind the other. */
  readonly data: Buffer;
  /** Where each of them ends in `data`. */
  readonly ends: readonly number[];
  /** Something else follows than the end of the file, a record that is cut off there, or zeros. */
  readonly damaged: boolean;
}

export function readRecords(bytes: Buffer): LevelRecords {
  const data = Buffer.allocUnsafeSlow(bytes.length);
  const ends: number[] = [];
  let filled = 0;
  let inRecord = false;
  const done = (damaged: boolean): LevelRecords => ({ data: data.subarray(0, filled), ends, damaged });
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const blockEnd = at - (at % LOG_BLOCK_BYTES) + LOG_BLOCK_BYTES;
    if (blockEnd - at < HEADER_BYTES) {
      at = blockEnd;
      continue;
    }
    const length = bytes.readUInt16LE(at + 4);
    const type = bytes[at + TYPE_AT]!;
    const from = at + HEADER_BYTES;
    const to = from + length;
    if (to > Math.min(blockEnd, bytes.length)) return done(blockEnd <= bytes.length);
    if (type === TYPE.none && length === 0) return done(false); // room that was never written
    const known = type >= TYPE.full && type <= TYPE.last;
    const begins = type === TYPE.full || type === TYPE.first;
    if (!known || begins === inRecord) return done(true);
    if (crc32c(bytes, at + TYPE_AT, to) !== unmasked(bytes.readUInt32LE(at))) return done(true);
    bytes.copy(data, filled, from, to);
    filled += length;
    inRecord = type === TYPE.first || type === TYPE.middle;
    if (!inRecord) ends.push(filled);
    at = to;
  }
  return done(false);
}

/** Reads varints and length-prefixed strings; `bad` once something does not fit. */
export class VarintReader {
  at: number;
  bad = false;
  readonly #bytes: Uint8Array;
  readonly #end: number;

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.at = at;
    this.#end = end;
  }

  get more(): boolean {
    return !this.bad && this.at < this.#end;
  }

  byte(): number {
    if (this.at < this.#end) return this.#bytes[this.at++]!;
    this.bad = true;
    return 0;
  }

  number(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 63; scale *= 128) {
      const byte = this.byte();
      if (this.bad) return 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        this.bad ||= !Number.isSafeInteger(value);
        return value;
      }
    }
    this.bad = true;
    return 0;
  }

  /** A length and as many bytes; where it leaves the reader's part: `bad`, and nothing. */
  string(): { readonly from: number; readonly length: number } {
    const length = this.number();
    const from = this.at;
    this.bad ||= from + length > this.#end;
    if (this.bad) return { from: 0, length: 0 };
    this.at = from + length;
    return { from, length };
  }
}
