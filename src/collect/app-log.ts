/**
 * One application: its log, its processes, and how far of the ring is in it.
 *
 * Every fact that must survive is state of the log, durable atomically with the blocks it belongs to:
 *   "processes"           names ever registered
 *   "process/<name>"      `StoredProcess`
 *   "checkpoints/<name>"  `StoredCheckpoints`
 *   "origin/<name>"       `StoredOrigin`
 *   "node"                `NodeNames`, where the collector was told
 *   "held"                `HeldMessage[]`: openings and endings that wait for their other half
 *   "rules"               `StoredPeerRules`: what the user says of addresses
 *   "strangers"           `StoredStranger[]`: programs outside that its processes talked with
 *   "unfound"             `UnfoundPeer[]`: connections whose other end nobody was found at, to be decided
 *   "datagrams"           `StoredDatagrams`: where its processes have sent datagrams to, and taken them from
 *   "ring"                `StoredRing`: records before `position` are in the log
 *   "rings"               names of entities whose runtimes hand memory rings over
 *   "policy"              the HA policy that is plugged, as the policy host wrote it (daemon/policy-record.ts)
 *   "policy-memory"       what that policy remembers; as old as the last commit
 * so that a restart and the return of a failed log are the same thing: load, declare what may be missing, read on.
 */
import { mkdir } from "node:fs/promises";
import type { LogBase } from "../format/log-base.ts";
import { RING_KIND_COUNT, VERDICT_REASONS } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import type { AppendLog, OpenLog } from "../log/append-log.ts";
import type { CommittedLog, Removal } from "../log/event-log.ts";
import { type Keep, sealAfterMs } from "../log/keep.ts";
import type { PrunePlan } from "../log/plan-prune.ts";
import type { NodeNames } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Cut } from "../model/event.ts";
import { LOG_RETRY_MAX_MS, LOG_RETRY_MIN_MS } from "../model/limits.ts";
import type {
  StoredCheckpoints,
  StoredOrigin,
  StoredPeerRules,
  StoredProcess,
} from "../model/stored-process.ts";
import { Datagrams, type StoredDatagrams } from "./datagrams.ts";
import { Missed } from "./missed.ts";
import { OutsidePeers, type StoredStranger } from "./outside-peers.ts";
import { PeerRules } from "./peer-rules.ts";
import { ProcessBuffer } from "./process-buffer.ts";
import { ProcessState } from "./process-state.ts";
import { type HeldMessage, SocketMessages } from "./socket-messages.ts";
import type { UnfoundPeer } from "./unfound-peers.ts";

export interface StoredRing {
  readonly ringId: string;
  readonly bootId: string;
  /** Records whose slot lies before it are in the log, or were not this application's. */
  readonly position: number;
  /** The last collector session this application took part in. */
  readonly session: number;
}

/** The ring as it is now, to compare with what is stored. */
export type RingFacts = Omit<StoredRing, "position">;

/** Rows and bytes taken since the last commit; they count only once they are durable. */
export class Pending {
  events = 0;
  gaps = 0;
  lost = 0;
  readonly byKind = new Float64Array(RING_KIND_COUNT);
  readonly bytesByKind = new Float64Array(RING_KIND_COUNT);
  /** Time of the oldest record, ns of the records' clock; 0 = none. */
  since = 0;

  /** `gaps`: rows that were made of losses, count. */
  addGaps(gaps: number): void {
    this.events += gaps;
    this.gaps += gaps;
  }
}

/** What an application costs, since its log was opened. */
export interface AppCosts {
  /** Records in its log, and the bytes of their ranges. */
  events: number;
  bytes: number;
  commits: number;
  /** Time that its commits took, ms; with others' at the same time. */
  commitMs: number;
}

export class AppLog {
  readonly costs: AppCosts = { events: 0, bytes: 0, commits: 0, commitMs: 0 };
  readonly name: string;
  readonly processes = new Map<string, ProcessBuffer>();
  pending = new Pending();
  /** Records before this ring position are in the log already. */
  skipBefore = 0;
  /** Openings and endings of its connections. */
  readonly messages: SocketMessages;
  /** Who its processes talk with that is not of it. */
  readonly peers: OutsidePeers;
  /** Who of them may have exchanged datagrams. */
  readonly datagrams = new Datagrams();
  /** All of it is on this host, as far as the collector was told. */
  readonly onOneHost: boolean;
  /** When it was used last, ms of `performance.now()`, and by how many readers it is used now. */
  usedAtMs = performance.now();
  #readers = 0;
  /** Why the log can't be written now; then its records stay in the ring. */
  broken: RecoveryLineError | undefined;
  retryAtMs = 0;
  /** False from a failure to the next commit: that a log can be opened does not prove that it can be written. */
  well = true;
  /** When it was well last, and when it is tried again, ms of `performance.now()`: no decision rests on a clock that can be set. */
  brokenSinceMs = 0;
  /** What goes by, in order; of a stretch the log holds all or nothing. Undefined: nothing does. */
  #missed: Missed[] | undefined;
  /** Ring position of the newest commit that was tried: it may be in the log though it failed. */
  #triedAt = 0;
  #retryMs = LOG_RETRY_MIN_MS;
  #log: AppendLog | undefined;
  readonly #folder: string;
  readonly #openLog: OpenLog;
  readonly #bootId: string;
  readonly #node: NodeNames | undefined;
  #nodeChanged = false;
  #stored: StoredRing | undefined;
  #namesChanged = false;
  #touched = false;
  #rings: ReadonlySet<string> = new Set();
  #ringsChanged = false;
  #rulesChanged = false;
  /** True: ranges are counted at each commit, for policies. */
  counting = false;
  #policy: unknown;
  #policyChanged = false;
  #policyMemory: unknown;
  #policyMemoryChanged = false;

  constructor(name: string, folder: string, openLog: OpenLog, bootId: string, node?: NodeNames) {
    this.name = name;
    this.#folder = folder;
    this.#openLog = openLog;
    this.#bootId = bootId;
    this.#node = node;
    this.messages = new SocketMessages(this.processes, bootId);
    this.onOneHost = node === undefined || node.all.length < 2;
    this.peers = new OutsidePeers(bootId, this.onOneHost);
  }

  /** Ring position that the ring must not let go beyond: while the log is broken, what is stored; else no bound. */
  get holdsAt(): number {
    const waiting = this.broken !== undefined && !this.givenUp && this.#stored !== undefined && this.hasLive;
    return waiting ? this.#stored!.position : Number.POSITIVE_INFINITY;
  }

  /** True while it can't be written and the ring does not wait for it: what goes by is counted. */
  get givenUp(): boolean {
    return this.#missed !== undefined;
  }

  /**
   * The ring waits no longer for this broken log. The caller reads the ring again from where it let go, after it has
   * made sure that a crash from now on is seen by `reconcile` (a new session).
   */
  giveUp(): void {
    this.#missed = [new Missed(this.#bootId, this.#triedAt)];
    this.skipBefore = this.#stored?.position ?? 0;
  }

  /** One record goes by. Returns how many events are missing for it. */
  miss(process: ProcessBuffer, records: RecordColumns, row: number): number {
    const position = records.position[row]!;
    if (this.#missed === undefined || position < this.skipBefore) return 0;
    let stretch = this.#missed.find(({ upTo }) => position < upTo);
    if (stretch === undefined) {
      stretch = new Missed(this.#bootId);
      this.#missed.push(stretch);
    }
    return stretch.add(process.name, records, row);
  }

  /** It is open again: what went by until ring position `read` becomes gaps, which the next commit makes durable. */
  declareMissed(read: number): void {
    if (this.#missed === undefined) return;
    const held = this.#stored?.position ?? 0;
    const missed = new Missed(this.#bootId, read);
    for (const stretch of this.#missed) if (stretch.upTo > held) missed.join(stretch);
    this.#missed = [missed];
    this.skipBefore = read;
    this.touch();
    for (const [name, { count, ranges }] of missed.byProcess) {
      const process = this.processes.get(name);
      if (process === undefined) continue;
      this.gap(process, count - (ranges?.size ?? 0));
      if (ranges === undefined) process.leftOut(VERDICT_REASONS[0]!);
      for (const { kind, channel, begin, end } of ranges?.values() ?? [])
        process.columns.pushRange(kind, process.columns.addChannel(channel), begin, end, Number.NaN, 0);
    }
  }

  get hasLive(): boolean {
    for (const { state } of this.processes.values()) if (state.live) return true;
    return false;
  }

  /** Opens the log and reads its state. Throws what opening throws. */
  async open(create: boolean): Promise<void> {
    if (create) await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const log = await this.#openLog(this.#folder, { create });
    try {
      await this.#load(log);
    } catch (error) {
      await log.close().catch(() => undefined);
      throw error;
    }
    this.#log = log;
    this.broken = undefined;
    this.endRings();
  }

  async #load(log: AppendLog): Promise<void> {
    const names = ((await log.getState("processes")) ?? []) as readonly string[];
    this.processes.clear();
    for (const name of names) {
      const stored = (await log.getState(`process/${name}`)) as StoredProcess | undefined;
      const checkpoints = (await log.getState(`checkpoints/${name}`)) as StoredCheckpoints | undefined;
      const origin = (await log.getState(`origin/${name}`)) as StoredOrigin | undefined;
      this.#add(name, new ProcessState(stored, checkpoints, origin));
    }
    this.#stored = (await log.getState("ring")) as StoredRing | undefined;
    this.#nodeChanged =
      this.#node !== undefined && JSON.stringify(await log.getState("node")) !== JSON.stringify(this.#node);
    this.peers.rules = new PeerRules((await log.getState("rules")) as StoredPeerRules | undefined);
    this.peers.load(((await log.getState("strangers")) ?? []) as readonly StoredStranger[]);
    this.peers.unfound.load(((await log.getState("unfound")) ?? []) as readonly UnfoundPeer[]);
    this.datagrams.load((await log.getState("datagrams")) as StoredDatagrams | undefined);
    this.messages.load(((await log.getState("held")) ?? []) as readonly HeldMessage[], performance.now());
    this.#rings = new Set(((await log.getState("rings")) ?? []) as readonly string[]);
    this.#ringsChanged = false;
    this.#policy = await log.getState("policy");
    this.#policyChanged = false;
    this.#policyMemory ??= await log.getState("policy-memory");
    this.pending = new Pending();
  }

  #add(name: string, state: ProcessState): ProcessBuffer {
    const process = new ProcessBuffer(name, this, state, this.#bootId);
    this.processes.set(name, process);
    return process;
  }

  /** The process, made if it is new. */
  process(name: string): ProcessBuffer {
    const known = this.processes.get(name);
    if (known !== undefined) return known;
    this.#namesChanged = true;
    const process = this.#add(name, new ProcessState());
    process.state.changed = true;
    return process;
  }

  /**
   * Compares the stored ring with the real one and declares what may be missing. `lastSession`: the newest one that
   * began; who did not take part in it missed records that others let go.
   */
  reconcile(ring: RingFacts, lastSession: number): void {
    const stored = this.#stored;
    if (stored === undefined) return;
    const sameRing = stored.ringId === ring.ringId;
    this.skipBefore = sameRing ? stored.position : 0;
    const wentBy = stored.session < lastSession;
    // What went by may have closed connections that nothing tells of any more, and no cut names them.
    if (!sameRing || wentBy) this.wentBy();
    if (stored.bootId === ring.bootId) return;
    for (const { state } of this.processes.values()) {
      state.changed ||= state.live;
      state.live = false; // its cgroup went with the boot
    }
  }

  /** What its live processes did went by, and nobody knows how much: for the rest of their lives no cut is all. */
  wentBy(): void {
    this.gapForLive();
    for (const process of this.processes.values())
      if (process.state.live) process.leftOut(VERDICT_REASONS[0]!);
  }

  /** Entities whose runtimes are connected (take-rings.ts); stored with the next commit. */
  get rings(): ReadonlySet<string> {
    return this.#rings;
  }

  set rings(names: ReadonlySet<string>) {
    this.#rings = names;
    this.#ringsChanged = true;
    this.touch();
  }

  /** Stored with the next commit; undefined: there is none. */
  get policy(): unknown {
    return this.#policy;
  }

  set policy(record: unknown) {
    this.#policy = record;
    this.#policyChanged = true;
    this.touch();
  }

  get policyMemory(): unknown {
    return this.#policyMemory;
  }

  /** Stored with whatever commit comes next: it is no reason for one. */
  set policyMemory(memory: unknown) {
    this.#policyMemory = memory;
    this.#policyMemoryChanged = true;
  }

  /** What the user says of addresses, besides what was said before; stored with the next commit. */
  addRules(rules: StoredPeerRules): void {
    this.peers.rules = this.peers.rules.with(rules);
    this.#rulesChanged = true;
    this.touch();
  }

  /** Nobody takes from them any more although nobody saw their ends: what they did since is missing. */
  endRings(): void {
    for (const name of this.#rings) this.gap(this.process(name), 0);
    if (this.#rings.size > 0) this.rings = new Set();
  }

  /** Nothing of it is recorded any more. Returns the cgroups that were. */
  endLive(): number[] {
    const live = [...this.processes.values()].filter(({ state }) => state.live);
    for (const { state } of live) {
      state.live = false;
      state.changed = true;
    }
    return live.map(({ state }) => state.cgroupId);
  }

  /** Something is missing and nobody knows of which process. */
  gapForLive(): void {
    for (const process of this.processes.values()) if (process.state.live) this.gap(process, 0);
  }

  gap(process: ProcessBuffer, lost: number): void {
    process.gap(lost);
    this.pending.events += 1;
    this.pending.gaps += 1;
    this.pending.lost += lost;
  }

  /** The next commit writes even if only the position is new. */
  touch(): void {
    this.#touched = true;
  }

  /** True if a commit would write anything but the position. */
  get dirty(): boolean {
    if (this.#touched) return true;
    if (this.pending.events > 0 || this.#namesChanged || this.messages.changed || this.peers.changed)
      return true;
    if (this.datagrams.changed || this.peers.unfound.changed) return true;
    for (const { state } of this.processes.values()) if (state.changed) return true;
    return false;
  }

  /**
   * Makes everything taken so far durable together with the position (no ring: there is none to read on from). Returns the number of
   * column batches. On failure the log is closed, `broken` says why, all that was pending is forgotten (the ring still has it), and
   * the error is thrown as RL_LOG_WRITE.
   */
  async commit(ring?: RingFacts, position = 0): Promise<number> {
    const log = this.#opened();
    const [began, { pending }] = [performance.now(), this];
    try {
      const batches = await this.#append(log);
      // While the ring is read again for another application, the reader stands before what is stored here.
      const stored = ring && { ...ring, position: Math.max(position, this.skipBefore) };
      this.#triedAt = stored?.position ?? this.#triedAt;
      if (stored !== undefined) log.putState("ring", stored);
      await log.commit();
      this.#stored = stored ?? this.#stored;
      this.#count(pending, performance.now() - began);
      this.pending = new Pending();
      this.#touched = false;
      this.#retryMs = LOG_RETRY_MIN_MS;
      this.well = true;
      this.#missed = undefined;
      return batches;
    } catch (error) {
      await this.#fail(error);
      throw this.broken;
    }
  }

  #opened(): AppendLog {
    if (this.#log === undefined) throw this.broken ?? this.#error(undefined);
    return this.#log;
  }

  #count({ events, bytesByKind }: Pending, commitMs: number): void {
    this.costs.events += events;
    for (const bytes of bytesByKind) this.costs.bytes += bytes;
    this.costs.commits += 1;
    this.costs.commitMs += commitMs;
  }

  /** Memory of what its processes have on the way and of the names they remember, bytes, about. */
  get bufferBytes(): number {
    let bytes = 0;
    for (const process of this.processes.values()) bytes += process.bufferBytes;
    return bytes;
  }

  async #append(log: AppendLog): Promise<number> {
    let batches = 0;
    if (this.#namesChanged) log.putState("processes", [...this.processes.keys()]);
    this.#namesChanged = false;
    if (this.#nodeChanged) log.putState("node", this.#node);
    this.#nodeChanged = false;
    if (this.#rulesChanged) log.putState("rules", this.peers.rules.stored());
    this.#rulesChanged = false;
    if (this.peers.changed) log.putState("strangers", this.peers.stored());
    this.peers.changed = false;
    if (this.peers.unfound.changed) log.putState("unfound", this.peers.unfound.stored());
    this.peers.unfound.changed = false;
    if (this.datagrams.changed) log.putState("datagrams", this.datagrams.stored());
    this.datagrams.changed = false;
    if (this.messages.changed) log.putState("held", this.messages.held());
    this.messages.changed = false;
    if (this.#ringsChanged) log.putState("rings", [...this.#rings]);
    this.#ringsChanged = false;
    if (this.#policyChanged) log.putState("policy", this.#policy);
    this.#policyChanged = false;
    if (this.#policyMemoryChanged) log.putState("policy-memory", this.#policyMemory);
    this.#policyMemoryChanged = false;
    for (const process of this.processes.values()) {
      process.settle();
      if (process.columns.count > 0) {
        await log.append(process.columns);
        process.flushed();
        batches += 1;
      }
      this.#putProcess(log, process);
    }
    return batches;
  }

  #putProcess(log: AppendLog, { name, state }: ProcessBuffer): void {
    if (state.changed) log.putState(`process/${name}`, state.stored());
    if (state.checkpointsChanged) log.putState(`checkpoints/${name}`, state.storedCheckpoints());
    if (state.originChanged) log.putState(`origin/${name}`, state.origin);
    state.originChanged = false;
    state.changed = false;
    state.checkpointsChanged = false;
  }

  async #fail(cause: unknown): Promise<void> {
    if (this.broken !== undefined && hasCode(cause, "RL_LOCKED")) {
      this.retryAtMs = performance.now() + LOG_RETRY_MIN_MS; // somebody reads it meanwhile, which says nothing of the disk
      return;
    }
    const log = this.#log;
    this.#log = undefined;
    this.pending = new Pending();
    if (this.well) this.brokenSinceMs = performance.now();
    this.well = false;
    this.broken = this.#error(cause);
    this.retryAtMs = performance.now() + this.#retryMs;
    this.#retryMs = Math.min(this.#retryMs * 2, LOG_RETRY_MAX_MS);
    await log?.close().catch(() => undefined);
  }

  #error(cause: unknown): RecoveryLineError {
    const why = cause instanceof Error ? cause.message : "it is not open";
    return new RecoveryLineError(
      "RL_LOG_WRITE",
      `the log of ${this.name} cannot be written: ${why}`,
      "Its records wait in the kernel ring; free space or repair the disk. Losses are declared as gaps.",
      cause,
    );
  }

  /** One try to open a broken log again. False, with a longer wait before the next try, if that failed too. */
  async retry(): Promise<boolean> {
    try {
      await this.open(false);
      return true;
    } catch (error) {
      await this.#fail(error);
      return false;
    }
  }

  async *readBlocks(since = 0): AsyncGenerator<Uint8Array> {
    const log = this.#opened();
    this.#readers += 1;
    try {
      yield* log.readBlocks(since);
    } finally {
      this.#readers -= 1;
      this.usedAtMs = performance.now();
    }
  }

  /** Nothing of it is recorded, nothing waits, nobody reads: its log may be closed. */
  get isIdle(): boolean {
    return (
      this.broken === undefined &&
      this.#readers === 0 &&
      this.#rings.size === 0 &&
      !this.hasLive &&
      !this.messages.waits &&
      !this.dirty
    );
  }

  /** What is committed. Throws RL_LOG_WRITE while it is broken. */
  committed(): CommittedLog {
    return this.#opened().committed();
  }

  /** A committed block. Throws `TypeError` beyond what is kept. */
  async block(chain: number): Promise<Uint8Array> {
    return this.#opened().block(chain);
  }

  /** `EventLog.completeCut`. */
  async completeCut(process: string, cut: Cut): Promise<Cut> {
    return (await this.#log?.completeCut(process, cut, this.#running())) ?? cut;
  }

  /** The process that has sent on a channel, as far back as the next cuts reach. */
  async senderOf(channel: string): Promise<string | undefined> {
    return this.#log?.senderOf(channel, this.#running());
  }

  /** The process whose end sends on a channel and receives on its reverse. */
  async ownerOf(channel: string, reverse: string): Promise<string | undefined> {
    return this.#log?.ownerOf(channel, reverse, this.#running());
  }

  /** Is another process than `process` at the end that sends on `channel` and receives on `reverse`? undefined: nobody knows. */
  async isAtOtherEnd(process: string, channel: string, reverse: string): Promise<boolean | undefined> {
    const running = this.#running();
    const ended = [...this.processes.keys()].filter((name) => !running.includes(name));
    return this.#log?.isAtOtherEnd(process, channel, reverse, ended, running);
  }

  #running(): string[] {
    return [...this.processes.values()].filter(({ state }) => state.live).map(({ name }) => name);
  }

  /** Seals what is committed. Throws RL_LOG_WRITE; the next commit then finds the log broken and opens it anew. */
  async rotate(): Promise<void> {
    await this.#opened().rotate();
  }

  /** See `EventLog.planPrune`: reads the whole log. */
  async planPrune(oldest: ReadonlyMap<string, number>, keep?: Keep): Promise<PrunePlan> {
    const log = this.#opened();
    this.#readers += 1;
    return log.planPrune(oldest, keep).finally(() => {
      this.#readers -= 1;
      this.usedAtMs = performance.now();
    });
  }

  /** True if the log is larger or older than is to be kept; false while it is broken. */
  async isBeyond(keep: Keep): Promise<boolean> {
    return ((await this.#log?.keptFrom(keep)) ?? 0) > 0;
  }

  /** True if the open segment is so old that sealing it is due, so that it can go in time. */
  async isSealDue({ hours }: Keep): Promise<boolean> {
    if (hours === undefined) return false;
    const sinceMs = (await this.#log?.openSinceMs()) ?? Date.now();
    return Date.now() - sinceMs > sealAfterMs(hours);
  }

  /** Between two commits. Throws RL_LOG_WRITE; the next commit then finds the log broken and opens it anew. */
  async prune(base: LogBase): Promise<Removal> {
    return this.#opened().prune(base);
  }

  async close(): Promise<void> {
    const log = this.#log;
    this.#log = undefined;
    await log?.close();
  }
}
