/** Whether a process runs, or how it ended: for status, and for answers that would else call `continue` what runs no more. */

import { setTimeout as sleep } from "node:timers/promises";
import { ProcessCgroup } from "../host/cgroups.ts";
import { endOf, type TaskElsewhere, tasksElsewhere } from "../host/process-end.ts";
import { onceInReach, openClosedLog } from "../logs/closed-log.ts";
import { appDirectory } from "../logs/home.ts";
import { hasCode } from "../model/errors.ts";
import { END_WORD_MS } from "../model/limits.ts";
import { printable } from "../model/printable.ts";
import type { LineEntry } from "../model/recovery-line.ts";
import type { ProcessEnd, StoredProcess, TaskName } from "../model/stored-process.ts";

/**
 * connected: through memory rings; which processes of the system that are its runtime knows. left: nothing is in its cgroup, and tasks of it
 * live in another one. exited: nobody heard how.
 */
export type LifeState =
  | "running"
  | "frozen"
  | "connected"
  | "left"
  | "finished"
  | "failed"
  | "killed"
  | "exited";

export interface Life {
  readonly state: LifeState;
  readonly exitCode?: number;
  readonly signal?: number;
  /** Of a process that is left, or from which some tasks left. */
  readonly left: readonly TaskElsewhere[];
}

export interface LifeFacts {
  readonly app: string;
  readonly process: string;
  readonly cgroupId: number;
  readonly rings?: boolean;
  readonly failed?: boolean;
  readonly task?: TaskName;
  readonly end?: ProcessEnd;
  readonly left?: readonly TaskName[];
}

type CollectedFacts = LifeFacts & { readonly live: boolean };

/** How often who has ended is asked for again, in ms. */
const LOOK_MS = 20;

/**
 * Lives of processes as the collector tells of them. Who waits for one leaves word how it ended a moment after its end, and the collector takes
 * that word away once it is on record: an answer from before that knows neither, and the next one does. `limitMs`: longest wait for it; `awaits`:
 * whether a word may come still of who has ended and of whom there is none.
 */
export async function livesOf<T extends CollectedFacts>(
  ask: () => Promise<readonly T[]>,
  limitMs: number = END_WORD_MS,
  awaits = ({ live }: T): boolean => live,
): Promise<[facts: T, life: Life][]> {
  const deadlineMs = performance.now() + limitMs;
  for (let late = false; ; late = performance.now() > deadlineMs) {
    const lives = (await ask()).map((one): [T, Life] => [one, lifeOf(one)]);
    if (late || lives.every(([one, { state }]) => state !== "exited" || !awaits(one))) return lives;
    await sleep(LOOK_MS);
  }
}

/** Asked of the system now: the collector hears of an end a moment later. */
export function lifeOf({ app, process, cgroupId, rings, failed, task, end, left = [] }: LifeFacts): Life {
  const cgroup = new ProcessCgroup(app, process);
  const here = cgroup.id === cgroupId && cgroup.populated;
  const known = task === undefined || left.some(({ pid }) => pid === task.pid) ? left : [...left, task];
  const away = tasksElsewhere(known, app, process);
  if (here) return { state: cgroup.freezing ? "frozen" : "running", left: away };
  if (rings === true) return { state: "connected", left: [] };
  if (away.length > 0) return { state: "left", left: away };
  const ended = end ?? (task === undefined ? undefined : endOf(task));
  if (ended === undefined) return { state: failed === true ? "failed" : "exited", left: [] };
  if ("signal" in ended) return { state: "killed", signal: ended.signal, left: [] };
  return { state: ended.code === 0 ? "finished" : "failed", exitCode: ended.code, left: [] };
}

/** In a word: "failed (code 3)". */
export function lifeText({ state, exitCode, signal }: Life): string {
  if (state === "failed" && exitCode !== undefined) return `failed (code ${exitCode})`;
  return state === "killed" ? `killed (signal ${signal})` : state;
}

export function runs({ state }: Life): boolean {
  return state === "running" || state === "frozen" || state === "connected";
}

/** Lives of an application's processes that run no more; imported ones never ran here. */
export async function endedIn(homes: readonly string[], app: string): Promise<Map<string, Life>> {
  const ended = new Map<string, Life>();
  for (const home of homes) {
    const lives = await livesOf(async () => {
      const { facts, stored } = await onceInReach(() => factsOf(home, app));
      return facts.filter(({ live, cgroupId }) => !(stored && live) && cgroupId !== 0); // unrecorded.ts tells of those
    });
    for (const [{ process }, life] of lives) if (!runs(life)) ended.set(process, life);
  }
  return ended;
}

/** Processes of an application that the kernel has recorded in this home. */
export async function recordedIn(home: string, app: string): Promise<ReadonlySet<string>> {
  const { facts } = await onceInReach(() => factsOf(home, app));
  return new Set(facts.flatMap(({ process, cgroupId }) => (cgroupId === 0 ? [] : [process])));
}

interface KnownFacts {
  readonly facts: readonly CollectedFacts[];
  /** As the log says, that no collector holds. */
  readonly stored: boolean;
}

async function factsOf(home: string, app: string): Promise<KnownFacts> {
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  if (collector === undefined)
    return { facts: await storedFacts(appDirectory(home, app), app), stored: true };
  const facts = (await collector.processes()).filter((one) => one.app === app);
  collector.close();
  return { facts, stored: false };
}

/** What a log says that no collector holds. */
async function storedFacts(dir: string, app: string): Promise<KnownFacts["facts"]> {
  try {
    const reader = await openClosedLog(dir);
    try {
      const names = (reader.getState("processes") ?? []) as readonly string[];
      return names.flatMap((process) => {
        const stored = reader.getState(`process/${process}`) as StoredProcess | undefined;
        return stored === undefined ? [] : [{ ...stored, app, process }];
      });
    } finally {
      await reader.close();
    }
  } catch (error) {
    if (hasCode(error, "RL_UNKNOWN_APP")) return []; // told of already, or assumed lost
    throw error;
  }
}

/** For people, under a line: how those ended that it speaks of as if they ran, and that a finished one goes back. */
export function endedText(line: readonly LineEntry[], ended: ReadonlyMap<string, Life> | undefined): string {
  return line.map(({ process, action }) => sentence(process, action, ended?.get(process))).join("");
}

function sentence(process: string, action: LineEntry["action"], life: Life | undefined): string {
  if (life === undefined) return "";
  const name = printable(process);
  if (life.state === "left")
    return `${name} has left its cgroup: ${whereText(life)}. Nothing it does there is recorded.\n`;
  if (action === "continue") return `${name} runs no more (${lifeText(life)}): it need not come back.\n`;
  if (life.state !== "finished") return "";
  return `${name} had finished; the line undoes what it sent or received, so it goes back, too.\n`;
}

export function whereText({ left }: Pick<Life, "left">): string {
  return left.map(({ pid, cgroup }) => `process ${pid} is in ${printable(cgroup)}`).join(", ");
}

/** The same for programs: fields of the line's entries. */
export function withEnds<T extends Pick<LineEntry, "process">>(
  line: readonly T[],
  ended: ReadonlyMap<string, Life>,
): (T & { ended?: Life })[] {
  return line.map((entry) => {
    const life = ended.get(entry.process);
    return life === undefined ? entry : { ...entry, ended: life };
  });
}
