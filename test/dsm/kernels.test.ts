import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { computeLine, processNumbers } from "../../src/compute/compute.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { exactPageModel, survivingCopies } from "../../src/graph/questions/page-transfers.ts";
import { keptPositions, undoneBy } from "../../src/graph/rollback/rollback-model.ts";
import { readDsmTraces } from "../../src/import/dsm-trace.ts";
import type { DsmEvent } from "../../src/model/event.ts";
import { compile } from "../native/c-build.ts";
import { sized } from "../size.ts";
import { makeDsm, runKernel } from "./dsm-build.ts";

const SANITIZERS = "address,undefined";
const SMALL: Record<string, string[]> = {
  sor: ["--n", "128", "--iterations", "6"],
  lu: ["--n", "40"],
  matmul: ["--n", "64"],
  radix: ["--n", "1024"],
  tsp: ["--n", "9"],
};

let fast = "";
let watched = "";
let folder = "";

beforeAll(() => {
  fast = makeDsm();
  watched = makeDsm(SANITIZERS);
  folder = mkdtempSync(join(tmpdir(), "dsm-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(Object.keys(SMALL))("%s equals its sequential run", (kernel) => {
  test.each([2, 3, 8])("on %i processes", async (processes) => {
    const size = [...SMALL[kernel]!, "--processes", String(processes)];
    const result = await runKernel(processes === 3 ? watched : fast, kernel, ...size);
    expect(result).toMatchObject({ kernel, processes, correct: true });
    expect(result.copiesReceived).toBeGreaterThan(0);
  });
});

/** Of numbers of eight bytes, each way. */
const SIDE = sized(4096, 2048);

test(`${(SIDE * SIDE) >> 17} MiB of pages`, async () => {
  const result = await runKernel(fast, "sor", "--n", String(SIDE), "--iterations", "1", "--processes", "2");
  expect(result.correct).toBe(true);
  expect(result.copiesReceived).toBeGreaterThan(16_000 * (SIDE / 4096) ** 2);
});

test("a peer that lies in handshake, headers or order ends in a sentence, never in a crash", () => {
  const seed = String(Date.now() % 1_000_000);
  const program = compile(
    "dsm_hostile",
    ["test/dsm/c/dsm_hostile_test.c"],
    [`${watched}/librecovery_dsm.a`, `-fsanitize=${SANITIZERS}`, "-fno-sanitize-recover=all", "-lpthread"],
  );
  const ends = JSON.parse(execFileSync(program, [seed, "80"], { encoding: "utf8" })) as Record<
    string,
    number
  >;
  console.log(`hostile peers, seed ${seed}: ${JSON.stringify(ends)}`);
  expect(ends["protocol"]! + ends["lost"]! + ends["timeout"]!).toBe(80);
  expect(ends["protocol"]).toBeGreaterThan(20);
});

/** A kernel with a trace and images, run to its end. */
async function traced(name: string, kernel: string, ...words: string[]): Promise<DsmEvent[]> {
  const trace = join(folder, name);
  mkdirSync(join(trace, "images"), { recursive: true });
  await runKernel(fast, kernel, ...words, "--trace", trace, "--images", join(trace, "images"));
  return readDsmTraces(
    readdirSync(trace)
      .filter((file) => file.endsWith(".jsonl"))
      .map((file) => join(trace, file)),
  );
}

function evidenceOf(events: readonly DsmEvent[]) {
  const builder = new EvidenceBuilder();
  for (const event of events) builder.addEvent(event);
  return builder.build();
}

interface Seen {
  sent: number;
  received: number;
}

/** Counts messages by channel; both ends must number them 0, 1, 2, … */
function channelsOf(events: readonly DsmEvent[]): Map<string, Seen> {
  const channels = new Map<string, Seen>();
  for (const event of events) {
    if (!("begin" in event)) continue;
    const seen = channels.get(event.channel) ?? { sent: 0, received: 0 };
    channels.set(event.channel, seen);
    const sends = event.type === "send" || ("role" in event && event.role === "source");
    expect(event.begin).toBe(sends ? seen.sent++ : seen.received++);
    expect(event.end).toBe(event.begin + 1);
  }
  return channels;
}

test.each([
  ["sor", ["--n", "64", "--iterations", "8", "--every", "3"]],
  ["radix", ["--n", "512", "--every", "1"]],
  ["tsp", ["--n", "9", "--every", "5"]],
] as const)(
  "%s: both ends of every message are recorded, and cut vectors say how many",
  async (kernel, words) => {
    const events = await traced(`whole-${kernel}`, kernel, ...words, "--processes", "3");
    const channels = channelsOf(events);
    for (const [channel, { sent, received }] of channels)
      expect([channel, received]).toEqual([channel, sent]);
    const soFar = new Map<string, number>();
    let cuts = 0;
    for (const event of events) {
      if ("begin" in event) soFar.set(`${event.process} ${event.channel}`, event.end);
      if (event.type !== "checkpoint") continue;
      for (const [channel, offset] of [...event.cut!.sent, ...event.cut!.received]) {
        expect(soFar.get(`${event.process} ${channel}`)).toBe(offset);
        cuts += 1;
      }
    }
    expect(cuts).toBeGreaterThan(10);
    // Nobody failed: nobody is rolled back, nothing is in transit.
    const line = computeLine(evidenceOf(events), { failed: [], dsm: "sequential", inTransit: "any" });
    expect(line.line.every(({ action }) => action === "continue")).toBe(true);
    expect(line.inTransit).toEqual([]);
  },
);

test("every failure of a real trace: fewer dependencies never give an earlier line, and every page survives", async () => {
  const events = await traced("failures", "tsp", "--n", "9", "--every", "4", "--processes", "3");
  const evidence = evidenceOf(events);
  const exactModel = exactPageModel(events);
  for (let rank = 0; rank < 3; rank += 1) {
    const failed = [`p${rank}`, `h${rank}`];
    const kept = (dsm: "sequential" | "transfers") =>
      computeLine(evidence, { failed, dsm, inTransit: "any" }).line.map(({ position }) => position);
    const exact = [
      ...keptPositions(exactModel.evidence, undoneBy(exactModel, processNumbers(evidence, failed))),
    ];
    const [sequential, transfers] = [kept("sequential"), kept("transfers")];
    sequential.forEach((position, p) => {
      expect(position).toBeLessThanOrEqual(transfers[p]!);
      expect(transfers[p]).toBeLessThanOrEqual(exact[p]!);
    });
    for (const positions of [sequential, transfers, exact]) {
      const at = (process: string) => positions[evidence.processes.indexOf(process)]!;
      for (const { holders } of survivingCopies(events, at)) expect(holders).not.toEqual([]);
    }
  }
});

test("images are what their manifests say", async () => {
  const events = await traced(
    "images",
    "sor",
    "--n",
    "64",
    "--iterations",
    "4",
    "--every",
    "2",
    "--processes",
    "2",
  );
  const images = join(folder, "images/images");
  const checkpoints = events.filter((event) => event.type === "checkpoint");
  expect(checkpoints.length).toBeGreaterThanOrEqual(8);
  for (const event of checkpoints) {
    if (event.type !== "checkpoint") continue;
    const manifest = JSON.parse(readFileSync(join(images, `${event.image}.json`), "utf8")) as Record<
      string,
      unknown
    >;
    const bytes = readFileSync(join(images, `${event.image}.image`));
    expect(manifest).toMatchObject({
      process: event.process,
      checkpoint: event.checkpoint,
      bytes: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
      cut: { sent: Object.fromEntries(event.cut!.sent), received: Object.fromEntries(event.cut!.received) },
    });
    expect(bytes.toString("latin1", 0, 8)).toBe("RDSMIMG2");
  }
  expect(readdirSync(images).filter((name) => name.endsWith(".new"))).toEqual([]);
});

async function said(child: ChildProcess, lines: number, stream: "stdout" | "stderr"): Promise<string[]> {
  let text = "";
  for await (const chunk of child[stream]!) {
    text += chunk;
    if (text.split("\n").length > lines) break;
  }
  return text.trim().split("\n");
}

test("a killed process is named by all others, and its trace ends with a whole line", async () => {
  const trace = join(folder, "killed");
  mkdirSync(trace);
  const words = ["sor", "--n", "64", "--iterations", "1000000", "--processes", "3", "--trace", trace];
  const launcher = spawn(`${fast}/dsm-kernels`, words, { stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise((resolve) => launcher.once("exit", resolve));
  const pids = (await said(launcher, 3, "stdout")).map((line) => (JSON.parse(line) as { pid: number }).pid);
  // Then all depend on it: all pass each barrier, and each iteration moves pages of each home.
  const own = join(trace, "rank-1.jsonl");
  const barriers = () =>
    existsSync(own) ? readFileSync(own, "utf8").split('"barrier-release"').length - 1 : 0;
  await expect.poll(barriers, { timeout: 20_000 }).toBeGreaterThanOrEqual(20);
  process.kill(pids[1]!, "SIGKILL");
  const errors = await said(launcher, 2, "stderr");
  expect(await exited).toBe(70);
  expect(errors.length).toBeGreaterThanOrEqual(2);
  // Whoever has ended for it may be missed by the third before the one that was killed.
  for (const line of errors) expect(line).toMatch(/^dsm: process p[02]: process p[0-2] is gone: /);
  expect(errors).toContainEqual(expect.stringContaining("process p1 is gone"));
  const events = await readDsmTraces([0, 1, 2].map((rank) => join(trace, `rank-${rank}.jsonl`)));
  const line = computeLine(evidenceOf(events), { failed: ["p1", "h1"], dsm: "sequential", inTransit: "any" });
  // No checkpoints: all the way back.
  expect(line.line.every(({ action }) => action === "initial")).toBe(true);
});

/** The states of the pages of an image (native/dsm/image.c), which it must consist of and of nothing else. */
function pageStates(image: Buffer): number[] {
  const states: number[] = [];
  const pages = Number(image.readBigUInt64LE(24));
  let at = 32 + Number(image.readBigUInt64LE(16));
  for (let n = 0; n < pages; n += 1, at += 24 + 4096) states.push(image[at + 4]!);
  expect(at).toBe(image.length);
  return states;
}

test("a checkpoint saves what invalidation retained", async () => {
  const INVALID = 0;
  const RETAINED = 3;
  const events = await traced("retained", "radix", "--n", "2048", "--every", "1", "--processes", "3");
  const states = events.flatMap((event) =>
    event.type === "checkpoint" && event.process.startsWith("p")
      ? pageStates(readFileSync(join(folder, "retained/images", `${event.image}.image`)))
      : [],
  );
  expect(states.filter((state) => state === RETAINED).length).toBeGreaterThan(0);
  expect(states).not.toContain(INVALID);
});
