/** `recovery-line restart`, interrupted: a random signal at a random moment, several times in a row, and then once to its end. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Ended, Rig } from "../daemon/rig.ts";

const CLI = join(import.meta.dirname, "../../dist/cli/main.js");
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "SIGKILL"] as const;
/** Exit code of `restart` where nothing has failed: a call before had done it all. */
const USAGE = 2;

export interface Interrupted {
  /** What was sent when, and how the call ended; in order. */
  readonly story: readonly string[];
  /** The call that came to its end. */
  readonly last: Ended;
  /** How many calls died of their signals. */
  readonly cutOff: number;
}

/**
 * Calls `restart` again and again, up to `attempts` times with signals, then without. `random(n)`: an integer below n.
 * `withinMs`: the signals come in so many ms after its start.
 */
export async function restartInterrupted(
  rig: Rig,
  random: (limit: number) => number,
  attempts: number,
  withinMs: number,
): Promise<Interrupted> {
  const story: string[] = [];
  let cutOff = 0;
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const ended = await attemptRestart(rig, random, withinMs, story);
    if (ended.code === null) cutOff += 1;
    else if (ended.code !== USAGE || ended.err === "") return { story, last: ended, cutOff };
    else break;
  }
  const last = await rig.cli("restart", rig.app, "--json");
  story.push(`to its end: ${last.code}`);
  if (last.code === USAGE && last.out.includes("nothing has failed") && allRun(rig))
    return { story, last: { ...last, code: 0 }, cutOff }; // killed between its last act and its end
  return { story, last, cutOff };
}

/** One call with one or two signals, to its group as a terminal does, or to itself alone. */
async function attemptRestart(
  rig: Rig,
  random: (limit: number) => number,
  withinMs: number,
  story: string[],
): Promise<Ended> {
  const env = { ...process.env, RECOVERY_LINE_HOME: rig.home };
  const child = spawn(process.execPath, [CLI, "restart", rig.app, "--json"], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (text: Buffer) => {
    out += text.toString();
  });
  child.stderr.on("data", (text: Buffer) => {
    err += text.toString();
  });
  const ended = once(child, "close");
  const told: string[] = [];
  const timers = Array.from({ length: 1 + random(2) }, () => {
    const [afterMs, signal, group] = [random(withinMs), SIGNALS[random(SIGNALS.length)]!, random(2) === 0];
    return setTimeout(() => {
      told.push(`${signal}${group ? " to its group" : ""} after ${afterMs} ms${phase(rig)}`);
      try {
        process.kill(group ? -child.pid! : child.pid!, signal);
      } catch {} // it has ended
    }, afterMs);
  });
  const [code, signal] = (await ended) as [number | null, NodeJS.Signals | null];
  for (const timer of timers) clearTimeout(timer);
  story.push(`${told.join(", ") || "no signal"}: ${signal ?? code}`);
  return { code, out, err };
}

function phase(rig: Rig): string {
  return existsSync(join(rig.home, rig.app, "restart", "journal.json")) ? " (journal)" : "";
}

function allRun(rig: Rig): boolean {
  return rig
    .processNames()
    .map((name) => rig.cgroup(name))
    .every((cgroup) => cgroup.populated && !cgroup.freezing);
}
