/** One segment: a LevelDB directory. What comes out is unchecked bytes; `block-store.ts` and `recover.ts` check them. */
import { Level } from "level";
import { blockKey, COMMIT_KEY, STATE_RANGE } from "../format/log-key.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { LEVEL_WRITE_BUFFER_BYTES } from "../model/limits.ts";
import { locked } from "./log-lock.ts";
import { checkSegment, corrupt, makeFolder } from "./log-paths.ts";

type Database = Level<Uint8Array, Uint8Array>;

/** Bytes that an iterator fetches ahead. */
const READ_AHEAD_BYTES = 1024 * 1024;

/** A value of undefined deletes the key. */
export type Write = readonly [key: Uint8Array, value: Uint8Array | undefined];

export class Segment {
  readonly folder: string;
  readonly #database: Database;

  private constructor(folder: string, database: Database) {
    this.folder = folder;
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
    const database: Database = new Level(folder, {
      keyEncoding: "view",
      valueEncoding: "view",
      createIfMissing: create,
      compression: false, // blocks are dense already
      writeBufferSize: LEVEL_WRITE_BUFFER_BYTES,
    });
    try {
      await database.open();
    } catch (error) {
      throw openError(dir, folder, error);
    }
    return new Segment(folder, database);
  }

  /** The bytes under the block's number, or undefined. */
  block(chain: number): Promise<Uint8Array | undefined> {
    return this.#get(blockKey(chain));
  }

  commitRecord(): Promise<Uint8Array | undefined> {
    return this.#get(COMMIT_KEY);
  }

  async #get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return (await this.#database.get(key)) as Uint8Array | undefined;
  }

  /** Blocks [first, last] that are there, as they were when the iteration began. */
  blocks(first: number, last: number): AsyncIterable<[Uint8Array, Uint8Array]> {
    return this.#database.iterator({
      gte: blockKey(first),
      lte: blockKey(last),
      fillCache: false,
      highWaterMarkBytes: READ_AHEAD_BYTES,
    });
  }

  /** All heads and states. */
  stateEntries(): AsyncIterable<[Uint8Array, Uint8Array]> {
    return this.#database.iterator({ ...STATE_RANGE, highWaterMarkBytes: READ_AHEAD_BYTES });
  }

  /** Atomic, synced. Any failure: close the segment, open it anew. */
  write(writes: readonly Write[]): Promise<void> {
    const operations = writes.map(([key, value]) =>
      value === undefined ? ({ type: "del", key } as const) : ({ type: "put", key, value } as const),
    );
    return this.#database.batch(operations, { sync: true });
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

/** LevelDB says what it met in words; a full or broken disk is not a damaged log. */
const DISK_TROUBLE =
  /no space left|input\/output error|read-only file system|permission denied|too many open files|quota|cannot allocate/i;

function openError(dir: string, folder: string, error: unknown): RecoveryLineError {
  const cause = ((error as Error).cause ?? error) as Error & { code?: string };
  if (cause.code === "LEVEL_LOCKED") return locked(dir, undefined, error);
  if (DISK_TROUBLE.test(cause.message))
    return new RecoveryLineError(
      "RL_LOG_WRITE",
      `${folder} cannot be opened: ${cause.message}`,
      "Free space or repair the disk.",
      error,
    );
  return corrupt(dir, `LevelDB cannot open ${folder}: ${cause.message}`, error);
}
