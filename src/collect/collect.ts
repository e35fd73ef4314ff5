/**
 * The collector: ring → columns per process → logs of the applications → ring position.
 *
 * Promises: *acknowledged* (a returned `drain`, `append`, or a group commit) is never lost and never doubled,
 * across crashes of this process at any moment; whatever is missing stands in the log as a `gap`.
 * While a log can't be written, its records wait in the kernel ring and the other applications go on.
 */

import { KernelSource } from "../capture/kernel-source.ts";
import type { MemoryBatch } from "../capture/memory-rings.ts";
import { Pause } from "../host/pause.ts";
import { readSurroundings } from "../host/surroundings.ts";
import { openEventLog } from "../log/append-log.ts";
import type { AppStats, CollectedProcess, CollectorStats, CutAnswer } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import type { CutEntry, SourceCut } from "../model/event-source.ts";
import {
  COMMIT_INTERVAL_MS,
  IDLE_POLL_MS,
  MAX_POLL_MS,
  MIN_POLL_MS,
  VERDICT_POLL_MS,
} from "../model/limits.ts";
import type { FoundChannel } from "../model/unseen-channel.ts";
import type { AppLog } from "./app-log.ts";
import { cutOf } from "./collect-cut.ts";
import type { CollectorOptions, CollectorParts } from "./collect-options.ts";
import { CollectPump } from "./collect-pump.ts";
import { lastSession } from "./collect-session.ts";
import { CollectedLogs } from "./collected-logs.ts";
import { Drain } from "./drain.ts";
import { FullPolicy } from "./full-policy.ts";
import { HeldOutputs } from "./held-outputs.ts";
import { OpenApps } from "./open-apps.ts";
import { PolicyStates } from "./policy-states.ts";
import type { ProcessBuffer } from "./process-buffer.ts";
import { ProcessFacts } from "./process-facts.ts";
import { Registrations } from "./registrations.ts";
import type { RingSink } from "./ring-taker.ts";
import { takeRingBatch } from "./take-rings.ts";
import { takeUnseen, unknownChannels } from "./take-unseen.ts";
import { loosenTies, passMoment, takeTies, tiesChange, withTies } from "./ties.ts";
import { Turns } from "./turns.ts";

export class Collector implements RingSink {
  readonly registrations: Registrations;
  readonly facts: ProcessFacts;
  readonly logs: CollectedLogs;
  readonly policies: PolicyStates;
  readonly outputs: HeldOutputs;
  readonly #parts: CollectorParts;
  readonly #pump: CollectPump;
  readonly #full: FullPolicy;
  readonly #turns = new Turns();
  readonly #pause = new Pause();
  readonly #apps: OpenApps;
  readonly #drain: Drain;
  #running: Promise<void> = Promise.resolve();

  private constructor(parts: CollectorParts, session: number) {
    this.#parts = parts;
    this.#pump = new CollectPump(parts.source, session);
    this.#full = new FullPolicy(this.#pump, parts.home, parts.onFull ?? "taint", (sentence) =>
      parts.onTrouble?.(sentence),
    );
    this.outputs = new HeldOutputs(this.#pump, parts.node);
    this.#apps = new OpenApps(parts, this.#pump, this.outputs);
    this.#drain = new Drain(this.#pump, this.#full, {
      populated: parts.populated ?? (() => true),
      surroundings: parts.surroundings ?? readSurroundings,
    });
    const shared = {
      turns: this.#turns,
      pump: this.#pump,
      apps: this.#apps,
      drain: this.#drain,
      outputs: this.outputs,
      wake: () => this.#pause.end(),
    };
    this.registrations = new Registrations(shared);
    this.facts = new ProcessFacts(shared);
    this.logs = new CollectedLogs(shared);
    this.policies = new PolicyStates(shared);
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
      await collector.#apps.openKnown(last);
    } catch (error) {
      await collector.#apps.close();
      throw error;
    }
    parts.source.onWake(() => collector.#pause.end());
    collector.#running = collector.#run();
    return collector;
  }

  async #run(): Promise<void> {
    let waitMs = MIN_POLL_MS;
    while (!this.#turns.ended) {
      try {
        const busy = await this.#turns.always(() => this.#cycle());
        const longest = this.#pump.wakesWhenDue ? IDLE_POLL_MS : MAX_POLL_MS;
        waitMs = busy === "idle" ? Math.min(waitMs * 2, longest) : MIN_POLL_MS;
        await this.#pause.wait(busy === "more" ? 0 : waitMs);
      } catch (error) {
        this.#fail(error);
      }
    }
  }

  async #cycle(): Promise<"idle" | "some" | "more"> {
    if (this.#turns.ended) return "idle";
    await this.#pump.recover();
    await this.#full.look();
    const position = this.#pump.source.readPosition();
    const more = this.#pump.read();
    this.#pump.pollVerdicts(VERDICT_POLL_MS);
    await this.#drain.settleDue();
    await this.#apps.closeIdle();
    if (more || this.#pump.commitDue(this.#parts.commitIntervalMs ?? COMMIT_INTERVAL_MS))
      await this.#pump.commit();
    if (more) return "more";
    return this.#pump.source.readPosition() === position ? "idle" : "some";
  }

  #fail(error: unknown): void {
    this.#turns.fail(error);
    this.#parts.onFatal?.(error);
  }

  /**
   * On return all that recorded processes had done at call time is in the logs, of `app` alone or of all applications.
   * Throws RL_LOG_WRITE where a log stays unwritable, RL_TIMEOUT where a producer never finishes its slot or the ring stays full.
   */
  drain(app?: string): Promise<void> {
    return this.#turns.run(async () => {
      const one = app === undefined ? undefined : this.#pump.apps.get(app);
      if (app !== undefined && one === undefined) return; // nothing of it is recorded
      await this.#drain.into(one === undefined ? [...this.#pump.apps.values()] : [one]);
    });
  }

  /** See `RingSink`. */
  takeRings(batch: MemoryBatch): Promise<void> {
    return this.#turns.run(async () => {
      const app = await this.#apps.open(batch.application, true);
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
      if (batch.ended) await this.#apps.commit(app);
    });
  }

  /**
   * Processes of the application use something together that no record tells of. `all`: and nothing else. Durable on return; nothing is done
   * where it is no news.
   */
  unseen(appName: string, found: readonly FoundChannel[], all = false): Promise<void> {
    return this.#turns.run(async () => {
      const app = await this.#apps.open(appName, false);
      if (unknownChannels(app, found).length === 0 && !tiesChange(app, found, all)) return;
      await this.#drain.into([app]);
      const drained = await this.#apps.open(appName, false); // a failed log's processes are new objects
      takeUnseen(drained, found);
      takeTies(drained, found, all);
      await this.#apps.commit(drained);
    });
  }

  /**
   * Drains, then appends the event, then commits: on return it is durable, and so is all its process did before.
   * `position` as docs/semantics.md, 1. A checkpoint of a process with uncaptured communication loses its `cut`.
   * Throws RL_CONTRADICTION (index that does not rise, rollback to nowhere), RL_UNKNOWN_PROCESS, RL_LOG_WRITE (then
   * it may or may not be in the log: `nextCheckpoint` and the log tell).
   */
  async append(appName: string, event: Event): Promise<{ position: number }> {
    const { positions } = await this.appendAll(appName, [event]);
    return { position: positions[0]! };
  }

  /**
   * The same of events of several processes: all of them are in the log, or none. Checkpoints among them are of one moment. `held` is looked
   * at once all is drained (what processes do from then on comes after the events): RL_TIMEOUT where `inTime` says no, RL_UNKNOWN_PROCESS where
   * a process has another incarnation than its event is of (`lives`).
   */
  appendAll(
    appName: string,
    events: readonly [Event, ...Event[]],
    held?: { inTime(): boolean; readonly lives: readonly number[] },
  ): Promise<{ positions: number[] }> {
    return this.#turns.run(async () => {
      const { app } = await this.#apps.process(appName, events[0].process);
      await this.#drain.into([app]);
      const wholes: [ProcessBuffer, Event][] = [];
      for (const event of events) {
        const process = await this.#apps.process(appName, event.process); // a failed log's processes are new objects
        wholes.push([process, await this.#withWholeCut(withoutUnsafeCut(event, process), process)]);
      }
      if (held?.inTime() === false)
        throw new RecoveryLineError("RL_TIMEOUT", `${appName} goes on already: nothing of it is recorded`);
      const dead = held && wholes.find(([{ state }], at) => state.incarnation !== held.lives[at]);
      if (dead !== undefined) throw hasOtherLife(dead[0]);
      for (const [{ state }, event] of wholes) state.check(event);
      const positions = wholes.map(([process, event]) => process.control(event));
      for (const { type, process } of events) if (type === "rollback") loosenTies(wholes[0]![0].app, process);
      const drained = wholes[0]![0].app;
      drained.pending.events += events.length;
      const checkpoints = events.filter(({ type }) => type === "checkpoint");
      passMoment(
        drained,
        checkpoints.map(({ process }) => process),
      );
      await this.#pump.commit();
      if (drained.broken !== undefined) throw drained.broken;
      return { positions };
    });
  }

  /** What the process has used and has no socket any more stands at the last offset that the log has. */
  async #withWholeCut(event: Event, process: ProcessBuffer): Promise<Event> {
    if (event.type !== "checkpoint" || event.cut === undefined) return event;
    const cut = await process.app.completeCut(process.name, event.cut);
    return cut === event.cut ? event : { ...event, cut };
  }

  /**
   * A checkpoint index never handed out before, rising, also after rollbacks. `unused`: the caller got it earlier and recorded nothing by it; it
   * gets it again where nobody has got a later one.
   */
  nextCheckpoint(appName: string, name: string, unused?: number): Promise<number> {
    return this.#turns.run(async () => {
      const { state } = await this.#apps.process(appName, name);
      if (unused !== undefined && state.unusedCheckpoint === unused) return unused;
      state.lastCheckpoint += 1;
      state.unusedCheckpoint = state.lastCheckpoint;
      state.changed = true;
      return state.lastCheckpoint;
    });
  }

  /**
   * Reads the cut vector of a registered process, which should be frozen: its connections that exist. On return all that it did before is
   * read, too. Throws RL_UNKNOWN_PROCESS where nothing of the cgroup is recorded, and what reading throws.
   */
  cut(cgroupId: number): Promise<CutAnswer> {
    return this.#turns.run(async () => {
      const { source } = this.#pump;
      let answer: SourceCut | undefined;
      await this.#drain.whilePending(() => {
        answer = source.cut(cgroupId);
        return answer.pending;
      });
      this.#pump.takeVerdicts();
      const { complete, entries } = answer!;
      const process = this.#pump.byCgroup(cgroupId);
      const { cut, details } = cutOf(entries, source.bootId);
      const whole = process === undefined ? cut : withTies(cut, process);
      return { cut: whole, details, complete, uncaptured: [...(process?.state.uncaptured ?? [])] };
    });
  }

  /** Announces connections that a restore is about to make: they keep their names and offsets. Throws RL_NOT_SUPPORTED. */
  expectRestore(entries: readonly CutEntry[]): void {
    this.#parts.source.expectRestore(entries);
  }

  /** The processes that are recorded, and those that were: of the open applications all, of the others as far as they are remembered. */
  processes(): readonly CollectedProcess[] {
    return this.#apps.processes();
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
      userfaults: source.userfaultCounts(),
      ringBytes: source.ringBytes,
      ringFillBytes: source.fillBytes(),
      liveProcesses: this.#pump.liveProcesses,
      brokenApps: [...this.#pump.apps.values()].flatMap(({ name, broken }) =>
        broken === undefined ? [] : [{ app: name, code: broken.code, message: broken.message }],
      ),
      givenUpApps: [...this.#pump.apps.values()].filter(({ givenUp }) => givenUp).length,
      apps: [...this.#pump.apps.values()].map(statsOf),
      unreadableLogs: this.#apps.unreadable,
    };
  }

  /** Commits what was read, closes the logs and lets the ring go; the capture goes on recording into it. */
  async close(): Promise<void> {
    if (this.#turns.ended && !this.#turns.failed) return;
    this.#turns.end();
    this.#pause.end();
    await this.#running;
    await this.#turns.always(async () => {
      if (!this.#turns.failed) await this.#pump.commit();
      await this.#apps.close();
      this.#parts.source.close();
    });
  }
}

function statsOf(app: AppLog): AppStats {
  const live = [...app.processes.values()].filter(({ state }) => state.live).length;
  return { app: app.name, ...app.costs, bufferBytes: app.bufferBytes, liveProcesses: live };
}

function hasOtherLife({ name, app }: ProcessBuffer): RecoveryLineError {
  return new RecoveryLineError(
    "RL_UNKNOWN_PROCESS",
    `process ${name} of ${app.name} has ended, and another life of it is recorded: nothing is recorded of the one before`,
    "Call again, for the one that runs now.",
  );
}

/** A cut that does not cover all communication would heal gaps it must not heal (semantics 11). */
function withoutUnsafeCut(event: Event, process: ProcessBuffer): Event {
  if (event.type !== "checkpoint" || process.state.uncaptured.size === 0) return event;
  const { cut: _, ...rest } = event;
  return rest;
}
