import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Level } from "level";
import { afterEach, beforeEach, expect, test } from "vitest";
import { decodeBlock, encodeBlock } from "../../src/format/block.ts";
import { blockKey } from "../../src/format/log-key.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import type { Event } from "../../src/model/event.ts";
import { columnsOf, commitOf, scratch, sends } from "./log-rig.ts";

let folder: ReturnType<typeof scratch>;
let dir: string;
beforeEach(() => {
  folder = scratch();
  dir = join(folder.path, "app");
});
afterEach(() => folder.remove());

const checkpoint = (index: number): Event => ({
  type: "checkpoint",
  process: "p",
  checkpoint: index,
  usable: true,
  cut: { sent: new Map([["from-p", 1]]), received: new Map() },
});
const rollback = (index: number): Event => ({ type: "rollback", process: "p", checkpoint: index });
const receive = (process: string, begin: number, end: number): Event => ({
  type: "receive",
  process,
  channel: "c",
  begin,
  end,
});

/** Seven blocks in two segments: p, q, p with checkpoint and rollback, p, q with a gap | q, p. */
async function smallLog(): Promise<void> {
  const log = await EventLog.open(dir, { create: true });
  await commitOf(log, sends("p", 0, 10), sends("q", 0, 5));
  await commitOf(log, columnsOf([checkpoint(1), ...sends("p", 10, 4).events(), rollback(1)]));
  await commitOf(log, sends("p", 10, 7), columnsOf([{ type: "gap", process: "q", lost: 3 }]));
  await log.rotate();
  await commitOf(log, sends("q", 5, 1));
  await commitOf(log, sends("p", 17, 1));
  await log.close();
}

/** Changes a segment's database behind the log's back. */
async function tamper(segment: string, change: (db: Level<Uint8Array, Uint8Array>) => Promise<void>) {
  const db = new Level<Uint8Array, Uint8Array>(join(dir, "segments", segment), {
    keyEncoding: "view",
    valueEncoding: "view",
    compression: false,
  });
  await db.open();
  await change(db).finally(() => db.close());
}

test("a whole log: its figures, no damage", async () => {
  await smallLog();
  expect(await verifyLog(dir)).toMatchObject({
    application: "app",
    segments: 2,
    blocks: 7,
    events: 31,
    processes: 2,
    gaps: 1,
    firstChain: 1,
    lastChain: 7,
    damages: [],
    overlaps: [],
    omitted: 0,
  });
});

test("an empty log is whole; no log is an error", async () => {
  await expect(verifyLog(dir)).rejects.toMatchObject({ code: "RL_UNKNOWN_APP" });
  const log = await EventLog.open(dir, { create: true });
  await expect(verifyLog(dir)).rejects.toMatchObject({ code: "RL_LOCKED" });
  await log.close();
  expect(await verifyLog(dir)).toMatchObject({ blocks: 0, damages: [] });
});

test("dropped segments leave a whole log", async () => {
  await smallLog();
  const log = await EventLog.open(dir, { create: false });
  await (await log.prune({ boundary: 6, blocks: [] })).removed;
  await log.close();
  expect(await verifyLog(dir)).toMatchObject({ segments: 1, blocks: 2, firstChain: 6, damages: [] });
});

const damageOf = async () => (await verifyLog(dir)).damages;

test("removed, damaged and exchanged blocks are each named", async () => {
  await smallLog();
  await tamper("000001", async (db) => {
    await db.del(blockKey(2));
    const third = Uint8Array.from((await db.get(blockKey(3)))!);
    third[200]! ^= 1;
    await db.put(blockKey(3), third);
  });
  const damages = await damageOf();
  expect(damages[0]).toEqual({ place: "block 2", why: "missing" });
  expect(damages[1]).toMatchObject({ place: "block 3", why: expect.stringContaining("checksum") });
  expect(damages.some(({ place }) => place.startsWith("block 5 "))).toBe(true); // q's sequence has a hole
});

test("a forged block with a right checksum breaks chain, sequence and positions", async () => {
  await smallLog();
  await tamper("000001", async (db) => {
    const { header, columns } = decodeBlock((await db.get(blockKey(4)))!);
    const place = { ...header, sequence: 9, position: 2, positionAfter: 2 + columns.count };
    await db.put(blockKey(4), encodeBlock(place, columns));
  });
  const whys = (await damageOf()).map(({ place, why }) => `${place}: ${why}`).join("\n");
  expect(whys).toContain("is number 9 of its process, 3 was due");
  expect(whys).toContain("begins at position 2, 12 was due");
  expect(whys).toContain('block 5 (process "q"): does not follow the block before it');
});

test("a missing anchor, a damaged anchor, a missing segment, a cut-off tail", async () => {
  await smallLog();
  const anchor = readFileSync(join(dir, "anchor"));
  rmSync(join(dir, "anchor"));
  expect(await damageOf()).toEqual([{ place: join(dir, "anchor"), why: "missing" }]);
  writeFileSync(join(dir, "anchor"), anchor.subarray(0, 100));
  expect(await damageOf()).toHaveLength(1);
  writeFileSync(join(dir, "anchor"), anchor);
  await tamper("000002", (db) => db.del(blockKey(7)));
  expect(await damageOf()).toContainEqual({ place: "block 7", why: "missing" });
  rmSync(join(dir, "segments/000001"), { recursive: true });
  expect(await damageOf()).toContainEqual({ place: "blocks 1 to 5", why: "missing" });
});

test("bytes sent or received twice in one history are reported; undone ones are not", async () => {
  const log = await EventLog.open(dir, { create: true });
  await commitOf(log, columnsOf([receive("q", 0, 10), receive("q", 20, 30), receive("q", 5, 25)]));
  await commitOf(log, columnsOf([receive("r", 40, 41)])); // a second receiver
  await commitOf(log, columnsOf([checkpoint(1), ...sends("p", 0, 5).events(), rollback(1)]));
  await commitOf(log, sends("p", 0, 5)); // again, after the rollback: no overlap
  await log.close();
  const { damages, overlaps } = await verifyLog(dir);
  expect(damages).toEqual([]);
  expect(overlaps).toEqual([
    { process: "q", channel: "c", direction: "receive", begin: 5, end: 25 },
    { process: "r", channel: "c", direction: "receive", begin: 40, end: 41, other: "q" },
  ]);
});
