/**
 * The log of one process while it runs: records are appended in memory, written and synced in groups.
 *
 * Invariants: the file holds a prefix of what was appended; `durableBytes` of it are on stable storage. Any error of the disk breaks
 * the log for good: its process must end and be started again.
 */
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  write,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { crc32 } from "node:zlib";
import { makeFolders } from "../host/make-folders.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { checkpointFile } from "./checkpoint-files.ts";
import {
  encodeRecord,
  LOG_MAGIC,
  type LogRecord,
  RECORD_HEADER_BYTES,
  SEND_FIELDS_BYTES,
} from "./log-format.ts";
import { corrupt, type PlacedRecord, readAt, scanLog } from "./log-scan.ts";

const writeAsync = promisify(write);
const syncAsync = promisify(fdatasync);

export const LOG_FILE = "log";

/** The folder of a process of an application. */
export function sdkFolder(home: string, app: string, process?: string): string {
  return process === undefined ? join(home, app, "sdk") : join(home, app, "sdk", process);
}

export class ProcessLog {
  readonly path: string;
  readonly #fd: number;
  readonly #onDurable: () => void;
  #pending: Buffer[] = [];
  /** File offset at which the next record will stand. */
  #endBytes: number;
  #durableBytes: number;
  #barriers: Promise<unknown>[] = [];
  #running: Promise<void> | undefined;
  #queued: Promise<void> | undefined;
  #broken: RecoveryLineError | undefined;

  private constructor(path: string, fd: number, endBytes: number, onDurable: () => void) {
    this.path = path;
    this.#fd = fd;
    this.#endBytes = endBytes;
    this.#durableBytes = endBytes;
    this.#onDurable = onDurable;
  }

  /**
   * Opens or makes the log in `folder`, cuts a torn tail off, syncs what is left; every record goes to `take`. The caller holds the lock.
   * Throws RL_CORRUPT_LOG, RL_CONTRADICTION for another process's log, RL_LOG_WRITE.
   */
  static open(
    folder: string,
    names: { readonly application: string; readonly process: string },
    take: (placed: PlacedRecord) => void,
    onDurable: () => void,
  ): ProcessLog {
    const path = join(folder, LOG_FILE);
    const fd = openOrMake(folder, path);
    try {
      const endBytes = readThrough(fd, path, names, take);
      if (endBytes < fstatSync(fd).size) ftruncateSync(fd, endBytes);
      fdatasyncSync(fd);
      const log = new ProcessLog(path, fd, endBytes, onDurable);
      if (endBytes === 0) log.#begin(folder, names);
      return log;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #begin(folder: string, names: { readonly application: string; readonly process: string }): void {
    this.#pending.push(LOG_MAGIC);
    this.#endBytes = LOG_MAGIC.length;
    this.append({ kind: "begin", ...names });
    for (const place of [folder, join(folder, ".."), join(folder, "../..")]) syncFolder(place);
  }

  get durableBytes(): number {
    return this.#durableBytes;
  }

  /** True where something was appended that is not durable yet. */
  get dirty(): boolean {
    return this.#durableBytes < this.#endBytes;
  }

  /** Returns the file offset behind the record. Durable only after a `flush` that follows. */
  append(record: LogRecord): number {
    if (this.#broken !== undefined) throw this.#broken;
    const bytes = encodeRecord(record);
    this.#pending.push(bytes);
    this.#endBytes += bytes.length;
    return this.#endBytes;
  }

  /** What is appended from here on is not written before the work has ended; its failure breaks the log. */
  barrier(work: Promise<unknown>): void {
    work.catch(() => undefined);
    this.#barriers.push(work);
  }

  /** Resolves once everything appended before is on stable storage. Rejects with RL_LOG_WRITE. */
  flush(): Promise<void> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    if (this.#pending.length === 0) return this.#running ?? Promise.resolve();
    this.#queued ??= (this.#running ?? new Promise<void>((resolve) => setImmediate(resolve))).then(() =>
      this.#writeOut(),
    );
    return this.#queued;
  }

  #writeOut(): Promise<void> {
    this.#queued = undefined;
    const work = this.#write().finally(() => {
      this.#running = undefined;
    });
    this.#running = work;
    return work;
  }

  async #write(): Promise<void> {
    if (this.#durableBytes > 0) this.append({ kind: "stable", offset: this.#durableBytes });
    const [pending, barriers, end] = [this.#pending, this.#barriers, this.#endBytes];
    this.#pending = [];
    this.#barriers = [];
    try {
      await Promise.all(barriers);
      const bytes = Buffer.concat(pending);
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await writeAsync(
          this.#fd,
          bytes,
          done,
          bytes.length - done,
          this.#durableBytes + done,
        );
        done += bytesWritten;
      }
      await syncAsync(this.#fd);
    } catch (cause) {
      this.#broken = brokenBy(this.path, cause);
      throw this.#broken;
    }
    this.#durableBytes = end;
    this.#onDurable();
  }

  /** Payload of a durable SEND that ends at file offset `end`. Throws RL_CORRUPT_LOG where it is not what was written. */
  payload(end: number, lengthBytes: number, sum: number): Buffer {
    const payload = readAt(this.#fd, end - lengthBytes, lengthBytes);
    if (payload.length === lengthBytes && crc32(payload) === sum) return payload;
    const begin = end - lengthBytes - SEND_FIELDS_BYTES - RECORD_HEADER_BYTES;
    throw corrupt(this.path, begin, "the payload of a message differs from its checksum");
  }

  /** Flushes what can be flushed and lets the file go. */
  async close(): Promise<void> {
    try {
      if (this.#broken === undefined) await this.flush();
      await this.#queued;
      await this.#running;
    } finally {
      closeSync(this.#fd);
    }
  }
}

function openOrMake(folder: string, path: string): number {
  try {
    makeFolders(folder);
    return openSync(path, "r+");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw brokenBy(path, error);
  }
  if (readdirSync(folder).some((name) => name.startsWith(checkpointFile(""))))
    throw new RecoveryLineError(
      "RL_CORRUPT_LOG",
      `${path} is missing, but there are checkpoints beside it`,
      "Bring the file back from a copy.",
    );
  return openSync(path, "wx+", 0o600);
}

function readThrough(
  fd: number,
  path: string,
  names: { readonly application: string; readonly process: string },
  take: (placed: PlacedRecord) => void,
): number {
  const scan = scanLog(fd, path);
  let first = true;
  for (;;) {
    const { done, value } = scan.next();
    if (done) return first ? 0 : value; // a file without its BEGIN has never sent anything
    if (first) requireNames(value, path, names);
    first = false;
    take(value);
  }
}

function requireNames(
  { record }: PlacedRecord,
  path: string,
  { application, process }: { readonly application: string; readonly process: string },
): void {
  if (record.kind !== "begin") throw corrupt(path, LOG_MAGIC.length, "it does not begin with its names");
  if (record.application === application && record.process === process) return;
  throw new RecoveryLineError(
    "RL_CONTRADICTION",
    `${path} is the log of process ${JSON.stringify(record.process)} of ${JSON.stringify(record.application)}`,
    "A log can't be moved to another process.",
  );
}

function brokenBy(path: string, cause: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_LOG_WRITE",
    `${path} cannot be written: ${(cause as Error).message}`,
    "The process must end: nothing that it did since is safe. Free space or repair the disk, then start it again.",
    cause,
  );
}

export function syncFolder(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
