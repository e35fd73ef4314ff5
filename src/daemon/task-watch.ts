/**
 * The tasks of recorded processes, so that one that goes on in another cgroup is not taken for ended.
 *
 * Looked at when a process is registered, while it stands still, and then in turn, a bounded number at a time: a task that comes and leaves
 * between two looks is not seen, its parents are. Where nothing of the application has run since, nobody has come or left by himself.
 */

import { ProcessCgroup, processorTime } from "../host/cgroups.ts";
import { tasksElsewhere } from "../host/process-end.ts";
import { startTicksOf } from "../host/process-tree.ts";
import type { CollectedProcess } from "../model/collector-answers.ts";
import { TASK_LOOKS, TASK_ROUND_MS, TASK_SLEEP_LOOK_MS } from "../model/limits.ts";
import type { TaskName } from "../model/stored-process.ts";

interface Life {
  readonly incarnation: number;
  readonly tasks: Map<number, number>;
  /** At the newest look: when, ms of `performance.now()`, and the processor time that its application had used then. */
  lookedMs: number;
  used: number | undefined;
}

export class TaskWatch {
  /** By "app/process". */
  readonly #lives = new Map<string, Life>();
  #next = 0;
  #turnMs = Number.NEGATIVE_INFINITY;

  /** Of the processes whose turn it is, those with tasks that have left since the last look. */
  leavers(processes: readonly CollectedProcess[]): { process: CollectedProcess; left: TaskName[] }[] {
    const found: { process: CollectedProcess; left: TaskName[] }[] = [];
    const used = new Map<string, number | undefined>();
    for (let turns = this.#turns(processes.length); turns > 0; turns -= 1) {
      const process = processes[this.#next++ % processes.length]!;
      const { app } = process;
      if (!used.has(app)) used.set(app, processorTime(app));
      if (this.#sleeps(process, used.get(app))) continue;
      const left = this.look(process, used.get(app));
      if (left.length > 0) found.push({ process, left });
    }
    return found;
  }

  /** How many get their turn now. */
  #turns(count: number): number {
    const nowMs = performance.now();
    const share = Math.min(1, (nowMs - this.#turnMs) / TASK_ROUND_MS);
    this.#turnMs = nowMs;
    return Math.min(TASK_LOOKS, Math.ceil(count * share));
  }

  #sleeps(process: CollectedProcess, used: number | undefined): boolean {
    const life = this.#life(process);
    return used !== undefined && life.used === used && performance.now() - life.lookedMs < TASK_SLEEP_LOOK_MS;
  }

  /** Remembers who is in the cgroup now. Returns those that were and live elsewhere. `used`: by its application, read before. */
  look(process: CollectedProcess, used?: number): TaskName[] {
    const life = this.#life(process);
    const { tasks } = life;
    life.used = used;
    life.lookedMs = performance.now();
    const here = new Set(new ProcessCgroup(process.app, process.process).pids());
    const away = [...tasks].filter(([pid]) => !here.has(pid));
    for (const [pid] of away) tasks.delete(pid);
    for (const pid of here) {
      const startTicks = tasks.has(pid) ? undefined : startTicksOf(pid);
      if (startTicks !== undefined) tasks.set(pid, startTicks);
    }
    if (away.length === 0) return [];
    return tasksElsewhere(
      away.map(([pid, startTicks]) => ({ pid, startTicks })),
      process.app,
      process.process,
    ).map(({ pid, startTicks }) => ({ pid, startTicks }));
  }

  forget({ app, process }: CollectedProcess): void {
    this.#lives.delete(`${app}/${process}`);
  }

  /** A collector that starts anew knows of a process's tasks what its log says: the first one. */
  #life({ app, process, incarnation, task }: CollectedProcess): Life {
    const key = `${app}/${process}`;
    const known = this.#lives.get(key);
    if (known?.incarnation === incarnation) return known;
    const life = {
      incarnation,
      tasks: new Map(task === undefined ? [] : [[task.pid, task.startTicks]]),
      lookedMs: Number.NEGATIVE_INFINITY,
      used: undefined,
    };
    this.#lives.set(key, life);
    return life;
  }
}
