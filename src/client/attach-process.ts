/**
 * What runs already becomes a recorded process of an application, where it is or, a process tree, in a cgroup of ours. It stands still
 * meanwhile: what it has open then is taken up by the first cut, and nothing that it does later goes unrecorded.
 */
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join, sep } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  attachCgroup,
  attachedTo,
  attachLockPath,
  cameFrom,
  cgroup2Root,
  cgroupOf,
  detachCgroup,
  noteOrigin,
  ProcessCgroup,
} from "../host/cgroups.ts";
import { cgroupId, holdCgroup, standsStill, whileFrozen } from "../host/freeze.ts";
import {
  childOutside,
  isKernelThread,
  programName,
  startTicksOf,
  withDescendants,
} from "../host/process-tree.ts";
import { lockedBy } from "../host/wait-for-lock.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { FREEZE_LIMIT_MS } from "../model/limits.ts";
import type { AttachedPlace, ProcessData, StoredPeerRules, TaskName } from "../model/stored-process.ts";
import { call, native } from "../native/binding.ts";
import type { CollectorClient } from "./client.ts";

export interface ProcessAttachment {
  readonly app: string;
  readonly process: string;
  readonly trust: readonly string[];
  readonly rules?: StoredPeerRules;
  readonly group?: string;
  readonly data?: ProcessData;
  /** A container of that name which is made anew is its next life. */
  readonly follows?: string;
}

/** Records a process and all its descendants, in a cgroup of ours. Returns their ids. Throws RL_USAGE, RL_LOCKED, RL_NO_RIGHTS and what registering throws. */
export async function attachTree(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  root: number,
): Promise<number[]> {
  return alone(async () => attachTreeAlone(collector, wanted, root));
}

async function attachTreeAlone(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  root: number,
): Promise<number[]> {
  await refuseTree(collector, wanted, root);
  const cgroup = new ProcessCgroup(wanted.app, wanted.process);
  if (cgroup.foreign || cgroup.populated) throw inUse(wanted, cgroup);
  cgroup.create();
  try {
    return await whileFrozen([cgroup], () => moveAndRegister(collector, wanted, root, cgroup));
  } catch (error) {
    if (!cgroup.populated) cgroup.remove();
    throw error;
  }
}

/** Into a cgroup that is frozen while it is empty. Its watchdog lets the tree run again, whatever ends this program. */
async function moveAndRegister(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  root: number,
  cgroup: ProcessCgroup,
): Promise<number[]> {
  const from = new Map<number, string>();
  try {
    noteOrigin(wanted.app, wanted.process, cgroupOf(root) ?? "");
    await moveTree(root, cgroup, from);
    await registered(collector, wanted, cgroup, { parent: 0 }, root);
    return cgroup.pids();
  } catch (error) {
    moveBack(cgroup, from);
    throw error;
  }
}

/** Records what runs in a cgroup that is there. Returns their ids. Throws as `attachTree`. */
export async function attachCgroupAt(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  given: string,
): Promise<number[]> {
  const path = cgroupPath(given);
  return alone(async () => attachCgroupAlone(collector, wanted, path));
}

async function attachCgroupAlone(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  path: string,
): Promise<number[]> {
  const before = new ProcessCgroup(wanted.app, wanted.process);
  const again = wanted.follows !== undefined && before.foreign && before.path === path; // the same container, started again
  if (before.populated && (!again || (await isRecorded(collector, wanted, before.id))))
    throw inUse(wanted, before);
  await refuseCgroup(collector, wanted, path);
  if (before.foreign) {
    if (!(await hasEnded(collector, wanted)) && again) throw inUse(wanted, before);
    detachCgroup(wanted.app, wanted.process); // of an earlier life
  }
  const parent = attachCgroup(wanted.app, wanted.process, path);
  const cgroup = new ProcessCgroup(wanted.app, wanted.process);
  try {
    await whileFrozen([cgroup], () => registered(collector, wanted, cgroup, { parent }, cgroup.pids()[0]));
    return cgroup.pids();
  } catch (error) {
    detachCgroup(wanted.app, wanted.process);
    throw error;
  }
}

/** Whoever attaches does so alone on this machine: what was looked at then holds until it is done. Throws RL_LOCKED. */
async function alone<T>(work: () => Promise<T>): Promise<T> {
  const path = attachLockPath();
  const deadlineMs = performance.now() + ATTACH_WAIT_MS;
  for (;;) {
    let lock: number;
    try {
      lock = call(path, () => native().lock(path));
    } catch (error) {
      if (!hasCode(error, "RL_LOCKED")) throw error;
      if (performance.now() > deadlineMs)
        throw new RecoveryLineError(
          "RL_LOCKED",
          "somebody else on this machine attaches something, and is not done",
          "Try again; if it hangs, end that `recovery-line attach`.",
          error,
        );
      await sleep(ATTACH_PAUSE_MS);
      continue;
    }
    try {
      return await work();
    } finally {
      native().unlock(lock);
    }
  }
}

const ATTACH_WAIT_MS = 30_000;
const ATTACH_PAUSE_MS = 20;

/** It is this cgroup's life that is recorded, and none before. */
async function isRecorded(
  collector: CollectorClient,
  { app, process }: ProcessAttachment,
  cgroupId: number | undefined,
): Promise<boolean> {
  const known = await collector.processes();
  return known.some(
    (one) => one.app === app && one.process === process && one.live && one.cgroupId === cgroupId,
  );
}

/** The collector has taken up how the life before ended, which it finds by its cgroup. False: not soon. */
async function hasEnded(collector: CollectorClient, { app, process }: ProcessAttachment): Promise<boolean> {
  const deadlineMs = performance.now() + ENDED_WAIT_MS;
  const isLive = async (): Promise<boolean> =>
    (await collector.processes()).some((one) => one.app === app && one.process === process && one.live);
  while (await isLive()) {
    if (performance.now() > deadlineMs) return false;
    await sleep(ENDED_PAUSE_MS);
  }
  return true;
}

/** Its look for ended ones comes twice a second, and the word of a container's end may take some seconds. */
const ENDED_WAIT_MS = 15_000;
const ENDED_PAUSE_MS = 100;

/** The process is recorded no longer, and goes on untouched. Throws RL_LOCKED where it stands still for somebody, and what unregistering throws. */
export async function detach(collector: CollectorClient, app: string, process: string): Promise<void> {
  const cgroup = new ProcessCgroup(app, process);
  const deadlineMs = performance.now() + DETACH_WAIT_MS;
  const lock = cgroup.hasPlace ? await lockedBy(deadlineMs, () => holdRunning(cgroup)) : undefined;
  try {
    await collector.unregister(app, process, false);
    leaveCgroup(cgroup, app, process);
  } finally {
    if (lock !== undefined) native().unlock(lock);
  }
}

/** Longest wait for a checkpoint of it, in ms. */
const DETACH_WAIT_MS = 10_000;

/**
 * What runs under a name that its collector does not know, as its log directory is gone, leaves our cgroup. False: nothing does. Throws
 * RL_LOCKED where it stands still for somebody.
 */
export function detachUnknown(app: string, process: string): boolean {
  const cgroup = new ProcessCgroup(app, process);
  if (!cgroup.populated) return false;
  const lock = holdRunning(cgroup);
  try {
    leaveCgroup(cgroup, app, process);
  } finally {
    native().unlock(lock);
  }
  return true;
}

/** `holdCgroup`, where it does not stand still in a cgroup of ours. Throws RL_LOCKED. */
function holdRunning(cgroup: ProcessCgroup): number {
  const lock = holdCgroup(cgroup);
  if (cgroup.foreign || !cgroup.freezing) return lock;
  native().unlock(lock);
  throw new RecoveryLineError(
    "RL_LOCKED",
    `${cgroup.path} is frozen: somebody starts, checkpoints or restores what is in it`,
    "Wait for that, or end it.",
  );
}

/** Its processes go back where they came from, also what they start meanwhile; a cgroup elsewhere stays as it is. Throws RL_TIMEOUT. */
function leaveCgroup(cgroup: ProcessCgroup, app: string, process: string): void {
  if (cgroup.foreign) {
    detachCgroup(app, process);
    return;
  }
  const origin = cameFrom(app, process);
  const deadlineMs = performance.now() + FREEZE_LIMIT_MS;
  for (let pids = cgroup.pids(); pids.length > 0; pids = cgroup.pids()) {
    if (performance.now() > deadlineMs)
      throw new RecoveryLineError(
        "RL_TIMEOUT",
        `new processes are started in ${cgroup.path} faster than they can be moved out of it`,
        "Those that were moved go on where they came from. Detach it again.",
      );
    for (const pid of pids) putBack(pid, origin);
  }
  cgroup.remove();
}

async function registered(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  cgroup: ProcessCgroup,
  attached: AttachedPlace,
  first: number | undefined,
): Promise<void> {
  const startTicks = first === undefined ? undefined : startTicksOf(first);
  const task: TaskName | undefined =
    first === undefined || startTicks === undefined ? undefined : { pid: first, startTicks };
  await collector.register({
    ...wanted,
    mode: "attach",
    cgroupId: cgroupId(cgroup),
    attached,
    ...(task === undefined ? {} : { task }),
  });
}

// ---- a process and its descendants

/** The tree stands still as it comes in, its root first, so that it can have no more children. */
async function moveTree(root: number, cgroup: ProcessCgroup, from: Map<number, string>): Promise<void> {
  const deadlineMs = performance.now() + FREEZE_LIMIT_MS;
  const procs = join(cgroup.path, "cgroup.procs");
  for (let next: number | undefined = root; next !== undefined; next = childOutside(cgroup.pids())) {
    if (performance.now() > deadlineMs)
      throw new RecoveryLineError(
        "RL_TIMEOUT",
        `process ${root} starts new processes faster than they can be moved into ${cgroup.path}`,
      );
    const place = cgroupOf(next);
    if (!moveTo(procs, next)) {
      if (next === root) throw notThere(root);
      continue; // it has ended
    }
    if (place !== undefined) from.set(next, place);
    await standsStill(cgroup, deadlineMs);
  }
}

function moveBack(cgroup: ProcessCgroup, from: ReadonlyMap<number, string>): void {
  for (const pid of cgroup.pids()) putBack(pid, from.get(pid) ?? "");
  cgroup.remove();
}

/** Into the cgroup of that name, or the root where that is gone. */
function putBack(pid: number, name: string): void {
  if (!moveTo(join(cgroup2Root(), name, "cgroup.procs"), pid))
    moveTo(join(cgroup2Root(), "cgroup.procs"), pid);
}

/** False: there is no such process or place any more. */
function moveTo(procs: string, pid: number): boolean {
  try {
    writeFileSync(procs, String(pid), { flag: "r+" });
    return true;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ESRCH" || code === "ENOENT" || code === "ENODEV") return false;
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      `process ${pid} can't be moved to ${procs}: ${message}`,
      "Moving another's process takes root.",
      cause,
    );
  }
}

async function refuseTree(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  root: number,
): Promise<void> {
  if (startTicksOf(root) === undefined) throw notThere(root);
  const wrong = (what: string, advice = ""): RecoveryLineError =>
    new RecoveryLineError("RL_USAGE", `process ${root} can't be attached: ${what}`, advice);
  if (root === 1) throw wrong("it is the first of all, and every other is its child");
  if (isKernelThread(root)) throw wrong("it is a thread of the kernel");
  const tree = withDescendants(root);
  if (tree.includes(process.pid)) throw wrong("this command runs below it");
  const { pid } = await collector.ping();
  if (tree.includes(pid)) throw wrong("the collector itself runs below it");
  for (const one of tree) {
    const holder = recordedIn(`${cgroupOf(one)}/`);
    if (holder !== undefined)
      throw wrong(
        `process ${one} (${programName(one)}) is recorded as ${holder} already, and would be process ${wanted.process} of ${wanted.app}, too`,
        "recovery-line detach ends that, also where the log directory that it was recorded into is gone.",
      );
  }
}

function notThere(pid: number): RecoveryLineError {
  return new RecoveryLineError("RL_USAGE", `there is no process ${pid}`, "It may have ended.");
}

// ---- a cgroup

/** Its path in the file system, from that or from its name in /proc/PID/cgroup. */
function cgroupPath(given: string): string {
  const root = cgroup2Root();
  const real = [given, join(root, given)].map(realCgroup).find((one) => one !== undefined);
  if (real === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      `there is no cgroup ${given}`,
      `Name a folder below ${root}, or what stands behind "0::" in /proc/PID/cgroup.`,
    );
  if (real.startsWith(`${root}${sep}`)) return real;
  throw new RecoveryLineError(
    "RL_USAGE",
    real === root
      ? "the root cgroup holds the whole machine and can't be attached as a process"
      : `${real} is no cgroup of version 2`,
    `Those lie below ${root}.`,
  );
}

function realCgroup(path: string): string | undefined {
  if (!path.startsWith(sep) || !existsSync(join(path, "cgroup.procs"))) return undefined;
  try {
    return realpathSync(path);
  } catch {
    return undefined; // it has gone since
  }
}

function somethingRunsIn(path: string): boolean {
  try {
    return !readFileSync(join(path, "cgroup.events"), "utf8").includes("populated 0");
  } catch {
    return false; // it is gone
  }
}

async function refuseCgroup(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  path: string,
): Promise<void> {
  const name = path.slice(cgroup2Root().length);
  const wrong = (what: string): RecoveryLineError =>
    new RecoveryLineError(
      "RL_USAGE",
      `the cgroup ${path} can't be process ${wanted.process} of ${wanted.app}: ${what}`,
    );
  const holder = recordedIn(`${name}/`, wanted);
  if (holder !== undefined) throw wrong(`it is, or lies in, ${holder}`);
  const below = [...attachedTo(), { app: "", process: "", path: join(cgroup2Root(), "recovery-line") }].find(
    (one) =>
      one.path.startsWith(`${path}${sep}`) && !(one.app === wanted.app && one.process === wanted.process),
  );
  if (below !== undefined)
    throw wrong(
      below.app === "" ? "recorded processes lie below it" : `${below.process} of ${below.app} lies below it`,
    );
  if (!somethingRunsIn(path)) throw wrong("nothing runs in it");
  const { pid } = await collector.ping();
  for (const [who, one] of [
    ["this command", process.pid],
    ["the collector", pid],
  ] as const)
    if (`${cgroupOf(one)}/`.startsWith(`${name}/`)) throw wrong(`${who} runs in it`);
}

/** Who is recorded in the cgroup of that name, or above it: "process P of APP". */
function recordedIn(name: string, but?: ProcessAttachment): string | undefined {
  const own = /^\/recovery-line\/([^/]+)\/([^/]+)\//.exec(name);
  if (own !== null) return `process ${own[2]} of ${own[1]}`;
  if (name.startsWith("/recovery-line/")) return "recovery-line's own cgroup";
  const root = cgroup2Root();
  const one = attachedTo().find(
    ({ app, process: at, path }) =>
      `${join(root, name)}${sep}`.startsWith(`${path}${sep}`) && !(app === but?.app && at === but.process),
  );
  return one === undefined ? undefined : `process ${one.process} of ${one.app}`;
}

function inUse({ app, process }: ProcessAttachment, { path }: { readonly path: string }): RecoveryLineError {
  return new RecoveryLineError(
    "RL_LOCKED",
    `process ${process} of ${app} runs already: ${path}`,
    "End it or detach it first, or take another name.",
  );
}
