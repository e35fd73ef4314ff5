/** DSM kernels that are killed and started again along the engine's line, from a seed. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { readDsmTraces } from "../../src/import/dsm-trace.ts";
import { Random } from "../reference/random.ts";

const PROCESSES = 3;
/** After a step, so that the others' checkpoints of it get in before the next step's messages. */
export const PAUSE_US = "15000";

/** One application on disk: traces and images. */
export class Application {
  readonly folder: string;
  readonly #program: string;
  readonly #words: string[];

  /** `program`: the kernels' executable; `words`: one kernel and its sizes. */
  constructor(folder: string, program: string, words: readonly string[]) {
    this.folder = folder;
    this.#program = program;
    mkdirSync(join(this.folder, "images"), { recursive: true });
    const where = ["--trace", this.folder, "--images", join(this.folder, "images")];
    this.#words = [...words, "--processes", String(PROCESSES), ...where, "--every", "1"];
  }

  start(line: string, ...more: string[]): ChildProcess {
    const restore = line === "" ? [] : ["--restore", line];
    return spawn(this.#program, [...this.#words, ...restore, ...more], { stdio: ["ignore", "pipe", "pipe"] });
  }

  /** The line for the failure of everybody, as --restore takes it, and the sum of its checkpoint indices. */
  async line(): Promise<{ text: string; checkpoints: number }> {
    const files = Array.from({ length: PROCESSES }, (_, rank) => join(this.folder, `rank-${rank}.jsonl`));
    const builder = new EvidenceBuilder();
    for (const event of await readDsmTraces(files)) builder.addEvent(event);
    const { line } = computeLine(builder.build(), { dsm: "sequential", inTransit: "any" });
    expect(line.length).toBe(2 * PROCESSES);
    const text = line.map(({ process, checkpoint }) => `${process}:${checkpoint ?? -1}`).join(",");
    return { text, checkpoints: line.reduce((sum, { checkpoint }) => sum + (checkpoint ?? 0), 0) };
  }
}

/** Waits until each process and each home stands in its trace: on a busy machine that takes a while, and before it there is no line of all. */
async function begun(traces: string, launcher: ChildProcess): Promise<void> {
  const silent = (rank: number): boolean => {
    const file = join(traces, `rank-${rank}.jsonl`);
    const text = existsSync(file) ? readFileSync(file, "utf8") : "";
    return !["p", "h"].every((kind) => text.includes(`"process":"${kind}${rank}"`));
  };
  for (let tries = 0; tries < 1000 && launcher.exitCode === null; tries += 1) {
    if (!Array.from({ length: PROCESSES }, (_, rank) => rank).some(silent)) return;
    await sleep(10);
  }
}

/** Kills one process at a moment after all have begun; true if the run ended by that and not on its own. */
export async function killed(
  launcher: ChildProcess,
  traces: string,
  rank: number,
  moment: () => Promise<void>,
): Promise<boolean> {
  const exit = once(launcher, "exit") as Promise<[number | null]>;
  const pids: number[] = [];
  for await (const text of createInterface({ input: launcher.stdout! })) {
    pids.push((JSON.parse(text) as { pid: number }).pid);
    if (pids.length === PROCESSES) break;
  }
  await begun(traces, launcher);
  await moment();
  try {
    if (launcher.exitCode === null) process.kill(pids[rank]!, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error; // it came to its end at this very moment
  }
  return (await exit)[0] !== 0;
}

export async function result(
  launcher: ChildProcess,
): Promise<{ code: number | null; correct: boolean | undefined; said: string }> {
  let [out, said] = ["", ""];
  launcher.stdout!.on("data", (text: Buffer) => (out += text.toString()));
  launcher.stderr!.on("data", (text: Buffer) => (said += text.toString()));
  const [code] = (await once(launcher, "close")) as [number | null];
  const last = JSON.parse(out.trim().split("\n").at(-1) ?? "{}") as { correct?: boolean };
  return { code, correct: last.correct, said };
}

/** Up to two failures at moments that the seed gives, then to the end: the result must be the sequential one. Returns the checkpoints that the restarts began from. */
export async function survive(app: Application, seed: number): Promise<number> {
  const random = new Random(seed);
  let line = { text: "", checkpoints: 0 };
  let sum = 0;
  for (let failures = 1 + random.below(2); failures > 0; failures -= 1) {
    const launcher = app.start(line.text, "--pause-us", PAUSE_US);
    const [rank, ms] = [random.below(PROCESSES), 150 + random.below(600)];
    if (!(await killed(launcher, app.folder, rank, () => sleep(ms)))) return sum;
    line = await app.line();
    sum += line.checkpoints;
  }
  const ended = await result(app.start(line.text));
  expect({ seed, line: line.text, ...ended }).toMatchObject({ code: 0, correct: true, said: "" });
  return sum;
}
