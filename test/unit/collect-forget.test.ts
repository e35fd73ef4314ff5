/** A process with many short connections: what is closed for good is forgotten, in the kernel and in cuts, and no answer changes. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openEventLog } from "../../src/engine/append-log.ts";
import { Collector } from "../../src/engine/collect.ts";
import { computeLine } from "../../src/engine/compute.ts";
import { computeFromCuts } from "../../src/engine/compute-from-cuts.ts";
import { planCollection, rulesToKeep } from "../../src/engine/gc.ts";
import { readEvidence } from "../../src/engine/read-evidence.ts";
import type { ParsedBlock } from "../../src/format/block-header.ts";
import { RingKind } from "../../src/format/ring-layout.ts";
import { openLogReader } from "../../src/log/segment-reader.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import type { CutEntry } from "../../src/ring/event-source.ts";
import { FakeRing, FakeSource } from "./collect-fakes.ts";

const CLIENT = 1;
const SERVER = 2;
const NAMES = new Map([
  [CLIENT, "client"],
  [SERVER, "server"],
]);

let home: string;
let ring: FakeRing;
let source: FakeSource;
let collector: Collector;
let port = 0;

const start = async (): Promise<void> => {
  source = new FakeSource(ring);
  collector = await Collector.over({ source, home, openLog: openEventLog, commitIntervalMs: 1 });
};

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "collect-forget-"));
  ring = new FakeRing();
  port = 0;
  for (const cgroupId of NAMES.keys()) ring.connections.set(cgroupId, new Map());
  await start();
  for (const [cgroupId, process] of NAMES) await collector.register({ app: "app", process, cgroupId });
});

afterEach(async () => {
  await collector.close().catch(() => undefined);
  rmSync(home, { recursive: true, force: true });
});

function entry(local: number, remote: number, sent: number, received: number, more = {}): CutEntry {
  return { flags: 0, live: 0, gone: 1, local, remote, sent, received, unacknowledged: 0, queued: 0, ...more };
}

/** A question and an answer over a connection of its own, which both ends close. */
function ask(unread = 0, more = {}): void {
  port += 2;
  const [client, server] = [port, port + 1];
  const put = (process: number, kind: number, local: number, remote: number, length: number) =>
    ring.put({ process, kind, local, remote, begin: 0, length });
  put(CLIENT, RingKind.SEND, client, server, 10);
  put(SERVER, RingKind.RECEIVE, server, client, 10);
  put(SERVER, RingKind.SEND, server, client, 20);
  put(CLIENT, RingKind.RECEIVE, client, server, 20 - unread);
  ring.connections.get(CLIENT)!.set(`${client}-${server}`, entry(client, server, 10, 20 - unread, more));
  ring.connections.get(SERVER)!.set(`${server}-${client}`, entry(server, client, 20, 10, more));
}

/** Returns how many channels its cut names. */
async function checkpoint(cgroupId: number): Promise<number> {
  await collector.drain();
  const process = NAMES.get(cgroupId)!;
  const { cut } = collector.cut(cgroupId);
  const index = await collector.nextCheckpoint("app", process);
  await collector.appendControl("app", { type: "checkpoint", process, checkpoint: index, usable: true, cut });
  return cut.sent.size + cut.received.size;
}

async function gc(): Promise<number> {
  const evidence = await readEvidence(collector.readBlocks("app"));
  const { oldest } = planCollection(evidence, rulesToKeep(evidence, undefined, "any"));
  return (await collector.prune("app", oldest)).forgotten!;
}

const kernelHolds = (): number =>
  [...ring.connections.values()].reduce((sum, connections) => sum + connections.size, 0);

async function* bytesOf(blocks: AsyncIterable<ParsedBlock>): AsyncGenerator<Uint8Array> {
  for await (const { bytes } of blocks) yield bytes;
}

/** From cuts alone and from all events; of the closed log. */
async function bothLines() {
  await collector.close();
  const dir = join(home, "app");
  expect((await verifyLog(dir)).damages).toEqual([]);
  const reader = await openLogReader(dir);
  const options = { dsm: "sequential", inTransit: "any" } as const;
  const evidence = await readEvidence(bytesOf(reader.blocks()));
  const cuts = await computeFromCuts([reader], options);
  await reader.close();
  if (cuts.line === undefined) throw new Error(cuts.reason);
  const told = ({ line, inTransit, outcome }: typeof cuts.line) => ({ line, inTransit, outcome });
  expect(told(cuts.line)).toEqual(told(computeLine(evidence, options)));
  return cuts.line;
}

test("6000 connections, 200 between two collections: kernel and cuts stay bounded, the line from cuts is the line from events", async () => {
  const bound = 2 * 200;
  let [held, named] = [0, 0];
  for (let round = 0; round < 30; round += 1) {
    for (let one = 0; one < 200; one += 1) ask();
    named = Math.max(named, await checkpoint(CLIENT), await checkpoint(SERVER));
    held = Math.max(held, kernelHolds());
    expect(await gc()).toBe(2 * 200);
  }
  expect(held).toBe(bound);
  expect(named).toBe(bound);
  for (let one = 0; one < 3; one += 1) ask();
  await checkpoint(SERVER); // and the client's newest cut still names what the server's leaves out
  const { line, outcome, inTransit } = await bothLines();
  expect(outcome).toBe("clean");
  expect(inTransit).toEqual([]);
  expect(line.map(({ checkpoint }) => checkpoint)).toEqual([30, 30]); // the server has what the client did not keep
});

test("kept: no cut below every line, bytes that nobody read, a socket that is still there, a process that is not recorded", async () => {
  ask();
  await checkpoint(CLIENT);
  expect(await gc()).toBe(0); // the server can still go back to its beginning
  ask(1);
  ask(0, { gone: 0 });
  ask(0, { live: 1, gone: 0 });
  await checkpoint(CLIENT);
  await checkpoint(SERVER);
  expect(await gc()).toBe(2);
  expect(kernelHolds()).toBe(2 * 3);
  await collector.unregister("app", "server");
  ask();
  await checkpoint(CLIENT);
  expect(await gc()).toBe(0);
});

test("cut off between the two ends: the next collector forgets the other end, too", async () => {
  ask();
  await checkpoint(CLIENT);
  await checkpoint(SERVER);
  ring.failsForgetting = 1;
  await expect(gc()).rejects.toThrow("the helper is gone");
  expect(kernelHolds()).toBe(1);
  await collector.close();
  await start();
  expect(kernelHolds()).toBe(0);
  await checkpoint(CLIENT);
  await checkpoint(SERVER);
  const { line, outcome } = await bothLines();
  expect(outcome).toBe("clean");
  expect(line.map(({ checkpoint }) => checkpoint)).toEqual([2, 2]);
});

test("what the image of a restored process had closed is forgotten in the same way", async () => {
  ask();
  const past = [...ring.connections.get(CLIENT)!.values()];
  await checkpoint(CLIENT);
  await checkpoint(SERVER);
  ring.connections.set(CLIENT, new Map()); // its kernel state went with the old cgroup
  const start = { command: ["client"], cwd: "/", env: {} };
  await collector.register({
    app: "app",
    process: "client",
    cgroupId: CLIENT,
    start,
    past: { connections: past, uncaptured: [] },
  });
  expect(collector.cut(CLIENT).details).toHaveLength(1);
  expect(await gc()).toBe(2);
  expect(collector.cut(CLIENT).details).toEqual([]);
  expect(collector.cut(SERVER).details).toEqual([]);
});
