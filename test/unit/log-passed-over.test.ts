/** One application's damaged log and the others of its home. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { RingKind } from "../../src/format/ring-layout.ts";
import { openEventLog } from "../../src/log/append-log.ts";
import { FakeRing, FakeSource } from "./collect-fakes.ts";
import { storedEvents } from "./log-rig.ts";

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
