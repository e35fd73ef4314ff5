import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import { RingKind, RingVerdict } from "../../src/format/ring-layout.ts";
import { BUSY_SLOT_MS, MAX_PENDING_EVENTS } from "../../src/model/limits.ts";
import { FakeDisk, FakeRing, FakeSource } from "./collect-fakes.ts";

const { SEND, RECEIVE, PEEK } = RingKind;
let home: string;
let ring: FakeRing;
let disk: FakeDisk;
let source: FakeSource;
let living: Collector | undefined;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "collect-"));
  ring = new FakeRing();
  disk = new FakeDisk();
});
afterEach(async () => {
  await living?.close().catch(() => undefined);
  rmSync(home, { recursive: true, force: true });
});

/** A collector process; the folder of an application exists because a real log would have made it. */
async function start(): Promise<Collector> {
  const fresh = new FakeSource(ring);
  source = fresh;
  living = await Collector.over({
    source,
    home,
    openLog: disk.opener(() => !fresh.dead),
    commitIntervalMs: 5,
  });
  return living;
}

/** The process dies; nothing is closed. */
function kill(): void {
  source.kill();
}

const folder = (app: string) => join(home, app);
const brief = (app: string, process: string) =>
  disk.events(folder(app), process).map((event) => {
    if (event.type === "send" || event.type === "receive" || event.type === "peek")
      return `${event.type} ${event.channel} ${event.begin}-${event.end}`;
    if (event.type === "gap") return ["gap", event.lost, event.reason].filter(Boolean).join(" ");
    return event.type;
  });

test("records become events of their process, on channels that both ends name alike", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "heat", process: "p0", cgroupId: 11 });
  await collector.registrations.register({ app: "heat", process: "p1", cgroupId: 12 });
  const [a, b] = [0xabc, 0xffffffff];
  ring.put({ process: 11, kind: SEND, local: a, remote: b, begin: 0, length: 10 });
  ring.put({ process: 12, kind: RECEIVE, local: b, remote: a, begin: 0, length: 10 });
  ring.put({ process: 12, kind: SEND, local: b, remote: a, begin: 5, length: 1 });
  ring.put({ process: 11, kind: SEND, flags: 1, local: 2 ** 40, remote: 9, begin: 0, length: 3 });
  ring.put({ process: 99, kind: SEND, local: 1, remote: 2 });
  await collector.drain();
  expect(brief("heat", "p0")).toEqual([
    "send tcp:00000abc-ffffffff 0-10",
    `send unix:boot-1:${2 ** 40}-9 0-3`,
  ]);
  expect(brief("heat", "p1")).toEqual([
    "receive tcp:00000abc-ffffffff 0-10",
    "send tcp:ffffffff-00000abc 5-6",
  ]);
  expect(ring.consumer).toBe(ring.producer);
  const stats = collector.stats();
  expect(stats).toMatchObject({ unknown: 1, gaps: 0, liveProcesses: 2, brokenApps: [] });
  expect([stats.events[SEND], stats.events[RECEIVE], stats.bytes[SEND]]).toEqual([3, 1, 14]);
});

test("what found no room is no gap: the kernel tells it with the next record, or when it is asked", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await collector.registrations.register({ app: "a", process: "silent", cgroupId: 2 });
  ring.busyAt = 0; // nothing is read meanwhile
  ring.capacity = 3;
  for (let begin = 0; begin < 10; begin += 1)
    ring.put({ process: begin < 5 ? 1 : 2, kind: SEND, local: 1, remote: 2, begin, length: 1 });
  expect(ring.lostTotal).toBe(7);
  ring.busyAt = -1;
  await collector.drain();
  expect(brief("a", "p")).toEqual([0, 1, 2, 3, 4].map((n) => `send tcp:00000001-00000002 ${n}-${n + 1}`));
  expect(brief("a", "silent")).toHaveLength(5);
  expect(collector.stats()).toMatchObject({ gaps: 0, lost: [7] });
});

test("a drain may take as long as there is something to read: only a slot that nobody finishes is waited for", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  const records = 3 * MAX_PENDING_EVENTS;
  for (let begin = 0; begin < records; begin += 1)
    ring.put({ process: 1, kind: SEND, local: 1, remote: 2, begin, length: 1 });
  const now = performance.now.bind(performance);
  let slowMs = 0;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now() + slowMs);
  const read = source.drain.bind(source);
  source.drain = (bytes) => {
    slowMs += BUSY_SLOT_MS / 3;
    return read(bytes);
  };
  try {
    await collector.drain();
  } finally {
    clock.mockRestore();
  }
  expect(brief("a", "p")).toHaveLength(records);
});

test("looking is a peek on the channel it looked at", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  ring.put({ process: 1, kind: PEEK, local: 1, remote: 2, begin: 3, length: 4 });
  await collector.drain();
  expect(brief("a", "p")).toEqual(["peek tcp:00000002-00000001 3-7"]);
});

test("program runs that the kernel left out are statistics; unreadable records spoil whoever lives", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await collector.registrations.register({ app: "b", process: "q", cgroupId: 2 });
  ring.misses = 1;
  await collector.drain();
  expect([brief("a", "p"), brief("b", "q")]).toEqual([[], []]);
  ring.put({ process: 1, kind: 200 });
  ring.put({ process: 1, kind: SEND, local: 1, remote: 2, length: 1 });
  await collector.drain();
  expect(brief("a", "p")).toEqual(["gap", "send tcp:00000001-00000002 0-1"]);
  expect(brief("b", "q")).toEqual(["gap"]);
  expect(collector.stats().bad).toBe(1);
  expect(await collector.facts.uncaptured("b", "q")).toEqual(["unknown"]);
});

test("records of a life that is over are dropped and counted", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  ring.put({ process: 1, kind: SEND, local: 1, remote: 2, begin: 0, length: 1 });
  ring.busyAt = ring.slots.length; // what comes now is read after the next life has begun
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 5 });
  ring.busyAt = -1;
  ring.put({ process: 5, kind: SEND, local: 3, remote: 4, begin: 0, length: 1 });
  ring.put({ process: 5, kind: SEND, local: 1, remote: 2, begin: 1, length: 1, thread: 1 });
  await collector.drain();
  expect(brief("a", "p")).toEqual(["send tcp:00000001-00000002 0-1", "send tcp:00000003-00000004 0-1"]);
  expect(collector.stats().stale).toBe(1);
});

test("a verdict: one gap with its reason, and checkpoints carry no cut, unless the user vouches for it", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await collector.registrations.register({ app: "a", process: "q", cgroupId: 2, trust: ["udp"] });
  for (const process of [1, 2, 1]) ring.judge(process, RingVerdict.UDP);
  const cut = { sent: new Map([["c", 1]]), received: new Map() };
  for (const process of ["p", "q"]) {
    await collector.append("a", { type: "checkpoint", process, checkpoint: 1, usable: true, cut });
  }
  expect(brief("a", "p")).toEqual(["gap udp", "checkpoint"]);
  expect(brief("a", "q")).toEqual(["checkpoint"]);
  const cuts = disk.events(folder("a")).map((event) => event.type === "checkpoint" && "cut" in event);
  expect(cuts).toEqual([false, false, true]);
  expect(await collector.facts.uncaptured("a", "p")).toEqual(["udp"]);
  kill();
  const next = await start();
  await next.drain();
  expect(await next.facts.uncaptured("a", "p")).toEqual(["udp"]);
  expect(brief("a", "p")).toEqual(["gap udp", "checkpoint"]);
  await next.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await next.drain();
  expect(await next.facts.uncaptured("a", "p")).toEqual([]); // the flag was that of its life before
});

test("a verdict without a record is found by asking, and a shared socket names the other process", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await collector.registrations.register({ app: "a", process: "q", cgroupId: 2 });
  await collector.registrations.register({ app: "b", process: "r", cgroupId: 3 });
  ring.put({ process: 3, kind: SEND, local: 1, remote: 2, length: 1 });
  const [local, remote] = [0xabc, 0xffffffff];
  for (const [one, other] of [
    [1, 2],
    [2, 3],
  ] as const)
    ring.verdicts.push({
      cgroupId: one,
      incarnation: 1,
      bits: 1 << RingVerdict.SHARED_SOCKET,
      other,
      local,
      remote,
    });
  await expect.poll(() => brief("a", "p"), { timeout: 5_000 }).toEqual(["gap shared-socket"]);
  const shared = collector.processes().map(({ shared }) => shared);
  const channel = "tcp:00000abc-ffffffff";
  expect(shared).toEqual([{ other: "q", channel }, { other: "b/r", channel }, undefined]);
});

test("positions count lines that are not undone; checkpoint indices never return", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  const send = () => ring.put({ process: 1, kind: SEND, local: 1, remote: 2, length: 1 });
  const checkpoint = async (at: Collector) => {
    const index = await at.nextCheckpoint("a", "p");
    const event = { type: "checkpoint", process: "p", checkpoint: index, usable: true } as const;
    return [index, (await at.append("a", event)).position];
  };
  send();
  expect(await checkpoint(collector)).toEqual([1, 2]);
  send();
  send();
  expect(await checkpoint(collector)).toEqual([2, 5]);
  send();
  kill();
  const next = await start();
  expect(await next.append("a", { type: "rollback", process: "p", checkpoint: 1 })).toEqual({
    position: 3,
  });
  send();
  expect(await checkpoint(next)).toEqual([3, 5]);
  const back = (index: number) => next.append("a", { type: "rollback", process: "p", checkpoint: index });
  await expect(back(2)).rejects.toMatchObject({ code: "RL_CONTRADICTION" });
  expect(await back(0)).toEqual({ position: 1 });
  expect(await next.registrations.register({ app: "a", process: "p", cgroupId: 5 })).toEqual({
    incarnation: 2,
  });
  expect(brief("a", "p").filter((line) => line === "gap")).toEqual([]);
});

test("a log that cannot be written: its records wait in the ring, the other application goes on", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  await collector.registrations.register({ app: "b", process: "q", cgroupId: 2 });
  const held = ring.producer;
  disk.failures.set(folder("a"), ["before", "after", ...new Array(1_000).fill("before")]);
  for (let i = 0; i < 50; i += 1)
    for (const process of [1, 2]) ring.put({ process, kind: SEND, local: 1, remote: 2, begin: i, length: 1 });
  await expect.poll(() => brief("b", "q").length).toBe(50);
  expect(ring.consumer).toBe(held);
  await expect.poll(() => collector.stats().brokenApps).toMatchObject([{ app: "a", code: "RL_LOG_WRITE" }]);
  disk.failures.delete(folder("a"));
  await collector.drain();
  const all = Array.from({ length: 50 }, (_, i) => `send tcp:00000001-00000002 ${i}-${i + 1}`);
  expect([brief("a", "p"), brief("b", "q")]).toEqual([all, all]);
  expect(ring.consumer).toBe(ring.producer);
  expect(collector.stats().brokenApps).toEqual([]);
});

test("a new ring or a new boot may have swallowed events: declared", async () => {
  await (await start()).registrations.register({ app: "a", process: "p", cgroupId: 1 });
  kill();
  ring = new FakeRing();
  ring.id = "boot-1:8";
  await (await start()).drain();
  expect(brief("a", "p")).toEqual(["gap"]);
  expect([...ring.selected]).toEqual([[1, 1]]);
  kill();
  ring = new FakeRing();
  ring.id = "boot-2:8";
  ring.bootId = "boot-2";
  const rebooted = await start();
  await rebooted.drain();
  expect(brief("a", "p")).toEqual(["gap", "gap"]);
  expect(rebooted.stats().liveProcesses).toBe(0);
});

test("a log that was away while a session ran says so when it is back", async () => {
  await (await start()).registrations.register({ app: "a", process: "p", cgroupId: 1 });
  kill();
  rmSync(folder("a"), { recursive: true });
  await start(); // the folder is not there: moved away
  ring.put({ process: 1, kind: SEND, local: 1, remote: 2, length: 1 });
  await living!.drain();
  kill();
  mkdirSync(folder("a"), { recursive: true });
  await (await start()).drain();
  expect(brief("a", "p")).toEqual(["gap"]);
});

test("a checkpoint index by which nothing was recorded is given again, unless a later one was given", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  const next = (unused?: number) => collector.nextCheckpoint("a", "p", unused);
  expect([await next(), await next(1), await next(1)]).toEqual([1, 1, 1]);
  expect([await next(), await next(1), await next(3)]).toEqual([2, 3, 3]);
  const checkpoint = { type: "checkpoint", process: "p", usable: true } as const;
  await collector.append("a", { ...checkpoint, checkpoint: 3 });
  expect([await next(3), await next(4)]).toEqual([4, 4]);
  kill(); // 4 was not stored: somebody else gets it, too
  const other = await start();
  expect(await other.nextCheckpoint("a", "p")).toBe(4);
  await other.append("a", { ...checkpoint, checkpoint: 4 });
  expect(await other.nextCheckpoint("a", "p", 4)).toBe(5);
});

test("misuse is refused with its own code", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  const register = (app: string, process: string, cgroupId: number) =>
    collector.registrations.register({ app, process, cgroupId });
  await expect(register("../a", "p", 2)).rejects.toMatchObject({ code: "RL_USAGE" });
  await expect(register("a", "q", 1)).rejects.toMatchObject({ code: "RL_USAGE" });
  await expect(register("a", "q", 0.5)).rejects.toThrow(TypeError);
  await expect(collector.nextCheckpoint("b", "p")).rejects.toMatchObject({ code: "RL_UNKNOWN_APP" });
  await expect(collector.registrations.unregister("a", "q")).rejects.toMatchObject({
    code: "RL_UNKNOWN_PROCESS",
  });
  await collector.close();
  await expect(collector.drain()).rejects.toThrow(TypeError);
});

test("a frozen connection becomes a cut with both directions", async () => {
  const collector = await start();
  await collector.registrations.register({ app: "a", process: "p", cgroupId: 1 });
  const entry = {
    flags: 0,
    live: 1,
    told: 0,
    local: 1,
    remote: 2,
    sent: 10,
    received: 0,
    seen: 0,
    unacknowledged: 3,
    queued: 0,
  };
  ring.cutEntries = [entry, { ...entry, live: 0, sent: 9, received: 4, seen: 6 }];
  const { cut, details, complete } = await collector.cut(1);
  expect([...cut.sent]).toEqual([["tcp:00000001-00000002", 10]]);
  expect([...cut.received]).toEqual([["tcp:00000002-00000001", 4]]);
  expect([...cut.seen!]).toEqual([["tcp:00000002-00000001", 6]]);
  expect(complete).toBe(true);
  expect(details[0]).toMatchObject({ sends: "tcp:00000001-00000002", unacknowledged: 3 });
});
