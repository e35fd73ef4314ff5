/**
 * Which processes are recorded: registering, and noticing that one has ended.
 *
 * A process is live while anything runs in its cgroup. `run` brings its command's first task into the cgroup before it
 * registers it, so an empty cgroup always means ended, also for a collector that starts anew. Both steps look at the
 * cgroup under one lock: what has just been registered is never taken for what has ended.
 */
import { statSync } from "node:fs";
import type { Collector, Registration } from "../engine/collect.ts";
import type { IsPopulated } from "../engine/collect-options.ts";
import { Serial } from "../engine/serial.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { EMPTY_CGROUP_MS } from "../model/limits.ts";
import { ProcessCgroup } from "../restart/cgroups.ts";
import { holdCgroup } from "../restart/freeze.ts";
import { native } from "../ring/binding.ts";
import type { ProcessInfo, RegisterMode } from "./protocol.ts";

/** A parameter for processes whose cgroups lie elsewhere (tests, benches). */
export const inOwnCgroup: IsPopulated = ({ app, process, cgroupId }) => {
  const cgroup = new ProcessCgroup(app, process);
  return cgroup.id === cgroupId && cgroup.populated;
};

/**
 * Removes the cgroup of a process that has ended. False: not now; something is in it, or on its way there (`run` freezes it before, a
 * restore and a checkpoint lock it).
 */
function removeOwnCgroup({ app, process }: ProcessName): boolean {
  const cgroup = new ProcessCgroup(app, process);
  if (cgroup.id === undefined || !isOurs(cgroup)) return true;
  if (cgroup.populated || cgroup.freezing) return false;
  let lock: number;
  try {
    lock = holdCgroup(cgroup);
  } catch {
    return false;
  }
  try {
    return cgroup.remove();
  } finally {
    native().unlock(lock);
  }
}

/** A collector without rights (collect --user) leaves the cgroups that root made: `doctor --sweep` removes them. */
function isOurs({ path }: ProcessCgroup): boolean {
  const user = process.geteuid!();
  return user === 0 || statSync(path, { throwIfNoEntry: false })?.uid === user;
}

type ProcessName = Pick<ProcessInfo, "app" | "process">;

export class Membership {
  /** Processes whose cgroup is to go, and from when on it may, ms of `performance.now()`; by "app/process". */
  readonly #empty = new Map<string, ProcessName & { readonly fromMs: number }>();
  readonly #collector: Collector;
  readonly #isPopulated: IsPopulated;
  readonly #serial = new Serial();

  constructor(collector: Collector, isPopulated: IsPopulated = inOwnCgroup) {
    this.#collector = collector;
    this.#isPopulated = isPopulated;
  }

  /** Throws RL_LOCKED where the process runs already, RL_USAGE where `mode` does not fit what is known of it. */
  register(registration: Registration, mode: RegisterMode): Promise<{ incarnation: number }> {
    return this.#serial.run(async () => {
      const { app, process } = registration;
      const known = await this.#find(app, process);
      if (known?.live && known.cgroupId !== registration.cgroupId && this.#isPopulated(known))
        throw new RecoveryLineError("RL_LOCKED", `${app} has a running process ${process} already`);
      if (known !== undefined && mode === "first")
        throw new RecoveryLineError(
          "RL_USAGE",
          `${app} has a process ${process} with a history already`,
          "Take another name, or start it with --fresh: that logs that all it did before is undone.",
        );
      const answer = await this.#collector.register(registration);
      if (known !== undefined && mode === "fresh")
        await this.#collector.appendControl(app, { type: "rollback", process, checkpoint: 0 });
      return answer;
    });
  }

  /** The process as it stands in the log; undefined where there is none. */
  async #find(app: string, process: string): Promise<ProcessInfo | undefined> {
    try {
      await this.#collector.uncaptured(app, process); // opens the application's log
    } catch (error) {
      if (hasCode(error, "RL_UNKNOWN_APP") || hasCode(error, "RL_UNKNOWN_PROCESS")) return undefined;
      throw error;
    }
    return this.#collector.processes().find((one) => one.app === app && one.process === process);
  }

  /**
   * Ends the recording of every process whose cgroup is empty or gone; a while later such a cgroup is removed. Throws RL_LOG_WRITE; then
   * the next call tries again.
   */
  reap(): Promise<void> {
    return this.#serial.run(async () => {
      for (const process of this.#collector.processes()) {
        if (!process.live || this.#isPopulated(process)) continue;
        await this.#collector.unregister(process.app, process.process);
        this.#mayGo(process);
      }
      this.#removeEmpty();
    });
  }

  #mayGo({ app, process }: ProcessName): void {
    if (this.#isPopulated !== inOwnCgroup) return;
    this.#empty.set(`${app}/${process}`, { app, process, fromMs: performance.now() + EMPTY_CGROUP_MS });
  }

  #removeEmpty(): void {
    for (const [name, { fromMs, ...process }] of this.#empty) {
      if (performance.now() < fromMs) continue;
      this.#empty.delete(name);
      if (!this.#runs(process) && !removeOwnCgroup(process)) this.#mayGo(process);
    }
  }

  #runs({ app, process }: ProcessName): boolean {
    return this.#collector.processes().some((one) => one.live && one.app === app && one.process === process);
  }
}
