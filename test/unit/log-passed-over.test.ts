/** One application's damaged log and the others of its home. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { RingKind } from "../../src/format/ring-layout.ts";
import { openEventLog } from "../../src/log/append-log.ts";
import { lockPath } from "../../src/log/log-paths.ts";
import { openLogReader } from "../../src/log/segment-reader.ts";
import { closeLogs, openAppLogs } from "../../src/logs/app-logs.ts";
import { native } from "../../src/native/binding.ts";
import { FakeRing, FakeSource } from "./collect-fakes.ts";
import { storedEvents } from "./log-rig.ts";

/** On a loaded machine. */
const WAIT = { timeout: 30_000 };

let home: string;
let ring: FakeRing;
let running: Set<string>;
let troubles: string[];
const open: Collector[] = [];

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "recovery-line-passed-"));
  ring = new FakeRing();
  running = new Set();
  troubles = [];
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
  rmSync(home, { recursive: true, force: true });
});

async function start(): Promise<Collector> {
  const collector = await Collector.over({
    source: new FakeSource(ring),
    home,
    openLog: openEventLog,
    commitIntervalMs: 5,
    runs: (app) => running.has(app),
    onTrouble: (sentence) => troubles.push(sentence),
  });
  open.push(collector);
  return collector;
}

async function stop(): Promise<void> {
  await open.pop()!.close();
}

const anchor = (): string => join(home, "bad", "anchor");

/** Two recorded applications; then the log of `bad` is damaged while no collector runs. Returns the whole anchor. */
async function damage(): Promise<Buffer> {
  const first = await start();
  await first.registrations.register({ app: "bad", process: "p", cgroupId: 1 });
  await first.registrations.register({ app: "good", process: "q", cgroupId: 2 });
  await stop();
  const whole = readFileSync(anchor());
  writeFileSync(anchor(), whole.subarray(0, whole.length - 1));
  return whole;
}

const send = (process: number, begin: number) =>
  ring.put({ process, kind: RingKind.SEND, local: process, remote: 9, begin, length: 1 });

test("a damaged log of an application that does not run is passed over, by name; the others are recorded", async () => {
  const whole = await damage();
  const collector = await start();
  expect(troubles).toEqual([expect.stringMatching(/^the log of bad is passed over.*anchor/)]);
  expect(collector.stats().unreadableLogs).toMatchObject([{ app: "bad", code: "RL_CORRUPT_LOG" }]);
  send(1, 0); // of its last moments: goes by
  send(2, 0);
  await collector.drain();
  const again = collector.registrations.register({ app: "bad", process: "p", cgroupId: 3 });
  await expect(again).rejects.toMatchObject({
    code: "RL_CORRUPT_LOG",
    advice: expect.stringContaining("verify"),
  });

  writeFileSync(anchor(), whole); // repaired: it says what went by
  expect(await collector.registrations.register({ app: "bad", process: "p", cgroupId: 3 })).toEqual({
    incarnation: 2,
  });
  expect(collector.stats().unreadableLogs).toEqual([]);
  expect(new Set(ring.selected.keys())).toEqual(new Set([2, 3]));
  send(3, 1);
  await collector.drain();
  await stop();
  expect((await storedEvents(join(home, "good"))).map(({ type }) => type)).toEqual(["send"]);
  expect((await storedEvents(join(home, "bad"))).map(({ type }) => type)).toEqual(["gap", "send"]);
});

test("a damaged log of an application that runs keeps the collector from starting: nobody could record it", async () => {
  await damage();
  running.add("bad");
  await expect(start()).rejects.toMatchObject({
    code: "RL_CORRUPT_LOG",
    message: expect.stringContaining("processes of bad are running"),
  });
});

test("a log that another command reads is waited for, and told of once: its application is recorded", async () => {
  const first = await start();
  await first.registrations.register({ app: "read", process: "p", cgroupId: 1 });
  await stop();
  running.add("read");
  const reader = await openLogReader(join(home, "read"));
  const starting = start();
  await vi.waitUntil(() => troubles.length > 0, WAIT);
  await reader.close();
  const collector = await starting;
  expect(troubles).toEqual([
    expect.stringMatching(/^the start waits until it is free: the log in .*read is in use by process \d+$/),
  ]);
  expect(collector.stats().unreadableLogs).toEqual([]);
  send(1, 0);
  await collector.drain();
  await stop();
  expect((await storedEvents(join(home, "read"))).map(({ type }) => type)).toEqual(["send"]);
});

test("a reader tries again where a log changes hands: a collector that starts has it before it answers", async () => {
  const first = await start();
  await first.registrations.register({ app: "read", process: "p", cgroupId: 1 });
  await stop();
  const addon = native();
  const held = addon.lock(lockPath(join(home, "read")));
  const tries = vi.spyOn(addon, "lock");
  const reading = openAppLogs([home], "read");
  reading.catch(() => undefined); // told below
  await vi.waitUntil(() => tries.mock.calls.length > 0, WAIT);
  addon.unlock(held);
  const { logs } = await reading;
  expect(logs.map(({ name }) => name)).toEqual([home]);
  await closeLogs(logs);
  tries.mockRestore();
});
