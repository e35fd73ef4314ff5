/** Which cgroups are recorded, and as whom. */

import type { Registration } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { EventSource } from "../model/event-source.ts";
import { ATTACHED } from "../model/gap-reasons.ts";
import { MAX_LIVE_PROCESSES } from "../model/limits.ts";
import { isAppName, PATH_NAME } from "../model/names.ts";
import type { CollectPump } from "./collect-pump.ts";
import type { Drain } from "./drain.ts";
import type { HeldOutputs } from "./held-outputs.ts";
import type { OpenApps } from "./open-apps.ts";
import type { ProcessBuffer } from "./process-buffer.ts";
import { originOf, selectProcess } from "./process-state.ts";
import type { Shared } from "./shared.ts";
import type { Turns } from "./turns.ts";

export class Registrations {
  readonly #source: EventSource;
  readonly #turns: Turns;
  readonly #pump: CollectPump;
  readonly #apps: OpenApps;
  readonly #drain: Drain;
  readonly #outputs: HeldOutputs;
  readonly #wake: () => void;

  constructor({ turns, pump, apps, drain, outputs, wake }: Shared) {
    this.#source = pump.source;
    this.#turns = turns;
    this.#pump = pump;
    this.#apps = apps;
    this.#drain = drain;
    this.#outputs = outputs;
    this.#wake = wake;
  }

  /**
   * From now on everything in the cgroup is recorded as `process` of `app`; durable before the first record.
   * Each call begins a new incarnation. Throws RL_USAGE, RL_LIMIT, RL_LOG_WRITE and what selecting throws.
   */
  register(registration: Registration): Promise<{ incarnation: number }> {
    return this.#turns.run(async () => {
      this.#check(registration);
      const { cgroupId, holdLimitMs = 0 } = registration;
      if (holdLimitMs > 0) this.#outputs.hold(cgroupId); // what can be refused comes before anything is changed
      const app = await this.#apps.open(registration.app, true);
      const process = app.process(registration.process);
      if (registration.holdLimitMs === undefined && process.state.holdLimitMs > 0)
        this.#outputs.hold(cgroupId);
      if (process.state.live) await this.#stop(process);
      await this.#begin(app.process(registration.process), registration);
      this.#wake(); // with nothing to record it waits longer
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
    state.attached = registration.attached ?? (past === undefined ? undefined : state.attached);
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
      follows: past === undefined ? registration.follows : state.origin.follows,
    });
    state.changed = true;
    if (registration.attached !== undefined) {
      process.control({ type: "gap", process: process.name, reason: ATTACHED }); // the first line of this life
      app.pending.events += 1;
    }
    await this.#apps.commit(app);
    this.#pump.mapCgroups(app);
    try {
      selectProcess(state, this.#source);
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
    if (!isAppName(app)) throw new RecoveryLineError("RL_USAGE", `"${app}" is reserved`);
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

  /** The cgroup is recorded no longer; what it did so far is in the log on return. */
  unregister(app: string, process: string): Promise<void> {
    return this.#turns.run(async () => {
      const found = await this.#apps.process(app, process);
      if (found.state.live) await this.#stop(found);
    });
  }

  /** Deselecting makes the kernel forget what it has not told: it is drained before. */
  async #stop(process: ProcessBuffer): Promise<void> {
    const { app, name } = process;
    await this.#drain.into([app]);
    this.#source.select(process.state.cgroupId, false, process.state.incarnation);
    await this.#drain.into([app]); // what came between the two
    await this.#forget(app.process(name)); // a log that failed and came back has new objects
  }

  async #forget(process: ProcessBuffer): Promise<void> {
    process.state.live = false;
    process.state.changed = true;
    process.dropCache();
    this.#pump.mapCgroups(process.app);
    await this.#apps.commit(process.app);
  }
}
