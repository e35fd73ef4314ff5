/** One segment: a LevelDB directory, opened by LevelDB, which writes when it opens one. What comes out is unchecked bytes; `block-store.ts` and `recover.ts` check them. */
import { Level } from "level";
import { blockKey, COMMIT_KEY, STATE_RANGE } from "../format/log-key.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { LEVEL_CACHE_BYTES, LEVEL_WRITE_BUFFER_BYTES } from "../model/limits.ts";
import { faultyTable } from "./level/level-tables.ts";
import { locked } from "./log-lock.ts";
import { checkSegment, corrupt, diskError, makeFolder } from "./log-paths.ts";

type Database = Level<Uint8Array, Uint8Array>;

/** Bytes that an iterator fetches ahead. */
const READ_AHEAD_BYTES = 1024 * 1024;

/** A value of undefined deletes the key. */
export type Write = readonly [key: Uint8Array, value: Uint8Array | undefined];

/** What is read of a segment, by LevelDB or without it (`read-segment.ts`). */
export interface ReadableSegment {
  /** The bytes under the block's number, or undefined. */
  block(chain: number): Promise<Uint8Array | undefined>;
  commitRecord(): Promise<Uint8Array | undefined>;
  /** Blocks [first, last] that are there, as they were when the iteration began. */
  blocks(first: number, last: number): AsyncGenerator<[Uint8Array, Uint8Array]>;
  /** All heads and states. */
  stateEntries(): AsyncGenerator<[Uint8Array, Uint8Array]>;
  close(): Promise<void>;
}

export class Segment implements ReadableSegment {
  readonly #dir: string;
  readonly #folder: string;
  readonly #database: Database;

  private constructor(dir: string, folder: string, database: Database) {
    this.#dir = dir;
    this.#folder = folder;
    this.#database = database;
  }

  /**
   * Opens a segment of the log in `dir`; with `create` it is made where it is missing.
   * Throws RL_LOCKED, RL_CORRUPT_LOG (LevelDB can't open it), RL_LOG_WRITE (the disk), RL_NO_RIGHTS.
   */
  static async open(dir: string, folder: string, create: boolean): Promise<Segment> {
    if (!(await checkSegment(folder))) {
      if (!create) throw corrupt(dir, `${folder} is missing`);
      await makeFolder(folder);
    }
    const fault = faultyTable(folder);
    if (fault !== undefined) throw corrupt(dir, `${folder}/${fault}`);
    const database: Database = new Level(folder, {
      keyEncoding: "view",
      valueEncoding: "view",
      createIfMissing: create,
      compression: false, // blocks are dense already
      writeBufferSize: LEVEL_WRITE_BUFFER_BYTES,
      cacheSize: LEVEL_CACHE_BYTES,
    });
    try {
      await database.open();
    } catch (error) {
      throw levelError(dir, folder, error);
    }
    return new Segment(dir, folder, database);
  }

  block(chain: number): Promise<Uint8Array | undefined> {
    return this.#get(blockKey(chain));
  }

  commitRecord(): Promise<Uint8Array | undefined> {
    return this.#get(COMMIT_KEY);
  }

  async #get(key: Uint8Array): Promise<Uint8Array | undefined> {
    try {
      return (await this.#database.get(key)) as Uint8Array | undefined;
    } catch (error) {
      throw levelError(this.#dir, this.#folder, error);
    }
  }

  blocks(first: number, last: number): AsyncGenerator<[Uint8Array, Uint8Array]> {
    return this.#iterate({ gte: blockKey(first), lte: blockKey(last), fillCache: false });
  }

  stateEntries(): AsyncGenerator<[Uint8Array, Uint8Array]> {
    return this.#iterate({ ...STATE_RANGE });
  }

  async *#iterate(range: object): AsyncGenerator<[Uint8Array, Uint8Array]> {
    const iterator = this.#database.iterator({ ...range, highWaterMarkBytes: READ_AHEAD_BYTES });
    try {
      for (;;) {
        const entry = await iterator.next();
        if (entry === undefined) return;
        yield entry;
      }
    } catch (error) {
      throw levelError(this.#dir, this.#folder, error);
    } finally {
      await iterator.close();
    }
  }

  /** Atomic, synced. Any failure (RL_LOG_WRITE): close the segment, open it anew. */
  async write(writes: readonly Write[]): Promise<void> {
    const operations = writes.map(([key, value]) =>
      value === undefined ? ({ type: "del", key } as const) : ({ type: "put", key, value } as const),
    );
    try {
      await this.#database.batch(operations, { sync: true });
    } catch (error) {
      throw writeError(this.#folder, error);
    }
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

/** LevelDB says what it met in words; a full or broken disk is not a damaged log. */
const DISK_TROUBLE =
  /no space left|input\/output error|read-only file system|permission denied|too many open files|quota|cannot allocate|interrupted system call|temporarily unavailable|stale file handle|structure needs cleaning/i;

/** How LevelDB's own statuses begin. */
const STATUS = /^(Corruption|IO error|Invalid argument|NotFound|Not implemented): /;

/** What LevelDB says of a write as ours; anything else stays. */
function writeError(folder: string, error: unknown): unknown {
  const { message } = ((error as { cause?: unknown }).cause ?? error) as Error;
  if (!STATUS.test(message)) return error;
  return new RecoveryLineError(
    "RL_LOG_WRITE",
    `${folder} cannot be written: ${message}`,
    "Nothing acknowledged is lost. Free space or repair the disk, then open the log anew.",
    error,
  );
}

/** Errors of LevelDB as ours; what a caller throws through an iteration, and calls on a closed database, stay. */
function levelError(dir: string, folder: string, error: unknown): unknown {
  const cause = (error as { cause?: unknown }).cause ?? error;
  const { code, message } = cause as { code?: string; message: string };
  if (code === "LEVEL_LOCKED") return locked(dir, undefined, error);
  const disk = diskError(dir, cause);
  if (!STATUS.test(message)) return disk === cause ? error : disk;
  if (DISK_TROUBLE.test(message))
    return new RecoveryLineError(
      "RL_LOG_WRITE",
      `${folder} cannot be read: ${message}`,
      "Free space or repair the disk.",
      error,
    );
  return corrupt(dir, `LevelDB cannot read ${folder}: ${message}`, error);
}
