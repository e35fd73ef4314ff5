/** Facts of /proc about the processes of a cgroup. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { RecoveryLineError } from "../model/errors.ts";

/**
 * Fields of /proc/PID/stat behind the name, which may hold anything: [0] state, [1] parent, [2] group, [3] session, [17] threads,
 * [19] when it began, in ticks since boot.
 */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

const THREAD_COUNT = 17;
const START_TICKS = 19;

/** When a process began that has not ended, in ticks since boot: together with its number it names it. Undefined where it has. */
export function startTicksOf(pid: number): number | undefined {
  const fields = statFields(pid);
  return fields === undefined || isZombie(fields) ? undefined : Number(fields[START_TICKS]);
}

/** Of one that has ended and whose parent has not waited for it, what wait(2) will tell that. Undefined: it runs, is gone or another, or only root may know. */
export function zombieStatus(pid: number, startTicks: number): number | undefined {
  const fields = process.geteuid!() === 0 ? statFields(pid) : undefined; // to others the kernel says 0
  if (fields === undefined || !isZombie(fields) || Number(fields[START_TICKS]) !== startTicks)
    return undefined;
  return Number(fields.at(-1));
}

/** What a process runs, as the kernel names it; "?" where it is gone. */
export function programName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "?";
  }
}

const FLAGS = 6;
const PF_KTHREAD = 0x200000;

export function isKernelThread(pid: number): boolean {
  const flags = statFields(pid)?.[FLAGS];
  return flags !== undefined && (Number(flags) & PF_KTHREAD) !== 0;
}

/** The process and all that descend from it now. */
export function withDescendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const parent = /^\d+$/.test(name) ? statFields(Number(name))?.[1] : undefined;
    if (parent !== undefined) parents.set(Number(name), Number(parent));
  }
  const found = new Set([pid]);
  for (let before = 0; before < found.size; ) {
    before = found.size;
    for (const [one, parent] of parents) if (found.has(parent)) found.add(one);
  }
  return [...found];
}

/** Session of a process; undefined where it is gone. */
export function sessionOf(pid: number): number | undefined {
  const session = statFields(pid)?.[3];
  return session === undefined ? undefined : Number(session);
}

/** Those of the set that are no children of others. */
export function treeRoots(pids: readonly number[]): number[] {
  const members = new Set(pids);
  return pids.filter((pid) => {
    const parent = statFields(pid)?.[1];
    return parent !== undefined && !members.has(Number(parent));
  });
}

/** The one of the set that is no child of another; `name`: the process that they are. Throws RL_DRIVER where there is none, or more than one. */
export function treeRoot(pids: readonly number[], name: string): number {
  return onlyRoot(treeRoots(pids), name);
}

/** The same of the roots of a set. */
export function onlyRoot(roots: readonly number[], name: string): number {
  if (roots.length === 1) return roots[0]!;
  throw new RecoveryLineError(
    "RL_DRIVER",
    roots.length === 0
      ? `nothing of ${name} runs any more: there is nothing to checkpoint`
      : `${name} is ${roots.length} separate trees (roots ${roots.slice(0, 8).join(", ")}): one image holds one tree`,
    roots.length === 0
      ? ""
      : "A program that puts itself into the background loses its parent; run it in the foreground.",
  );
}

/** It has ended and was not waited for. A first thread that ended before the others is a zombie by name only. */
function isZombie(fields: readonly string[]): boolean {
  return /^[ZX]$/.test(fields[0] ?? "") && Number(fields[THREAD_COUNT]) <= 1;
}

/**
 * A living process outside of the set whose parent is inside; undefined where there is none. One that has ended and was not waited for
 * stands in no cgroup.procs, also where it never left the cgroup, and is nothing but its exit status: CRIU keeps that with its parent.
 */
export function childOutside(pids: readonly number[]): number | undefined {
  const members = new Set(pids);
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || members.has(pid)) continue;
    const fields = statFields(pid);
    if (fields !== undefined && members.has(Number(fields[1])) && !isZombie(fields)) return pid;
  }
  return undefined;
}

/** The living process that has an id, as its own or as a thread's; undefined where nobody has, or it has ended and was not waited for. */
export function holderOf(id: number): number | undefined {
  const fields = statFields(id);
  if (fields === undefined || isZombie(fields)) return undefined;
  try {
    return Number(/^Tgid:\s*(\d+)/m.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1] ?? id);
  } catch {
    return undefined; // it has ended
  }
}

/** Who has to wait for a process that has ended and still has an id; undefined where the id is free or its process lives. */
export function waiterFor(id: number): number | undefined {
  const fields = statFields(id);
  return fields !== undefined && isZombie(fields) ? Number(fields[1]) : undefined;
}

/**
 * A process that waits until its child has another memory (vfork, posix_spawn): stopped between the two nobody can go on, and CRIU waits
 * for ever. Undefined where none does.
 */
export function inVfork(pids: readonly number[]): number | undefined {
  return pids.find((pid) => {
    try {
      return readdirSync(`/proc/${pid}/task`).some((task) =>
        /^(?:kernel_clone|_do_fork|wait_for_vfork_done)$/.test(
          readFileSync(`/proc/${pid}/task/${task}/wchan`, "utf8"),
        ),
      );
    } catch {
      return false; // gone
    }
  });
}

/**
 * One of the ids that the kernel can't give to a new process yet: a task has it, or a process not yet waited for still counts
 * to a group or session of that number. Undefined where all are free.
 */
export function idInUse(ids: readonly number[]): number | undefined {
  const there = ids.find((id) => existsSync(`/proc/${id}`)); // also a thread, which has no name in the listing
  if (there !== undefined) return there; // one look each, before one at everybody
  const used = new Set<number>();
  for (const name of readdirSync("/proc")) {
    const fields = /^\d+$/.test(name) ? statFields(Number(name)) : undefined;
    if (fields !== undefined) used.add(Number(name)).add(Number(fields[2])).add(Number(fields[3]));
  }
  return ids.find((id) => used.has(id));
}
