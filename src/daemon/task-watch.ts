/**
 * The tasks of recorded processes, so that one that goes on in another cgroup is not taken for ended.
 *
 * Looked at when a process is registered, while it stands still, and then in turn, a bounded number at a time: a task that comes and leaves
 * between two looks is not seen, its parents are.
 */

import { ProcessCgroup } from "../host/cgroups.ts";
import { tasksElsewhere } from "../host/process-end.ts";
import { startTicksOf } from "../host/process-tree.ts";
import type { CollectedProcess } from "../model/collector-answers.ts";
import { TASK_LOOKS, TASK_TURNS } from "../model/limits.ts";
import type { TaskName } from "../model/stored-process.ts";

interface Life {
  readonly incarnation: number;
  readonly tasks: Map<number, number>;
}

export class TaskWatch {
  /** By "app/process". */
  readonly #lives = new Map<string, Life>();
  #next = 0;

  /** Of the processes whose turn it is, those with tasks that have left since the last look. */
  leavers(processes: readonly CollectedProcess[]): { process: CollectedProcess; left: TaskName[] }[] {
    const found: { process: CollectedProcess; left: TaskName[] }[] = [];
    const most = Math.min(TASK_LOOKS, Math.ceil(processes.length / TASK_TURNS));
    for (let looks = most; looks > 0; looks -= 1) {
      const process = processes[this.#next++ % processes.length]!;
      const left = this.look(process);
      if (left.length > 0) found.push({ process, left });
    }
    return found;
  }

  /** Remembers who is in the cgroup now. Returns those that were and live elsewhere. */
  look(process: CollectedProcess): TaskName[] {
    const { tasks } = this.#life(process);
    const here = new Set(new ProcessCgroup(process.app, process.process).pids());
    const away = [...tasks].filter(([pid]) => !here.has(pid));
    for (const [pid] of away) tasks.delete(pid);
    for (const pid of here) {
      const startTicks = tasks.has(pid) ? undefined : startTicksOf(pid);
      if (startTicks !== undefined) tasks.set(pid, startTicks);
    }
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
    };
    this.#lives.set(key, life);
    return life;
  }
}
