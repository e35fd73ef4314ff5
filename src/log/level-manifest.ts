/**
 * Which tables a LevelDB folder consists of, from CURRENT and the MANIFEST it names. Only what LevelDB 1.20 writes is read;
 * whatever looks different is left to LevelDB, which checks the MANIFEST's own checksums when it opens the folder.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const LOG_BLOCK_BYTES = 32 * 1024;
const RECORD_HEADER_BYTES = 7; // masked CRC-32C u32, length u16, type u8
const RECORD = { full: 1, first: 2, middle: 3, last: 4 } as const;

/** Whole records of a file in LevelDB's log format; ends at the first that is cut off or of no known type. */
function* records(bytes: Buffer): Generator<Buffer> {
  let parts: Buffer[] = [];
  for (let at = 0; at + RECORD_HEADER_BYTES <= bytes.length; ) {
    const left = LOG_BLOCK_BYTES - (at % LOG_BLOCK_BYTES);
    if (left < RECORD_HEADER_BYTES) {
      at += left;
      continue;
    }
    const length = bytes.readUInt16LE(at + 4);
    const type = bytes[at + 6]!;
    const from = at + RECORD_HEADER_BYTES;
    if (type < RECORD.full || type > RECORD.last || from + length > bytes.length) return;
    parts.push(bytes.subarray(from, from + length));
    if (type === RECORD.full || type === RECORD.last) {
      yield Buffer.concat(parts);
      parts = [];
    }
    at = from + length;
  }
}

/** Reads varints and length-prefixed strings; `bad` once something does not fit. */
export class VarintReader {
  at: number;
  bad = false;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }

  get more(): boolean {
    return !this.bad && this.at < this.#bytes.length;
  }

  number(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 63; scale *= 128) {
      const byte = this.#bytes[this.at];
      if (byte === undefined) break;
      this.at += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        this.bad ||= !Number.isSafeInteger(value);
        return value;
      }
    }
    this.bad = true;
    return 0;
  }

  skipString(): void {
    const length = this.number();
    this.at += length;
    if (this.at > this.#bytes.length) this.bad = true;
  }
}

/** Fields of a version edit. */
const EDIT = {
  comparator: 1,
  log: 2,
  nextFile: 3,
  lastSequence: 4,
  compactPointer: 5,
  deleted: 6,
  added: 7,
  previousLog: 9,
} as const;

/** Applies one version edit to the set of live tables; false if it is none. */
function apply(edit: Buffer, live: Set<number>): boolean {
  const reader = new VarintReader(edit);
  while (reader.more) {
    const tag = reader.number();
    if (tag === EDIT.comparator) reader.skipString();
    else if (tag === EDIT.compactPointer) {
      reader.number();
      reader.skipString();
    } else if (tag === EDIT.deleted) {
      reader.number();
      live.delete(reader.number());
    } else if (tag === EDIT.added) {
      reader.number();
      live.add(reader.number());
      reader.number();
      reader.skipString();
      reader.skipString();
    } else if ([EDIT.log, EDIT.nextFile, EDIT.lastSequence, EDIT.previousLog].includes(tag as 2))
      reader.number();
    else return false;
  }
  return !reader.bad;
}

/** Numbers of the tables in use, or undefined where LevelDB must say itself what is wrong. */
export function liveTables(folder: string): ReadonlySet<number> | undefined {
  try {
    const current = readFileSync(join(folder, "CURRENT"), "latin1");
    if (!/^MANIFEST-\d+\n$/.test(current)) return undefined;
    const live = new Set<number>();
    for (const edit of records(readFileSync(join(folder, current.trim()))))
      if (!apply(edit, live)) return undefined;
    return live;
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}
