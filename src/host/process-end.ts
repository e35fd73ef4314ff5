/**
 * How a process ended, and where its tasks are that went on elsewhere.
 *
 * `run` (or, for a detached command, native/wait) leaves a file `<pid>-<start>` in a folder of its own user in /run: "exited 3" or
 * "killed 9". The collector takes it when the process's cgroup is empty; it goes with the machine's memory, as the process does.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ENDS_KEPT, ENDS_KEPT_MS } from "../model/limits.ts";
import type { ProcessEnd, TaskName } from "../model/stored-process.ts";
import { cgroupOf, ProcessCgroup } from "./cgroups.ts";
import { startTicksOf } from "./process-tree.ts";

/** A task that runs outside of its process's cgroup. */
export interface TaskElsewhere {
  readonly pid: number;
  /** Path in the hierarchy of cgroup v2. */
  readonly cgroup: string;
}

/** Where the ends of commands that this user starts are left; undefined where there is no place for them. */
export function endsFolder(): string | undefined {
  const runtime = process.geteuid!() === 0 ? "/run" : process.env["XDG_RUNTIME_DIR"];
  if (!runtime) return undefined;
  const folder = join(runtime, "recovery-line-ends");
  try {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    dropOldEnds(folder, Date.now());
    return folder;
  } catch {
    return undefined;
  }
}

/** Ends that no collector has taken, as its home is gone: a few that are old go when the next command starts. */
export function dropOldEnds(folder: string, nowMs: number): void {
  const files = readdirSync(folder);
  if (files.length <= ENDS_KEPT) return;
  const aged = files.map((name) => ({
    name,
    ms: statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? nowMs,
  }));
  aged.sort((a, b) => a.ms - b.ms);
  for (const { name, ms } of aged.slice(0, files.length - ENDS_KEPT))
    if (nowMs - ms > ENDS_KEPT_MS) rmSync(join(folder, name), { force: true });
}

/** The same as native/wait does for a detached command. */
export function leaveEnd(task: TaskName, end: ProcessEnd): void {
  const folder = endsFolder();
  if (folder === undefined) return;
  const file = join(folder, nameOf(task));
  try {
    writeFileSync(`${file}.new`, "code" in end ? `exited ${end.code}\n` : `killed ${end.signal}\n`, {
      flag: "wx",
      mode: 0o644,
    });
    renameSync(`${file}.new`, file);
  } catch {} // then nobody knows how it ended
}

/** Undefined: it has not ended, or nobody waited for it. */
export function endOf(task: TaskName): ProcessEnd | undefined {
  for (const folder of folders()) {
    try {
      const found = /^(exited|killed) (\d{1,3})\n$/.exec(readFileSync(join(folder, nameOf(task)), "utf8"));
      if (found !== null)
        return found[1] === "exited" ? { code: Number(found[2]) } : { signal: Number(found[2]) };
    } catch {}
  }
  return undefined;
}

/** It is on record somewhere else now. */
export function forgetEnd(task: TaskName): void {
  for (const folder of folders()) {
    try {
      rmSync(join(folder, nameOf(task)), { force: true });
    } catch {} // another user's: it stays until the machine goes down
  }
}

/** A collector without rights hears of commands that root started, too; nobody else writes there. */
function folders(): string[] {
  const own = process.geteuid!() === 0 ? undefined : endsFolder();
  return [...(own === undefined ? [] : [own]), "/run/recovery-line-ends"];
}

function nameOf({ pid, startTicks }: TaskName): string {
  return `${pid}-${startTicks}`;
}

/** Of tasks once seen in the process's cgroup those that live outside of it now. */
export function tasksElsewhere(
  tasks: readonly TaskName[],
  app: string,
  process: string,
): (TaskName & TaskElsewhere)[] {
  const { name } = new ProcessCgroup(app, process);
  return tasks.flatMap((task) => {
    const cgroup = cgroupOf(task.pid);
    if (cgroup === undefined || `${cgroup}/`.includes(`${name}/`)) return [];
    if (cgroup.includes(`${name}-rank-`)) return []; // mpirun's child, a process of its own (run --ranks)
    return startTicksOf(task.pid) === task.startTicks ? [{ ...task, cgroup }] : [];
  });
}
