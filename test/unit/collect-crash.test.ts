import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { RingKind } from "../../src/format/ring-layout.ts";
import { channelName } from "../../src/model/channel-names.ts";
import { hasCode } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { type Failure, FakeDisk, FakeRing, FakeSource } from "./collect-fakes.ts";

const seed = Date.now() % 1_000_000_000;
const APPS = ["a", "b"] as const;

type Step =
  | { do: "put"; app: number; process: number; count: number }
  | { do: "full"; slots: number }
  | { do: "drain" }
  | { do: "pause" }
  | { do: "crash" }
  | { do: "fail"; app: number; how: Failure[] };

const app = fc.nat(1);
const process = fc.nat(1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("put" as const), app, process, count: fc.nat(40) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("full" as const), slots: fc.nat(30) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("drain" as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("pause" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("crash" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("fail" as const),
      app,
      how: fc.array(fc.constantFrom<Failure>("before", "after"), { minLength: 1, maxLength: 2 }),
    }),
  },
);

/** Runs the steps and returns per process what was produced, and what the log says. */
async function run(home: string, steps: readonly Step[]) {
  const ring = new FakeRing();
  const disk = new FakeDisk();
  const produced = new Map<number, number>();
  let kill = () => {};
  let collector!: Collector;
  const start = async () => {
    const source = new FakeSource(ring);
    kill = () => source.kill();
    for (;;) {
      try {
        const openLog = disk.opener(() => !source.dead);
        collector = await Collector.over({ source, home, openLog, commitIntervalMs: 1 });
        return;
      } catch (error) {
        if (!hasCode(error, "RL_LOG_WRITE")) throw error; // a start that meets a full disk is tried again
        source.rewind();
      }
    }
  };
  await start();
  const cgroup = (app: number, process: number) => 1 + app * 2 + process;
  for (const app of [0, 1]) {
    for (const process of [0, 1])
      await collector.registrations.register({
        app: APPS[app]!,
        process: `p${process}`,
        cgroupId: cgroup(app, process),
      });
  }
  for (const one of steps) {
    if (one.do === "put") {
      const id = cgroup(one.app, one.process);
      for (let i = 0; i < one.count; i += 1) {
        const begin = produced.get(id) ?? 0;
        produced.set(id, begin + 1);
        ring.put({ process: id, kind: RingKind.SEND, local: id, remote: begin % 3, begin, length: 1 });
      }
    } else if (one.do === "full") {
      ring.capacity = 1 + one.slots;
    } else if (one.do === "drain") {
      await collector.drain();
    } else if (one.do === "pause") {
      await new Promise((resolve) => setTimeout(resolve, 3));
    } else if (one.do === "crash") {
      kill();
      await start();
    } else {
      disk.failures.set(join(home, APPS[one.app]!), [...one.how]);
    }
  }
  await collector.drain();
  await collector.close();
  return { ring, disk, produced };
}

/** Both commits are in the log: first what went by while it was given up, then the word that it went by. */
const WRITTEN_BUT_FAILED: Step[] = [
  { do: "put", app: 0, process: 1, count: 34 },
  { do: "pause" },
  { do: "put", app: 1, process: 0, count: 37 },
  { do: "full", slots: 4 },
  { do: "crash" },
  { do: "fail", app: 1, how: ["after", "after"] },
  { do: "pause" },
  { do: "put", app: 1, process: 1, count: 15 },
  { do: "pause" },
];

/** Not written in time for the ring: it is given up, and what went by stands in it as ranges and a count. */
const GIVEN_UP: Step[] = [
  { do: "put", app: 1, process: 1, count: 16 },
  { do: "full", slots: 24 },
  { do: "crash" },
  { do: "fail", app: 1, how: ["before", "after"] },
  { do: "pause" },
  { do: "put", app: 1, process: 0, count: 31 },
];

/**
 * Each record in a row of its own, in order. Where the log was given up, what went by is one range a channel and a gap behind the rows
 * before it; the gap counts it, but where the collector died before it could say so. Returns whether it was given up.
 */
function expectAll(
  events: readonly Event[],
  sender: number,
  produced: number,
  steps: readonly Step[],
  app: number,
): boolean {
  const rows = events.flatMap((event) => (event.type === "send" || event.type === "gap" ? [event] : []));
  const gap = rows.findIndex(({ type }) => type === "gap");
  const whole = rows.slice(0, gap < 0 ? undefined : gap);
  expect(whole.map((row) => (row.type === "send" ? row.begin : Number.NaN))).toEqual(
    whole.map((_, begin) => begin),
  );
  if (gap < 0) {
    expect(whole).toHaveLength(produced);
    return false;
  }
  const failed = steps.findIndex((one) => one.do === "fail" && one.app === app);
  const other = steps.findIndex((one) => one.do === "fail" && one.app !== app);
  if (failed < 0 && other >= 0 && steps.slice(other).some((one) => one.do === "crash")) {
    // The other log was given up, and the collector died before this one could say that it took part since: it has all, and doubts it.
    const begins = rows.flatMap((row) => (row.type === "send" ? [row.begin] : []));
    expect(begins).toEqual(Array.from({ length: produced }, (_, begin) => begin));
    return false;
  }
  expect(failed, "only a log that fails is given up").toBeGreaterThanOrEqual(0);
  expect(steps.some((one) => one.do === "full")).toBe(true);
  const died = steps.slice(failed).some((one) => one.do === "crash");
  const sends = rows.flatMap((row) => (row.type === "send" ? [row] : []));
  for (let begin = 0; begin < produced; begin += 1) {
    const channel = channelName(false, "boot-1", sender, begin % 3);
    const found = sends.filter((send) => send.channel === channel && send.begin <= begin && begin < send.end);
    expect(found.length, `record ${begin}`).toBeGreaterThanOrEqual(died ? 0 : 1);
    expect(found.length, `record ${begin}`).toBeLessThanOrEqual(1);
  }
  const lost = rows.reduce((sum, row) => sum + (row.type === "gap" ? (row.lost ?? 0) : 0), 0);
  if (!died) expect(sends.length + lost).toBe(produced);
  return true;
}

test(`whatever crashes and fails, every record is in the log once, in order, however small the ring (seed ${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const home = mkdtempSync(join(tmpdir(), "collect-crash-"));
      try {
        const { ring, disk, produced } = await run(home, steps);
        expect(ring.consumer).toBe(ring.producer);
        for (let id = 1; id <= 4; id += 1) {
          const events = disk.events(join(home, APPS[id > 2 ? 1 : 0]!), `p${(id - 1) % 2}`);
          expectAll(events, id, produced.get(id) ?? 0, steps, id > 2 ? 1 : 0);
        }
      } finally {
        rmSync(home, { recursive: true, force: true });
      }
    }),
    { seed, numRuns: 150, endOnFailure: true, examples: [[WRITTEN_BUT_FAILED], [GIVEN_UP]] },
  );
});

test("a log that fails while the ring is nearly full is given up, and then all of it is there as ranges and a count", async () => {
  let givenUp = false;
  for (let tries = 0; tries < 20 && !givenUp; tries += 1) {
    const home = mkdtempSync(join(tmpdir(), "collect-crash-"));
    try {
      const { disk, produced } = await run(home, GIVEN_UP);
      givenUp = expectAll(disk.events(join(home, "b"), "p1"), 4, produced.get(4) ?? 0, GIVEN_UP, 1);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  }
  expect(givenUp).toBe(true);
});
