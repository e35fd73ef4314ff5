/**
 * A command as a recorded process: in its cgroup, and known to the collector, before its first instruction.
 *
 * The cgroup is frozen before anything is in it. A helper's first act is to enter it, where it stands still; then the process is
 * registered; then it thaws, and the helper becomes the command (native/wait). Nothing of the command can run unrecorded, and no
 * pipe or socket of ours stands in its history. Whoever is killed meanwhile takes the helper along. The cgroup is held like by a
 * checkpoint or a restore: none of an earlier life, and no other start, meets the one that begins.
 */

import type { ChildProcess, StdioOptions } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ProcessCgroup } from "../host/cgroups.ts";
import { findProgram } from "../host/find-program.ts";
import { cgroupId, holdCgroup, holdEmpty, standsStill } from "../host/freeze.ts";
import { endsFolder } from "../host/process-end.ts";
import { startTicksOf } from "../host/process-tree.ts";
import { spawn } from "../host/spawn.ts";
import { StartGuard } from "../host/start-guard.ts";
import { NO_IO_URING, OWN_IPC, startHelper } from "../host/start-helper.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { FREEZE_LIMIT_MS } from "../model/limits.ts";
import type { ProcessData, StartRecipe, StoredPeerRules, TaskName } from "../model/stored-process.ts";
import type { UnseenChannel } from "../model/unseen-channel.ts";
import { native } from "../native/binding.ts";
import type { CollectorClient } from "./client.ts";
import type { RegisterMode } from "./protocol.ts";

export interface ProcessStart {
  readonly app: string;
  readonly process: string;
  readonly command: readonly [string, ...string[]];
  /** Absent: as it was before. */
  readonly trust?: readonly string[];
  /** Absent: as they were before. */
  readonly rules?: StoredPeerRules;
  /** Keep what the application sends. */
  readonly payload?: boolean;
  readonly mode: RegisterMode;
  readonly stdio: StdioOptions;
  /** Called once somebody has its standard streams who will become the command, before anybody looks at what it has. */
  readonly begun?: () => void;
  /** The caller does not wait for the command's end. */
  readonly unwatched?: boolean;
  /** A session of its own: signals of the terminal do not reach it. */
  readonly detached: boolean;
  /** How it is started again; stored with the registration. */
  readonly recipe: StartRecipe;
  /** Directory trees that are part of its state; absent: as it was before. */
  readonly data?: ProcessData;
  /** Absent: as it was before. */
  readonly group?: string;
  /** `Registration.holdLimitMs`. */
  readonly holdLimitMs?: number;
  /** True: it stands still on return, before its first instruction, whatever ends the caller; who finds it there thaws or kills it. */
  readonly hold?: boolean;
}

export interface StartedProcess {
  /** The command itself, or, detached, who waits for it. */
  readonly child: ChildProcess;
  /** The command's first task. */
  readonly task: TaskName;
  readonly cgroup: ProcessCgroup;
  readonly incarnation: number;
  /** What it has from its beginning together with other recorded processes, and nobody records. */
  readonly unseen: readonly UnseenChannel[];
}

/** Longest wait for the end of a command that was refused, in ms. */
const REMOVE_LIMIT_MS = 2000;
/** Longest wait for whoever checkpoints, starts, restores or removes what is in the cgroup, in ms; time between two looks. */
const HOLD_LIMIT_MS = 10_000;
const HOLD_PAUSE_MS = 20;

/**
 * Throws RL_USAGE for a command that is not there, RL_LOCKED where the process runs already or somebody acts on its cgroup for long, and
 * what registering throws.
 */
export async function startProcess(collector: CollectorClient, start: ProcessStart): Promise<StartedProcess> {
  requireCommand(start.command[0], start.recipe);
  const cgroup = new ProcessCgroup(start.app, start.process);
  const words = entering(join(cgroup.path, "cgroup.procs"), start);
  const lock = await makeAndHold(cgroup, start);
  try {
    return await startIn(cgroup, words, collector, start);
  } finally {
    native().unlock(lock);
  }
}

/** The right to act on a new cgroup: what hangs on that of an earlier life goes with its sockets. */
async function makeAndHold(cgroup: ProcessCgroup, { app, process }: ProcessStart): Promise<number> {
  const deadlineMs = performance.now() + HOLD_LIMIT_MS;
  for (;;) {
    if (cgroup.populated)
      throw new RecoveryLineError(
        "RL_LOCKED",
        `process ${process} of ${app} runs already: ${cgroup.path} holds process ${cgroup.pids().join(", ")}`,
        "End it first, or take another name.",
      );
    try {
      if (cgroup.hasPlace) {
        const old = holdCgroup(cgroup);
        cgroup.remove();
        native().unlock(old);
      }
      return holdEmpty(cgroup);
    } catch (error) {
      const passing = hasCode(error, "RL_LOCKED") || hasCode(error, "RL_UNKNOWN_PROCESS");
      if (!passing || performance.now() > deadlineMs) throw error;
      await sleep(HOLD_PAUSE_MS);
    }
  }
}

async function startIn(
  cgroup: ProcessCgroup,
  words: [string, string[]],
  collector: CollectorClient,
  start: ProcessStart,
): Promise<StartedProcess> {
  let guard: StartGuard | undefined;
  try {
    cgroup.setFreeze(true);
    guard = start.hold === true ? undefined : await StartGuard.ofProcess(cgroup);
    const child = enter(words, start);
    start.begun?.();
    await stands(child, cgroup);
    const { app, process, trust, rules, mode, recipe, data, group, holdLimitMs, payload = false } = start;
    const pid = cgroup.pids()[0] ?? 0;
    const task = { pid, startTicks: startTicksOf(pid) ?? 0 };
    const registration = { app, process, mode, cgroupId: cgroupId(cgroup), start: recipe, task };
    const { incarnation } = await collector.register({
      ...registration,
      ...(trust === undefined ? {} : { trust }),
      ...(rules === undefined ? {} : { rules }),
      ...(payload ? { payload } : {}),
      ...(data === undefined ? {} : { data }),
      ...(group === undefined ? {} : { group }),
      ...(holdLimitMs === undefined ? {} : { holdLimitMs }),
    });
    const unseen = (await collector.unseen(app)).filter((one) => one.process === process);
    if ((await guard?.letGo()) === false) cgroup.setFreeze(false);
    return { child, task, cgroup, incarnation, unseen };
  } catch (error) {
    try {
      await undone(cgroup);
    } finally {
      await guard?.end(); // it would keep this program from ending
    }
    throw error;
  }
}

/** Nothing of what was begun runs, or is there. What the system refuses of it was refused before, and is told. */
async function undone(cgroup: ProcessCgroup): Promise<void> {
  try {
    cgroup.kill();
    cgroup.setFreeze(false);
  } catch (error) {
    if (!(error instanceof RecoveryLineError)) throw error;
  }
  await removeSoon(cgroup);
}

/** Dying takes the killed a moment. */
async function removeSoon(cgroup: ProcessCgroup): Promise<void> {
  const deadlineMs = performance.now() + REMOVE_LIMIT_MS;
  while (!cgroup.remove() && performance.now() < deadlineMs) await sleep(1);
}

function enter([program, args]: [string, string[]], start: ProcessStart): ChildProcess {
  const { stdio, detached, recipe } = start;
  const child = spawn(program, args, { stdio, detached, cwd: recipe.cwd, env: recipe.env });
  child.on("error", () => undefined); // told by `stands`
  return child;
}

/** Whoever starts a command and does not stay leaves somebody behind who hears how it ended. */
function entering(procs: string, { command, unwatched, recipe }: ProcessStart): [string, string[]] {
  const options = [
    ...(recipe.allowIoUring === true ? [] : [NO_IO_URING]),
    ...(recipe.ownIpc === true ? [OWN_IPC] : []),
  ];
  const folder = unwatched === true ? endsFolder() : undefined;
  if (folder !== undefined) return [startHelper("wait"), [...options, procs, folder, ...command]];
  return [startHelper("enter"), [...options, procs, ...command]];
}

/** Waits until the helper stands still inside. Throws RL_NO_RIGHTS where it could not enter. */
async function stands(child: ChildProcess, cgroup: ProcessCgroup): Promise<void> {
  const deadlineMs = performance.now() + FREEZE_LIMIT_MS;
  while (!cgroup.populated) {
    if (child.exitCode !== null || child.pid === undefined)
      throw new RecoveryLineError(
        "RL_NO_RIGHTS",
        `the command cannot be brought into the cgroup ${cgroup.path}`,
        "Moving a process takes root, or a delegated cgroup that holds both places.",
      );
    if (performance.now() > deadlineMs)
      throw new RecoveryLineError("RL_TIMEOUT", `the command did not enter ${cgroup.path} in time`);
    await sleep(1);
  }
  await standsStill(cgroup, deadlineMs);
}

/** The same search as execvp's, so that a mistyped name is told before anything is registered. */
function requireCommand(name: string, { env, cwd }: StartRecipe): void {
  const { program, other } = findProgram(name, env["PATH"] ?? "", cwd);
  if (program !== undefined) return;
  if (other !== undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      `${other} can't be executed`,
      "It must be a file with the right to execute it (chmod +x).",
    );
  throw new RecoveryLineError(
    "RL_USAGE",
    `there is no program ${JSON.stringify(name)} to run`,
    "Check its name and the PATH.",
  );
}
