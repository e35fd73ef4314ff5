/** A log that can't be written for long: the ring is shared, so what waits in it is bounded (`collect --on-full`). */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import type { OnFull } from "../../src/collect/collect-options.ts";
import { RingFlag, RingKind, RingVerdict, SLOT_BYTES } from "../../src/format/ring-layout.ts";
import { FakeDisk, FakeRing, FakeSource } from "./collect-fakes.ts";

const SLOTS = 400;
let home: string;
let ring: FakeRing;
let disk: FakeDisk;
let source: FakeSource;
let living: Collector | undefined;
let troubles: string[];
let fatal: unknown;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "collect-full-"));
  ring = new FakeRing();
  ring.capacity = SLOTS;
  disk = new FakeDisk();
  troubles = [];
  fatal = undefined;
});
afterEach(async () => {
  await living?.close().catch(() => undefined);
  rmSync(home, { recursive: true, force: true });
});

async function start(onFull: OnFull = "taint"): Promise<Collector> {
  const fresh = new FakeSource(ring);
  source = fresh;
  living = await Collector.over({
    source,
    home,
    openLog: disk.opener(() => !fresh.dead),
    commitIntervalMs: 2,
    onFull,
    onTrouble: (sentence) => troubles.push(sentence),
    onFatal: (error) => {
      fatal = error;
    },
  });
  return living;
}

const folder = (app: string): string => join(home, app);

async function twoApps(collector: Collector): Promise<void> {
  for (const [app, cgroupId] of [
    ["a", 1],
    ["b", 2],
  ] as const) {
    await collector.registrations.register({ app, process: "p", cgroupId });
    mkdirSync(folder(app), { recursive: true });
  }
}

/** The disk is full for `a` until `repair`. */
function breakLog(): void {
  disk.failures.set(folder("a"), new Array(10_000).fill("before"));
}

const repair = (): void => void disk.failures.delete(folder("a"));

const produced = { 1: 0, 2: 0 };
beforeEach(() => {
  produced[1] = 0;
  produced[2] = 0;
});

/** One event of each process. */
function put(processes: readonly (1 | 2)[] = [1, 2]): void {
  for (const process of processes) {
    ring.put({
      process,
      kind: RingKind.SEND,
      local: process,
      remote: 9,
      begin: produced[process],
      length: 1,
    });
    produced[process] += 1;
  }
}

/** Events and declared losses of a process's log. */
function told(app: string): { events: number; lost: number; gaps: number } {
  const events = disk.events(folder(app));
  const gaps = events.flatMap((event) => (event.type === "gap" ? [event.lost ?? 0] : []));
  return { events: events.length - gaps.length, lost: gaps.reduce((a, b) => a + b, 0), gaps: gaps.length };
}

/** Produces `rounds` events of each process at a pace the collector keeps up with. */
async function produce(rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    while (ring.producer - ring.consumer > 0.9 * SLOTS * SLOT_BYTES)
      await new Promise((resolve) => setTimeout(resolve, 1));
    put();
  }
}

test("taint: a log broken for long is given up, the other application loses nothing, and produced = logged + declared lost", async () => {
  const collector = await start();
  await twoApps(collector);
  await produce(10);
  await collector.drain();
  breakLog();
  await produce(2000); // many times the ring
  await expect.poll(() => collector.stats().givenUpApps).toBe(1);
  await expect.poll(() => told("b").events).toBe(2010);
  expect(collector.stats().missed).toBeGreaterThan(1000);
  expect(troubles.join("\n")).toMatch(/cannot be written(.|\n)*given up/);
  repair();
  await expect.poll(() => collector.stats().givenUpApps, { timeout: 30_000 }).toBe(0);
  await produce(10);
  await collector.drain();
  expect(ring.lostTotal).toBe(0);
  expect(told("b")).toEqual({ events: 2020, lost: 0, gaps: 0 });
  const { events, lost, gaps } = told("a");
  expect(events + lost).toBe(2020);
  expect(gaps).toBe(1);
  expect(events).toBeGreaterThanOrEqual(20);
  expect(troubles.at(-1)).toMatch(/can be written again/);
});

test("a collector that dies while a log is given up: the next one declares the loss, and no cut heals what may have gone by", async () => {
  const collector = await start();
  await twoApps(collector);
  breakLog();
  await produce(1000);
  await expect.poll(() => collector.stats().givenUpApps).toBe(1);
  source.kill();
  repair();
  const next = await start();
  await next.drain();
  expect(told("b").events).toBe(1000);
  expect(told("b").gaps).toBe(0);
  expect(told("a").gaps).toBe(1);
  expect(await next.facts.uncaptured("a", "p")).not.toEqual([]);
});

test("a verdict on a process whose log is given up still keeps later checkpoints from carrying a cut", async () => {
  const collector = await start();
  await twoApps(collector);
  breakLog();
  ring.judge(1, RingVerdict.UDP);
  await produce(1000);
  await expect.poll(() => collector.stats().givenUpApps).toBe(1);
  repair();
  await expect.poll(() => collector.stats().givenUpApps, { timeout: 30_000 }).toBe(0);
  await collector.drain();
  expect(await collector.facts.uncaptured("a", "p")).toEqual(["udp"]);
});

test("all logs broken: nothing is given up, and what finds no room is told once there is some", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  breakLog();
  for (let round = 0; round < 1000; round += 1) put([1]);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(collector.stats().givenUpApps).toBe(0);
  repair();
  await expect.poll(() => collector.stats().brokenApps, { timeout: 30_000 }).toEqual([]);
  await collector.drain();
  expect(told("a")).toEqual({ events: 1000, lost: 0, gaps: 0 });
  expect(ring.lostTotal).toBeGreaterThan(0);
});

test("halt: collection ends with the coded error before anything is lost, and the next collector has it all", async () => {
  const collector = await start("halt");
  await twoApps(collector);
  breakLog();
  for (let round = 0; round < 160; round += 1) put(); // 320 of 400 slots
  await expect
    .poll(() => fatal)
    .toMatchObject({ code: "RL_LOG_WRITE", message: expect.stringContaining("halt") });
  await expect(collector.drain()).rejects.toMatchObject({ code: "RL_LOG_WRITE" });
  await collector.close();
  repair();
  const next = await start("halt");
  await next.drain();
  expect(told("a")).toEqual({ events: 160, lost: 0, gaps: 0 });
  expect(told("b")).toEqual({ events: 160, lost: 0, gaps: 0 });
});

test("a ring that stays full while an ending waits to be decided: whoever asks is told, the collector goes on", async () => {
  const collector = await start();
  await twoApps(collector);
  const flush = vi.spyOn(source, "flush").mockReturnValue(true);
  const clock = performance.now.bind(performance);
  const fast = vi.spyOn(performance, "now").mockImplementation(() => clock() * 100); // limits of tens of seconds
  try {
    ring.put({
      process: 1,
      kind: RingKind.RECEIVE,
      flags: RingFlag.END,
      local: 1,
      remote: 9,
      begin: 0,
      length: 1,
    });
    const begin = flush.mock.calls.length;
    await expect.poll(() => flush.mock.calls.length).toBeGreaterThan(begin);
    await new Promise((resolve) => setTimeout(resolve, 500)); // 50 s of that clock
    expect(fatal).toBeUndefined();
    await expect(collector.drain()).rejects.toMatchObject({ code: "RL_TIMEOUT" });
    flush.mockRestore();
    await collector.drain();
    expect(fatal).toBeUndefined();
  } finally {
    fast.mockRestore();
  }
});
