/**
 * The DSM kernels, killed with SIGKILL and started again from the images that the engine's line names, until the result comes
 * out: it must be the sequential one. Every restart also checks received ≤ sent on every channel (native/dsm/restore.c), since
 * a right result alone proves nothing.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readDsmTraces } from "../../src/analysis/importers/dsm-trace.ts";
import { computeLine } from "../../src/engine/compute.ts";
import { EvidenceBuilder } from "../../src/graph/evidence.ts";
import { Random } from "../reference/random.ts";
import { makeDsm } from "./dsm-build.ts";

const PROCESSES = 3;
/** No seed begins after this, in ms: a slow machine tries fewer, and says so. */
const BUDGET_MS = 45_000;
/** After a step, so that the others' checkpoints of it get in before the next step's messages. */
const PAUSE_US = "15000";

interface Kernel {
  readonly words: string[];
  readonly seeds: number;
  /** Under AddressSanitizer and UBSan. */
  readonly watched: boolean;
}
const KERNELS: Record<string, Kernel> = {
  sor: { words: ["--n", "96", "--iterations", "40"], seeds: 10, watched: false },
  matmul: { words: ["--n", "96"], seeds: 10, watched: false },
  lu: { words: ["--n", "48"], seeds: 4, watched: true },
  tsp: { words: ["--n", "9"], seeds: 4, watched: true },
};

let fast = "";
let watched = "";
let folder = "";
beforeAll(() => {
  fast = join(makeDsm(), "dsm-kernels");
  watched = join(makeDsm("address,undefined"), "dsm-kernels");
  folder = mkdtempSync(join(tmpdir(), "dsm-restart-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One application on disk: traces and images. */
class Application {
  readonly folder: string;
  readonly #program: string;
  readonly #words: string[];

  constructor(name: string, kernel: string) {
    this.folder = join(folder, name);
    const { words, watched: slow } = KERNELS[kernel]!;
    this.#program = slow ? watched : fast;
    mkdirSync(join(this.folder, "images"), { recursive: true });
    const where = ["--trace", this.folder, "--images", join(this.folder, "images")];
    this.#words = [kernel, ...words, "--processes", String(PROCESSES), ...where, "--every", "1"];
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

/** Kills one process `ms` after all have begun; true if the run ended by that and not on its own. */
async function killed(launcher: ChildProcess, traces: string, rank: number, ms: number): Promise<boolean> {
  const exit = once(launcher, "exit") as Promise<[number | null]>;
  const pids: number[] = [];
  for await (const text of createInterface({ input: launcher.stdout! })) {
    pids.push((JSON.parse(text) as { pid: number }).pid);
    if (pids.length === PROCESSES) break;
  }
  await begun(traces, launcher);
  await sleep(ms);
  try {
    if (launcher.exitCode === null) process.kill(pids[rank]!, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error; // it came to its end at this very moment
  }
  return (await exit)[0] !== 0;
}

async function result(
  launcher: ChildProcess,
): Promise<{ code: number | null; correct: boolean | undefined; said: string }> {
  let [out, said] = ["", ""];
  launcher.stdout!.on("data", (text: Buffer) => (out += text.toString()));
  launcher.stderr!.on("data", (text: Buffer) => (said += text.toString()));
  const [code] = (await once(launcher, "close")) as [number | null];
  const last = JSON.parse(out.trim().split("\n").at(-1) ?? "{}") as { correct?: boolean };
  return { code, correct: last.correct, said };
}

/** Up to two failures, then to the end. Returns the checkpoints that the restarts began from. */
async function survive(kernel: string, seed: number): Promise<number> {
  const random = new Random(seed);
  const app = new Application(`${kernel}-${seed}`, kernel);
  let line = { text: "", checkpoints: 0 };
  let sum = 0;
  for (let failures = 1 + random.below(2); failures > 0; failures -= 1) {
    const launcher = app.start(line.text, "--pause-us", PAUSE_US);
    if (!(await killed(launcher, app.folder, random.below(PROCESSES), 150 + random.below(600)))) return sum;
    line = await app.line();
    sum += line.checkpoints;
  }
  const ended = await result(app.start(line.text));
  expect({ kernel, seed, line: line.text, ...ended }).toMatchObject({ code: 0, correct: true, said: "" });
  return sum;
}

test.each(Object.keys(KERNELS))(
  "%s, killed and started again, equals its sequential run",
  async (kernel) => {
    const first = Date.now() % 1_000_000;
    const from = Date.now();
    const restarts: number[] = [];
    for (let seed = first; seed < first + KERNELS[kernel]!.seeds && Date.now() - from < BUDGET_MS; seed += 1)
      restarts.push(await survive(kernel, seed));
    console.log(
      `${kernel}: seeds from ${first}, checkpoints that restarts began from: ${restarts.join(" ")}`,
    );
    // Else it would only show that a program can be started twice. One lock couples all processes of tsp: it falls far back.
    if (kernel !== "tsp")
      expect(restarts.filter((sum) => sum > 0).length).toBeGreaterThan(restarts.length / 2);
  },
  120_000,
);

test("a restart refuses what is no line, and images that are not what their manifests say", async () => {
  const app = new Application("refused", "sor");
  expect(await killed(app.start("", "--pause-us", PAUSE_US), app.folder, 1, 600)).toBe(true);
  const { text, checkpoints } = await app.line();
  expect(checkpoints).toBeGreaterThan(6);
  const refusals = async (line: string): Promise<string> => {
    const { code, said } = await result(app.start(line));
    expect(code).toBe(70);
    return said;
  };
  const earlier = text.replace(/p1:(\d+)/, (_, index) => `p1:${Number(index) - 2}`);
  expect(await refusals(earlier)).toMatch(
    /this is no recovery line: (h\d received \d+ messages of p1|p1 has passed)/,
  );
  expect(await refusals(text.replace(/p1:\d+/, "p1:99999"))).toContain("image p1-99999 in");
  const image = join(app.folder, "images", `${/p2:\d+/.exec(text)![0].replace(":", "-")}.image`);
  const bytes = readFileSync(image);
  const random = new Random(Date.now() % 1_000_000);
  for (let flips = 0; flips < 8; flips += 1) {
    const damaged = Buffer.from(bytes);
    damaged[random.below(bytes.length)]! ^= 1 << random.below(8);
    writeFileSync(image, damaged);
    expect(await refusals(text)).toContain("it is not what its manifest says");
  }
  writeFileSync(image, bytes.subarray(0, bytes.length - 1));
  expect(await refusals(text)).toContain("it is not what its manifest says");
  writeFileSync(image, bytes);
  expect(await result(app.start(text))).toEqual({ code: 0, correct: true, said: "" });
}, 60_000);
