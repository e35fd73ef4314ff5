/** What the collector needs of an application's log; `log/event-log.ts` is one, tests bring failing ones. */
import type { EventColumns } from "../format/event-columns.ts";
import type { LogBase } from "../format/log-base.ts";
import type { Cut } from "../model/event.ts";
import { type CommittedLog, EventLog, type Removal } from "./event-log.ts";
import { finishImport } from "./import-journal.ts";
import type { Keep } from "./keep.ts";
import type { PrunePlan } from "./plan-prune.ts";

export interface AppendLog {
  /** Buffered until `commit`. The columns may be reused afterwards. */
  append(columns: EventColumns): void | Promise<void>;
  /** Durable with the next commit, atomically with its blocks. */
  putState(key: string, value: unknown): void;
  /** What is stored, or undefined. */
  getState(key: string): unknown;
  /** On return everything is synced and covered by the anchor. Any failure: the log must be closed and opened anew. */
  commit(): Promise<void>;
  /** Committed blocks behind chain number `since` (default 0: all), in chain order: a consistent prefix. */
  readBlocks(since?: number): AsyncIterable<Uint8Array>;
  /** What is committed, and a committed block by its number. */
  committed(): CommittedLog;
  block(chain: number): Promise<Uint8Array>;
  /** `EventLog.completeCut`, `EventLog.senderOf`, `EventLog.ownerOf`, `EventLog.isAtOtherEnd`. */
  completeCut(process: string, cut: Cut, running: Iterable<string>): Promise<Cut>;
  senderOf(channel: string, running: Iterable<string>): Promise<string | undefined>;
  ownerOf(channel: string, reverse: string, running: Iterable<string>): Promise<string | undefined>;
  isAtOtherEnd(
    process: string,
    channel: string,
    reverse: string,
    ended: readonly string[],
    running: readonly string[],
  ): Promise<boolean | undefined>;
  /** Seals what is committed, so that it may be copied. */
  rotate(): Promise<void>;
  /** What retention may remove, and removing it (`EventLog`). */
  planPrune(oldest: ReadonlyMap<string, number>, keep?: Keep): Promise<PrunePlan>;
  keptFrom(keep: Keep): Promise<number>;
  openSinceMs(): Promise<number>;
  prune(base: LogBase): Promise<Removal>;
  close(): Promise<void>;
}

export type OpenLog = (folder: string, options: { create: boolean }) => Promise<AppendLog>;

/** The real one; an import that a crash cut off is completed first. Throws what `EventLog.open` throws. */
export const openEventLog: OpenLog = async (folder, options) => {
  const log = await EventLog.open(folder, { ...options, mayForget: true });
  try {
    await finishImport(folder, log);
    return log;
  } catch (error) {
    await log.close();
    throw error;
  }
};
