/** What looks at processes found, in the log and in what the collector tells of them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
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
