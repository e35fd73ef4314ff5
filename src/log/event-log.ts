/**
 * One application's log, for its owner: blocks of events and small states, acknowledged together.
 *
 * `commit` returns when LevelDB has synced the batch and the anchor names it. Any error of the disk breaks the log:
 * it must be closed and opened anew, and then holds the commit whole or not at all.
 */

import { rm, stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import type { EventColumns } from "../format/event-columns.ts";
import { type Anchor, NO_HASH, type SegmentFacts } from "../format/log-anchor.ts";
import { BASE_STATE, type LogBase } from "../format/log-base.ts";
import { encodeCommit, type ProcessHead } from "../format/log-commit.ts";
import { blockKey, COMMIT_KEY } from "../format/log-key.ts";
import { syncFolder } from "../host/replace-file.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Cut } from "../model/event.ts";
import { SEGMENT_BYTES } from "../model/limits.ts";
import { writeAnchor } from "./anchor-file.ts";
import { BlockPlacer } from "./block-placer.ts";
import { BlockStore } from "./block-store.ts";
import { CarriedBlocks } from "./carried-blocks.ts";
import { type Keep, keptFrom, sealTimes } from "./keep.ts";
import { diskError, segmentPath, segmentsPath } from "./log-paths.ts";
import type { LogState } from "./log-state.ts";
import { type OpenedLog, openLog, withoutBefore } from "./open-log.ts";
import { type PrunePlan, planPrune } from "./plan-prune.ts";
import type { Segment, Write } from "./segment.ts";
import type { SegmentShelf } from "./segment-shelf.ts";

export interface EventLogOptions {
  /** Make the log where there is none. */
  readonly create: boolean;
  /** Its application; the folder's name unless told otherwise. A log that is there keeps its own. */
  readonly application?: string;
  /** A segment is sealed once its blocks hold this many bytes. Default SEGMENT_BYTES. */
  readonly segmentBytes?: number;
  /** Its cuts leave out channels that have ended, as `completeCut` says, and only those (log/cut-coverage.ts). */
  readonly mayForget?: boolean;
}

/** Where a log's blocks end and begin, and the newest one of each process. */
export interface CommittedLog {
  readonly firstChain: number;
  readonly lastChain: number;
  readonly heads: ReadonlyMap<string, ProcessHead>;
  /** Number of each process's first block in the base, which `block` gives, too. */
  readonly firstCarried: ReadonlyMap<string, number>;
}

export interface Removal {
  /** Of the blocks that are no longer part of the log. */
  readonly bytes: number;
  /** Resolves once their folders are gone; readers may still hold them. Rejects with RL_LOG_WRITE. */
  readonly removed: Promise<void>;
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
  #carried: CarriedBlocks;
  #segment: Segment;
  #segmentBytes: number;
  #pending = new Map<number, Uint8Array>();
  #pendingBytes = 0;
  #broken: unknown;
  #closed = false;
  /** Commits, rotations and removals, one after the other. */
  #tail: Promise<unknown> = Promise.resolve();
  readonly #removals = new Set<Promise<void>>();

  private constructor(dir: string, opened: OpenedLog, options: EventLogOptions) {
    this.#dir = dir;
    this.#segmentBytesLimit = options.segmentBytes ?? SEGMENT_BYTES;
    this.#unlock = opened.unlock;
    this.#shelf = opened.shelf;
    this.#state = opened.state;
    this.#anchor = opened.anchor;
    this.#carried = new CarriedBlocks(opened.base);
    this.#segment = opened.newest!;
    this.#segmentBytes = opened.segmentBytes;
    this.#store = new BlockStore(dir, opened.shelf, () => this.#anchor);
    this.#placer = new BlockPlacer(
      this.application,
      this.#state,
      this.#anchor,
      (chain) => this.#blockAt(chain),
      options.mayForget,
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
    return new EventLog(dir, opened, options);
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

  /**
   * Committed blocks after number `since`, in chain order, each checked: the log as it is now, also while it grows. A log that was pruned
   * begins with its base (format/log-base.ts).
   */
  async *readBlocks(since = 0): AsyncGenerator<Uint8Array> {
    this.#check();
    for await (const { bytes } of this.#carried.before(since, this.#store)) yield bytes;
  }

  /** The committed block with this number, or one of the base. Throws `TypeError` for others, RL_CORRUPT_LOG. */
  async block(chain: number): Promise<Uint8Array> {
    this.#check();
    return this.#carried.block(chain)?.bytes ?? (await this.#store.block(chain)).bytes;
  }

  /** What the last commit holds, all of one moment. */
  committed(): CommittedLog {
    this.#check();
    const { firstChain, lastChain } = this.#anchor;
    const heads = this.#state.committedHeads();
    return { firstChain, lastChain, heads, firstCarried: this.#carried.first() };
  }

  /**
   * A collector's cut with the ended channels that it must name (complete-cut.ts). `running`: processes that use channels of it. All that
   * the process did must have been appended. Throws what reading throws.
   */
  completeCut(process: string, cut: Cut, running: Iterable<string>): Promise<Cut> {
    this.#check();
    return this.#placer.completeCut(process, cut, running);
  }

  /** The process that has sent on a channel, as far back as the next cuts reach. */
  senderOf(channel: string, running: Iterable<string>): Promise<string | undefined> {
    this.#check();
    return this.#placer.senderOf(channel, running);
  }

  /** The process whose end of a connection sends on `channel` and receives on `reverse`, as far back as the next cuts reach. */
  ownerOf(channel: string, reverse: string, running: Iterable<string>): Promise<string | undefined> {
    this.#check();
    return this.#placer.ownerOf(channel, reverse, running);
  }

  /** `CutCoverage.isAtOtherEnd`; `ended`: processes that do not run. */
  isAtOtherEnd(
    process: string,
    channel: string,
    reverse: string,
    ended: readonly string[],
    running: readonly string[],
  ): Promise<boolean | undefined> {
    this.#check();
    return this.#placer.isAtOtherEnd(process, channel, reverse, ended, running);
  }

  async #blockAt(chain: number): Promise<Uint8Array | undefined> {
    const pending = this.#pending.get(chain);
    if (pending !== undefined) return pending;
    return chain < this.firstChain
      ? this.#carried.block(chain)?.bytes
      : (await this.#store.block(chain)).bytes;
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
    const segment = await this.#shelf.takeToWrite(open.number + 1, true);
    await segment.write([...this.#state.all(), [COMMIT_KEY, encodeCommit({ ...next, segmentBytes: 0 })]]);
    await syncFolder(segmentsPath(this.#dir));
    await writeAnchor(this.#dir, next);
    this.#anchor = next;
    this.#segment = segment;
    this.#segmentBytes = 0;
    await this.#shelf.giveBack(open.number);
    void this.#shelf.retire(open.number).catch(() => undefined);
  }

  /** Their folders go once readers have let go of them. */
  #removal(dropped: readonly SegmentFacts[]): Removal {
    const removed = this.#remove(dropped)
      .catch((error: unknown) => {
        throw writeError(this.#dir, error);
      })
      .finally(() => this.#removals.delete(removed));
    removed.catch(() => undefined); // a caller that does not wait: the next owner removes what is left
    this.#removals.add(removed);
    return { bytes: dropped.reduce((sum, { bytes }) => sum + bytes, 0), removed };
  }

  /**
   * What of the log can go; see plan-prune.ts. With `keep` no more than that wants gone. Changes nothing, reads all of it. Throws what
   * reading throws.
   */
  async planPrune(oldest: ReadonlyMap<string, number>, keep?: Keep): Promise<PrunePlan> {
    const boundaries = this.#anchor.segments.slice(1).map(({ firstChain }) => firstChain);
    const source = { boundaries, blocks: () => this.readBlocks() };
    if (keep === undefined) return planPrune(source, oldest);
    const from = await this.keptFrom(keep);
    if (from === 0) return { base: undefined, reason: "the log is within what is to be kept" };
    return planPrune({ ...source, boundaries: boundaries.filter((boundary) => boundary <= from) }, oldest);
  }

  /** The first block to keep by `keep`; 0: the log is within it, nothing is to go. Throws RL_LOG_WRITE. */
  async keptFrom(keep: Keep): Promise<number> {
    const { segments } = this.#anchor;
    try {
      const sealed = keep.hours === undefined ? [] : await sealTimes(this.#dir, segments);
      return keptFrom(segments, this.#segmentBytes, keep, (index) => sealed[index]!, Date.now());
    } catch (error) {
      throw diskError(this.#dir, error);
    }
  }

  /** Since when blocks go into the open segment, ms of the epoch. Throws RL_LOG_WRITE. */
  async openSinceMs(): Promise<number> {
    const { number } = this.#anchor.segments.at(-1)!;
    return stat(segmentPath(this.#dir, number)).then(
      ({ birthtimeMs }) => birthtimeMs,
      (error: unknown) => Promise.reject(diskError(this.#dir, error)),
    );
  }

  /**
   * Puts the planned base in the place of the blocks before its boundary. What was appended must be committed. Once the base is
   * durable the blocks are forgotten, also by whoever opens the log after a crash. Throws RL_LOG_WRITE.
   */
  async prune(base: LogBase): Promise<Removal> {
    if (this.#pending.size > 0) throw new TypeError("blocks wait for a commit");
    this.putState(BASE_STATE, { boundary: base.boundary, blocks: base.blocks });
    await this.commit();
    this.#carried = new CarriedBlocks(base);
    return this.#removal(await this.#serial(() => this.#forgetBefore(base.boundary)));
  }

  async #forgetBefore(chain: number): Promise<readonly SegmentFacts[]> {
    const { next, dropped } = withoutBefore(this.#anchor, chain);
    if (dropped.length === 0) return [];
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
    await this.#placer.stop();
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
