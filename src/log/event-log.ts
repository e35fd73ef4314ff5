/**
 * One application's log, for its owner: blocks of events and small states, acknowledged together.
 *
 * `commit` returns when LevelDB has synced the batch and the anchor names it. Any error of the disk breaks the log:
 * it must be closed and opened anew, and then holds the commit whole or not at all.
 */
import { rm } from "node:fs/promises";
import { basename, resolve } from "node:path";
import type { EventColumns } from "../format/event-columns.ts";
import { type Anchor, NO_HASH, type SegmentFacts } from "../format/log-anchor.ts";
import { encodeCommit, type ProcessHead } from "../format/log-commit.ts";
import { blockKey, COMMIT_KEY } from "../format/log-key.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { SEGMENT_BYTES } from "../model/limits.ts";
import { writeAnchor } from "./anchor-file.ts";
import { BlockPlacer } from "./block-placer.ts";
import { BlockStore } from "./block-store.ts";
import { segmentPath, segmentsPath, syncFolder } from "./log-paths.ts";
import type { LogState } from "./log-state.ts";
import { type OpenedLog, openLog } from "./open-log.ts";
import type { Segment, Write } from "./segment.ts";
import type { SegmentShelf } from "./segment-shelf.ts";

export interface EventLogOptions {
  /** Make the log where there is none. */
  readonly create: boolean;
  /** Its application; the folder's name unless told otherwise. A log that is there keeps its own. */
  readonly application?: string;
  /** A segment is sealed once its blocks hold this many bytes. Default SEGMENT_BYTES. */
  readonly segmentBytes?: number;
}

/** Where a log's blocks end and begin, and the newest one of each process. */
export interface CommittedLog {
  readonly firstChain: number;
  readonly lastChain: number;
  readonly heads: ReadonlyMap<string, ProcessHead>;
}

export class EventLog {
  readonly #dir: string;
  readonly #segmentBytesLimit: number;
  readonly #unlock: () => void;
  readonly #shelf: SegmentShelf;
  readonly #state: LogState;
  readonly #store: BlockStore;
  readonly #placer: BlockPlacer;
  #anchor: Anchor;
  #segment: Segment;
  #segmentBytes: number;
  #pending = new Map<number, Uint8Array>();
  #pendingBytes = 0;
  #broken: unknown;
  #closed = false;
  /** Commits, rotations and removals, one after the other. */
  #tail: Promise<unknown> = Promise.resolve();
  readonly #removals = new Set<Promise<void>>();

  private constructor(dir: string, opened: OpenedLog, segmentBytes: number) {
    this.#dir = dir;
    this.#segmentBytesLimit = segmentBytes;
    this.#unlock = opened.unlock;
    this.#shelf = opened.shelf;
    this.#state = opened.state;
    this.#anchor = opened.anchor;
    this.#segment = opened.newest!;
    this.#segmentBytes = opened.segmentBytes;
    this.#store = new BlockStore(dir, opened.shelf, () => this.#anchor);
    this.#placer = new BlockPlacer(this.application, this.#state, this.#anchor, (chain) =>
      this.#blockAt(chain),
    );
  }

  /**
   * Opens the log in `dir` and becomes its only owner until `close`.
   * Throws RL_UNKNOWN_APP (nothing there and not `create`), RL_LOCKED, RL_CORRUPT_LOG, RL_LOG_WRITE, RL_NO_RIGHTS.
   */
  static async open(dir: string, options: EventLogOptions): Promise<EventLog> {
    const name = options.application ?? basename(resolve(dir));
    const length = Buffer.byteLength(name);
    if (length < 1 || length > 255) throw new TypeError(`an application's name of ${length} bytes`);
    const opened = await openLog(dir, "owner", options.create ? name : undefined);
    return new EventLog(dir, opened, options.segmentBytes ?? SEGMENT_BYTES);
  }

  get application(): string {
    return this.#anchor.application;
  }

  /** Number of the first block that is kept, ≥ 1. */
  get firstChain(): number {
    return this.#anchor.firstChain;
  }

  /** Number of the last acknowledged block; firstChain - 1 = none. */
  get lastChain(): number {
    return this.#anchor.lastChain;
  }

  /** Bytes of blocks that wait for `commit`. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /**
   * Buffered until `commit`; the columns may be reused afterwards. One call at a time.
   * Throws RL_CONTRADICTION for a rollback to nowhere, RL_LIMIT for an event beyond MAX_EVENT_BLOCK_BYTES; after either
   * the log is broken, as part of the columns may be in the buffer.
   */
  async append(columns: EventColumns): Promise<void> {
    this.#check();
    try {
      await this.#placer.place(columns, ({ chain, bytes }) => {
        this.#pending.set(chain, bytes);
        this.#pendingBytes += bytes.length;
      });
    } catch (error) {
      this.#broken ??= error;
      throw error;
    }
  }

  /** Durable with the next commit, atomically with its blocks; undefined removes it. Throws `TypeError` for no plain data. */
  putState(key: string, value: unknown): void {
    this.#check();
    this.#state.put(key, value);
  }

  /** What was committed, or undefined. */
  getState(key: string): unknown {
    return this.#state.get(key);
  }

  /** On return everything appended and put before the call is synced and covered by the anchor. Throws RL_LOG_WRITE. */
  commit(): Promise<void> {
    return this.#serial(async () => {
      if (this.#pending.size > 0 || this.#state.changed) await this.#write();
      if (this.#segmentBytes >= this.#segmentBytesLimit) await this.#rotate();
    });
  }

  async #write(): Promise<void> {
    const blocks = [...this.#pending];
    const { writes, digest, settle } = this.#state.take();
    const last = blocks.at(-1);
    const segmentBytes = this.#segmentBytes + this.#pendingBytes;
    this.#pending = new Map();
    this.#pendingBytes = 0;
    const next: Anchor = {
      ...this.#anchor,
      commit: this.#anchor.commit + 1,
      lastChain: last?.[0] ?? this.#anchor.lastChain,
      lastHash: last === undefined ? this.#anchor.lastHash : last[1].slice(-NO_HASH.length),
      stateDigest: digest,
    };
    await this.#segment.write([
      ...blocks.map(([chain, bytes]): Write => [blockKey(chain), bytes]),
      ...writes,
      [COMMIT_KEY, encodeCommit({ ...next, segmentBytes })],
    ]);
    await writeAnchor(this.#dir, next);
    this.#anchor = next;
    this.#segmentBytes = segmentBytes;
    settle();
  }

  /** Committed blocks after number `since`, in chain order, each checked: the log as it is now, also while it grows. */
  async *readBlocks(since = 0): AsyncGenerator<Uint8Array> {
    this.#check();
    for await (const { bytes } of this.#store.blocks(since)) yield bytes;
  }

  /** The committed block with this number. Throws `TypeError` beyond firstChain … lastChain, RL_CORRUPT_LOG. */
  async block(chain: number): Promise<Uint8Array> {
    this.#check();
    return (await this.#store.block(chain)).bytes;
  }

  /** What the last commit holds, all of one moment. */
  committed(): CommittedLog {
    this.#check();
    const { firstChain, lastChain } = this.#anchor;
    return { firstChain, lastChain, heads: this.#state.committedHeads() };
  }

  /** Newest block of each process, appended ones that wait for `commit` included. */
  heads(): ReadonlyMap<string, ProcessHead> {
    return this.#state.heads;
  }

  async #blockAt(chain: number): Promise<Uint8Array | undefined> {
    const pending = this.#pending.get(chain);
    if (pending !== undefined) return pending;
    return chain < this.firstChain ? undefined : (await this.#store.block(chain)).bytes;
  }

  /**
   * Seals the newest segment, unless it is empty, and begins another one. On return the sealed ones change no more once
   * their readers have let go. Throws RL_LOG_WRITE.
   */
  rotate(): Promise<void> {
    return this.#serial(async () => {
      if (this.#anchor.lastChain >= this.#anchor.segments.at(-1)!.firstChain) await this.#rotate();
    });
  }

  /** The new segment is whole before the anchor names it; without that, whoever opens the log removes it. */
  async #rotate(): Promise<void> {
    const before = this.#anchor;
    const open = before.segments.at(-1)!;
    const { lastChain, lastHash } = before;
    const next: Anchor = {
      ...before,
      commit: before.commit + 1,
      segments: [
        ...before.segments.slice(0, -1),
        { ...open, lastChain, lastHash, bytes: this.#segmentBytes },
        { number: open.number + 1, firstChain: lastChain + 1, lastChain: 0, bytes: 0, lastHash: NO_HASH },
      ],
    };
    const segment = await this.#shelf.take(open.number + 1, true);
    await segment.write([...this.#state.all(), [COMMIT_KEY, encodeCommit({ ...next, segmentBytes: 0 })]]);
    await syncFolder(segmentsPath(this.#dir));
    await writeAnchor(this.#dir, next);
    this.#anchor = next;
    this.#segment = segment;
    this.#segmentBytes = 0;
    await this.#shelf.giveBack(open.number);
    void this.#shelf.retire(open.number).catch(() => undefined);
  }

  /**
   * Removes the sealed segments all of whose blocks come before number `chain`; what theory allows to remove is the
   * caller's decision. The anchor forgets them first, so a crash leaves folders that the next owner removes. Returns the
   * bytes of the removed blocks, once readers have let go of them; commits do not wait for that. Throws RL_LOG_WRITE.
   */
  async dropSegmentsBefore(chain: number): Promise<number> {
    const dropped = await this.#serial(() => this.#forgetBefore(chain));
    const removal = this.#remove(dropped).finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
    await removal.catch((error: unknown) => {
      throw writeError(this.#dir, error);
    });
    return dropped.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async #forgetBefore(chain: number): Promise<readonly SegmentFacts[]> {
    const { segments } = this.#anchor;
    const dropped = segments.filter(({ lastChain }) => lastChain > 0 && lastChain < chain);
    const last = dropped.at(-1);
    if (last === undefined) return [];
    const next: Anchor = {
      ...this.#anchor,
      firstChain: last.lastChain + 1,
      baseHash: last.lastHash,
      segments: segments.slice(dropped.length),
    };
    await writeAnchor(this.#dir, next);
    this.#anchor = next;
    return dropped;
  }

  async #remove(dropped: readonly SegmentFacts[]): Promise<void> {
    for (const { number } of dropped) {
      await this.#shelf.retire(number);
      await rm(segmentPath(this.#dir, number), { recursive: true, force: true });
    }
    if (dropped.length > 0) await syncFolder(segmentsPath(this.#dir));
  }

  /** Work on the disk, one piece at a time; the first error breaks the log. */
  #serial<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(async () => {
      this.#check();
      try {
        return await work();
      } catch (error) {
        this.#broken ??= error;
        throw writeError(this.#dir, error);
      }
    });
    this.#tail = result.catch(() => undefined);
    return result;
  }

  #check(): void {
    if (this.#closed) throw new TypeError(`the log in ${this.#dir} is closed`);
    if (this.#broken !== undefined) throw writeError(this.#dir, this.#broken);
  }

  /** Lets the log go. What was not committed is forgotten. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#tail;
    this.#closed = true;
    try {
      await this.#shelf.closeAll();
      await Promise.allSettled(this.#removals);
    } finally {
      this.#unlock();
    }
  }
}

function writeError(dir: string, cause: unknown): RecoveryLineError {
  if (cause instanceof RecoveryLineError) return cause;
  return new RecoveryLineError(
    "RL_LOG_WRITE",
    `the log in ${dir} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`,
    "Nothing acknowledged is lost. Free space or repair the disk, then open the log anew.",
    cause,
  );
}
