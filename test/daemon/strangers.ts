/** Processes and cgroups that are not of ours, and go with the test. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, rmdirSync } from "node:fs";
import { onTestFinished } from "vitest";
import { until } from "./rig.ts";

/** In a session of its own. */
export function stranger(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const child = spawn(command, args, { stdio: "ignore", detached: true, ...options });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  });
  return child;
}

/** Cgroups, the upper ones first; returns once they are gone. */
export function removeCgroups(...levels: readonly string[]): Promise<void> {
  return until("the cgroups are gone", () => {
    for (const level of levels.toReversed())
      try {
        rmdirSync(level);
      } catch {} // who was killed takes a moment
    return !existsSync(levels[0]!);
  });
}
