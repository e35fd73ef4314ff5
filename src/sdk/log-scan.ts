/** Reads a log from its beginning to the first record that is not whole, and tells a torn tail from damage. */
import { fstatSync, readSync } from "node:fs";
import { crc32 } from "node:zlib";
import { RecoveryLineError } from "../model/errors.ts";
import {
  decodeBody,
  LOG_MAGIC,
  type LogRecord,
  MAX_BODY_BYTES,
  RECORD_HEADER_BYTES,
  STABLE_WORD,
} from "./log-format.ts";

const WINDOW_BYTES = 1 << 20;

export interface PlacedRecord {
  readonly record: LogRecord;
  /** File offsets of the record, header included. */
  readonly begin: number;
  readonly end: number;
}

/**
 * The whole records, in order. Returns where they end; what stands behind was never synced, or it throws RL_CORRUPT_LOG: the damage
 * stands before something that says it was. A payload is valid until the next record is asked for. `sizeBytes`: read no further.
 */
export function* scanLog(
  fd: number,
  path: string,
  sizeBytes = fstatSync(fd).size,
): Generator<PlacedRecord, number> {
  const window = new Window(fd, sizeBytes);
  const magic = window.take(0, LOG_MAGIC.length);
  if (magic === undefined) return 0;
  if (!magic.equals(LOG_MAGIC)) throw corrupt(path, 0, "it is no SDK log of version 1");
  let begin = LOG_MAGIC.length;
  for (;;) {
    const placed = recordAt(window, begin);
    if (placed === undefined) break;
    yield placed;
    begin = placed.end;
  }
  if (stableBehind(window, begin)) throw corrupt(path, begin, "a record there is damaged");
  return begin;
}

function recordAt(window: Window, begin: number): PlacedRecord | undefined {
  const header = window.take(begin, RECORD_HEADER_BYTES);
  if (header === undefined) return undefined;
  const [length, sum] = [header.readUInt32LE(0), header.readUInt32LE(4)];
  if (length === 0 || length > MAX_BODY_BYTES) return undefined;
  const body = window.take(begin + RECORD_HEADER_BYTES, length);
  if (body === undefined || crc32(body) !== sum) return undefined;
  const record = decodeBody(body);
  if (record === undefined) return undefined;
  if (record.kind === "stable" && record.offset > begin) return undefined;
  return { record, begin, end: begin + RECORD_HEADER_BYTES + length };
}

/** Is there, behind `from`, a whole STABLE record that says that what stands at `from` was synced? */
function stableBehind(window: Window, from: number): boolean {
  for (let at = from; ; ) {
    const bytes = window.take(at, Math.min(WINDOW_BYTES, window.sizeBytes - at));
    if (bytes === undefined || bytes.length < STABLE_WORD.length) return false;
    const found = bytes.indexOf(STABLE_WORD);
    if (found < 0) {
      at += bytes.length - STABLE_WORD.length + 1;
      continue;
    }
    const begin = at + found - RECORD_HEADER_BYTES - 1;
    const record = begin >= from ? recordAt(window, begin)?.record : undefined;
    if (record?.kind === "stable" && record.offset > from) return true;
    at += found + 1;
  }
}

/** A part of the file in memory. */
class Window {
  readonly sizeBytes: number;
  readonly #fd: number;
  #bytes: Buffer = Buffer.alloc(0);
  #from = 0;

  constructor(fd: number, sizeBytes: number) {
    this.#fd = fd;
    this.sizeBytes = sizeBytes;
  }

  /** A view, valid until the next call; undefined where the file is shorter. */
  take(at: number, length: number): Buffer | undefined {
    if (at < 0 || length < 0 || at + length > this.sizeBytes) return undefined;
    if (at < this.#from || at + length > this.#from + this.#bytes.length) this.#load(at, length);
    const begin = at - this.#from;
    return begin + length > this.#bytes.length ? undefined : this.#bytes.subarray(begin, begin + length);
  }

  #load(at: number, length: number): void {
    const wanted = Math.min(Math.max(length, WINDOW_BYTES), this.sizeBytes - at);
    this.#bytes = readAt(this.#fd, at, wanted);
    this.#from = at;
  }
}

/** Bytes at an offset; fewer where the file ends before. */
export function readAt(fd: number, at: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let read = 0;
  while (read < length) {
    const more = readSync(fd, bytes, read, length - read, at + read);
    if (more === 0) break;
    read += more;
  }
  return bytes.subarray(0, read);
}

export function corrupt(path: string, at: number, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_CORRUPT_LOG",
    `${path}, offset ${at}: ${why}, before bytes that were synced`,
    "Bring the file back from a copy. Without it the process can only start anew, together with all others.",
  );
}
