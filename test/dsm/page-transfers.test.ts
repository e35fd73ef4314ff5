import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { computeExactLine } from "../../src/compute/compute-exact.ts";
import { decodeBlock, encodeBlock } from "../../src/format/block.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { PageVersions } from "../../src/graph/evidence/page-versions.ts";
import { exactPageModel, survivingCopies } from "../../src/graph/questions/page-transfers.ts";
import { NOTHING_UNDONE } from "../../src/graph/rollback/propagate-rollback.ts";
import {
  keptPositions,
  type RollbackModel,
  rollbackModel,
  undoneBy,
} from "../../src/graph/rollback/rollback-model.ts";
import { addBlock } from "../../src/logs/read-evidence.ts";
import type { DsmEvent } from "../../src/model/event.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import type { DsmModel } from "../../src/model/recovery-line.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import {
  type DsmExecution,
  type DsmSetting,
  lostPages,
  type Moments,
  orphanReads,
  simulateDsm,
} from "./simulate-dsm.ts";

const SEED = Date.now() % 1_000_000;
const EXECUTIONS = sized(2000, 200);
const CUTS = 50 * EXECUTIONS;

function setting(random: Random): DsmSetting {
  return {
    processes: 2 + random.below(3),
    homes: 1 + random.below(2),
    pages: 1 + random.below(4),
    steps: 40 + random.below(120),
    cuts: random.oneIn(2),
  };
}

function conservative({ events, entities }: DsmExecution, dsm: DsmModel): RollbackModel {
  const builder = new EvidenceBuilder();
  for (const name of entities) builder.addProcess(name);
  for (const event of events) builder.addEvent(event);
  return rollbackModel(builder.build(), { dsm, inTransit: "any" });
}

interface Cut {
  readonly moments: Moments;
  readonly kept: ReadonlyMap<string, number>;
}

/** The line of a model for failed processes, in moments of the ledger. */
function lineOf(model: RollbackModel, failed: readonly string[]): Cut {
  const { processes } = model.evidence;
  const undone = undoneBy(
    model,
    failed.map((name) => processes.indexOf(name)),
  );
  const kept = keptPositions(model.evidence, undone);
  const moment = (p: number) =>
    undone[p] === NOTHING_UNDONE ? Number.POSITIVE_INFINITY : 2 * (kept[p] as number);
  return {
    moments: new Map(processes.map((name, p) => [name, moment(p)])),
    kept: new Map(processes.map((name, p) => [name, kept[p] as number])),
  };
}

function failureSets(entities: readonly string[], random: Random, count: number): string[][] {
  const sets = [[...entities]];
  while (sets.length < count) {
    const failed = random.subset(entities);
    if (failed.length > 0) sets.push(failed);
  }
  return sets;
}

test(`no orphan read and no page without a surviving copy, over ${CUTS} cuts, seed ${SEED}`, {
  timeout: 60_000,
}, () => {
  const random = new Random(SEED);
  const seen = {
    cuts: 0,
    sequential: 0,
    transfers: 0,
    exact: 0,
    lostWithoutRetention: 0,
    orphansWithoutLine: 0,
    pages: 0,
    reads: 0,
  };
  for (let n = 0; n < EXECUTIONS; n += 1) {
    const execution = simulateDsm(SEED + n, setting(random));
    const known = new Set(execution.events.map(({ process }) => process));
    const models = {
      sequential: conservative(execution, "sequential"),
      transfers: conservative(execution, "transfers"),
      exact: exactPageModel(execution.events),
    };
    seen.reads += execution.reads.length;
    for (const failed of failureSets([...known], random, 17)) {
      const lines = new Map<string, Cut>();
      for (const [name, model] of Object.entries(models)) {
        const cut = lineOf(model, failed);
        // Who did nothing keeps everything.
        const moments = new Map(
          [...execution.entities].map((e) => [e, cut.moments.get(e) ?? Number.POSITIVE_INFINITY]),
        );
        lines.set(name, { ...cut, moments });
        seen.cuts += 1;
        const wrong = [orphanReads(execution, moments), lostPages(execution, moments, true)];
        if (wrong.some((count) => count > 0))
          expect({ n, name, failed, wrong }).toEqual("orphan reads, lost pages: 0, 0");
        if (lostPages(execution, moments, false) > 0) seen.lostWithoutRetention += 1;
        seen[name as "exact"] += [...cut.kept.values()].reduce((sum, lines) => sum + lines, 0);
      }
      // What the failures alone undo is no line: the judge must see that.
      const naive = failed.map((name): [string, number] => [name, lines.get("exact")!.moments.get(name)!]);
      const only = new Map([...execution.entities].map((e) => [e, Number.POSITIVE_INFINITY]));
      for (const [name, moment] of naive) only.set(name, moment);
      if (orphanReads(execution, only) > 0) seen.orphansWithoutLine += 1;
      // Fewer dependencies never give an earlier line.
      for (const process of known) {
        const [sequential, transfers, exact] = ["sequential", "transfers", "exact"].map(
          (name) => lines.get(name)!.kept.get(process)!,
        );
        if (sequential! > transfers! || transfers! > exact!)
          expect({ n, failed, process, sequential, transfers, exact }).toEqual("rising");
      }
      if (n % 4 !== 0) continue;
      const exact = lines.get("exact")!;
      for (const { holders } of survivingCopies(execution.events, (process) => exact.kept.get(process)!)) {
        if (holders.length === 0) expect({ n, failed, holders }).toEqual("a holder");
        seen.pages += 1;
      }
    }
  }
  console.log(`${JSON.stringify(seen)}`);
  expect(seen.cuts).toBeGreaterThanOrEqual(CUTS);
  expect(seen.reads).toBeGreaterThan(CUTS / 10);
  expect(seen.pages).toBeGreaterThan(CUTS / 20);
  // The judge can see: thrown away copies are missed, and exact edges do keep more.
  expect(seen.lostWithoutRetention).toBeGreaterThan(CUTS / 1000);
  expect(seen.orphansWithoutLine).toBeGreaterThan(CUTS / 1000);
  expect(seen.exact).toBeGreaterThan(seen.transfers);
  expect(seen.transfers).toBeGreaterThan(seen.sequential);
});

/** What a log gives back: each process's events in one or two blocks. */
function throughBlocks(
  events: readonly DsmEvent[],
  random: Random,
): { evidence: Evidence; versions: PageVersions } {
  const histories = new Map<string, EventColumns>();
  for (const event of events) {
    const columns = histories.get(event.process) ?? new EventColumns(event.process);
    histories.set(event.process, columns);
    columns.push(event);
  }
  const builder = new EvidenceBuilder();
  const versions = new PageVersions();
  for (const columns of histories.values()) {
    const middle = random.below(columns.count);
    for (const [from, to] of [[0, middle] as const, [middle, columns.count] as const]) {
      if (from === to) continue;
      const place = {
        ...{ application: "app", chain: 9, previousHash: new Uint8Array(32), previousControl: 0 },
        ...{ sequence: from === 0 ? 1 : 2, previousBlock: from === 0 ? 0 : 1, greatestCheckpoint: 1_000_000 },
        ...{ position: from, positionAfter: to },
      };
      addBlock(builder, decodeBlock(encodeBlock(place, columns, from, to)), versions);
    }
  }
  return { evidence: builder.build(), versions };
}

test(`blocks of a log give the exact line, which the verifier accepts, seed ${SEED}`, () => {
  const random = new Random(SEED);
  const seen = { later: 0, links: 0, lines: 0 };
  for (let n = 0; n < sized(150, 60); n += 1) {
    const { events } = simulateDsm(SEED + n, setting(random));
    const model = exactPageModel(events);
    const { evidence, versions } = throughBlocks(events, random);
    for (const failed of failureSets(evidence.processes, random, 5)) {
      const answer = computeExactLine(evidence, versions, { failed });
      const kept = Object.fromEntries(answer.line.map(({ process, position }) => [process, position]));
      expect(kept).toEqual(Object.fromEntries(lineOf(model, failed).kept));
      const rough = computeLine(evidence, { failed, dsm: "transfers", inTransit: "any" });
      if (rough.line.some(({ process, position }) => position < kept[process]!)) seen.later += 1;
      seen.lines += 1;
      const names = new Set(evidence.channels);
      for (const { channel } of answer.inTransit) expect(names).toContain(channel);
      for (const link of answer.witnesses.flatMap(({ because }) => because)) {
        if (link.channel !== undefined) expect(names).toContain(link.channel);
        if (link.page === undefined) continue;
        seen.links += 1;
        expect(
          events.find(
            (e) =>
              e.type === "page-copy" &&
              e.role === "destination" &&
              e.channel === link.channel &&
              e.begin === link.begin,
          ),
        ).toMatchObject({ process: link.process, writer: link.from, page: link.page, version: link.version });
      }
    }
  }
  console.log(JSON.stringify(seen));
  expect(seen.later).toBeGreaterThan(seen.lines / 20);
  expect(seen.links).toBeGreaterThan(50);
});

const message = { page: 7, channel: "h0>p1", begin: 0, end: 1, version: 1, writer: "p0", interval: 1 };
const served: readonly DsmEvent[] = [
  { type: "page-copy", process: "h0", role: "source", ...message },
  { type: "page-copy", process: "p1", role: "destination", ...message },
  { type: "page-fault", process: "p0", page: 7, access: "write" },
];

function keptWhenFails(events: readonly DsmEvent[], failed: string): Record<string, number> {
  return Object.fromEntries(lineOf(exactPageModel(events), [failed]).kept);
}

test("a copy depends on its last writer and not on the home that served it", () => {
  expect(keptWhenFails(served, "h0")).toEqual({ h0: 0, p0: 1, p1: 1 });
  expect(keptWhenFails(served, "p0")).toEqual({ h0: 1, p0: 0, p1: 0 });
});

test("a copy whose version one end does not know depends on who served it", () => {
  const { version: _, ...unknown } = message;
  const events = served.map((e, n) => (n === 1 ? { ...served[1]!, ...unknown, version: 2 } : e));
  expect(keptWhenFails(events as DsmEvent[], "h0")).toEqual({ h0: 0, p0: 1, p1: 0 });
});

test("a writer or an interval that the evidence does not hold is not believed", () => {
  for (const wrong of [{ writer: "p9" }, { interval: 5 }, { writer: undefined }])
    expect(
      keptWhenFails(served.map((e) => ("role" in e ? { ...e, ...wrong } : e)) as DsmEvent[], "h0"),
    ).toEqual({
      h0: 0,
      p0: 1,
      p1: 0,
    });
});

test("after a gap or a rollback every copy depends on who served it", () => {
  expect(keptWhenFails([...served, { type: "gap", process: "p0" }], "h0")).toEqual({ h0: 0, p0: 0, p1: 0 });
  expect(keptWhenFails([...served, { type: "rollback", process: "p0", checkpoint: 0 }], "h0")).toEqual({
    h0: 0,
    p0: 1,
    p1: 0,
  });
});

test("who dropped the newest version still holds it, as a retained copy", () => {
  const drop: DsmEvent = {
    type: "page-invalidate",
    process: "p1",
    role: "destination",
    ...message,
    begin: 1,
    end: 2,
  };
  const all = [...served, drop];
  expect(survivingCopies(all, () => 9)).toEqual([{ page: 7, version: 1, holders: ["p1"], retained: ["p1"] }]);
  expect(survivingCopies(all, () => 1)).toEqual([{ page: 7, version: 1, holders: ["p1"], retained: [] }]);
  expect(survivingCopies(all, () => 0)).toEqual([]);
});
