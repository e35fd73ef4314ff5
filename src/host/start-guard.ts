/**
 * What is held before its first instruction ends with whoever holds it: nobody else knows that it may be let go.
 *
 * A watchdog (a shell that waits on a pipe) hears one word, and then it is let go; where the pipe ends without one, by any signal to this
 * program, what is held is killed. It is killed where it stands, never thawed, so that no instruction of it runs unrecorded.
 */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { ProcessCgroup } from "./cgroups.ts";
import { hasEnded, startWatchdog, stopWatchdog } from "./watchdog.ts";

/** Of one process: the word thaws it. Who is on the way into its cgroup meets a removed one, and ends; the folder is the same in all steps. */
const ONE = `
if read -r _; then echo 0 >cgroup.freeze; exit; fi
tries=500
while [ $tries -gt 0 ] && echo 1 >cgroup.kill; do
  rmdir "$1" && rmdir "\${1%/*}" && exit
  sleep 0.01
  tries=$((tries - 1))
done`;

/** Of a job's ranks: its launcher, so that no more of them come, then those that are held. The word ends the watch. */
const RANKS = `
if read -r _; then exit; fi
echo 1 >cgroup.kill
for rank in "$1"-rank-*; do
  tries=500
  while [ $tries -gt 0 ] && [ "$(cat "$rank/cgroup.freeze")" = 1 ] && echo 1 >"$rank/cgroup.kill"; do
    rmdir "$rank" && break
    sleep 0.01
    tries=$((tries - 1))
  done
done`;

/** Of one start, from before it is held. */
export class StartGuard {
  readonly #watchdog: ChildProcess;

  private constructor(watchdog: ChildProcess) {
    this.#watchdog = watchdog;
  }

  static ofProcess(cgroup: ProcessCgroup): Promise<StartGuard> {
    return StartGuard.#begin(ONE, cgroup);
  }

  /** `launcher` has been let go; ranks are held until their registration. */
  static ofRanks(launcher: ProcessCgroup): Promise<StartGuard> {
    return StartGuard.#begin(RANKS, launcher);
  }

  static async #begin(script: string, { path }: ProcessCgroup): Promise<StartGuard> {
    return new StartGuard(await startWatchdog(script, [path], path));
  }

  /** From now on what is held goes on without this program. False: the watchdog is gone, and has not let it go. */
  async letGo(): Promise<boolean> {
    if (hasEnded(this.#watchdog)) return false;
    const ended = once(this.#watchdog, "exit");
    this.#watchdog.stdin!.end("go\n");
    const [code] = await ended;
    return code === 0;
  }

  /** Nothing is held any more. */
  end(): Promise<void> {
    return stopWatchdog(this.#watchdog);
  }
}
