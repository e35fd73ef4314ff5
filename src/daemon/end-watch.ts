/**
 * How processes end that nobody of ours waits for: restored from an image, or attached. The kernel tells it (Linux 6.15) of one that was
 * opened while it ran; of an attached cgroup nobody knows which task is the one that counts. What it tells is how the first thread ended:
 * one whose first thread leaves the others behind (pthread_exit) and that is killed later is told as that thread left.
 */
import { closeSync } from "node:fs";
import { ProcessCgroup } from "../host/cgroups.ts";
import { startTicksOf, zombieStatus } from "../host/process-tree.ts";
import type { CollectedProcess } from "../model/collector-answers.ts";
import type { ProcessEnd } from "../model/stored-process.ts";
import { native } from "../native/binding.ts";

interface Watched {
  readonly incarnation: number;
  /** Undefined: nothing can be told of it. */
  readonly fd: number | undefined;
}

const CODE_SHIFT = 8;
const SIGNAL_MASK = 0x7f;

export class EndWatch {
  /** By "app/process". */
  readonly #watched = new Map<string, Watched>();

  /** While it runs; again and again costs nothing. */
  watch(process: CollectedProcess): void {
    if (this.#watched.get(keyOf(process))?.incarnation === process.incarnation) return;
    this.forget(process);
    this.#watched.set(keyOf(process), { incarnation: process.incarnation, fd: opened(process) });
  }

  /** Undefined: its parent has not waited for it yet, or nobody knows. */
  endOf({ task, ...process }: CollectedProcess): ProcessEnd | undefined {
    const watched = this.#watched.get(keyOf(process));
    if (watched?.fd === undefined || watched.incarnation !== process.incarnation) return undefined;
    const status =
      native().waitStatus(watched.fd) ??
      (task === undefined ? undefined : zombieStatus(task.pid, task.startTicks));
    if (status === undefined) return undefined;
    const signal = status & SIGNAL_MASK;
    return signal === 0 ? { code: status >> CODE_SHIFT } : { signal };
  }

  forget(process: Pick<CollectedProcess, "app" | "process">): void {
    const fd = this.#watched.get(keyOf(process))?.fd;
    if (fd !== undefined) closeSync(fd);
    this.#watched.delete(keyOf(process));
  }

  close(): void {
    for (const { fd } of this.#watched.values()) if (fd !== undefined) closeSync(fd);
    this.#watched.clear();
  }
}

function keyOf({ app, process }: Pick<CollectedProcess, "app" | "process">): string {
  return `${app}/${process}`;
}

function opened({ app, process, task }: CollectedProcess): number | undefined {
  if (task === undefined || new ProcessCgroup(app, process).foreign) return undefined;
  const fd = native().openProcess(task.pid);
  if (fd === undefined || startTicksOf(task.pid) === task.startTicks) return fd;
  closeSync(fd); // somebody else has its number now
  return undefined;
}
