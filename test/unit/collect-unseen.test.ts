/** What looks at processes found, in the log and in what the collector tells of them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { seeded } from "../../src/demo/seeded.ts";
import { evidenceOf, recoveryLine } from "../../src/index.ts";
import type { Event } from "../../src/model/event.ts";
import { MAX_UNSEEN_CHANNELS } from "../../src/model/limits.ts";
import type { FoundChannel } from "../../src/model/unseen-channel.ts";
import { FakeDisk, FakeRing, FakeSource } from "./collect-fakes.ts";

let home: string;
let disk: FakeDisk;
let ring: FakeRing;
let collector: Collector;

async function start(): Promise<Collector> {
  return Collector.over({ source: new FakeSource(ring), home, openLog: disk.opener(() => true) });
}

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "collect-unseen-"));
  disk = new FakeDisk();
  ring = new FakeRing();
  collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1, trust: ["shared-file"] });
  await collector.registrations.register({ app: "a", process: "q", cgroupId: 2 });
});
afterEach(async () => {
  await collector.close();
  rmSync(home, { recursive: true, force: true });
});

const [PIPE, FILE] = ["pipe", "shared-file"] as const;

/** Both sides of one thing, as a look finds them. */
function between(reason: FoundChannel["reason"], what: string, incarnation = 1): FoundChannel[] {
  const side = (process: string, pid: number, other: string, otherPid: number): FoundChannel => ({
    ...{ process, pid, reason, what, other, otherPid, incarnation },
  });
  return [side("p", 10, "q", 20), side("q", 20, "p", 10)];
}

const gaps = (process: string): (string | undefined)[] =>
  disk.events(join(home, "a"), process).flatMap((event) => (event.type === "gap" ? [event.reason] : []));
const told = (process: string) => collector.processes().find((one) => one.process === process);

test("both get one gap for each reason, and from then on checkpoints carry no cut", async () => {
  await collector.unseen("a", between(PIPE, "pipe:[7]"));
  await collector.unseen("a", between(PIPE, "pipe:[7]"));
  await collector.unseen("a", between(PIPE, "pipe:[8]"));
  expect([gaps("p"), gaps("q")]).toEqual([["pipe"], ["pipe"]]);
  expect(told("q")).toMatchObject({ uncaptured: ["pipe"], unseen: [{ what: "pipe:[7]", other: "p" }, {}] });
  const cut = { sent: new Map(), received: new Map() };
  await collector.append("a", { type: "checkpoint", process: "q", checkpoint: 1, usable: true, cut });
  const checkpoint = disk.events(join(home, "a"), "q").at(-1);
  expect(checkpoint).toMatchObject({ type: "checkpoint" });
  expect(checkpoint).not.toHaveProperty("cut");
});

test("who vouches for it has no gap; the other has", async () => {
  await collector.unseen("a", between(FILE, "/srv/file"));
  expect([gaps("p"), gaps("q")]).toEqual([[], ["shared-file"]]);
  expect(told("p")).not.toHaveProperty("unseen");
});

test("what was found of a life that is over is not the new one's", async () => {
  await collector.unseen("a", between(PIPE, "pipe:[7]"));
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await collector.unseen("a", between(PIPE, "pipe:[9]"));
  expect(gaps("p")).toEqual(["pipe"]);
  expect(told("p")).toMatchObject({ incarnation: 2, uncaptured: [] });
  expect(told("p")).not.toHaveProperty("unseen");
  await collector.unseen("a", between(PIPE, "pipe:[9]", 2));
  expect(gaps("p")).toEqual(["pipe", "pipe"]);
});

test("a collector that starts anew knows it, and no more than so many things of one process", async () => {
  for (let n = 0; n < 2 * MAX_UNSEEN_CHANNELS; n += 1)
    await collector.unseen("a", between(PIPE, `pipe:[${n}]`));
  await collector.close();
  collector = await start();
  expect(told("p")?.unseen).toHaveLength(MAX_UNSEEN_CHANNELS);
  await collector.unseen("a", between("eventfd", "eventfd 3"));
  expect(told("p")?.unseen?.at(-1)).toMatchObject({ reason: "eventfd", pid: 10, otherPid: 20 });
  expect(gaps("p")).toEqual(["pipe", "eventfd"]);
});

// ---- pipes that nobody else holds

/** As a look finds them. */
const tied = (...lives: [number, number]): FoundChannel[] =>
  between(PIPE, "pipe:[7]").map((one, at) => ({ ...one, tied: true, incarnation: lives[at]! }));
const rows = (process: string): Event[] => disk.events(join(home, "a"), process);
/** Ranges of the pair's channels, "send 0". */
const passed = (process: string): string[] =>
  rows(process).flatMap((event) =>
    "channel" in event && "begin" in event ? [`${event.type} ${event.channel} ${event.begin}`] : [],
  );

async function checkpointOf(process: string, checkpoint: number): Promise<Event> {
  const { cut } = await collector.cut(process === "p" ? 1 : 2);
  return { type: "checkpoint", process, checkpoint, usable: true, cut };
}

/** Checkpoints of p and q on the line where only `failed` fails; -1: goes on. */
async function lineOf(failed: string): Promise<number[]> {
  const evidence = await evidenceOf([...rows("p"), ...rows("q")]);
  const { line, outcome } = recoveryLine(evidence, { failed: [failed] });
  expect(outcome).toBe("clean");
  return line.map(({ action, checkpoint }) => (action === "continue" ? -1 : checkpoint!));
}

test("a pipe that only the two hold ties them: no gap, and they go back together, at first to their start", async () => {
  await collector.unseen("a", tied(1, 1), true);
  await collector.unseen("a", tied(1, 1), true);
  expect([gaps("p"), gaps("q")]).toEqual([[], []]);
  expect(passed("p")).toEqual(["send tied:p>q 0", "receive tied:q>p 0"]);
  expect(passed("q")).toEqual(["send tied:q>p 0", "receive tied:p>q 0"]);
  expect(told("p")).toMatchObject({ tied: ["q"], uncaptured: [] });
  expect([await lineOf("p"), await lineOf("q")]).toEqual([
    [0, 0],
    [0, 0],
  ]);
});

test("checkpoints of one moment count together; one that is alone counts never, nor does what follows one alone", async () => {
  await collector.unseen("a", tied(1, 1), true);
  await collector.appendAll("a", [await checkpointOf("p", 1), await checkpointOf("q", 1)]);
  expect([await lineOf("p"), await lineOf("q")]).toEqual([
    [1, 1],
    [1, 1],
  ]);
  await collector.append("a", await checkpointOf("p", 2));
  expect([await lineOf("p"), await lineOf("q")]).toEqual([
    [1, 1],
    [1, 1],
  ]);
  await collector.append("a", await checkpointOf("q", 2));
  expect([await lineOf("p"), await lineOf("q")]).toEqual([
    [1, 1],
    [1, 1],
  ]);
  await collector.appendAll("a", [await checkpointOf("q", 3), await checkpointOf("p", 3)]);
  expect([await lineOf("p"), await lineOf("q")]).toEqual([
    [3, 3],
    [3, 3],
  ]);
});

test("after they went back they are tied again by the next look, also across a restart of the collector", async () => {
  await collector.unseen("a", tied(1, 1), true);
  await collector.appendAll("a", [await checkpointOf("p", 1), await checkpointOf("q", 1)]);
  await collector.close();
  collector = await start();
  const past = { connections: [], uncaptured: [] };
  for (const [process, cgroupId] of [
    ["p", 1],
    ["q", 2],
  ] as const) {
    await collector.registrations.register({ app: "a", process, cgroupId, past });
    await collector.append("a", { type: "rollback", process, checkpoint: 1 });
    await collector.unseen("a", tied(2, process === "p" ? 1 : 2), true); // a look in between
  }
  expect(told("q")).toMatchObject({ tied: ["p"] });
  expect([await lineOf("p"), await lineOf("q")]).toEqual([
    [1, 1],
    [1, 1],
  ]);
  await collector.appendAll("a", [await checkpointOf("p", 2), await checkpointOf("q", 2)]);
  expect(await lineOf("q")).toEqual([2, 2]);
});

test("a pair whose pipe is gone is free after its next checkpoints, and one that it finds again is tied anew", async () => {
  await collector.unseen("a", tied(1, 1), true);
  await collector.unseen("a", [], true);
  expect(told("p")).not.toHaveProperty("tied");
  expect(await lineOf("p"), "what passed has passed").toEqual([0, 0]);
  await collector.append("a", await checkpointOf("q", 1));
  await collector.append("a", await checkpointOf("p", 1));
  expect([await lineOf("p"), await lineOf("q")]).toEqual([
    [1, -1],
    [-1, 1],
  ]);
  await collector.unseen("a", tied(1, 1));
  expect(await lineOf("p")).toEqual([1, 1]);
});

test("events of one moment are all in the log, or none: a bad one leaves no other", async () => {
  await collector.append("a", await checkpointOf("q", 5));
  const late = await checkpointOf("q", 4);
  await expect(collector.appendAll("a", [await checkpointOf("p", 1), late])).rejects.toThrow(
    /does not exceed 5/,
  );
  await collector.drain();
  expect(rows("p").filter(({ type }) => type === "checkpoint")).toEqual([]);
});

test("whatever a pair does, it is kept up to its last checkpoints of one moment, both of it", async () => {
  const random = seeded(20_261_129);
  const lives = [1, 1];
  await collector.unseen("a", tied(1, 1), true);
  let [index, kept] = [0, [0, 0]];
  const next = (process: string) => {
    index += 1;
    return checkpointOf(process, index);
  };
  const steps = [
    async () => {
      await collector.appendAll("a", [await next("p"), await next("q")]);
      kept = [index - 1, index];
    },
    async () => collector.append("a", await next(random(2) === 0 ? "p" : "q")),
    async () => {
      await collector.close();
      collector = await start();
    },
    async () => {
      for (const at of random(2) === 0 ? [0, 1] : [1, 0]) {
        const [process, checkpoint] = [at === 0 ? "p" : "q", kept[at]!];
        const past = { connections: [], uncaptured: [] };
        await collector.registrations.register({ app: "a", process, cgroupId: at + 1, past });
        lives[at]! += 1;
        await collector.append("a", { type: "rollback", process, checkpoint });
        if (random(2) === 0) await collector.unseen("a", tied(lives[0]!, lives[1]!), true);
      }
      await collector.unseen("a", tied(lives[0]!, lives[1]!), true);
    },
  ];
  for (let step = 0; step < 60; step += 1) {
    await steps[random(steps.length)]!();
    expect([await lineOf("p"), await lineOf("q")], `step ${step}`).toEqual([kept, kept]);
  }
});
