/**
 * LevelDB's tables, without LevelDB. It reads them without looking at their checksums, and where a flipped bit hits a table's
 * structure it aborts the whole process by an assertion. Here the structure is checked: footers, index blocks, and the entry
 * headers, keys and restart points of data blocks. Values are passed over: blocks, commit record and state carry checksums of
 * their own. Reads little of a table: 5 to 15 ms for a segment of 64 MiB.
 */
import { asBuffer, FolderFiles, type LevelFiles } from "./level-files.ts";
import { readVersion } from "./level-manifest.ts";
import { VarintReader } from "./level-records.ts";

const FOOTER_BYTES = 48;
const MAGIC = 0xdb4775248b80fb57n;
/** Behind each block: compression type u8, CRC-32C u32. */
const BLOCK_TRAILER_BYTES = 5;
/** Behind a user key: type u8 (0 = deleted, 1 = a value), sequence number u56. */
const KEY_TRAILER_BYTES = 8;
const WINDOW_BYTES = 4096;
/** Three varints of 32 bits. */
const MAX_ENTRY_HEADER_BYTES = 15;
const EMPTY = Buffer.alloc(0);

/** Why LevelDB must not open the folder, or undefined. One without CURRENT is left to LevelDB: it may be meant to be made. */
export function faultyTable(folder: string): string | undefined {
  const files = new FolderFiles(folder);
  try {
    if (files.size("CURRENT") === undefined) return undefined;
    const version = readVersion(files);
    if (typeof version === "string") return version;
    for (const number of version.tables) {
      const fault = walkTable(files, number, () => undefined);
      if (fault !== undefined) return fault;
    }
    return undefined;
  } finally {
    files.close();
  }
}

export function tableName(number: number): string {
  return `${String(number).padStart(6, "0")}.ldb`;
}

/** What stands under a key, and where. A greater sequence number is newer. */
export type VisitEntry = (
  key: Buffer,
  sequence: number,
  deleted: boolean,
  at: number,
  length: number,
) => void;

/** Visits the entries of a table in order. Returns what is wrong with it: the entries before that have been visited. */
export function walkTable(files: LevelFiles, number: number, visit: VisitEntry): string | undefined {
  const name = tableName(number);
  try {
    const size = files.size(name);
    if (size === undefined) return `${name}: missing`;
    new Table(files, name, size).walk(visit);
    return undefined;
  } catch (error) {
    if (error instanceof Fault) return `${name}: ${error.message}`;
    throw error;
  }
}

class Fault extends Error {}

function require(condition: boolean, why: string): asserts condition {
  if (!condition) throw new Fault(why);
}

interface Handle {
  readonly offset: number;
  readonly size: number;
}

function handleOf(reader: VarintReader): Handle {
  return { offset: reader.number(), size: reader.number() };
}

class Table {
  readonly #files: LevelFiles;
  readonly #name: string;
  readonly #size: number;
  #window: Buffer = EMPTY;
  #windowAt = 0;
  /** Of the data blocks so far; keys rise over the whole table. */
  #lastKey: Buffer = EMPTY;

  constructor(files: LevelFiles, name: string, size: number) {
    this.#files = files;
    this.#name = name;
    this.#size = size;
  }

  walk(visit: VisitEntry): void {
    require(this.#size >= FOOTER_BYTES, "too short");
    const footer = this.#bytes(this.#size - FOOTER_BYTES, FOOTER_BYTES);
    require(footer.readBigUInt64LE(FOOTER_BYTES - 8) === MAGIC, "no table");
    const reader = new VarintReader(footer.subarray(0, FOOTER_BYTES - 8));
    const meta = handleOf(reader);
    const index = handleOf(reader);
    require(!reader.bad, "a broken footer");
    this.#block(meta, () => undefined, 0);
    const blocks: Handle[] = [];
    let last: Buffer = EMPTY;
    this.#block(index, (key, at, length) => {
      require(last.length === 0 || compareKeys(last, key) < 0, "index keys do not rise");
      last = key;
      const value = new VarintReader(this.#bytes(at, length));
      blocks.push(handleOf(value));
      require(!value.bad, "a broken index entry");
    });
    for (const handle of blocks)
      this.#block(handle, (key, at, length) => {
        require(this.#lastKey.length === 0 || compareKeys(this.#lastKey, key) < 0, "keys do not rise");
        this.#lastKey = key;
        const user = key.length - KEY_TRAILER_BYTES;
        require(key[user]! <= 1, "an entry of no known type");
        visit(
          key.subarray(0, user),
          key.readUIntLE(user + 1, 6) + key[user + 7]! * 2 ** 48,
          key[user] === 0,
          at,
          length,
        );
      });
  }

  /** A part of the file; small parts come from a window that is read once, and whose bytes never change. */
  #bytes(offset: number, length: number): Buffer {
    const at = this.#inWindow(offset, length);
    return this.#window.subarray(at, at + length);
  }

  /** Where in the window a part of the file stands, which is read if it must be. */
  #inWindow(offset: number, length: number): number {
    require(offset >= 0 && offset + length <= this.#size, "a block leaves the table");
    const behind = offset - this.#windowAt;
    if (behind >= 0 && behind + length <= this.#window.length) return behind;
    const wanted = Math.min(Math.max(length, WINDOW_BYTES), this.#size - offset);
    const window = asBuffer(this.#files.read(this.#name, offset, wanted));
    require(window.length === wanted, "shorter than it was");
    this.#window = window;
    this.#windowAt = offset;
    return 0;
  }

  /** Entries: shared, unshared and value length as varints, rest of the key, value; then restart points. */
  #block(
    handle: Handle,
    visit: (key: Buffer, at: number, length: number) => void,
    least = KEY_TRAILER_BYTES,
  ): void {
    const end = handle.offset + handle.size;
    require(handle.size >= 4 && end + BLOCK_TRAILER_BYTES <= this.#size, "a block leaves the table");
    require(this.#bytes(end, 1)[0] === 0, "a compressed block");
    const restarts = this.#bytes(end - 4, 4).readUInt32LE(0);
    const entriesEnd = end - 4 - restarts * 4;
    require(restarts >= 1 && entriesEnd >= handle.offset, "too many restart points");
    const points = this.#bytes(entriesEnd, restarts * 4);
    let restart = 0;
    let key: Buffer = EMPTY;
    for (let at = handle.offset; at < entriesEnd; ) {
      const most = Math.min(MAX_ENTRY_HEADER_BYTES, entriesEnd - at);
      const headerAt = this.#inWindow(at, most);
      const header = new VarintReader(this.#window, headerAt, headerAt + most);
      const [shared, unshared, length] = [header.number(), header.number(), header.number()];
      const keyAt = at + header.at - headerAt;
      require(!header.bad && keyAt + unshared + length <= entriesEnd, "an entry leaves its block");
      const isPoint = restart < restarts && points.readUInt32LE(restart * 4) === at - handle.offset;
      require(shared <= key.length && (shared === 0 || !isPoint), "a key shares too much");
      if (isPoint) restart += 1;
      key = joined(key, shared, this.#bytes(keyAt, unshared));
      require(key.length >= least, "a key is too short");
      at = keyAt + unshared + length;
      visit(key, keyAt + unshared, length);
    }
    const emptyBlock = entriesEnd === handle.offset && restarts === 1 && points.readUInt32LE(0) === 0;
    require(restart === restarts || emptyBlock, "a restart point at no entry");
  }
}

/** The first bytes of a key and the rest of the next one. */
function joined(before: Buffer, shared: number, rest: Buffer): Buffer {
  if (shared === 0) return rest;
  const key = Buffer.allocUnsafe(shared + rest.length);
  key.set(before.subarray(0, shared));
  key.set(rest, shared);
  return key;
}

/** User keys rise; of one user key the newest sequence number comes first. */
function compareKeys(one: Buffer, other: Buffer): number {
  const [a, b] = [one.length - KEY_TRAILER_BYTES, other.length - KEY_TRAILER_BYTES];
  const order = one.compare(other, 0, b, 0, a);
  if (order !== 0) return order;
  const [first, second] = [one.readBigUInt64LE(a), other.readBigUInt64LE(b)];
  return first === second ? 0 : first > second ? -1 : 1;
}
