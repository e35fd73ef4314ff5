/** Retention on disk: what a pruned log still says, to whom, and whatever crashes meanwhile. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { computeApp } from "../../src/compute/compute-app.ts";
import { BASE_STATE } from "../../src/format/log-base.ts";
import { planCollection, rulesToKeep } from "../../src/gc/gc.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { openLogReader, readLog } from "../../src/log/segment-reader.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { readEvidence } from "../../src/logs/read-evidence.ts";
import type { Event } from "../../src/model/event.ts";
import { columnsOf, commitOf, eventsOf, scratch } from "./log-rig.ts";

let folder: ReturnType<typeof scratch>;
let dir: string;
beforeEach(() => {
  folder = scratch();
  dir = join(folder.path, "app");
});
afterEach(() => folder.remove());

/** Two processes that talk in rounds; each round ends in checkpoints of both. */
function round(n: number): { readonly a: Event[]; readonly b: Event[] } {
  const ranges = Array.from({ length: 50 }, (_, k) => ({ begin: n * 50 + k, end: n * 50 + k + 1 }));
  const end = n * 50 + 50;
  const checkpoint = (process: string, sent: object, received: object): Event => ({
    type: "checkpoint",
    process,
    checkpoint: n + 1,
    usable: true,
    cut: { sent: new Map(Object.entries(sent)), received: new Map(Object.entries(received)) },
  });
  return {
    a: [
      ...ranges.map((range): Event => ({ type: "send", process: "a", channel: "ab", ...range })),
      ...(n === 2 ? [{ type: "gap", process: "a", lost: 7 } as const] : []),
      checkpoint("a", { ab: end }, {}),
    ],
    b: [
      ...ranges.map((range): Event => ({ type: "receive", process: "b", channel: "ab", ...range })),
      checkpoint("b", {}, { ab: end }),
    ],
  };
}

async function filled(rounds: number): Promise<EventLog> {
  const log = await EventLog.open(dir, { create: true, segmentBytes: 2048 });
  await commitOf(log, columnsOf([{ type: "send", process: "quiet", channel: "qa", begin: 0, end: 3 }]));
  for (let n = 0; n < rounds; n += 1) {
    const { a, b } = round(n);
    await commitOf(log, columnsOf(a), columnsOf(b));
  }
  return log;
}

async function oldestOf(log: EventLog): Promise<ReadonlyMap<string, number>> {
  const evidence = await readEvidence(log.readBlocks());
  return planCollection(evidence, rulesToKeep(evidence)).oldest;
}

async function answer() {
  const reader = await openLogReader(dir);
  try {
    const logs = [
      { name: dir, cuts: reader, blocks: () => reader.unchecked(), ends: reader.ends, close: async () => {} },
    ];
    const find = async (fromEvents: boolean) => {
      const { line, inTransit, outcome, evidence } = (
        await computeApp(logs, { dsm: "sequential", inTransit: "any", fromEvents, workers: 0 })
      ).line;
      return { line, inTransit, outcome, evidence };
    };
    const answers = [await find(true), await find(false)];
    expect(answers[1]).toEqual(answers[0]);
    return answers[0];
  } finally {
    await reader.close();
  }
}

const segments = (): number => readdirSync(join(dir, "segments")).length;

test("whole segments go, answers and positions stay; what was carried is told, and verify finds the log whole", async () => {
  const log = await filled(40);
  await log.close();
  const before = await answer();
  const owner = await EventLog.open(dir, { create: false });
  const [all, bytes] = [segments(), (await verifyBytes(owner)).length];
  const plan = await owner.planPrune(await oldestOf(owner));
  expect(plan.base).toBeDefined();
  const removal = await owner.prune(plan.base!);
  expect(removal.bytes).toBeGreaterThan(0);
  await removal.removed;
  expect(segments()).toBeLessThan(all / 4);
  expect((await verifyBytes(owner)).length).toBeLessThan(bytes);
  expect(owner.firstChain).toBe(plan.base!.boundary);
  await owner.close();
  expect(await answer()).toEqual(before);
  const report = await verifyLog(dir);
  expect(report).toMatchObject({
    damages: [],
    firstChain: plan.base!.boundary,
    carriedBlocks: plan.base!.blocks.length,
  });
  const kept = await eventsOf(readLog(dir));
  expect(kept.filter(({ process }) => process === "quiet")).toHaveLength(1); // never checkpointed: carried whole
  expect(kept.filter(({ type }) => type === "gap")).toMatchObject([{ process: "a", lost: 7 }]);

  const again = await EventLog.open(dir, { create: false, segmentBytes: 2048 });
  for (let n = 40; n < 80; n += 1) {
    const { a, b } = round(n);
    await commitOf(again, columnsOf(a), columnsOf(b));
  }
  const second = await again.planPrune(await oldestOf(again));
  await again.prune(second.base!);
  expect(again.firstChain).toBeGreaterThan(plan.base!.boundary);
  await again.close();
  expect((await verifyLog(dir)).damages).toEqual([]);
  const line = (await answer())?.line;
  expect(line?.map(({ process, position }) => [process, position])).toEqual([
    ["a", 80 * 51 + 1],
    ["b", 80 * 51],
    ["quiet", 0],
  ]);
});

async function verifyBytes(log: EventLog): Promise<Uint8Array[]> {
  const blocks: Uint8Array[] = [];
  for await (const block of log.readBlocks()) blocks.push(block);
  return blocks;
}

test("a crash between the base and the removal: readers and the next owner see the pruned log, and nothing twice", async () => {
  const log = await filled(20);
  const { base } = await log.planPrune(await oldestOf(log));
  log.putState(BASE_STATE, base);
  await log.commit(); // and here it dies
  await log.close();
  const all = segments();
  const read = await eventsOf(readLog(dir));
  expect(read.filter(({ type }) => type === "gap")).toHaveLength(1);
  expect(segments()).toBe(all);
  const next = await EventLog.open(dir, { create: false });
  expect(next.firstChain).toBe(base!.boundary);
  expect(await eventsOf(next.readBlocks())).toEqual(read);
  await next.close();
  expect(segments()).toBeLessThan(all);
  expect((await verifyLog(dir)).damages).toEqual([]);
});

test("a rollback to the checkpoint that history is collapsed into works after pruning, one below it is refused by name", async () => {
  const log = await filled(20);
  const oldest = await oldestOf(log);
  const { base } = await log.planPrune(oldest);
  await log.prune(base!);
  const [first] = (await eventsOf(log.readBlocks())).filter(
    ({ type, process }) => type === "checkpoint" && process === "b",
  );
  const checkpoint = first?.type === "checkpoint" ? first.checkpoint : 0;
  expect(checkpoint).toBeGreaterThan(1);
  await commitOf(log, columnsOf([{ type: "rollback", process: "b", checkpoint }]));
  expect(log.committed().heads.get("b")?.position).toBe(checkpoint * 51 + 1);
  await expect(
    log.append(columnsOf([{ type: "rollback", process: "b", checkpoint: checkpoint - 1 }])),
  ).rejects.toMatchObject({
    code: "RL_CONTRADICTION",
  });
  await log.close();
  const next = await EventLog.open(dir, { create: false });
  await commitOf(next, columnsOf([{ type: "rollback", process: "b", checkpoint: 0 }]));
  await next.close();
  expect((await verifyLog(dir)).damages).toEqual([]);
});

test("what must stay whole stays whole, with the reason", async () => {
  const log = await filled(10);
  await commitOf(log, columnsOf([{ type: "stable", process: "a" }]));
  const oldest = await oldestOf(log);
  expect(await log.planPrune(oldest)).toMatchObject({
    base: undefined,
    reason: expect.stringContaining("message log"),
  });
  expect(await log.planPrune(new Map())).toMatchObject({ base: undefined });
  await log.close();
});
