/**
 * The collector: ring → columns per process → logs of the applications → ring position.
 *
 * Promises: *acknowledged* (a returned `drain`, `appendControl`, or a group commit) is never lost and never doubled,
 * across crashes of this process at any moment; whatever is missing stands in the log as a `gap`.
 * While a log can't be written, its records wait in the kernel ring and the other applications go on.
 */

import { readdir } from "node:fs/promises";
import { isIPv6 } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KernelSource } from "../capture/kernel-source.ts";
import { RingFlag, Told } from "../format/ring-layout.ts";
import { Pause } from "../host/pause.ts";
import { Serial } from "../host/serial.ts";
import { openEventLog } from "../log/append-log.ts";
import type { CommittedLog } from "../log/event-log.ts";
import type { Keep } from "../log/keep.ts";
import { channelName } from "../model/channel-names.ts";
import type {
  AppStats,
  CollectedProcess,
  CollectorStats,
  CutAnswer,
  Pruned,
  Registration,
  UnreadableLog,
  WaitingOutput,
} from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import type { CutEntry, Release, SourceCut, UnheldOutput } from "../model/event-source.ts";
import {
  BUSY_SLOT_MS,
  COMMIT_INTERVAL_MS,
  FLUSH_LIMIT_MS,
  IDLE_LOG_MS,
  IDLE_POLL_MS,
  LOG_RETRY_CALLER,
  MAX_IDLE_LOGS,
  MAX_LEFT_TASKS,
  MAX_LIVE_PROCESSES,
  MAX_POLL_MS,
  MIN_POLL_MS,
  VERDICT_POLL_MS,
} from "../model/limits.ts";
import { PATH_NAME } from "../model/names.ts";
import type {
  PeerNote,
  ProcessData,
  ProcessEnd,
  StartRecipe,
  StoredOrigin,
  TaskName,
} from "../model/stored-process.ts";
import type { FoundChannel } from "../model/unseen-channel.ts";
import { AppLog } from "./app-log.ts";
import { cutOf } from "./collect-cut.ts";
import type { CollectorOptions, CollectorParts } from "./collect-options.ts";
import { CollectPump } from "./collect-pump.ts";
import { beginSession, lastSession } from "./collect-session.ts";
import { collectedProcesses, EndedProcesses } from "./ended-processes.ts";
import { FullPolicy } from "./full-policy.ts";
import { openKnownLogs } from "./known-logs.ts";
import type { ProcessBuffer, ProcessCounts } from "./process-buffer.ts";
import { type RingBatch, takeRingBatch } from "./take-rings.ts";
import { takeUnseen, unknownChannels } from "./take-unseen.ts";

export class Collector {
  readonly #pump: CollectPump;
  readonly #parts: CollectorParts;
  readonly #serial = new Serial();
  readonly #pause = new Pause();
  readonly #unreadable = new Map<string, UnreadableLog>();
  readonly #intervalMs: number;
  readonly #full: FullPolicy;
  #running: Promise<void> = Promise.resolve();
  #stopping = false;
  #fatal: unknown;
  #nextIdleLookMs = 0;
  readonly #ended = new EndedProcesses();
  /** Count of what was held when nothing waited at the last look; undefined: something did. */
  #heldBefore: number | undefined;

  private constructor(parts: CollectorParts, session: number) {
    this.#parts = parts;
    this.#intervalMs = parts.commitIntervalMs ?? COMMIT_INTERVAL_MS;
    this.#pump = new CollectPump(parts.source, session);
    this.#full = new FullPolicy(this.#pump, parts.home, parts.onFull ?? "taint", (sentence) =>
      parts.onTrouble?.(sentence),
    );
  }

  /**
   * Opens the capture, becomes the ring's only reader, opens the logs of all applications that have live processes,
   * and collects. Throws RL_NO_RIGHTS, RL_NOT_SUPPORTED, RL_LOCKED, and what opening a log throws.
   */
  static async start(options: CollectorOptions): Promise<Collector> {
    const source = KernelSource.open(options);
    try {
      return await Collector.over({ ...options, source, openLog: openEventLog });
    } catch (error) {
      source.close();
      throw error;
    }
  }

  /** The same over any source and any log. The caller closes the source if this throws. */
  static async over(parts: CollectorParts): Promise<Collector> {
    const last = await lastSession(parts.home);
    const collector = new Collector(parts, last + 1);
    try {
      await collector.#openKnown(last);
    } catch (error) {
      await collector.#closeLogs();
      throw error;
    }
    parts.source.onWake(() => collector.#pause.end());
    collector.#running = collector.#run();
    return collector;
  }

  async #openKnown(last: number): Promise<void> {
    const logs = openKnownLogs({
      home: this.#parts.home,
      make: (name) => this.#newApp(name),
      runs: this.#parts.runs ?? (() => true),
      skipped: (log) => this.#passOver(log),
    });
    for await (const app of logs) {
      this.#pump.apps.set(app.name, app);
      this.#pump.admit(app, last);
    }
    await this.#resume();
    await beginSession(this.#parts.home, this.#pump.session);
  }

  #passOver(log: UnreadableLog): void {
    this.#unreadable.set(log.app, log);
    this.#parts.onTrouble?.(
      `the log of ${log.app} is passed over, nothing of it can be recorded until it is repaired or moved away: ${log.message}`,
    );
  }

  /** The reopened applications go on: recorded again where the programs are new, and part of this session. */
  async #resume(): Promise<void> {
    const { source } = this.#parts;
    for (const app of this.#pump.apps.values()) {
      for (const { state } of app.processes.values()) {
        if (!state.live) continue;
        if (state.holdLimitMs > 0) this.#holdOutput(state.cgroupId);
        source.select(state.cgroupId, true, state.incarnation);
      }
      this.#recallOpenings(app);
      app.touch();
      await this.#pump.commitApp(app);
      if (app.broken !== undefined) throw app.broken;
    }
  }

  /** Sends of sockets that exist: their receives may be to come. Those of closed ones are looked for in the log. */
  #recallOpenings(app: AppLog): void {
    const { source } = this.#parts;
    for (const { state } of app.processes.values()) {
      if (!state.live) continue;
      for (const entry of source.cut(state.cgroupId).entries)
        app.messages.known(namesToldBy(entry, source.bootId));
    }
  }

  #newApp(name: string): AppLog {
    const { home, openLog, source, node } = this.#parts;
    return new AppLog(name, join(home, name), openLog, source.bootId, node);
  }

  // ---- the loop

  async #run(): Promise<void> {
    let waitMs = MIN_POLL_MS;
    while (!this.#stopping) {
      try {
        const busy = await this.#serial.run(() => this.#cycle());
        const longest = this.#pump.wakesWhenDue ? IDLE_POLL_MS : MAX_POLL_MS;
        waitMs = busy === "idle" ? Math.min(waitMs * 2, longest) : MIN_POLL_MS;
        await this.#pause.wait(busy === "more" ? 0 : waitMs);
      } catch (error) {
        this.#fail(error);
      }
    }
  }

  async #cycle(): Promise<"idle" | "some" | "more"> {
    if (this.#stopping) return "idle";
    await this.#pump.recover();
    await this.#full.look();
    const position = this.#pump.source.readPosition();
    const more = this.#pump.read();
    this.#pump.pollVerdicts(VERDICT_POLL_MS);
    await this.#settleDue();
    await this.#closeIdle();
    if (more || this.#pump.commitDue(this.#intervalMs)) await this.#pump.commit();
    if (more) return "more";
    return this.#pump.source.readPosition() === position ? "idle" : "some";
  }

  #fail(error: unknown): void {
    this.#stopping = true;
    this.#fatal = error;
    this.#parts.onFatal?.(error);
  }

  /** Work that must not meet the loop half way. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#serial.run(() => {
      if (this.#fatal !== undefined) throw this.#fatal;
      if (this.#stopping) throw new TypeError("the collector is closed");
      return work();
    });
  }

  // ---- drain

  /**
   * On return all that recorded processes had done at call time is in the logs, of `app` alone or of all applications.
   * Throws RL_LOG_WRITE where a log stays unwritable, RL_TIMEOUT where a producer never finishes its slot or the ring stays full.
   */
  drain(app?: string): Promise<void> {
    return this.#exclusive(async () => {
      const one = app === undefined ? undefined : this.#pump.apps.get(app);
      if (app !== undefined && one === undefined) return; // nothing of it is recorded
      await this.#drainInto(one === undefined ? [...this.#pump.apps.values()] : [one]);
    });
  }

  /** Drains; the listed applications must have committed at the end. */
  async #drainInto(apps: readonly AppLog[]): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      await this.#pump.recover();
      await this.#full.look();
      await this.#flush(apps);
      await this.#settle(apps);
      this.#pump.takeVerdicts();
      await this.#pump.commit();
      const broken = apps.find((app) => app.broken !== undefined);
      if (broken?.broken === undefined) return;
      if (attempt >= LOG_RETRY_CALLER) throw broken.broken;
      await new Promise((resolve) =>
        setTimeout(resolve, 1 + Math.max(0, Math.ceil(broken.retryAtMs - performance.now()))),
      );
    }
  }

  /** The kernel tells all that their live processes did, and it is read. */
  async #flush(apps: readonly AppLog[]): Promise<void> {
    const { source } = this.#pump;
    const cgroups = apps.flatMap((app) =>
      app.broken === undefined ? [...app.processes.values()].filter(({ state }) => state.live) : [],
    );
    const ids = cgroups.map(({ state }) => state.cgroupId);
    await this.#whilePending(
      () => source.flush?.(ids) ?? false,
      () => apps.some((app) => app.broken !== undefined),
    );
  }

  /** Asks again while the ring has no room for what it would tell, then reads all that is there. `gaveUp`: the caller begins anew. */
  async #whilePending(ask: () => boolean, gaveUp: () => boolean = () => false): Promise<void> {
    const deadlineMs = performance.now() + FLUSH_LIMIT_MS;
    while (ask()) {
      await this.#readTo(this.#pump.source.producerPosition());
      await this.#pump.commit();
      if (gaveUp()) return;
      await this.#full.look();
      if (!(await this.#pump.recover())) await sleep(1);
      if (performance.now() > deadlineMs)
        throw new RecoveryLineError(
          "RL_TIMEOUT",
          "the kernel's ring stays full, so that it can't tell all that was done",
          "A log that can't be written holds it: free space or repair the disk.",
        );
    }
    await this.#readTo(this.#pump.source.producerPosition());
  }

  /** Openings and endings that wait are decided; the kernel has told what it knows (`#flush`). */
  async #settle(apps: readonly AppLog[]): Promise<void> {
    if (!apps.some(({ messages, broken }) => messages.waits && broken === undefined)) return;
    for (let waitMs = 1; waitMs > 0; ) {
      await this.#pump.commit(); // what is looked for in a log must be there
      waitMs = 0;
      for (const app of apps)
        if (app.broken === undefined) waitMs = Math.max(waitMs, await this.#settleOnce(app));
      if (waitMs === 0) return;
      await sleep(Math.min(waitMs, SETTLE_POLL_MS));
      await this.#readTo(this.#pump.source.producerPosition());
    }
  }

  /** Returns how long to wait until more can be decided, ms. */
  async #settleOnce(app: AppLog): Promise<number> {
    const populated = this.#parts.populated ?? (() => true);
    const settling = {
      populated: ({ name, state }: ProcessBuffer) =>
        state.live && populated({ app: app.name, process: name, cgroupId: state.cgroupId }),
      senderOf: (name: string) => app.senderOf(name),
      ownerOf: (channel: string, reverse: string) => app.ownerOf(channel, reverse),
      nowMs: performance.now(),
    };
    const failing = app.messages.settleFailing(settling);
    return Math.max(failing, await app.messages.settleReceives(settling));
  }

  /** The same for what has waited long enough, between drains. */
  async #settleDue(): Promise<void> {
    const now = performance.now();
    const due = [...this.#pump.apps.values()].filter(
      ({ messages, broken }) => broken === undefined && messages.due(now),
    );
    if (due.length === 0) return;
    await this.#flush(due);
    await this.#settle(due);
  }

  async #readTo(target: number): Promise<void> {
    const deadlineMs = performance.now() + BUSY_SLOT_MS;
    while (this.#pump.source.readPosition() < target) {
      if (this.#pump.read()) await this.#pump.commit();
      else if (this.#pump.source.readPosition() < target) await sleep(1);
      if (performance.now() > deadlineMs && this.#pump.source.readPosition() < target) {
        throw new RecoveryLineError(
          "RL_TIMEOUT",
          "a producer reserved a slot of the ring and never finished it",
        );
      }
    }
  }

  // ---- registrations

  /**
   * From now on everything in the cgroup is recorded as `process` of `app`; durable before the first record.
   * Each call begins a new incarnation. Throws RL_USAGE, RL_LIMIT, RL_LOG_WRITE and what selecting throws.
   */
  register(registration: Registration): Promise<{ incarnation: number }> {
    return this.#exclusive(async () => {
      this.#check(registration);
      const { cgroupId, holdLimitMs = 0 } = registration;
      if (holdLimitMs > 0) this.#holdOutput(cgroupId); // what can be refused comes before anything is changed
      const app = await this.#openApp(registration.app, true);
      const process = app.process(registration.process);
      if (registration.holdLimitMs === undefined && process.state.holdLimitMs > 0) this.#holdOutput(cgroupId);
      if (process.state.live) await this.#stop(process);
      await this.#begin(app.process(registration.process), registration);
      this.#pause.end(); // with nothing to record it waits longer
      return { incarnation: app.process(registration.process).state.incarnation };
    });
  }

  /** Durable first, then selected: no record of the cgroup comes before its registration. */
  async #begin(process: ProcessBuffer, registration: Registration): Promise<void> {
    const { cgroupId, trust, past, start, data, group } = registration;
    const { state, app } = process;
    state.live = true;
    state.holdLimitMs = registration.holdLimitMs ?? state.holdLimitMs;
    state.cgroupId = cgroupId;
    state.incarnation += 1;
    const again = past !== undefined || start !== undefined; // the same program as before
    state.trust = new Set(trust ?? (again ? state.trust : []));
    state.uncaptured.clear();
    state.shared = undefined;
    state.peers = [];
    app.datagrams.begins(
      process.name,
      ![...app.processes.values()].some((one) => one !== process && one.state.live),
    );
    if (registration.rules !== undefined) app.addRules(registration.rules);
    state.unseen = [];
    state.failed = false;
    state.exitStatus = undefined;
    state.task = registration.task;
    state.end = undefined;
    state.left = [];
    app.messages.restored(past?.connections ?? []);
    for (const reason of past?.uncaptured ?? []) state.uncaptured.add(reason);
    state.origin = originOf({
      start: start ?? state.origin.start,
      data: data ?? state.origin.data,
      group: group ?? state.origin.group,
    });
    state.changed = true;
    await this.#commitOrThrow(app);
    this.#pump.mapCgroups(app);
    try {
      this.#parts.source.select(cgroupId, true, state.incarnation);
    } catch (error) {
      await this.#forget(process);
      throw error;
    }
  }

  #check({ app, process, group, cgroupId }: Registration): void {
    for (const name of [app, process, ...(group === undefined ? [] : [group])]) {
      if (!PATH_NAME.test(name))
        throw new RecoveryLineError(
          "RL_USAGE",
          `"${name}" is not a name: letters, digits, . _ -, at most 64`,
        );
    }
    if (!Number.isSafeInteger(cgroupId) || cgroupId < 1) throw new TypeError("cgroupId is an integer ≥ 1");
    if (this.#pump.apps.get(app)?.rings.has(process))
      throw new RecoveryLineError(
        "RL_USAGE",
        `process ${process} of ${app} is recorded through memory rings`,
      );
    const other = this.#pump.byCgroup(cgroupId);
    if (other !== undefined && (other.name !== process || other.app.name !== app))
      throw new RecoveryLineError(
        "RL_USAGE",
        `cgroup ${cgroupId} is process ${other.name} of ${other.app.name} already`,
      );
    if (this.#pump.liveProcesses >= MAX_LIVE_PROCESSES)
      throw new RecoveryLineError("RL_LIMIT", `${MAX_LIVE_PROCESSES} processes are recorded already`);
  }

  /** How the command of a process that is recorded still ended: its last messages are understood by it. Stored with the next commit. */
  commandEnded(app: string, process: string, end: ProcessEnd): Promise<void> {
    return this.#exclusive(async () => {
      const { state } = await this.#process(app, process);
      state.end = end;
      state.exitStatus = "code" in end ? end.code : 128 + end.signal;
      state.changed = true;
    });
  }

  /** Tasks of it go on in another cgroup: what they do is missing from now on. Durable on return. */
  left(appName: string, name: string, tasks: readonly TaskName[]): Promise<void> {
    return this.#exclusive(async () => {
      const { app } = await this.#process(appName, name);
      await this.#drainInto([app]);
      const process = await this.#process(appName, name); // a failed log's processes are new objects
      const { state } = process;
      const known = (one: TaskName): boolean => tasks.some(({ pid }) => pid === one.pid);
      state.left = [...state.left.filter((one) => !known(one)), ...tasks].slice(-MAX_LEFT_TASKS);
      state.changed = true;
      const gaps = process.verdict("left");
      process.app.pending.events += gaps;
      process.app.pending.gaps += gaps;
      await this.#commitOrThrow(process.app);
    });
  }

  /** Processes of the application use something together that no record tells of. Durable on return; nothing is done where it is no news. */
  unseen(appName: string, found: readonly FoundChannel[]): Promise<void> {
    return this.#exclusive(async () => {
      const app = await this.#openApp(appName, false);
      if (unknownChannels(app, found).length === 0) return;
      await this.#drainInto([app]);
      const drained = await this.#openApp(appName, false); // a failed log's processes are new objects
      takeUnseen(drained, found);
      await this.#commitOrThrow(drained);
    });
  }

  /** The cgroup is recorded no longer; what it did so far is in the log on return. */
  unregister(app: string, process: string): Promise<void> {
    return this.#exclusive(async () => {
      const found = await this.#process(app, process);
      if (found.state.live) await this.#stop(found);
    });
  }

  /** Deselecting makes the kernel forget what it has not told: it is drained before. */
  async #stop(process: ProcessBuffer): Promise<void> {
    const { app, name } = process;
    await this.#drainInto([app]);
    this.#parts.source.select(process.state.cgroupId, false, process.state.incarnation);
    await this.#drainInto([app]); // what came between the two
    await this.#forget(app.process(name)); // a log that failed and came back has new objects
  }

  async #forget(process: ProcessBuffer): Promise<void> {
    process.state.live = false;
    process.state.changed = true;
    process.dropCache();
    this.#pump.mapCgroups(process.app);
    await this.#commitOrThrow(process.app);
  }

  async #commitOrThrow(app: AppLog): Promise<void> {
    app.touch();
    await this.#pump.commitApp(app);
    if (app.broken !== undefined) throw app.broken;
  }

  /** Logs of applications that nothing runs of any more take memory: LevelDB's buffers, what is known of their channels. */
  async #closeIdle(): Promise<void> {
    const now = performance.now();
    if (now < this.#nextIdleLookMs) return;
    this.#nextIdleLookMs = now + IDLE_LOOK_MS;
    const idle = [...this.#pump.apps.values()].filter((app) => app.isIdle);
    idle.sort((a, b) => a.usedAtMs - b.usedAtMs);
    const tooMany = idle.length - MAX_IDLE_LOGS;
    for (const [at, app] of idle.entries()) {
      if (at >= tooMany && now - app.usedAtMs < IDLE_LOG_MS) return;
      this.#ended.keep(app.name, collectedProcesses(app));
      this.#pump.apps.delete(app.name);
      await app.close();
    }
  }

  /** The application, its log open. Throws RL_UNKNOWN_APP where it has none. */
  async #openApp(name: string, create: boolean): Promise<AppLog> {
    const known = this.#pump.apps.get(name);
    if (known !== undefined) {
      known.usedAtMs = performance.now();
      return known;
    }
    if (!PATH_NAME.test(name) || (!create && !(await this.#hasLog(name))))
      throw new RecoveryLineError(
        "RL_UNKNOWN_APP",
        `there is no application "${name}" in ${this.#parts.home}`,
      );
    const app = this.#newApp(name);
    await app.open(create);
    // Whatever was live when its log was left behind has ended meanwhile, and its last records went by.
    app.reconcile(this.#pump.ringFacts, this.#pump.session);
    for (const cgroupId of app.endLive()) this.#parts.source.select(cgroupId, false, 0);
    app.skipBefore = this.#pump.source.readPosition();
    this.#unreadable.delete(name);
    this.#ended.forget(name);
    this.#pump.apps.set(name, app);
    if (app.pending.gaps > 0) await this.#pump.commitApp(app); // readers see committed blocks only
    return app;
  }

  async #hasLog(name: string): Promise<boolean> {
    return (await readdir(this.#parts.home)).includes(name);
  }

  async #process(appName: string, name: string): Promise<ProcessBuffer> {
    const app = await this.#openApp(appName, false);
    const process = app.processes.get(name);
    if (process !== undefined) return process;
    throw new RecoveryLineError("RL_UNKNOWN_PROCESS", `${appName} has no process "${name}"`);
  }

  // ---- output commit (daemon/hold-watch.ts)

  #holdOutput(cgroupId: number): void {
    const { source, node } = this.#parts;
    if (source.holdOutput === undefined || (node !== undefined && node.all.length > 1))
      throw new RecoveryLineError(
        "RL_NOT_SUPPORTED",
        `output can't be held by this collector: ${source.holdOutput === undefined ? "it captures nothing" : "the lines of several nodes are not known on one"}`,
        "Start the process without --hold-output.",
      );
    source.holdOutput(cgroupId);
  }

  /** Is there anybody whose output is held? */
  get holds(): boolean {
    for (const { processes } of this.#pump.apps.values())
      for (const { state } of processes.values()) if (state.live && state.holdLimitMs > 0) return true;
    return false;
  }

  /** Connections of recorded processes whose output waits, longest first. */
  waitingOutputs(): WaitingOutput[] {
    const { source } = this.#parts;
    const held = source.heldCount?.() ?? 0;
    if (held === this.#heldBefore) return []; // nothing waited then
    const waiting = (source.outputs?.() ?? [])
      .filter(({ free, wanted, released }) => !free && wanted > released)
      .sort((a, b) => a.since - b.since);
    this.#heldBefore = waiting.length === 0 ? held : undefined;
    return waiting.flatMap((output) => {
      const found = this.#pump.byCgroup(output.cgroupId);
      if (found === undefined) return [];
      const said = found.app.peers.rules.says(output.host, output.port);
      const place = { app: found.app.name, process: found.name, limitMs: found.state.holdLimitMs };
      return [{ ...output, ...place, inside: said?.side === "inside" }];
    });
  }

  /** Marks rise; whoever waits tries to send at once. */
  release(outputs: readonly Release[]): void {
    this.#parts.source.release?.(outputs);
  }

  /** What goes out although its process's output is held, or never will, stands with the process from now on; as it was told. */
  noteUnheld(): { readonly app: string; readonly process: string; readonly note: PeerNote }[] {
    const told = (this.#parts.source.takeUnheld?.() ?? []).map(
      (one) => [one.cgroupId, unheldNote(one)] as const,
    );
    return told.flatMap(([cgroupId, note]) => {
      const found = this.#pump.byCgroup(cgroupId);
      if (found === undefined) return [];
      found.state.meet(note);
      found.app.touch();
      return [{ app: found.app.name, process: found.name, note }];
    });
  }

  /** Something that people should know of a process whose log is open; false: it is known. */
  note(appName: string, name: string, note: PeerNote): boolean {
    const app = this.#pump.apps.get(appName);
    const state = app?.processes.get(name)?.state;
    const before = state?.peers;
    state?.meet(note);
    if (state?.peers === before) return false;
    app?.touch();
    return true;
  }

  /** The longest time in ms that the records' clock says since. */
  msSince(ns: number): number {
    return Math.max(0, (this.#parts.source.now() - ns) / 1e6);
  }

  // ---- memory rings

  /**
   * What a runtime did, with the next group commit; at once where it has ended. Its first batch begins its history: what the log held of
   * its entities is undone. After a throw (RL_USAGE, RL_CONTRADICTION, RL_LOG_WRITE, what opening a log throws) all runtimes of the
   * application must be turned away: what they did since stands in the log as a gap.
   */
  takeRings(batch: RingBatch): Promise<void> {
    return this.#exclusive(async () => {
      const app = await this.#openApp(batch.application, true);
      if (app.broken !== undefined) throw app.broken;
      try {
        takeRingBatch(app, batch);
      } catch (error) {
        app.endRings();
        throw error;
      } finally {
        this.#pump.took(batch.events.length + 1);
        this.#pause.end(); // with nothing to record it waits longer
      }
      if (batch.ended) await this.#commitOrThrow(app);
    });
  }

  // ---- policies

  /** What is plugged and what it remembers, as whoever plugged it wrote it. Throws RL_UNKNOWN_APP, and what opening a log throws. */
  policyOf(appName: string): Promise<{ readonly record: unknown; readonly memory: unknown }> {
    return this.#exclusive(async () => {
      const { policy, policyMemory } = await this.#openApp(appName, false);
      return { record: policy, memory: policyMemory };
    });
  }

  /** Durable on return, with all that was read before; after a throw (RL_LOG_WRITE) it may or may not be. */
  keepPolicy(appName: string, record: unknown, memory: unknown): Promise<void> {
    return this.#exclusive(async () => {
      const app = await this.#openApp(appName, false);
      app.policy = record;
      app.policyMemory = memory;
      await this.#commitOrThrow(app);
    });
  }

  /** Durable with the next commit of an open log, whatever that is for. */
  remember(appName: string, memory: unknown): void {
    const app = this.#pump.apps.get(appName);
    if (app !== undefined) app.policyMemory = memory;
  }

  /** What the processes of an open log have done, in numbers; ranges count from the first call on. */
  counts(appName: string): readonly ProcessCounts[] {
    const app = this.#pump.apps.get(appName);
    if (app === undefined) return [];
    app.counting = true;
    return [...app.processes.values()].map(({ counts }) => counts);
  }

  // ---- the reliable path

  /**
   * Drains, then appends the event, then commits: on return it is durable, and so is all its process did before.
   * `position` as docs/semantics.md, 1. A checkpoint of a process with uncaptured communication loses its `cut`.
   * Throws RL_CONTRADICTION (index that does not rise, rollback to nowhere), RL_UNKNOWN_PROCESS, RL_LOG_WRITE (then
   * it may or may not be in the log: `nextCheckpoint` and the log tell).
   */
  appendControl(appName: string, event: Event): Promise<{ position: number }> {
    return this.#exclusive(async () => {
      const { app } = await this.#process(appName, event.process);
      await this.#drainInto([app]);
      const process = await this.#process(appName, event.process); // a failed log's processes are new objects
      const position = process.control(await this.#withWholeCut(withoutUnsafeCut(event, process), process));
      process.app.pending.events += 1;
      await this.#pump.commit();
      if (process.app.broken !== undefined) throw process.app.broken;
      return { position };
    });
  }

  /** What the process has used and has no socket any more stands at the last offset that the log has. */
  async #withWholeCut(event: Event, process: ProcessBuffer): Promise<Event> {
    if (event.type !== "checkpoint" || event.cut === undefined) return event;
    const cut = await process.app.completeCut(process.name, event.cut);
    return cut === event.cut ? event : { ...event, cut };
  }

  /** A checkpoint index never handed out before, rising, also after rollbacks. */
  nextCheckpoint(appName: string, name: string): Promise<number> {
    return this.#exclusive(async () => {
      const { state } = await this.#process(appName, name);
      state.lastCheckpoint += 1;
      state.changed = true;
      return state.lastCheckpoint;
    });
  }

  /**
   * Reads the cut vector of a registered process, which should be frozen: its connections that exist. On return all that it did before is
   * read, too. Throws RL_USAGE where nothing of the cgroup is recorded, and what reading throws.
   */
  cut(cgroupId: number): Promise<CutAnswer> {
    return this.#exclusive(async () => {
      const { source } = this.#pump;
      let answer: SourceCut | undefined;
      await this.#whilePending(() => {
        answer = source.cut(cgroupId);
        return answer.pending;
      });
      this.#pump.takeVerdicts();
      const { complete, entries } = answer!;
      const uncaptured = [...(this.#pump.byCgroup(cgroupId)?.state.uncaptured ?? [])];
      return { ...cutOf(entries, source.bootId), complete, uncaptured };
    });
  }

  /** Announces connections that a restore is about to make: they keep their names and offsets. Throws RL_NOT_SUPPORTED. */
  expectRestore(entries: readonly CutEntry[]): void {
    const { source } = this.#parts;
    if (source.expectRestore === undefined)
      throw new RecoveryLineError("RL_NOT_SUPPORTED", "this capture takes no announcements of restores");
    source.expectRestore(entries);
  }

  /** How the process is started again; undefined where nobody said. Throws RL_UNKNOWN_APP, RL_UNKNOWN_PROCESS. */
  startRecipe(appName: string, name: string): Promise<StartRecipe | undefined> {
    return this.#exclusive(async () => (await this.#process(appName, name)).state.origin.start);
  }

  /** Directory trees that are part of the process's state; undefined: none. Throws RL_UNKNOWN_APP, RL_UNKNOWN_PROCESS. */
  processData(appName: string, name: string): Promise<ProcessData | undefined> {
    return this.#exclusive(async () => (await this.#process(appName, name)).state.origin.data);
  }

  /** They are so from now on. Durable on return. */
  keepData(appName: string, name: string, data: ProcessData): Promise<void> {
    return this.#exclusive(async () => {
      const { state, app } = await this.#process(appName, name);
      state.origin = originOf({ ...state.origin, data });
      state.changed = true;
      await this.#commitOrThrow(app);
    });
  }

  /** Exit status of a process's command, as a shell tells it, from who waited for it: whether its endings were the failure itself. */
  ended(appName: string, name: string, status: number): Promise<void> {
    return this.#exclusive(async () => {
      (await this.#process(appName, name)).state.exitStatus = status;
    });
  }

  /** Reasons of uncaptured, untrusted communication of a process since it was registered. */
  async uncaptured(appName: string, name: string): Promise<readonly string[]> {
    return this.#exclusive(async () => [...(await this.#process(appName, name)).state.uncaptured]);
  }

  /** Committed blocks behind chain number `since`, in chain order, once it is drained: a consistent prefix of the log, also while it grows. */
  async *readBlocks(appName: string, since = 0): AsyncGenerator<Uint8Array> {
    const app = await this.#exclusive(() => this.#drained(appName));
    yield* app.readBlocks(since);
  }

  /**
   * What the application's log holds once it is drained, for readers that take single blocks (`block`); undefined where it has only a
   * stream.
   */
  async committed(appName: string): Promise<CommittedLog | undefined> {
    return (await this.#exclusive(() => this.#drained(appName))).committed();
  }

  /** The application with all that its processes did; a log that can't be written now has what it has. */
  async #drained(appName: string): Promise<AppLog> {
    const app = await this.#openApp(appName, false);
    if (app.hasLive && app.broken === undefined) await this.#drainInto([app]);
    return app;
  }

  /** A committed block by its number. Throws `TypeError` for a number that the log does not hold. */
  async block(appName: string, chain: number): Promise<Uint8Array> {
    return (await this.#exclusive(() => this.#openApp(appName, false))).block(chain);
  }

  /** Seals the segments that hold everything drained so far: from then on they may be copied. */
  rotate(appName: string): Promise<void> {
    return this.#exclusive(async () => {
      await this.#drainInto([await this.#openApp(appName, false)]);
      await (await this.#openApp(appName, false)).rotate();
    });
  }

  /**
   * Removes whole segments of the log whose content no line of any future needs (log/plan-prune.ts); collection goes on meanwhile. `oldest`
   * must come from the evidence of all nodes' logs. With `keep` no more goes than that wants gone. Throws RL_UNKNOWN_APP, RL_LOG_WRITE, and
   * what reading throws.
   */
  async prune(appName: string, oldest: ReadonlyMap<string, number>, keep?: Keep): Promise<Pruned> {
    const app = await this.#exclusive(() => this.#openApp(appName, false));
    const { base, ...plan } = await app.planPrune(oldest, keep);
    if (base === undefined) return { bytes: 0, ...plan };
    // What was planned stays true while the log grows, also for a log that was opened anew.
    const removal = await this.#exclusive(async () => (await this.#openApp(appName, false)).prune(base));
    await removal?.removed;
    return { bytes: removal?.bytes ?? 0 };
  }

  /**
   * Applications whose open log is larger or older than is to be kept; seals what is so old that it should go in time. Throws what looking
   * at its files throws, and RL_LOG_WRITE.
   */
  async beyond(keep: Keep): Promise<string[]> {
    const found: string[] = [];
    for (const app of [...this.#pump.apps.values()]) {
      if (await app.isSealDue(keep)) await this.rotate(app.name);
      if (await app.isBeyond(keep)) found.push(app.name);
    }
    return found;
  }

  /** The processes that are recorded, and those that were: of the open applications all, of the others as far as they are remembered. */
  processes(): readonly CollectedProcess[] {
    return [...[...this.#pump.apps.values()].flatMap(collectedProcesses), ...this.#ended.all()];
  }

  /** Share of the ring that is not yet committed, 0 … 1. */
  get ringFill(): number {
    const { source } = this.#pump;
    return source.fillBytes() / source.ringBytes;
  }

  /** Counters for metrics. Throws a TypeError after `close`. */
  stats(): CollectorStats {
    const { counts, source } = this.#pump;
    const { lost, recursionMisses } = source.counters();
    const { events, bytes, ...rest } = counts;
    return {
      ...rest,
      events: [...events],
      bytes: [...bytes],
      lost,
      recursionMisses,
      userfaults: source.userfaultCounts?.(),
      ringBytes: source.ringBytes,
      ringFillBytes: source.fillBytes(),
      liveProcesses: this.#pump.liveProcesses,
      brokenApps: [...this.#pump.apps.values()].flatMap(({ name, broken }) =>
        broken === undefined ? [] : [{ app: name, code: broken.code, message: broken.message }],
      ),
      givenUpApps: [...this.#pump.apps.values()].filter(({ givenUp }) => givenUp).length,
      apps: [...this.#pump.apps.values()].map(statsOf),
      unreadableLogs: [...this.#unreadable.values()],
    };
  }

  /** Commits what was read, closes the logs and lets the ring go; the capture goes on recording into it. */
  async close(): Promise<void> {
    if (this.#stopping && this.#fatal === undefined) return;
    this.#stopping = true;
    this.#pause.end();
    await this.#running;
    await this.#serial.run(async () => {
      if (this.#fatal === undefined) await this.#pump.commit();
      await this.#closeLogs();
      this.#parts.source.close();
    });
  }

  async #closeLogs(): Promise<void> {
    for (const app of this.#pump.apps.values()) await app.close();
  }
}

function statsOf(app: AppLog): AppStats {
  const live = [...app.processes.values()].filter(({ state }) => state.live).length;
  return { app: app.name, ...app.costs, bufferBytes: app.bufferBytes, liveProcesses: live };
}

function unheldNote({ kind, host, port }: UnheldOutput): PeerNote {
  const peer = isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
  switch (kind) {
    case "datagram":
      return { what: "unheld", peer: "datagrams (UDP and all that is not TCP)" };
    case "socket":
      return { what: "unheld", peer: `a socket that was made in another cgroup, to ${peer}` };
    case "nameless":
      return { what: "stuck", peer: "a connection that the capture has no name for" };
    case "overflow":
      return { what: "stuck", peer: "connections beyond the number that may wait" };
  }
}

/** How often logs that may be closed are looked for, in ms. */
const IDLE_LOOK_MS = 1000;

/** How often it is looked whether a dying process has ended, in ms. */
const SETTLE_POLL_MS = 20;

/** Messages of one unit whose sends the log has for this socket. */
function namesToldBy({ flags, told, local, remote }: CutEntry, bootId: string): string[] {
  const channel = channelName((flags & RingFlag.UNIX) !== 0, bootId, local, remote);
  const names: string[] = [];
  if ((told & Told.OPEN_SENT) !== 0) names.push(`${channel}/open`);
  if ((told & Told.END_SENT) !== 0) names.push(`${channel}/end`);
  return names;
}

/** A cut that does not cover all communication would heal gaps it must not heal (semantics 11). */
function withoutUnsafeCut(event: Event, process: ProcessBuffer): Event {
  if (event.type !== "checkpoint" || process.state.uncaptured.size === 0) return event;
  const { cut: _, ...rest } = event;
  return rest;
}

function originOf(origin: { [K in keyof StoredOrigin]: StoredOrigin[K] | undefined }): StoredOrigin {
  const { start, data, group } = origin;
  return {
    ...(start === undefined ? {} : { start }),
    ...(data === undefined || data.roots.length === 0 ? {} : { data }),
    ...(group === undefined ? {} : { group }),
  };
}
