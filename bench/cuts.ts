// bench: cuts — the line from checkpoint cuts, as the log grows from 10⁶ to 10⁸ events; RL_BENCH_CUT_EVENTS=1000000000 to 10⁹ (8 GB).
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { computeApp } from "../src/compute/compute-app.ts";
import { EventLog } from "../src/log/event-log.ts";
import type { NodeLog } from "../src/log/log-sources.ts";
import { openLogReader } from "../src/log/segment-reader.ts";
import { type Figure, median, report } from "./report.ts";
import { ringBatch } from "./ring-log.ts";

const LARGEST = Number(process.env["RL_BENCH_CUT_EVENTS"] ?? 100_000_000);
const shape = { processes: 16, interval: 6_250, cuts: true };
const rules = { dsm: "sequential", inTransit: "any" } as const;

async function grow(log: EventLog, from: number, to: number): Promise<number> {
  const perRound = shape.processes * shape.interval;
  let round = from / perRound;
  for (; round * perRound < to; round += 1) {
    for (let p = 0; p < shape.processes; p += 1) await log.append(ringBatch(shape, p, round));
    await log.commit();
  }
  return round * perRound;
}

async function withLog<T>(dir: string, work: (log: NodeLog) => Promise<T>): Promise<T> {
  const reader = await openLogReader(dir);
  const { ends } = reader;
  try {
    return await work({
      name: dir,
      cuts: reader,
      blocks: () => reader.unchecked(),
      ends,
      close: () => reader.close(),
    });
  } finally {
    await reader.close();
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** One failed process, and the whole application; with the log open already, and from a closed one. */
async function measure(dir: string, events: number): Promise<Figure[]> {
  const label = `${events / 1e6} M events`;
  const opening = await median(5, () => timed(() => withLog(dir, async () => undefined)));
  const figures: Figure[] = [];
  for (const [who, failed] of [
    ["one failed", ["p0"]],
    ["all failed", undefined],
  ] as const) {
    const options = { ...rules, ...(failed === undefined ? {} : { failed: () => failed }) };
    let from = "";
    const open = await withLog(dir, (log) =>
      median(7, () => timed(async () => (from = (await computeApp([log], options)).from))),
    );
    const whole = await median(5, () => timed(() => withLog(dir, (log) => computeApp([log], options))));
    if (from !== "cuts") throw new Error(`the line came from ${from}`);
    figures.push({
      name: `${label}, ${who}: line from cuts, log open`,
      value: open,
      unit: "ms",
      goal: "≤ 50 ms",
      met: open <= 50,
    });
    figures.push({
      name: `${label}, ${who}: from the closed log, open and close included`,
      value: whole,
      unit: "ms",
      floor: { name: "open and close the log", value: opening },
      goal: "≤ 50 ms",
      met: whole <= 50,
    });
  }
  return figures;
}

const home = mkdtempSync(join(tmpdir(), "recovery-line-bench-"));
const dir = join(home, "ring");
try {
  const figures: Figure[] = [];
  let size = 0;
  for (const target of [1e6, 1e7, 1e8, 1e9].filter((events) => events <= LARGEST)) {
    const log = await EventLog.open(dir, { create: true, application: "ring" });
    const begin = performance.now();
    const before = size;
    size = await grow(log, size, target);
    const seconds = (performance.now() - begin) / 1000;
    await log.close();
    figures.push({
      name: `${size / 1e6} M events: written with`,
      value: (size - before) / 1e6 / seconds,
      unit: "M events/s",
    });
    figures.push(...(await measure(dir, size)));
  }
  report("cuts: the line from checkpoint cuts", figures);
  const smallest = Math.min(size, 1e7);
  if (size === smallest) {
    const events = await timed(() =>
      withLog(dir, (log) => computeApp([log], { ...rules, fromEvents: true })),
    );
    report("cuts: beside all events", [
      { name: `${size / 1e6} M events: line from all events`, value: events, unit: "ms" },
    ]);
  }
} finally {
  rmSync(home, { recursive: true, force: true });
}
