/**
 * Programs that save and load their own state: one command makes an image, another brings the program back from it.
 *
 * The checkpoint command runs inside the process's cgroup, as part of the process: the image must be of the same instant as the cut,
 * so the caller (checkpoint.ts) reads the cut before and after it, the process standing still at both, and throws the image away if a
 * byte moved in between. Connections can't be in such an image: none may be open, or it is not taken.
 */

import type { ChildProcess } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { spawn } from "../../host/spawn.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { FREEZE_LIMIT_MS } from "../../model/limits.ts";
import {
  type CheckpointDriver,
  type DriverNotes,
  type DumpRequest,
  NotNow,
  type RestoreRequest,
} from "../driver.ts";

/** Shell commands; both find the image's folder in $RECOVERY_LINE_IMAGE. */
export interface Hook {
  /**
   * Saves into the folder the state that the program has now: everything received must be in it, everything owed must be sent. Exit
   * code 0: done; 75: not now, ask again. It runs inside the process; what it says to the program counts as the process's own affair.
   */
  readonly checkpoint: string;
  /** Puts the state back and becomes the program (`exec`). It runs where the checkpoint command ran, at its first instruction. */
  readonly restore: string;
  /** Working directory of both; absolute. Default: that of the caller. */
  readonly cwd?: string;
}

interface HookNotes {
  readonly restore: string;
  readonly cwd: string;
}

/** Enters the cgroup, becomes the command. */
const ENTER = 'echo $$ >"$0" && exec /bin/sh -c "$1"';
/** sysexits.h: EX_TEMPFAIL. */
const TRY_AGAIN = 75;
const TAIL_BYTES = 2_000;

export class HookDriver implements CheckpointDriver {
  readonly name = "hook";
  readonly version = "1";
  readonly images = true;
  readonly holdsConnections = false;
  readonly holdsPipes = false;
  readonly #hook: Hook | undefined;

  /** Without a hook it can only restore. */
  constructor(hook?: Hook) {
    this.#hook = hook;
  }

  /** The program knows what it can store. */
  look(): void {}

  async dump({ folder, cgroupPath, limitMs }: DumpRequest): Promise<DriverNotes> {
    if (this.#hook === undefined) throw new TypeError("a checkpoint takes a hook");
    const { checkpoint, restore, cwd = process.cwd() } = this.#hook;
    freeze(cgroupPath, false);
    await runInside(cgroupPath, checkpoint, cwd, folder, limitMs);
    freeze(cgroupPath, true);
    await until(() => event(cgroupPath, "frozen"), FREEZE_LIMIT_MS, `${cgroupPath} does not freeze again`);
    if (readdirSync(folder).length === 0)
      throw failed(checkpoint, "it stored nothing in the folder $RECOVERY_LINE_IMAGE");
    return { restore, cwd } satisfies HookNotes;
  }

  /** With `freezeCgroup` the restore command stands still before its first instruction; the folder must stay until it has run. */
  async restore({ folder, notes, freezeCgroup, limitMs }: RestoreRequest): Promise<number> {
    const { restore, cwd } = notes as unknown as HookNotes; // the manifest's checksum says that they are as we wrote them
    if (freezeCgroup === undefined)
      throw new RecoveryLineError("RL_NOT_SUPPORTED", "driver hook restores into a process cgroup only");
    freeze(freezeCgroup, true);
    const child = enter(freezeCgroup, restore, cwd, folder, "ignore");
    const inside = (): boolean => event(freezeCgroup, "populated") && event(freezeCgroup, "frozen");
    await until(
      () => inside() || child.exitCode !== null,
      limitMs,
      `${restore} did not enter ${freezeCgroup}`,
    );
    if (child.exitCode !== null) throw failed(restore, `it ended with exit code ${child.exitCode}`);
    child.unref();
    return child.pid!;
  }
}

function enter(
  cgroupPath: string,
  command: string,
  cwd: string,
  folder: string,
  errors: number | "ignore",
): ChildProcess {
  // No pipes: Node.js makes them of sockets, which would stand in the history of the process.
  const child = spawn("/bin/sh", ["-c", ENTER, join(cgroupPath, "cgroup.procs"), command], {
    cwd,
    env: { ...process.env, RECOVERY_LINE_IMAGE: folder },
    stdio: ["ignore", errors, errors],
    detached: true,
  });
  child.on("error", () => undefined); // `pid` stays undefined
  if (child.pid === undefined) throw failed(command, `there is no folder ${cwd} to run it in`);
  return child;
}

async function runInside(
  cgroupPath: string,
  command: string,
  cwd: string,
  folder: string,
  limitMs: number,
): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), "recovery-line-hook-"));
  const printed = join(work, "printed");
  const output = openSync(printed, "w");
  try {
    const child = enter(cgroupPath, command, cwd, folder, output);
    const { code, signal, late } = await ended(child, limitMs);
    if (late)
      throw new RecoveryLineError(
        "RL_TIMEOUT",
        `hook ${command}: it took longer than ${limitMs} ms and was killed`,
      );
    const said = readFileSync(printed, "utf8").slice(-TAIL_BYTES).trim();
    if (code === TRY_AGAIN) throw new NotNow(`hook ${command}: not now${said === "" ? "" : `: ${said}`}`);
    if (code !== 0)
      throw failed(command, `${signal ?? `exit code ${code}`}${said === "" ? "" : `: ${said}`}`);
  } finally {
    closeSync(output);
    rmSync(work, { recursive: true, force: true });
  }
}

async function ended(
  child: ChildProcess,
  limitMs: number,
): Promise<{ code: number | null; signal: NodeJS.Signals | null; late: boolean }> {
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    process.kill(-child.pid!, "SIGKILL"); // its group: the command and what it started
  }, limitMs);
  try {
    return await new Promise((resolve) =>
      child.once("exit", (code, signal) => resolve({ code, signal, late })),
    );
  } finally {
    clearTimeout(timer);
  }
}

function freeze(cgroupPath: string, on: boolean): void {
  writeFileSync(join(cgroupPath, "cgroup.freeze"), on ? "1" : "0", { flag: "r+" });
}

function event(cgroupPath: string, name: string): boolean {
  return readFileSync(join(cgroupPath, "cgroup.events"), "utf8").split("\n").includes(`${name} 1`);
}

async function until(condition: () => boolean, limitMs: number, what: string): Promise<void> {
  const deadlineMs = performance.now() + limitMs;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new RecoveryLineError("RL_TIMEOUT", what);
    await sleep(1);
  }
}

function failed(command: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_DRIVER",
    `hook ${command}: ${why}`,
    "Try the command by hand, with RECOVERY_LINE_IMAGE naming an empty folder.",
  );
}
