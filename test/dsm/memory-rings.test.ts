import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { MemoryRings } from "../../src/capture/memory-rings.ts";
import { collectMemory } from "../../src/collect/collect-memory.ts";
import { computeLine } from "../../src/compute/compute.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { readLog } from "../../src/log/segment-reader.ts";
import { readEvidence } from "../../src/logs/read-evidence.ts";
import type { DsmEvent } from "../../src/model/event.ts";
import { ACCEPT_POLL_MS, RING_LOOK_MS } from "../../src/model/limits.ts";
import { compile } from "../native/c-build.ts";
import { makeDsm, runKernel } from "./dsm-build.ts";

let kernels = "";
let client = "";
let folder = "";
let rings: MemoryRings;
let children: ChildProcess[] = [];

beforeAll(() => {
  kernels = makeDsm();
  client = compile("memory_client", ["test/dsm/c/memory_client.c", "native/ring/ring_write.c"]);
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "memory-rings-"));
  rings = new MemoryRings(join(folder, "rings.sock"));
});
afterEach(() => {
  rings.close();
  for (const child of children) child.kill("SIGKILL");
  children = [];
  rmSync(folder, { recursive: true, force: true });
});

function connect(mode: string): ChildProcess {
  const child = spawn(client, [join(folder, "rings.sock"), mode], { stdio: ["pipe", "inherit", "inherit"] });
  children.push(child);
  return child;
}

/** Polls until `done`, at most 5 s; returns all events. */
async function pollUntil(done: (events: readonly DsmEvent[]) => boolean): Promise<DsmEvent[]> {
  const events: DsmEvent[] = [];
  for (const until = Date.now() + 5000; Date.now() < until && !done(events); ) {
    for (const batch of rings.poll()) events.push(...batch.events);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return events;
}

/** Waits for the refusal; returns its message and the events before it. */
async function refused(mode: string): Promise<{ message: string; events: DsmEvent[] }> {
  const child = connect(mode);
  let message = "";
  const events = await pollUntil(() => {
    for (const { error, pid } of rings.takeRefusals()) {
      expect(pid).toBe(child.pid);
      message = error.message;
    }
    return message !== "" && rings.connected === 0;
  });
  return { message, events };
}

test("records of a runtime arrive in its order, a checkpoint where it happened", async () => {
  const child = connect("good");
  let events = await pollUntil((all) => all.length === 11);
  expect(events.map(({ type }) => type).indexOf("checkpoint")).toBe(5);
  expect(events[0]).toMatchObject({ type: "send", process: "p1", channel: "dsm:p1-h0", begin: 0, end: 1 });
  expect(rings.connected).toBe(1);
  child.stdin!.end();
  events = await pollUntil(() => rings.connected === 0);
  expect(events).toEqual([]);
});

test("a checkpoint stands before what its process did after it, however that falls between two looks", async () => {
  connect("busy");
  const events: DsmEvent[] = [];
  for (const until = Date.now() + 20_000; events.length < 12_000 && Date.now() < until; ) {
    for (const batch of rings.poll()) events.push(...batch.events);
    await new Promise(setImmediate);
  }
  const wanted = Array.from({ length: 2000 }, (_, index) => 5 * (index + 1) + index);
  expect(events.flatMap(({ type }, at) => (type === "checkpoint" ? [at] : []))).toEqual(wanted);
});

test("records without room stand as a gap of both entities before the next record", async () => {
  connect("lossy");
  const events = await pollUntil((all) => all.length >= 67);
  expect(events.slice(0, 64).every(({ type }) => type === "send")).toBe(true);
  expect(events.slice(64, 66)).toMatchObject([
    { type: "gap", process: "p1" },
    { type: "gap", process: "h1" },
  ]);
  expect((events[64] as { lost: number }).lost).toBeGreaterThanOrEqual(36);
  expect(events[66]).toMatchObject({ type: "send", begin: 100 });
});

test("losses that no record told are a gap when the runtime ends", async () => {
  connect("untold").stdin!.end();
  const events = await pollUntil((all) => all.some(({ type }) => type === "gap"));
  expect(events).toHaveLength(66);
  expect(events.slice(64)).toMatchObject([
    { type: "gap", process: "p1", lost: 36 },
    { type: "gap", process: "h1", lost: 36 },
  ]);
});

test("a sequence number that nobody wrote is a gap when the runtime ends", async () => {
  connect("hole").stdin!.end();
  const events = await pollUntil((all) => all.length >= 12);
  expect(events.map(({ type }) => type)).toEqual([
    ...Array(5).fill("send"),
    "gap",
    "gap",
    ...Array(5).fill("send"),
  ]);
});

test.each([
  ["file", /not a sealed memory ring/],
  ["unsealed", /not a sealed memory ring/],
  ["hello", /first message is not that/],
])("%s: turned away before anything of it counts", async (mode, why) => {
  const { message, events } = await refused(mode);
  expect(message).toMatch(why);
  expect(events).toEqual([]);
});

test.each([
  ["scribble", /impossible header/],
  ["impostor", /entity 4/],
  ["foreign", /entity 2/],
  ["number", /breaks the slot layout/],
  ["control", /checkpoint of p0/],
  ["null", /no object/],
])("%s: the runtime ends with a gap of both its entities", async (mode, why) => {
  const { message, events } = await refused(mode);
  expect(message).toMatch(why);
  expect(events.slice(-2)).toMatchObject([
    { type: "gap", process: "p1" },
    { type: "gap", process: "h1" },
  ]);
});

test("an application whose log somebody else holds is turned away, the others go on", async () => {
  mkdirSync(join(folder, "home"));
  const held = await EventLog.open(join(folder, "home/client"), { create: true });
  connect("good");
  const refusals: string[] = [];
  const running = runKernel(
    kernels,
    ...["tsp", "--n", "8", "--processes", "2", "--collector", join(folder, "rings.sock")],
  );
  await collectMemory(rings, join(folder, "home"), ({ ended }) => {
    refusals.push(...rings.takeRefusals().map(({ error }) => error.code));
    return ended === 2;
  });
  expect(refusals).toEqual(["RL_LOCKED"]);
  expect((await running).correct).toBe(true);
  expect((await readEvidence(readLog(join(folder, "home/dsm")))).processes).toHaveLength(4);
  await held.close();
});

test("a runtime calls when a ring is half full, and when it comes, and when it goes", async () => {
  let calls = 0;
  rings.onCall(() => {
    calls += 1;
  });
  const called = async (more: number) => {
    const until = Date.now() + 5000;
    while (calls < more && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 2));
    expect(calls).toBeGreaterThanOrEqual(more);
    calls = 0;
  };
  const child = connect("half");
  await called(1); // the connection, before anybody has looked
  expect(await pollUntil((events) => events.length === 10)).toHaveLength(10);
  await new Promise((resolve) => setTimeout(resolve, 50));
  calls = 0;
  child.stdin!.write("x"); // 32 records more, half of its ring
  await called(1);
  expect(await pollUntil((events) => events.length === 32)).toHaveLength(32);
  expect(rings.nextPollMs).toBeLessThan(RING_LOOK_MS);
  child.stdin!.end();
  await called(1);
  await pollUntil(() => rings.connected === 0);
  expect(rings.nextPollMs).toBe(ACCEPT_POLL_MS);
});

async function collected(...words: string[]) {
  const running = runKernel(
    kernels,
    ...words,
    "--collector",
    join(folder, "rings.sock"),
    "--application",
    "app",
  );
  const processes = Number(words[words.indexOf("--processes") + 1]);
  const counts = await collectMemory(rings, join(folder, "home"), ({ ended }) => ended === processes);
  return { result: await running, counts, evidence: await readEvidence(readLog(join(folder, "home/app"))) };
}

test("kernel → rings → log → line, twice: a second run starts over", async () => {
  for (const words of [
    ["sor", "--n", "64", "--iterations", "6", "--every", "2", "--images", folder],
    ["tsp", "--n", "9", "--every", "4", "--images", folder],
  ]) {
    const { result, counts, evidence } = await collected(...words, "--processes", "3");
    expect(result).toMatchObject({ correct: true, recordsLost: 0 });
    // A process counts its own records: rank 0's, and at least as many of each other.
    expect(counts.events).toBeGreaterThan(result.records);
    expect(evidence.processes).toEqual(["h0", "h1", "h2", "p0", "p1", "p2"]);
    const nobody = computeLine(evidence, { failed: [], dsm: "sequential", inTransit: "any" });
    expect(nobody).toMatchObject({ outcome: "clean", inTransit: [] });
    expect(nobody.line.every(({ action }) => action === "continue")).toBe(true);
    const failed = computeLine(evidence, { failed: ["p1", "h1"], dsm: "transfers", inTransit: "any" });
    expect(failed.line.find(({ process }) => process === "p1")!.action).not.toBe("continue");
  }
});

test("a runtime whose collector goes away stops and says so", async () => {
  const words = ["sor", "--n", "64", "--iterations", "1000000", "--processes", "2", "--application", "app"];
  const child = spawn(`${kernels}/dsm-kernels`, [...words, "--collector", join(folder, "rings.sock")], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  children.push(child);
  let said = "";
  child.stderr!.on("data", (text) => {
    said += text;
  });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  await pollUntil((events) => events.length > 100);
  rings.close();
  rings = new MemoryRings(join(folder, "rings.sock"));
  expect(await exited).toBe(70);
  expect(said).toMatch(/the collector is gone/);
});
