/** Opening and ending of connections: which of them are messages, and that no receive stands in a log without its send. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Collector } from "../../src/collect/collect.ts";
import type { ProcessBuffer } from "../../src/collect/process-buffer.ts";
import { type HeldMessage, SocketMessages } from "../../src/collect/socket-messages.ts";
import { RingFlag, RingKind } from "../../src/format/ring-layout.ts";
import { MAX_WAITING_MESSAGES } from "../../src/model/limits.ts";
import { FakeDisk, FakeRing, FakeSource } from "./collect-fakes.ts";

const { SEND, RECEIVE } = RingKind;
const { OPEN, END, FAILING, UNIX } = RingFlag;
let home: string;
let ring: FakeRing;
let disk: FakeDisk;
let source: FakeSource;
let collector: Collector;
/** Cgroups in which nothing is left. */
let empty: Set<number>;

async function start(): Promise<void> {
  const fresh = new FakeSource(ring);
  source = fresh;
  collector = await Collector.over({
    source,
    home,
    openLog: disk.opener(() => !fresh.dead),
    commitIntervalMs: 5,
    populated: ({ cgroupId }) => !empty.has(cgroupId),
  });
}

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "socket-messages-"));
  [ring, disk, empty] = [new FakeRing(), new FakeDisk(), new Set()];
  await start();
  await collector.registrations.register({ app: "a", process: "client", cgroupId: 1 });
  await collector.registrations.register({ app: "a", process: "server", cgroupId: 2 });
});
afterEach(async () => {
  await collector.close().catch(() => undefined);
  rmSync(home, { recursive: true, force: true });
});

/** The client's end is named 1, the server's 2. */
const client = (kind: number, flags: number) =>
  ring.put({ process: 1, kind, flags, local: 1, remote: 2, length: 1 });
const server = (kind: number, flags: number, remote = 1) =>
  ring.put({ process: 2, kind, flags, local: 2, remote, length: 1 });
const C = "tcp:00000001-00000002";
const told = () =>
  disk
    .events(join(home, "a"))
    .map((event) => `${event.process} ${event.type} ${"channel" in event ? event.channel : ""}`);

test("while the kernel's ring is full all the time, what waits is bounded, and whoever waits for most pays alone", () => {
  const processes = new Map(
    ["filler", "other"].map((name) => [
      name,
      { name, state: { incarnation: 1 } } as unknown as ProcessBuffer,
    ]),
  );
  const messages = new SocketMessages(processes, "boot");
  const wait = (process: string, count: number): HeldMessage[] =>
    Array.from({ length: count }, (_, at) => ({
      ...{ process, incarnation: 1, sends: false, unix: false, time: 1 },
      name: `tcp:${process}-${at}/end`,
    }));
  const few = wait("other", 100);
  messages.load([...wait("filler", MAX_WAITING_MESSAGES - 100), ...few], 0);
  expect([messages.giveUp(), messages.held().length]).toEqual([[], MAX_WAITING_MESSAGES]);
  messages.load([...wait("filler", MAX_WAITING_MESSAGES), ...few], 0);
  expect(messages.giveUp().map(({ name }) => name)).toEqual(["filler"]);
  expect(messages.held()).toEqual(few);
});

test("connect and accept are one message, whichever record comes first", async () => {
  server(RECEIVE, OPEN);
  client(SEND, OPEN);
  await collector.drain();
  expect(told().sort()).toEqual([`client send ${C}/open`, `server receive ${C}/open`]);
});

test("an accept waits for the connector's record as long as nobody asks, and a drain makes the kernel tell it", async () => {
  ring.capacity = 1;
  server(RECEIVE, OPEN);
  client(SEND, OPEN); // no room: the kernel knows it
  await collector.drain();
  expect(told().sort()).toEqual([`client send ${C}/open`, `server receive ${C}/open`]);
});

test("connections from and to strangers: the accept and the end of file of a stranger are no messages", async () => {
  server(RECEIVE, OPEN, 77);
  server(RECEIVE, END, 77);
  server(SEND, END, 77);
  await collector.drain();
  expect(told()).toEqual(["server send tcp:00000002-0000004d/end"]);
});

test("close and end of file are one message, also where the process ends with exit code 0", async () => {
  client(SEND, END);
  empty.add(1);
  await collector.registrations.unregister("a", "client");
  server(RECEIVE, END);
  await collector.drain();
  expect(told()).toEqual([`client send ${C}/end`, `server receive ${C}/end`]);
});

test("an end by the death of the whole process is none, whenever it is seen", async () => {
  client(SEND, END | FAILING);
  await collector.registrations.register({ app: "b", process: "other", cgroupId: 9 });
  empty.add(1);
  await collector.registrations.unregister("a", "client");
  server(RECEIVE, END);
  await collector.drain();
  expect(told()).toEqual([]);
});

test("one task's death inside a process that lives on is a message, after a while", async () => {
  client(SEND, END | FAILING);
  server(RECEIVE, END);
  const before = performance.now();
  await collector.drain();
  expect(performance.now() - before).toBeGreaterThan(500);
  expect(told().sort()).toEqual([`client send ${C}/end`, `server receive ${C}/end`]);
});

test("what waits outlives the collector", async () => {
  client(SEND, END | FAILING);
  server(RECEIVE, END);
  server(RECEIVE, OPEN);
  await expect.poll(() => ring.consumer).toBe(ring.producer);
  expect(told()).toEqual([]);
  source.kill();
  empty.add(1);
  client(SEND, OPEN);
  await start();
  await collector.drain();
  expect(told().sort()).toEqual([`client send ${C}/open`, `server receive ${C}/open`]);
});

test("the log knows what was sent before a collector that died: its receives are appended by the next one", async () => {
  client(SEND, OPEN);
  client(SEND, END);
  await collector.drain();
  source.kill();
  await start();
  server(RECEIVE, OPEN);
  server(RECEIVE, END);
  await collector.drain();
  expect(told()).toEqual([
    `client send ${C}/open`,
    `client send ${C}/end`,
    `server receive ${C}/open`,
    `server receive ${C}/end`,
  ]);
});

const U = "unix:boot-1:1-2";

test("AF_UNIX: a close raises no record, the end of file makes both", async () => {
  client(SEND, OPEN | UNIX);
  client(SEND, UNIX);
  server(RECEIVE, OPEN | UNIX);
  server(RECEIVE, END | UNIX);
  await collector.drain();
  expect(told().sort()).toEqual([
    `client send ${U}`,
    `client send ${U}/end`,
    `client send ${U}/open`,
    `server receive ${U}/end`,
    `server receive ${U}/open`,
  ]);
});

for (const [status, ends] of [
  [0, true],
  [137, false],
] as const)
  test(`AF_UNIX: the sender has ended with ${status}: ${ends ? "a message" : "the failure itself"}`, async () => {
    client(SEND, UNIX);
    empty.add(1);
    server(RECEIVE, END | UNIX);
    await collector.facts.ended("a", "client", status);
    await collector.registrations.unregister("a", "client");
    await collector.drain();
    const message = [`client send ${U}/end`, `server receive ${U}/end`];
    expect(told()).toEqual([`client send ${U}`, ...(ends ? message : [])]);
  });

test("AF_UNIX: ends that are gone and that nobody saw received are messages, but not to a process that is over", async () => {
  client(SEND, UNIX);
  server(SEND, UNIX);
  server(RECEIVE, END | FAILING | UNIX);
  client(RECEIVE, END | FAILING | UNIX);
  await collector.drain();
  const back = "unix:boot-1:2-1";
  const ends = [`client receive ${back}/end`, `client send ${U}/end`];
  ends.push(`server receive ${U}/end`, `server send ${back}/end`);
  expect(
    told()
      .filter((line) => line.endsWith("/end"))
      .sort(),
  ).toEqual(ends);
});

test("AF_UNIX: a process that is over receives no end that nobody saw it receive", async () => {
  client(SEND, UNIX);
  server(SEND, UNIX);
  empty.add(2);
  server(RECEIVE, END | FAILING | UNIX);
  await collector.facts.ended("a", "server", 0);
  await collector.registrations.unregister("a", "server");
  await collector.drain();
  expect(told().filter((line) => line.endsWith("/end"))).toEqual([]);
});

test("a restored connection's endings are undone: it may end again", async () => {
  client(SEND, END | FAILING);
  empty.add(1);
  await collector.registrations.unregister("a", "client");
  empty.clear();
  const entry = { flags: 0, live: 1, told: 1, local: 1, remote: 2, sent: 0, received: 0, seen: 0 };
  const connections = [{ ...entry, unacknowledged: 0, queued: 0 }];
  await collector.registrations.register({
    app: "a",
    process: "client",
    cgroupId: 3,
    past: { connections, uncaptured: [] },
  });
  ring.put({ process: 3, kind: SEND, flags: END, local: 1, remote: 2, length: 1 });
  server(RECEIVE, END);
  await collector.drain();
  expect(told()).toEqual([`client send ${C}/end`, `server receive ${C}/end`]);
});
