/**
 * The way from the ring to the logs; synchronous steps that `Collector` runs one at a time.
 *
 *   read       ring → columns of each process (nothing durable yet)
 *   commit     columns and position → logs, then the ring lets go
 *   recover    a failed log is opened again, and the ring read once more from where it let go
 *
 * Order that makes it exactly once: an application's blocks and its ring position are one atomic write; the ring lets
 * go only after all logs have committed; records before an application's stored position are skipped.
 */

import { RingKind, RingVerdict, SLOT_BYTES, VERDICT_REASONS } from "../format/ring-layout.ts";
import { decodeRecords, makeRecordColumns, type RecordColumns } from "../format/ring-record.ts";
import { assert } from "../model/assert.ts";
import { channelName } from "../model/channel-names.ts";
import { hasCode } from "../model/errors.ts";
import type { EventSource, Verdict } from "../model/event-source.ts";
import { COMMIT_BYTES, DRAIN_BATCH_RECORDS, MAX_PENDING_EVENTS } from "../model/limits.ts";
import type { SharedSocket } from "../model/stored-process.ts";
import type { AppLog, RingFacts } from "./app-log.ts";
import { CollectCounts } from "./collect-counts.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

const COMMIT_RECORDS = COMMIT_BYTES / SLOT_BYTES;

export class CollectPump {
  readonly apps = new Map<string, AppLog>();
  readonly counts = new CollectCounts();
  readonly source: EventSource;
  #session: number;
  readonly #byCgroup = new Map<number, ProcessBuffer>();
  readonly #recorded = (cgroupId: number): ProcessBuffer | undefined => this.#byCgroup.get(cgroupId);
  readonly #bytes = new Uint8Array(DRAIN_BATCH_RECORDS * SLOT_BYTES);
  readonly #words = new Uint32Array(this.#bytes.buffer);
  readonly #records: RecordColumns = makeRecordColumns(DRAIN_BATCH_RECORDS);
  /** Records taken since the last commit, and when the first was, ms; 0 = none. */
  #pending = 0;
  #pendingSinceMs = 0;
  /** When verdicts were read, ms of `performance.now()`, and whether anything was recorded since. */
  #verdictsAtMs = 0;
  #readSince = true;

  constructor(source: EventSource, session: number) {
    this.source = source;
    this.#session = session;
  }

  get ringFacts(): RingFacts {
    const { ringId, bootId } = this.source;
    return { ringId, bootId, session: this.#session };
  }

  /** Number of the collector's session that logs take part in now. */
  get session(): number {
    return this.#session;
  }

  get liveProcesses(): number {
    return this.#byCgroup.size;
  }

  /**
   * The ring is empty and nothing waits for a commit or a retry: the kernel wakes the reader for the next record. While the ring holds
   * anything it does not.
   */
  get wakesWhenDue(): boolean {
    if (this.#pending > 0 || this.source.fillBytes() > 0) return false;
    for (const app of this.apps.values()) if (app.broken !== undefined) return false;
    return this.source.wakesForFirst || this.#byCgroup.size === 0;
  }

  byCgroup(cgroupId: number): ProcessBuffer | undefined {
    return this.#byCgroup.get(cgroupId);
  }

  /** The cgroups of an application as its state says now; after registering, loading, reloading. */
  mapCgroups(app: AppLog): void {
    for (const [cgroup, process] of this.#byCgroup) if (process.app === app) this.#byCgroup.delete(cgroup);
    for (const process of app.processes.values()) {
      if (process.state.live) this.#byCgroup.set(process.state.cgroupId, process);
    }
  }

  /** A log comes in as it was stored. `lastSession` as `AppLog.reconcile`. */
  admit(app: AppLog, lastSession: number): void {
    app.reconcile(this.ringFacts, lastSession);
    this.mapCgroups(app);
  }

  /** Drains one batch into the columns. Returns the number of records. Throws RL_BAD_RECORD for a damaged ring. */
  readBatch(): number {
    const { records, foreign } = this.source.drain(this.#bytes);
    if (foreign > 0) this.#unreadable(foreign);
    for (let from = 0; from < records; ) {
      const bad = this.#decode(from, records);
      this.#takeAll();
      from += this.#records.count;
      if (bad) {
        this.#unreadable(1);
        from += 1;
      }
    }
    if (records > 0) this.#readSince = true;
    if (records > 0 && this.#pending === 0) this.#pendingSinceMs = performance.now();
    this.#pending += records;
    return records;
  }

  #decode(from: number, records: number): boolean {
    try {
      decodeRecords(this.#words, from, records, this.#records);
      return false;
    } catch (error) {
      if (hasCode(error, "RL_BAD_RECORD")) return true;
      throw error;
    }
  }

  /** A record nobody can read belonged to nobody knows whom. */
  #unreadable(count: number): void {
    this.counts.bad += count;
    for (const app of this.apps.values()) if (app.broken === undefined) app.wentBy();
  }

  /** The hot loop: no object a record. */
  #takeAll(): void {
    const records = this.#records;
    const { process, position, kind, length, time, thread } = records;
    let cgroup = -1;
    let buffer: ProcessBuffer | undefined;
    for (let row = 0; row < records.count; row += 1) {
      if (process[row] !== cgroup) {
        cgroup = process[row]!;
        buffer = this.#byCgroup.get(cgroup);
      }
      if (buffer === undefined) {
        this.counts.unknown += 1;
        continue;
      }
      // 0: a ring that somebody else than our programs fills knows no lives.
      if (thread[row] !== buffer.state.incarnation && thread[row] !== 0) {
        this.counts.stale += 1; // of an old life, whose tail was in the log before this one began
        continue;
      }
      const app = buffer.app;
      if (app.broken !== undefined) {
        this.counts.missed += app.miss(buffer, records, row); // else it reads them again when its log is back
        continue;
      }
      if (position[row]! < app.skipBefore) {
        this.counts.skipped += 1;
        continue;
      }
      const pending = app.pending;
      const recordKind = kind[row]!;
      if (pending.since === 0) pending.since = time[row]!;
      pending.events += 1;
      pending.byKind[recordKind]! += 1;
      const about = recordKind === RingKind.PEER || recordKind === RingKind.DATAGRAM; // what it tells is no data
      if (!about) pending.bytesByKind[recordKind]! += length[row]!;
      const gaps = about ? this.#takeAbout(buffer, row) : buffer.take(records, row);
      if (gaps > 0) {
        pending.gaps += gaps;
        if (!about) pending.lost += records.lostBefore[row]!;
      }
    }
  }

  /** With whom a process talks. Returns the number of gap rows. */
  #takeAbout(process: ProcessBuffer, row: number): number {
    const { peers, datagrams } = process.app;
    if (this.#records.kind[row] === RingKind.PEER)
      return peers.take(process, this.#records, row, this.#recorded);
    return datagrams.take(process, this.#records, row, peers.rules);
  }

  /** Reads until the ring is empty, a slot is busy, or enough is pending. True if more may be there. */
  read(): boolean {
    while (this.#pending < MAX_PENDING_EVENTS) {
      if (this.readBatch() < DRAIN_BATCH_RECORDS) return false;
    }
    return true;
  }

  /** True once 256 KiB of slots or the oldest record's age ask for a group commit. */
  commitDue(intervalMs: number): boolean {
    if (this.#pending === 0) return false;
    return this.#pending >= COMMIT_RECORDS || performance.now() - this.#pendingSinceMs >= intervalMs;
  }

  /** Commits every application that has something, then lets the ring go. A failed log stays behind, `broken`. */
  async commit(): Promise<void> {
    const position = this.source.readPosition();
    await Promise.all([...this.apps.values()].map((app) => this.commitApp(app, position)));
    this.#pending = 0;
    let free = position;
    for (const app of this.apps.values()) free = Math.min(free, app.holdsAt);
    const consumer = this.source.producerPosition() - this.source.fillBytes();
    assert(free <= position, "the ring lets nothing go that was not read");
    if (free > consumer) this.source.commit(free);
  }

  /** Never throws for a failing log: `app.broken` tells. */
  async commitApp(app: AppLog, position: number = this.source.readPosition()): Promise<void> {
    if (app.broken !== undefined || !app.dirty) return;
    const pending = app.pending;
    try {
      const batches = await app.commit(this.ringFacts, position);
      this.counts.add(pending, batches, this.source.now());
    } catch (error) {
      if (!hasCode(error, "RL_LOG_WRITE")) throw error;
      this.counts.logErrors += 1;
    }
  }

  /** What the kernel can't follow: once for each life and reason a gap. */
  takeVerdicts(): void {
    this.#verdictsAtMs = performance.now();
    this.#readSince = false;
    for (const verdict of this.source.verdicts()) {
      const process = this.#byCgroup.get(verdict.cgroupId);
      if (process?.state.incarnation !== verdict.incarnation || process.app.broken !== undefined) continue;
      this.#judge(process, verdict);
    }
  }

  /** As `takeVerdicts`, if anything was recorded since and the last time is a while ago. */
  pollVerdicts(everyMs: number): void {
    if (this.#readSince && performance.now() - this.#verdictsAtMs >= everyMs) this.takeVerdicts();
  }

  #judge(process: ProcessBuffer, verdict: Verdict): void {
    for (let number = 0; number < 32; number += 1) {
      if ((verdict.bits & (1 << number)) === 0) continue;
      if (number === RingVerdict.DATAGRAM && process.app.onOneHost) continue; // who exchanged any is told
      const gaps = process.verdict(reasonOf(number));
      if (gaps === 0) continue;
      process.app.pending.addGaps(gaps);
      if (number === RingVerdict.SHARED_SOCKET) process.state.shared = this.#shared(process, verdict);
      this.#commitSoon();
    }
  }

  #shared(process: ProcessBuffer, { other, local, remote }: Verdict): SharedSocket {
    const channel = channelName(areCookies(local, remote), this.source.bootId, local, remote);
    const found = this.#byCgroup.get(other);
    if (found === undefined) return { channel };
    const name = found.app === process.app ? found.name : `${found.app.name}/${found.name}`;
    return { other: name, channel };
  }

  /** Gaps are told in time, also where no record follows. */
  #commitSoon(): void {
    if (this.#pending === 0) this.took(1);
  }

  /** So many events are in columns that did not come from the ring: they wait for a commit, too. */
  took(events: number): void {
    if (this.#pending === 0) this.#pendingSinceMs = performance.now();
    this.#pending += events;
  }

  /** Tries to open the failed logs whose wait is over. True if one came back: then the ring is read again. */
  async recover(): Promise<boolean> {
    const due = [...this.apps.values()].filter(
      (app) => app.broken !== undefined && app.retryAtMs <= performance.now(),
    );
    if (due.length === 0) return false;
    await this.commit(); // while those that are due are still broken: theirs is not in their logs
    const back: AppLog[] = [];
    for (const app of due) {
      if (!(await app.retry())) this.counts.logErrors += 1;
      else if (app.givenUp) await this.#declareMissed(app);
      else back.push(app);
    }
    if (back.length === 0) return false;
    this.#readAgain(back);
    this.#commitSoon(); // what opening declared, also where no record follows
    return true;
  }

  /** Goes back to what the ring still holds; logs that were well skip what they have. */
  #readAgain(back: readonly AppLog[]): void {
    this.#rewind();
    for (const app of back) this.admit(app, this.#session);
  }

  #rewind(): void {
    const read = this.source.readPosition();
    for (const app of this.apps.values()) app.skipBefore = read;
    this.source.rewind();
  }

  /** Before it takes anything new, what went by must be durable; else it stays given up, and goes on counting. */
  async #declareMissed(app: AppLog): Promise<void> {
    const read = this.source.readPosition();
    this.admit(app, 0); // what it missed of this session is what it counted
    app.declareMissed(read);
    await this.commitApp(app, read);
  }

  /**
   * The ring waits no longer for these broken logs; from where it let go they count what goes by. `session` is new and
   * durable: whoever does not take part in it finds out that it missed something, whatever happens to this process.
   */
  giveUp(apps: readonly AppLog[], session: number): void {
    this.#session = session;
    for (const app of this.apps.values()) if (app.broken === undefined) app.touch();
    this.#rewind();
    for (const app of apps) app.giveUp();
  }
}

/** Of several nodes nobody here knows whether the other end of UDP is recorded. */
function reasonOf(number: number): string {
  const known = number === RingVerdict.DATAGRAM ? RingVerdict.UDP : number;
  return VERDICT_REASONS[known] ?? VERDICT_REASONS[0]!;
}

/** A verdict does not say the family of the socket's names: cookies of a pair are near each other, sequence numbers are random. For people only. */
function areCookies(local: number, remote: number): boolean {
  return local > 0xffffffff || remote > 0xffffffff || Math.abs(local - remote) < 65_536;
}
