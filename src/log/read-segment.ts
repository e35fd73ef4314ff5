/**
 * A segment that is read without LevelDB: nothing is written to its folder, nothing can abort the process, and every byte that
 * comes out has gone through code that a test can call on any bytes. Nobody may write meanwhile: sealed segments, or a log whose
 * lock is held. What comes out is as unchecked as what LevelDB gives; `block-store.ts` and `recover.ts` check it.
 */
import { blockKey, COMMIT_KEY } from "../format/log-key.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { EntryIndex, type ValuePlace } from "./entry-index.ts";
import { walkBatches } from "./level/level-batch.ts";
import { FolderFiles, type LevelFiles, wholeFile } from "./level/level-files.ts";
import { type LevelVersion, readVersion } from "./level/level-manifest.ts";
import { readRecords } from "./level/level-records.ts";
import { tableName, walkTable } from "./level/level-tables.ts";
import { checkSegment, corrupt, diskError } from "./log-paths.ts";
import type { ReadableSegment } from "./segment.ts";

/** Neighbours in one table are read together up to this many bytes. */
const READ_AHEAD_BYTES = 1024 * 1024;

/** A table by its name, or what a WAL held. */
type Source = string | Uint8Array;

export class ReadSegment implements ReadableSegment {
  readonly #dir: string;
  readonly #folder: string;
  readonly #files: LevelFiles;
  readonly #sources: Source[] = [];
  readonly #index = new EntryIndex();

  private constructor(dir: string, folder: string, files: LevelFiles) {
    this.#dir = dir;
    this.#folder = folder;
    this.#files = files;
  }

  /** Throws RL_CORRUPT_LOG (there is none, or LevelDB's structure is broken), RL_LOG_WRITE (the disk), RL_NO_RIGHTS. */
  static async open(dir: string, folder: string): Promise<ReadSegment> {
    if (!(await checkSegment(folder))) throw corrupt(dir, `${folder} is missing`);
    return ReadSegment.over(dir, folder, new FolderFiles(folder));
  }

  /** The same over files from anywhere; the names are for what is said. */
  static over(dir: string, folder: string, files: LevelFiles): ReadSegment {
    const segment = new ReadSegment(dir, folder, files);
    try {
      segment.#guarded(() => segment.#load());
      return segment;
    } catch (error) {
      files.close();
      throw error;
    }
  }

  #load(): void {
    const version = readVersion(this.#files);
    if (typeof version === "string") throw this.#damaged(version);
    for (const number of version.tables) {
      const add = this.#adderOf(tableName(number));
      const fault = walkTable(this.#files, number, add);
      if (fault !== undefined) throw this.#damaged(fault);
    }
    for (const name of this.#logs(version)) this.#loadLog(name);
    this.#index.finish();
  }

  /** The WALs that no table holds yet, oldest first. */
  #logs({ log }: LevelVersion): string[] {
    return this.#files
      .names()
      .filter((name) => /^\d{6,20}\.log$/.test(name) && Number.parseInt(name, 10) >= log)
      .sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  }

  /** Up to the first damage: a torn end is what a power cut leaves, and the anchor knows whether it was acknowledged. */
  #loadLog(name: string): void {
    const records = readRecords(wholeFile(this.#files, name)!);
    if (!walkBatches(records, this.#adderOf(name, records.data))) throw this.#damaged(`${name}: no batch`);
  }

  #adderOf(name: string, source: Source = name) {
    const number = this.#sources.push(source) - 1;
    return (key: Buffer, sequence: number, deleted: boolean, at: number, length: number): void => {
      if (!this.#index.add(key, sequence, deleted ? undefined : { source: number, at, length }))
        throw this.#damaged(`${name}: a key that is none`);
    };
  }

  #damaged(what: string): RecoveryLineError {
    return corrupt(this.#dir, `${this.#folder}/${what}`);
  }

  /** Errors of the file system as ours. */
  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw error instanceof RecoveryLineError ? error : diskError(this.#dir, error);
    }
  }

  async block(chain: number): Promise<Uint8Array | undefined> {
    return this.#value(this.#index.block(chain));
  }

  async commitRecord(): Promise<Uint8Array | undefined> {
    return this.#value(this.#index.other(COMMIT_KEY));
  }

  async *blocks(first: number, last: number): AsyncGenerator<[Uint8Array, Uint8Array]> {
    for (const [chain, bytes] of this.views(first, last)) yield [blockKey(chain), new Uint8Array(bytes)];
  }

  /** The same by number, in memory that is shared. Throws what reading throws. */
  *views(first: number, last: number): Generator<readonly [chain: number, bytes: Uint8Array]> {
    for (const run of runs(this.#index.blocks(first, last))) {
      const { source, at } = run[0]![1];
      const end = run.at(-1)![1];
      const bytes = this.#bytes({ source, at, length: end.at + end.length - at });
      for (const [chain, place] of run)
        yield [chain, bytes.subarray(place.at - at, place.at - at + place.length)];
    }
  }

  async *stateEntries(): AsyncGenerator<[Uint8Array, Uint8Array]> {
    for (const [key, place] of this.#index.states()) yield [key, this.#value(place)!];
  }

  /** Memory of its own: readers give it away. */
  #value(place: ValuePlace | undefined): Uint8Array | undefined {
    return place === undefined ? undefined : new Uint8Array(this.#bytes(place));
  }

  #bytes({ source, at, length }: ValuePlace): Uint8Array {
    const from = this.#sources[source]!;
    if (typeof from !== "string") return from.subarray(at, at + length);
    const bytes = this.#guarded(() => this.#files.read(from, at, length));
    if (bytes.length < length) throw this.#damaged(`${from}: shorter than it was`);
    return bytes;
  }

  async close(): Promise<void> {
    this.#files.close();
  }
}

type BlockPlace = readonly [chain: number, place: ValuePlace];

/** Neighbours of one source, at least one, together at most READ_AHEAD_BYTES. */
function* runs(places: Iterable<BlockPlace>): Generator<readonly BlockPlace[]> {
  let run: BlockPlace[] = [];
  for (const one of places) {
    const { source, at, length } = one[1];
    const first = run[0]?.[1];
    const last = run.at(-1)?.[1];
    const joins =
      first?.source === source && at >= last!.at + last!.length && at + length - first.at <= READ_AHEAD_BYTES;
    if (!joins && run.length > 0) {
      yield run;
      run = [];
    }
    run.push(one);
  }
  if (run.length > 0) yield run;
}
