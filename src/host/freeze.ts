/**
 * Freezing for a while, and thawing whatever happens.
 *
 * A watchdog (a shell that waits on a pipe) stands by while anything is frozen: when everybody who holds the other end of the
 * pipe is gone, this program by any signal and the driver it started, it thaws. A driver inherits the pipe, so the
 * watchdog never thaws below a dump that is still at work.
 */

import { existsSync, fstatSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { FREEZE_LIMIT_MS, OTHER_CRIU_LIMIT_MS } from "../model/limits.ts";
import { call, native } from "../native/binding.ts";
import type { ProcessCgroup } from "./cgroups.ts";
import { criuRuns, isCriu, tracerOf } from "./criu-processes.ts";
import { lockHolder } from "./reader-lock.ts";
import { lockedBy } from "./wait-for-lock.ts";
import { startWatchdog, stopWatchdog } from "./watchdog.ts";

/**
 * What runs while the cgroups stand still gets the pipe, to hand it to processes it starts, and the `performance.now()` at which
 * freezing began.
 */
type FrozenWork<T> = (guard: Writable, sinceMs: number) => Promise<T>;

/** Thaws the cgroups of these files. */
const THAW = `read -r _; for file; do echo 0 >"$file"; done 2>/dev/null`;

/** Longest wait for the watchdog of a caller that has just died, in ms. */
const THAW_LIMIT_MS = 1_000;

/**
 * Freezes all the cgroups, runs the work, thaws them. One freezer a cgroup at a time: RL_LOCKED. `heldOtherwise`: somebody else keeps
 * these still, and may freeze them meanwhile; they are locked and thawed like the others. `waitMs`: longest wait for others' freezers, in ms.
 * Throws RL_TIMEOUT where one does not freeze within FREEZE_LIMIT_MS, RL_UNKNOWN_PROCESS where one is gone, and whatever the work throws;
 * nothing stays frozen.
 */
export async function whileFrozen<T>(
  cgroups: readonly ProcessCgroup[],
  work: FrozenWork<T>,
  heldOtherwise: readonly ProcessCgroup[] = [],
  waitMs = 0,
): Promise<T> {
  const locks: number[] = [];
  const all = [...cgroups, ...heldOtherwise];
  const deadlineMs = performance.now() + waitMs;
  try {
    for (const cgroup of all)
      locks.push(await lockCgroup(cgroup, deadlineMs, heldOtherwise.includes(cgroup)));
    const files = all.map(({ path }) => join(path, "cgroup.freeze"));
    const watchdog = await startWatchdog(THAW, files);
    try {
      const sinceMs = performance.now();
      for (const cgroup of cgroups) askToFreeze(cgroup);
      for (const cgroup of cgroups) await standsStill(cgroup, performance.now() + FREEZE_LIMIT_MS);
      return await work(watchdog.stdin!, sinceMs);
    } finally {
      thawAll(all);
      await stopWatchdog(watchdog); // it must not act on a later freeze
    }
  } finally {
    for (const lock of locks) native().unlock(lock);
  }
}

/** The right to freeze a cgroup that nobody else has frozen, or that is `held` for us by its driver's CRIU; let go with the process. */
async function lockCgroup(cgroup: ProcessCgroup, waitUntilMs: number, held: boolean): Promise<number> {
  const lock = await lockedBy(waitUntilMs, () => holdCgroup(cgroup));
  try {
    if (cgroup.id === undefined) throw hasEnded(cgroup);
    if (!held) await letGo(cgroup, waitUntilMs);
    return lock;
  } catch (error) {
    native().unlock(lock);
    throw error;
  }
}

/**
 * Waits for what a dead caller has left: its CRIU traces what stands still, and thaws it for that; its watchdog thaws once that has ended.
 * Throws RL_LOCKED.
 */
async function letGo(cgroup: ProcessCgroup, waitUntilMs: number): Promise<void> {
  const fromMs = performance.now();
  for (;;) {
    const isTraced = (): boolean => cgroup.pids().some((pid) => isCriu(tracerOf(pid) ?? 0));
    if (!cgroup.freezing && !isTraced() && !cgroup.freezing) return; // at its end CRIU freezes before it lets go
    const atWork = criuRuns();
    const limitMs = atWork ? OTHER_CRIU_LIMIT_MS : THAW_LIMIT_MS;
    if (performance.now() > Math.max(waitUntilMs, fromMs + limitMs)) throw notLetGo(cgroup, atWork);
    await sleep(20);
  }
}

function notLetGo({ path }: ProcessCgroup, atWork: boolean): RecoveryLineError {
  return new RecoveryLineError(
    "RL_LOCKED",
    `${path} is frozen already`,
    atWork
      ? "A CRIU is at work: a dump whose caller died thaws by itself. Call again once it has ended."
      : `Whoever froze it has not thawed it: echo 0 > ${path}/cgroup.freeze`,
  );
}

/**
 * The right to act on a cgroup, as a descriptor for `native().unlock`; let go with this process and whoever inherited the descriptor.
 * Throws RL_LOCKED, RL_UNKNOWN_PROCESS where the cgroup is gone.
 */
export function holdCgroup(cgroup: ProcessCgroup): number {
  try {
    const lock = call(cgroup.place, () => native().lock(cgroup.place));
    if (fstatSync(lock).ino === statSync(cgroup.place, { throwIfNoEntry: false })?.ino) return lock;
    native().unlock(lock); // of one that was removed meanwhile
  } catch (error) {
    if (!cgroup.hasPlace) throw hasEnded(cgroup, error);
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_LOCKED",
      `${cgroup.path} is being checkpointed or restored by ${holderOf(cgroup)}`,
      "Wait for it, or end it.",
      error,
    );
  }
  throw hasEnded(cgroup);
}

/**
 * `holdCgroup` of one that is made where there is none, and that nothing runs in. Others hold or remove an empty one for a moment: throws RL_LOCKED
 * or RL_UNKNOWN_PROCESS then, and RL_LOCKED where something runs in it.
 */
export function holdEmpty(cgroup: ProcessCgroup): number {
  cgroup.create();
  const lock = holdCgroup(cgroup);
  if (!cgroup.populated) return lock;
  native().unlock(lock);
  throw new RecoveryLineError("RL_LOCKED", `${cgroup.path} holds process ${cgroup.pids().join(", ")}`);
}

/**
 * Removes the cgroup of a process that has ended. False: not now; something is in it, or on its way there (a start freezes it before, a
 * restore and a checkpoint lock it).
 */
export function removeEnded(cgroup: ProcessCgroup): boolean {
  if (cgroup.populated || cgroup.freezing) return false;
  let lock: number;
  try {
    lock = holdCgroup(cgroup);
  } catch {
    return !cgroup.hasPlace; // somebody else has just removed it
  }
  try {
    return cgroup.remove();
  } finally {
    native().unlock(lock);
  }
}

/** The kernel's number of a cgroup that something is to run in. Throws RL_UNKNOWN_PROCESS where it is gone. */
export function cgroupId(cgroup: ProcessCgroup): number {
  const { id } = cgroup;
  if (id === undefined) throw hasEnded(cgroup);
  return id;
}

/** Who took the lock; where only children of it hold it still, nobody is named. */
function holderOf({ place }: ProcessCgroup): string {
  try {
    const pid = lockHolder(place);
    if (pid !== undefined && existsSync(`/proc/${pid}`)) return `process ${pid}`;
  } catch {} // it is gone
  return "another process";
}

function hasEnded({ path }: ProcessCgroup, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_UNKNOWN_PROCESS",
    `the process of ${path} has ended`,
    "Call again: what has ended is left out, unless you name it.",
    cause,
  );
}

/** Throws RL_UNKNOWN_PROCESS where whoever waited for its processes has just removed it. */
function askToFreeze(cgroup: ProcessCgroup): void {
  try {
    cgroup.setFreeze(true);
  } catch (error) {
    throw cgroup.id === undefined ? hasEnded(cgroup, error) : error;
  }
}

/** Waits for the kernel's word that every process stands still. Throws RL_TIMEOUT, RL_UNKNOWN_PROCESS where the cgroup is gone. */
export async function standsStill(cgroup: ProcessCgroup, deadlineMs: number): Promise<void> {
  while (!cgroup.frozen) {
    if (cgroup.id === undefined) throw hasEnded(cgroup);
    if (performance.now() > deadlineMs)
      throw new RecoveryLineError(
        "RL_TIMEOUT",
        `${cgroup.path} does not freeze in time: a process in it is in an uninterruptible wait`,
        "Try again; a stuck file system or device keeps it from standing still.",
      );
    await sleep(1);
  }
}

/** Every cgroup is tried, whatever the others say. */
function thawAll(cgroups: readonly ProcessCgroup[]): void {
  const failures: unknown[] = [];
  for (const cgroup of cgroups) {
    try {
      cgroup.thaw();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
