/**
 * Which processes are recorded: registering, and noticing that one has ended.
 *
 * A process is live while anything runs in its cgroup. `run` brings its command's first task into the cgroup before it
 * registers it, so an empty cgroup always means ended, also for a collector that starts anew. Both steps look at the
 * cgroup under one lock: what has just been registered is never taken for what has ended.
 */
import { statSync } from "node:fs";
import type { ProcessInfo, RegisterMode } from "../client/protocol.ts";
import type { Collector } from "../collect/collect.ts";
import type { IsPopulated } from "../collect/collect-options.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { type ContainerId, containerAt, containerEnd } from "../host/containers.ts";
import { removeEnded } from "../host/freeze.ts";
import { endOf, forgetEnd, type TaskElsewhere, tasksElsewhere } from "../host/process-end.ts";
import { startTicksOf } from "../host/process-tree.ts";
import { Serial } from "../host/serial.ts";
import { refuseOverlaps } from "../images/data/tree-users.ts";
import type { Registration } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { CONTAINER_END_MS, EMPTY_CGROUP_MS, END_WORD_MS } from "../model/limits.ts";
import type { ProcessData, TaskName } from "../model/stored-process.ts";
import { CgroupWatch } from "./cgroup-watch.ts";
import { EndWatch } from "./end-watch.ts";
import { TaskWatch } from "./task-watch.ts";

/** A parameter for processes whose cgroups lie elsewhere (tests, benches). */
export const inOwnCgroup: IsPopulated = ({ app, process, cgroupId }) => {
  const cgroup = new ProcessCgroup(app, process);
  return cgroup.id === cgroupId && cgroup.populated;
};

/** False: not now (`removeEnded`). */
function removeOwnCgroup({ app, process }: ProcessName): boolean {
  const cgroup = new ProcessCgroup(app, process);
  return cgroup.id === undefined || !isOurs(cgroup) || removeEnded(cgroup);
}

/** A collector without rights (collect --user) leaves the cgroups that root made: `doctor --sweep` removes them. */
function isOurs({ path }: ProcessCgroup): boolean {
  const user = process.geteuid!();
  return user === 0 || statSync(path, { throwIfNoEntry: false })?.uid === user;
}

/** The container that the process is; undefined: it is none. */
function containerOf({ app, process }: ProcessInfo): ContainerId | undefined {
  const cgroup = new ProcessCgroup(app, process);
  return cgroup.foreign ? containerAt(cgroup.path) : undefined;
}

function elsewhere({ app, process, left }: ProcessInfo): TaskElsewhere[] {
  return tasksElsewhere(left, app, process);
}

/** All that are in its cgroup. */
function tasksOf({ app, process }: ProcessName): TaskName[] {
  return new ProcessCgroup(app, process).pids().flatMap((pid) => {
    const startTicks = startTicksOf(pid);
    return startTicks === undefined ? [] : [{ pid, startTicks }];
  });
}

function stillElsewhere(app: string, process: string, away: readonly TaskElsewhere[]): RecoveryLineError {
  return new RecoveryLineError(
    "RL_LOCKED",
    `${process} of ${app} goes on in another cgroup: ${away.map(({ pid, cgroup }) => `process ${pid} in ${cgroup}`).join(", ")}`,
    "A second copy beside it would do everything twice. End it first.",
  );
}

/** Under the name of a container that is made anew; what its predecessor did stays done. */
function isNextLife(known: ProcessInfo | undefined, { follows }: Registration): boolean {
  return follows !== undefined && known?.follows === follows;
}

const lifeKey = ({ app, process, incarnation }: ProcessInfo): string => `${app}/${process}/${incarnation}`;

type ProcessName = Pick<ProcessInfo, "app" | "process">;
type Ended = ProcessName & { readonly task?: TaskName | undefined };

export class Membership {
  /** Processes whose cgroup is to go, and from when on it may, ms of `performance.now()`; by "app/process". */
  readonly #empty = new Map<string, Ended & { readonly fromMs: number }>();
  readonly #collector: Collector;
  readonly #isPopulated: IsPopulated;
  readonly #serial = new Serial();
  readonly #tasks = new TaskWatch();
  readonly #ends = new EndWatch();
  readonly #cgroups = new CgroupWatch(() => this.#onChange());
  #onChange: () => void = () => undefined;
  /** Since when the word is awaited how a process ended, ms of `performance.now()`; by "app/process/incarnation", as of the newest look. */
  readonly #awaited = new Map<string, number>();

  constructor(collector: Collector, isPopulated: IsPopulated = inOwnCgroup) {
    this.#collector = collector;
    this.#isPopulated = isPopulated;
  }

  /** `changed` is called when there may be something to reap, or to be looked at: one look follows it, and tells what comes then. */
  onChange(changed: () => void): void {
    this.#onChange = changed;
  }

  /** False: it waits for what nobody tells of. */
  get isTold(): boolean {
    return this.#awaited.size === 0 && this.#cgroups.tells;
  }

  /** Throws RL_LOCKED where the process runs already, RL_USAGE where `mode` does not fit what is known of it. */
  register(registration: Registration, mode: RegisterMode): Promise<{ incarnation: number }> {
    return this.#serial.run(async () => {
      const { app, process } = registration;
      const known = await this.#find(app, process);
      if (known?.live && known.cgroupId !== registration.cgroupId && this.#isPopulated(known))
        throw new RecoveryLineError("RL_LOCKED", `${app} has a running process ${process} already`);
      const isNew = mode === "first" || (mode === "attach" && !isNextLife(known, registration));
      if (known !== undefined && isNew && (await this.#hasHistory(known)))
        throw new RecoveryLineError(
          "RL_USAGE",
          `${app} has a process ${process} with a history already`,
          mode === "attach"
            ? "Take another name. A container that is made anew goes on under its name where it was attached with --follow before."
            : "Take another name, or start it with --fresh: that logs that all it did before is undone.",
        );
      const away = known === undefined || mode === "resume" ? [] : elsewhere(known);
      if (away.length > 0) throw stillElsewhere(app, process, away);
      if (registration.data !== undefined) this.#refuseOverlaps(registration, registration.data);
      const answer = await this.#collector.registrations.register(registration);
      this.#remember(registration);
      this.#onChange();
      if (known !== undefined && mode === "fresh")
        await this.#collector.append(app, { type: "rollback", process, checkpoint: 0 });
      return answer;
    });
  }

  /** What failed to start, or did nothing that anybody heard of, has left nothing to be undone. */
  async #hasHistory({ app, process }: ProcessName): Promise<boolean> {
    await this.#collector.drain(app); // it may have ended just now
    const known = await this.#find(app, process);
    return known !== undefined && known.lines > 0;
  }

  /** Trees that are part of the process's state from now on. Throws RL_REFUSED where another process has a part of one, RL_UNKNOWN_PROCESS. */
  keepData(app: string, process: string, data: ProcessData): Promise<void> {
    return this.#serial.run(async () => {
      await this.#collector.facts.data(app, process); // opens the application's log
      this.#refuseOverlaps({ app, process }, data);
      await this.#collector.facts.keepData(app, process, data);
    });
  }

  /** All processes of the application may come back, those of others only count while they live. */
  #refuseOverlaps({ app, process }: ProcessName, { roots }: ProcessData): void {
    const others = this.#collector
      .processes()
      .filter((one) => (one.app === app ? one.process !== process : one.live))
      .flatMap(({ app: of, process: name, data }) =>
        (data?.roots ?? []).map((root) => ({ process: of === app ? name : `${of}/${name}`, root })),
      );
    refuseOverlaps([...others, ...roots.map((root) => ({ process, root }))]);
  }

  /** It is recorded no longer. Where it goes on, what it does from now on is missing, as of one that left its cgroup. */
  detach(app: string, process: string): Promise<void> {
    return this.#serial.run(async () => {
      const known = await this.#find(app, process);
      const tasks = known?.live ? tasksOf(known) : [];
      if (tasks.length > 0) await this.#collector.facts.left(app, process, tasks);
      await this.#collector.registrations.unregister(app, process);
      if (known === undefined) return;
      this.#tasks.forget(known);
      this.#ends.forget(known);
    });
  }

  /** It stands still: whoever is in its cgroup now can't have left before it was seen. */
  #remember({ app, process }: ProcessName): void {
    if (this.#isPopulated !== inOwnCgroup) return;
    const known = this.#collector.processes().find((one) => one.app === app && one.process === process);
    if (known === undefined) return;
    this.#tasks.look(known);
    this.#ends.watch(known);
  }

  /** The process as it stands in the log; undefined where there is none. */
  async #find(app: string, process: string): Promise<ProcessInfo | undefined> {
    try {
      await this.#collector.facts.uncaptured(app, process); // opens the application's log
    } catch (error) {
      if (hasCode(error, "RL_UNKNOWN_APP") || hasCode(error, "RL_UNKNOWN_PROCESS")) return undefined;
      throw error;
    }
    return this.#collector.processes().find((one) => one.app === app && one.process === process);
  }

  /**
   * Ends the recording of every process whose cgroup is empty or gone, once it is known how it ended, or for the `last` time at once; a
   * while later such a cgroup is removed. Throws RL_LOG_WRITE; then the next call tries again.
   */
  reap(last = false): Promise<void> {
    return this.#serial.run(async () => {
      const populated: ProcessInfo[] = [];
      const awaited = new Set<string>();
      for (const process of this.#collector.processes()) {
        if (!process.live) continue;
        if (this.#isPopulatedStill(process, last)) populated.push(process);
        else if ((await this.#takeEnd(process)) || last) {
          await this.#collector.registrations.unregister(process.app, process.process);
          this.#mayGo(process);
        } else awaited.add(lifeKey(process));
      }
      for (const life of this.#awaited.keys()) if (!awaited.has(life)) this.#awaited.delete(life);
      await this.#lookForLeavers(populated);
      this.#removeEmpty();
      if (last) this.#ends.close();
      this.#cgroups.retain(last ? [] : populated);
    });
  }

  /** Looks where something may have changed; what is not found populated is forgotten, so that it is looked at again. */
  #isPopulatedStill(process: ProcessInfo, last: boolean): boolean {
    const looks = last || this.#isPopulated !== inOwnCgroup || this.#cgroups.isDue(process);
    return !looks || this.#isPopulated(process);
  }

  async #lookForLeavers(populated: readonly ProcessInfo[]): Promise<void> {
    if (this.#isPopulated !== inOwnCgroup) return;
    for (const process of populated) this.#ends.watch(process); // a collector that has started again opens them anew
    for (const { process, left } of this.#tasks.leavers(populated))
      await this.#collector.facts.left(process.app, process.process, left);
  }

  /** How a process ended whose cgroup is empty, and who of it goes on elsewhere. False: the word of that is awaited still. */
  async #takeEnd(info: ProcessInfo): Promise<boolean> {
    if (this.#isPopulated !== inOwnCgroup) return true;
    const { app, process, task } = info;
    const left = this.#tasks.look(info);
    if (left.length > 0) await this.#collector.facts.left(app, process, left);
    const container = containerOf(info);
    const waited = task === undefined ? undefined : (endOf(task) ?? this.#ends.endOf(info));
    const end = container === undefined ? waited : await containerEnd(container);
    const limitMs = container === undefined ? END_WORD_MS : CONTAINER_END_MS;
    if (end === undefined && task !== undefined && startTicksOf(task.pid) !== task.startTicks) {
      const life = lifeKey(info);
      const sinceMs = this.#awaited.get(life) ?? performance.now();
      this.#awaited.set(life, sinceMs);
      if (performance.now() - sinceMs < limitMs) return false;
    }
    if (end !== undefined) await this.#collector.facts.commandEnded(app, process, end);
    if (task !== undefined) forgetEnd(task);
    this.#tasks.forget(info);
    this.#ends.forget(info);
    return true;
  }

  #mayGo({ app, process, task }: Ended): void {
    if (this.#isPopulated !== inOwnCgroup) return;
    const fromMs = performance.now() + EMPTY_CGROUP_MS;
    this.#empty.set(`${app}/${process}`, { app, process, task, fromMs });
  }

  #removeEmpty(): void {
    for (const [name, { fromMs, ...process }] of this.#empty) {
      if (performance.now() < fromMs) continue;
      this.#empty.delete(name);
      if (process.task !== undefined) forgetEnd(process.task); // the kernel may have told it before its waiter did
      if (!this.#runs(process) && !removeOwnCgroup(process)) this.#mayGo(process);
    }
  }

  #runs({ app, process }: ProcessName): boolean {
    return this.#collector.processes().some((one) => one.live && one.app === app && one.process === process);
  }
}
