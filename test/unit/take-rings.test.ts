/** Memory rings into the collector's own logs: what a failing disk, a dead collector and a clash of names leave there. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { MemoryBatch } from "../../src/capture/memory-rings.ts";
import { Collector } from "../../src/collect/collect.ts";
import { printEvent } from "../../src/format/interchange.ts";
import { RingKind } from "../../src/format/ring-layout.ts";
import type { Event } from "../../src/model/event.ts";
import { FakeDisk, FakeRing, FakeSource } from "./collect-fakes.ts";

let home: string;
let ring: FakeRing;
let disk: FakeDisk;
let living: Collector;
let kill: () => void;

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "take-rings-"));
  ring = new FakeRing();
  disk = new FakeDisk();
  await start();
});
afterEach(async () => {
  await living.close().catch(() => undefined);
  rmSync(home, { recursive: true, force: true });
});

async function start(): Promise<void> {
  const source = new FakeSource(ring);
  kill = () => source.kill();
  living = await Collector.over({
    source,
    home,
    openLog: disk.opener(() => !source.dead),
    commitIntervalMs: 5,
  });
}

const stored = (process: string): string[] =>
  disk.events(join(home, "heat"), process).map((event) => printEvent(event).replace(/"process":"\w+",?/, ""));
const COPY = { type: "page-copy", process: "h0", page: 7, role: "source", channel: "dsm:h0-p1" } as const;
const FAULT = { type: "page-fault", process: "p0", page: 7, access: "read" } as const;
const MARK = (process: string, checkpoint: number): Event => ({
  type: "checkpoint",
  process,
  checkpoint,
  usable: true,
});

function batch(...events: Event[]): MemoryBatch {
  return { application: "heat", entities: ["p0", "h0"], events, ended: false };
}
const LAST: MemoryBatch = { ...batch(), ended: true };

test("events of a runtime are in the log with the next group commit, counted by kind, its checkpoints known", async () => {
  await living.takeRings(batch(FAULT, { ...COPY, begin: 0, end: 1, version: 3 }, MARK("p0", 1)));
  await expect.poll(() => stored("p0").length).toBe(2);
  expect(stored("h0")).toEqual([expect.stringContaining('"version":3')]);
  expect(living.stats().events[RingKind.PAGE_COPY]).toBe(1);
  expect(living.stats().events[RingKind.PAGE_FAULT]).toBe(1);
  expect(living.processes().find(({ process }) => process === "p0")).toMatchObject({
    lines: 2,
    newestCheckpoint: 1,
  });
  expect(living.processes().map(({ process, rings, live }) => [process, rings, live])).toEqual([
    ["p0", true, false],
    ["h0", true, false],
  ]);
  await living.takeRings(LAST);
  expect(living.processes().some(({ rings }) => rings)).toBe(false);
  expect(stored("p0").join()).not.toContain("gap");
});

test("a runtime that comes again undoes what the log holds of its entities", async () => {
  await living.takeRings(batch(MARK("p0", 1), FAULT));
  await living.takeRings(LAST);
  await living.takeRings(batch(MARK("p0", 1)));
  await living.takeRings(LAST);
  expect(stored("p0").map((line) => /"type":"([\w-]+)"/.exec(line)![1])).toEqual([
    "checkpoint",
    "page-fault",
    "rollback",
    "checkpoint",
  ]);
  expect(stored("p0")[2]).toContain('"checkpoint":0');
});

test("what a killed collector had not committed is declared by the next one that opens the log", async () => {
  await living.takeRings(batch(FAULT));
  await expect.poll(() => stored("p0").length).toBe(1);
  kill();
  await start();
  for await (const _ of living.logs.readBlocks("heat")) break; // a reader is enough
  expect(stored("p0").map((line) => line.includes('"gap"'))).toEqual([false, true]);
  expect(stored("h0")).toEqual(['{"type":"gap",}']);
  // And once only.
  await living.takeRings(batch(MARK("p0", 1)));
  await living.takeRings(LAST);
  expect(stored("p0").filter((line) => line.includes('"gap"'))).toHaveLength(1);
});

test("a log that can't be written: its runtimes are refused, and what was lost stands in it as a gap", async () => {
  await living.takeRings(batch(MARK("p0", 1)));
  await expect.poll(() => stored("p0").length).toBe(1);
  disk.failures.set(join(home, "heat"), ["before"]);
  disk.openFails = 3; // so that somebody can see it: it is tried again soon
  await living.takeRings(batch(FAULT));
  await expect.poll(() => living.stats().brokenApps.length).toBe(1);
  await expect(living.takeRings(batch(FAULT))).rejects.toMatchObject({ code: "RL_LOG_WRITE" });
  await expect.poll(() => living.stats().brokenApps.length).toBe(0);
  await expect.poll(() => stored("p0").at(-1)).toContain('"gap"');
  expect(stored("p0")).toHaveLength(2);
});

test("one name can't be recorded by the kernel and through rings", async () => {
  await living.registrations.register({ app: "heat", process: "p0", cgroupId: 11 });
  await expect(living.takeRings(batch(FAULT))).rejects.toThrow(
    "process p0 of heat is recorded by the kernel already",
  );
  await living.takeRings({ ...batch(), entities: ["p1", "h1"] });
  await expect(living.registrations.register({ app: "heat", process: "h1", cgroupId: 12 })).rejects.toThrow(
    "process h1 of heat is recorded through memory rings",
  );
});

test("checkpoints that do not rise end the runtime with a gap", async () => {
  await living.takeRings(batch(MARK("p0", 2)));
  await expect(living.takeRings(batch(MARK("p0", 2)))).rejects.toMatchObject({ code: "RL_CONTRADICTION" });
  await living.takeRings({ ...batch(), entities: ["p1", "h1"], ended: true });
  expect(stored("p0").map((line) => line.includes('"gap"'))).toEqual([false, true]);
});
