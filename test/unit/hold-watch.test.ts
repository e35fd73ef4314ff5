/** Who lets held output go, and what is told of what stays: with a kernel and a committer of the test's own. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { CommitAnswer, CommitRequest } from "../../src/client/protocol.ts";
import { HoldWatch } from "../../src/daemon/hold-watch.ts";
import type { CollectedProcess, WaitingOutput } from "../../src/model/collector-answers.ts";
import type { Release } from "../../src/model/event-source.ts";

const LIMIT_MS = 1000;
let waiting: WaitingOutput[];
let released: Release[];
let asked: CommitRequest[];
let told: string[];
let answer: (request: CommitRequest) => Partial<CommitAnswer>;
let live: boolean;
let byPolicy: boolean;
let watch: HoldWatch;

const output = (process: string, local: number, more: Partial<WaitingOutput> = {}): WaitingOutput => ({
  app: "shop",
  process,
  cgroupId: 1,
  local,
  remote: 9,
  released: 0,
  wanted: 10,
  since: performance.now() * 1e6,
  free: false,
  host: "192.0.2.1",
  port: 80,
  inside: false,
  limitMs: LIMIT_MS,
  ...more,
});

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
  [waiting, released, asked, told, live] = [[], [], [], [], true];
  answer = () => ({});
  byPolicy = false;
  const isWaiting = (one: WaitingOutput): boolean => {
    const raised = released.filter(({ local }) => local === one.local);
    return !raised.some(({ free, released: mark }) => free || mark >= one.wanted);
  };
  watch = new HoldWatch({
    outputs: {
      any: true,
      waiting: () => (live ? waiting.filter(isWaiting) : []),
      release: (outputs) => void released.push(...outputs),
      noteUnheld: () => [],
      note: () => true,
      msSince: (ns) => performance.now() - ns / 1e6,
    },
    collector: { processes: () => [{ app: "shop", process: "web", live } as CollectedProcess] },
    committer: {
      ask: async (request) => {
        asked.push(request);
        return { committed: [], unheld: [], tookMs: 5, ...answer(request) };
      },
      close: async () => undefined,
    },
    policies: { output: async () => byPolicy },
    onTrouble: (sentence) => told.push(sentence),
  });
});
afterEach(async () => {
  await watch.close();
  vi.useRealTimers();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

test("one round for all that waits; what it covers goes, by channel and offset", async () => {
  waiting = [output("web", 1), output("db", 2), output("web", 3)];
  answer = () => ({
    tookMs: 400,
    committed: [
      ["tcp:00000001-00000009", 10],
      ["tcp:00000003-00000009", 4],
    ],
  });
  await pass(30);
  expect(asked).toEqual([{ app: "shop", processes: ["web", "db"] }]);
  expect(released.map(({ local, released: mark, free }) => [local, mark, free])).toEqual([
    [1, 10, false],
    [3, 4, false],
  ]);
});

test("what --inside says is free at once, and asks for no checkpoint", async () => {
  waiting = [output("web", 1, { inside: true })];
  await pass(100);
  expect(released).toMatchObject([{ local: 1, free: true }]);
  expect(asked).toEqual([]);
});

test("rounds in vain come seldom, and what waits beyond its limit is told once, with the reason", async () => {
  waiting = [output("web", 1)];
  answer = () => ({ why: "the image could not be taken" });
  await pass(LIMIT_MS - 100);
  expect(told).toEqual([]);
  await pass(30_000);
  expect(told).toEqual([
    "output of web of shop has waited for 1 s, longer than its limit, and stays: 10 bytes on 1 connections; the image could not be taken",
  ]);
  expect(asked.length).toBeLessThan(10);
  const [web] = watch.told([
    { app: "shop", process: "web", live: true, hold: { limitMs: LIMIT_MS } } as CollectedProcess,
  ]);
  expect(web?.hold?.waits).toMatchObject({ connections: 1, bytes: 10, why: "the image could not be taken" });
  answer = () => ({ committed: [["tcp:00000001-00000009", 10]] });
  await pass(20_000);
  expect(released).toHaveLength(1);
});

test("where a policy decides, nobody else takes a checkpoint: the line is looked at once it was asked", async () => {
  waiting = [output("web", 1)];
  byPolicy = true;
  await pass(LIMIT_MS + 200);
  expect(asked.length).toBeGreaterThan(0);
  expect(asked).toEqual(asked.map(() => ({ app: "shop", processes: ["web"], taken: true })));
  expect(told).toEqual([
    expect.stringMatching(/its policy decides what keeps it: recovery-line policy log shop$/),
  ]);
  answer = () => ({ committed: [["tcp:00000001-00000009", 10]] });
  await pass(20_000);
  expect(released).toMatchObject([{ local: 1, released: 10 }]);
});

test("a round that fails otherwise is told, and tried again as one in vain", async () => {
  waiting = [output("web", 1, { limitMs: 0 })];
  answer = () => {
    throw new Error("nobody is there");
  };
  await pass(30_000);
  expect(told).toEqual(["output of shop can't be let go: nobody is there"]);
  expect(asked.length).toBeGreaterThan(1);
  expect(asked.length).toBeLessThan(10);
});

test("who ends with output that waits is told of", async () => {
  waiting = [output("web", 1)];
  await pass(20);
  live = false;
  await pass(20);
  expect(told).toEqual([
    "web of shop has ended while 10 bytes of its output waited: no line keeps them, and they never go",
  ]);
});
