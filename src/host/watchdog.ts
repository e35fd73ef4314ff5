/** A shell at the other end of a pipe, which acts when the pipe ends, by whatever ends this program. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { spawn } from "./spawn.ts";

/** The script gets the words as $1 and so on, and reads the pipe as its standard input. Rejects where no shell can be started. */
export async function startWatchdog(
  script: string,
  words: readonly string[] = [],
  cwd?: string,
): Promise<ChildProcess> {
  const watchdog = spawn("/bin/sh", ["-c", script, "recovery-line-watchdog", ...words], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true, // signals of a terminal are not for it
    ...(cwd === undefined ? {} : { cwd }),
  });
  watchdog.stdin!.on("error", () => undefined);
  await once(watchdog, "spawn");
  return watchdog;
}

export function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

/** It does not act any more. */
export async function stopWatchdog(watchdog: ChildProcess): Promise<void> {
  if (hasEnded(watchdog)) return;
  const ended = once(watchdog, "exit");
  watchdog.kill("SIGKILL");
  await ended;
  watchdog.stdin!.destroy();
}
