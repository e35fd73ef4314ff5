import { chmodSync, chownSync, cpSync, mkdirSync, readdirSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { decodeBlock } from "../../src/format/block.ts";
import { readAnchor } from "../../src/log/anchor-file.ts";
import { BlockStore } from "../../src/log/block-store.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { openLogReader, readLog } from "../../src/log/segment-reader.ts";
import { SegmentShelf } from "../../src/log/segment-shelf.ts";
import type { Event } from "../../src/model/event.ts";
import { columnsOf, commitOf, eventsOf, scratch, sends, storedEvents } from "./log-rig.ts";

let folder: ReturnType<typeof scratch>;
let dir: string;
beforeEach(() => {
  folder = scratch();
  dir = join(folder.path, "app");
});
afterEach(() => folder.remove());

const coded = (code: string) => expect.objectContaining({ code });
const open = (create = true, segmentBytes?: number) =>
  EventLog.open(dir, { create, ...(segmentBytes === undefined ? {} : { segmentBytes }) });

test("what was committed is there after reopening: blocks in order, states, heads", async () => {
  let log = await open();
  log.putState("ring", { position: 7, names: ["a", "b"], deep: { none: null } });
  await commitOf(log, sends("p", 0, 100), sends("q", 0, 3));
  await commitOf(log, sends("p", 100, 5));
  await log.append(sends("p", 105, 5)); // never committed
  log.putState("ring", { position: 8 });
  expect(log.getState("ring")).toMatchObject({ position: 7 });
  await log.close();
  log = await open(false);
  expect(log.getState("ring")).toEqual({ position: 7, names: ["a", "b"], deep: { none: null } });
  expect(log.getState("nothing")).toBeUndefined();
  expect(log.committed().heads.get("p")).toEqual({
    chain: 3,
    sequence: 2,
    control: 0,
    irregular: 0,
    position: 105,
    greatestCheckpoint: 0,
  });
  await commitOf(log, sends("q", 3, 1));
  expect(await eventsOf(log.readBlocks(3))).toEqual([...sends("q", 3, 1).events()]);
  await log.close();
  const events = await storedEvents(dir);
  expect(events).toEqual([
    ...sends("p", 0, 100).events(),
    ...sends("q", 0, 3).events(),
    ...sends("p", 100, 5).events(),
    ...sends("q", 3, 1).events(),
  ]);
});

test("states can be replaced and removed; a commit of nothing writes nothing", async () => {
  const log = await open();
  log.putState("a", 1);
  log.putState("b", [1, "x", null, true]);
  await log.commit();
  log.putState("a", undefined);
  log.putState("b", "new");
  await log.commit();
  const before = statSync(join(dir, "anchor")).mtimeMs;
  await log.commit();
  expect(statSync(join(dir, "anchor")).mtimeMs).toBe(before);
  expect(() => log.putState("c", new Date())).toThrow(TypeError);
  expect(() => log.putState("", 1)).toThrow(TypeError);
  await log.close();
  const again = await open(false);
  expect([again.getState("a"), again.getState("b")]).toEqual([undefined, "new"]);
  await again.close();
});

test("a log that is not there is made only when asked for", async () => {
  await expect(open(false)).rejects.toThrow(coded("RL_UNKNOWN_APP"));
  mkdirSync(dir, { mode: 0o700 });
  await expect(open(false)).rejects.toThrow(coded("RL_UNKNOWN_APP"));
  await expect(storedEvents(dir)).rejects.toThrow(coded("RL_UNKNOWN_APP"));
  const log = await open();
  await expect(open()).rejects.toThrow(coded("RL_LOCKED"));
  await expect(storedEvents(dir)).rejects.toThrow(coded("RL_LOCKED"));
  await log.close();
  expect(await storedEvents(dir)).toEqual([]);
});

test("positions follow rollbacks, also into earlier commits, blocks and segments", async () => {
  const checkpoint = (index: number): Event => ({
    type: "checkpoint",
    process: "p",
    checkpoint: index,
    usable: true,
  });
  const rollback = (index: number): Event => ({ type: "rollback", process: "p", checkpoint: index });
  const log = await open();
  await commitOf(log, sends("p", 0, 4), columnsOf([checkpoint(1)])); // c1 at 5
  await log.rotate();
  await commitOf(log, columnsOf([checkpoint(2), checkpoint(4)])); // at 6 and 7
  await commitOf(log, sends("p", 4, 10));
  expect(log.committed().heads.get("p")).toMatchObject({ position: 17, greatestCheckpoint: 4 });
  await commitOf(log, columnsOf([rollback(1)]));
  expect(log.committed().heads.get("p")).toMatchObject({ position: 6 });
  // 2 stands again at another position; the old one is undone.
  await commitOf(
    log,
    columnsOf([
      ...sends("p", 4, 3).events(),
      checkpoint(2),
      ...sends("p", 7, 3).events(),
      rollback(2),
      ...sends("p", 7, 2).events(),
    ]),
  );
  expect(log.committed().heads.get("p")).toMatchObject({ position: 13 });
  await commitOf(log, columnsOf([rollback(2)]));
  expect(log.committed().heads.get("p")).toMatchObject({ position: 11 });
  await log.append(columnsOf([rollback(1)]));
  await log.append(columnsOf([rollback(0)]));
  await log.commit();
  expect(log.committed().heads.get("p")).toMatchObject({ position: 1, greatestCheckpoint: 4 });
  await expect(log.append(columnsOf([rollback(1)]))).rejects.toThrow(coded("RL_CONTRADICTION"));
  await log.close();
  const positions: number[] = [];
  for await (const block of readLog(dir)) positions.push(decodeBlock(block).header.positionAfter);
  expect(positions).toEqual([4, 5, 7, 17, 6, 11, 13, 11, 6, 1]);
});

test("segments: sealed by size and at request, read across, state carried over", async () => {
  let log = await open(true, 4000);
  log.putState("kept", "for ever");
  for (let n = 0; n < 20; n += 1) await commitOf(log, sends("p", n * 100, 100));
  await log.rotate();
  await log.rotate(); // nothing to seal
  expect(readdirSync(join(dir, "segments")).length).toBeGreaterThan(4);
  expect(await eventsOf(log.readBlocks())).toEqual([...sends("p", 0, 2000).events()]);
  await log.close();
  log = await open(false);
  expect(log.getState("kept")).toBe("for ever");
  expect(log.committed().heads.get("p")).toMatchObject({ chain: 20, position: 2000 });
  await commitOf(log, sends("p", 2000, 1));
  await log.close();
  expect(await storedEvents(dir)).toEqual([...sends("p", 0, 2001).events()]);
});

test("old segments can be dropped; the chain then begins at the first that is kept", async () => {
  const log = await open();
  for (let n = 0; n < 4; n += 1) {
    await commitOf(log, sends("p", n * 10, 10));
    await log.rotate();
  }
  const reading = log.readBlocks();
  expect(decodeBlock((await reading.next()).value!).header.chain).toBe(1); // holds segment 1
  expect((await log.prune({ boundary: 1, blocks: [] })).bytes).toBe(0);
  const dropping = log.prune({ boundary: 4, blocks: [] }).then(({ removed }) => removed); // blocks 1, 2, 3
  await commitOf(log, sends("p", 40, 1)); // does not wait for the reader
  expect(decodeBlock((await reading.next()).value!).header.chain).toBe(2);
  expect(await Promise.allSettled([reading.return(undefined), dropping])).toMatchObject([
    { status: "fulfilled" },
    { status: "fulfilled" },
  ]);
  expect([log.firstChain, log.lastChain]).toEqual([4, 5]);
  await expect(log.block(3)).rejects.toThrow(TypeError);
  await log.close();
  expect(readdirSync(join(dir, "segments"))).toEqual(["000004", "000005"]);
  expect(await storedEvents(dir)).toEqual([...sends("p", 30, 11).events()]);
});

test("a reader whose first segment is dropped before it opens it is told so", async () => {
  const log = await open();
  await commitOf(log, sends("p", 0, 10));
  await log.rotate();
  await commitOf(log, sends("p", 10, 10));
  await log.close();
  const before = (await readAnchor(dir))!;
  const again = await open(false);
  await (await again.prune({ boundary: 2, blocks: [] })).removed;
  await again.close();
  const after = (await readAnchor(dir))!;
  const extents = [before];
  const store = new BlockStore(dir, new SegmentShelf(dir), () => extents.shift() ?? after);
  await expect(store.blocks().next()).rejects.toThrow(coded("RL_REFUSED"));
});

test("a copy of a log is read elsewhere, under its own name; a sealed log copied while it is open, too", async () => {
  const log = await open();
  await commitOf(log, sends("p", 0, 10));
  await log.close();
  const copy = join(folder.path, "elsewhere");
  cpSync(dir, copy, { recursive: true });
  const reader = await openLogReader(copy);
  expect(reader.application).toBe("app");
  await reader.close();
  expect(await storedEvents(copy)).toEqual([...sends("p", 0, 10).events()]);
});

test("folders are for the owner alone; links, foreign and writable folders are refused", async () => {
  const log = await open();
  await commitOf(log, sends("p", 0, 10));
  await log.close();
  const mode = (name: string): number => statSync(join(dir, name)).mode & 0o777;
  expect(["", "segments", "segments/000001"].map(mode)).toEqual([0o700, 0o700, 0o700]);
  expect(["anchor", "lock"].map(mode)).toEqual([0o600, 0o600]);
  const link = join(folder.path, "link");
  symlinkSync(dir, link);
  await expect(storedEvents(link)).rejects.toThrow(coded("RL_NO_RIGHTS"));
  await expect(EventLog.open(link, { create: true })).rejects.toThrow(coded("RL_NO_RIGHTS"));
  symlinkSync("/etc/passwd", join(dir, "segments/000001/passwd"));
  await expect(storedEvents(dir)).rejects.toThrow(coded("RL_NO_RIGHTS"));
  chmodSync(dir, 0o777);
  await expect(storedEvents(dir)).rejects.toThrow(coded("RL_NO_RIGHTS"));
});

test.skipIf(process.geteuid!() !== 0)("a folder that another user made is refused", async () => {
  mkdirSync(dir, { mode: 0o700 });
  chownSync(dir, 65534, 65534);
  await expect(open()).rejects.toThrow(coded("RL_NO_RIGHTS"));
});
