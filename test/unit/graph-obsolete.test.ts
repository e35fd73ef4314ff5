import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { obsoleteCheckpoints } from "../../src/graph/questions/obsolete.ts";
import { prunableRanges } from "../../src/graph/questions/prunable.ts";
import { type RollbackModel, rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import type { DsmModel, InTransitPolicy } from "../../src/model/recovery-line.ts";
import { chaos, evidenceOf, execution, PROCESSES } from "../property/laws-executions.ts";
import { numRuns, rules } from "./graph-cases.ts";
import { checkpoint, receive, send } from "./graph-events.ts";

type Rule = { readonly dsm: DsmModel; readonly inTransit: InTransitPolicy };

/** Per process: the checkpoints in effect, as the numbers of their events. The initial state is -1, so places equal segments. */
function inEffect(events: readonly Event[]): number[][] {
  const held = new Map<string, { index: number; at: number }[]>(
    PROCESSES.map((name) => [name, [{ index: 0, at: -1 }]]),
  );
  events.forEach((event, at) => {
    const own = held.get(event.process) as { index: number; at: number }[];
    if (event.type === "checkpoint") own.push({ index: event.checkpoint, at });
    if (event.type === "rollback") while ((own.at(-1)?.index as number) > event.checkpoint) own.pop();
  });
  return PROCESSES.map((name) => (held.get(name) ?? []).map(({ at }) => at));
}

/** Events of the checkpoints that may go. */
function collected(events: readonly Event[], used: readonly Rule[], logging: boolean): Set<number> {
  const models = used.map((rule) => rollbackModel(evidenceOf(events), rule)) as [RollbackModel];
  const { obsolete } = obsoleteCheckpoints(models, { logging, maxSteps: 1e6 });
  return new Set(
    inEffect(events)
      .flat()
      .filter((_, segment) => obsolete[segment] === 1),
  );
}

/** Events of the checkpoints that the lines of all failure sets restart from. */
function basesOf(events: readonly Event[], rule: Rule): number[] {
  const evidence = evidenceOf(events);
  const places = inEffect(events);
  const { start, index } = evidence.segments;
  return allFailures().flatMap((failed) =>
    computeLine(evidence, { failed, ...rule }).line.flatMap(({ checkpoint }, process) => {
      if (checkpoint === null) return [];
      const own = index.slice(start[process], start[process + 1]);
      return [(places[process] as number[])[own.indexOf(checkpoint)] as number];
    }),
  );
}

function allFailures(): string[][] {
  return Array.from({ length: 8 }, (_, mask) => PROCESSES.filter((_name, bit) => (mask >> bit) & 1));
}

function without(events: readonly Event[], type: Event["type"]): Event[] {
  return events.filter((event) => event.type !== type);
}

/** Everything that evidence may hold; half of it without message logs, where the answer is exact. */
const anything = fc
  .tuple(fc.oneof(chaos(40), execution(50)), fc.boolean())
  .map(([events, logs]) => (logs ? events : without(events, "stable")));

/**
 * Where the future stops being one that a restart by the tool's lines can bring about: at a rollback to what no line names (were it
 * to a collected checkpoint, its image would be gone).
 */
function possibleUntil(events: readonly Event[], present: number, rule: Rule): number {
  for (let end = present; end < events.length; end += 1) {
    const event = events[end] as Event;
    if (event.type !== "rollback") continue;
    const process = PROCESSES.indexOf(event.process as "a");
    const named = allFailures().some(
      (failed) =>
        computeLine(evidenceOf(events.slice(0, end)), { failed, ...rule }).line[process]?.checkpoint ===
        event.checkpoint,
    );
    if (!named) return end;
  }
  return events.length;
}

function neverNeeded(events: readonly Event[], present: number, rule: Rule): void {
  const logging = events.some(({ type }) => type === "stable");
  const gone = collected(events.slice(0, present), [rule], logging);
  const stop = possibleUntil(events, present, rule);
  for (let end = present; end <= stop; end += 1)
    for (const base of basesOf(events.slice(0, end), rule)) expect(gone).not.toContain(base);
}

test("no line of any future restarts from an obsolete checkpoint, whatever the evidence still to come says", () => {
  fc.assert(
    fc.property(anything, fc.nat(), rules, (events, at, rule) => {
      neverNeeded(events, at % (events.length + 1), rule);
    }),
    { numRuns },
  );
});

test("found by chance: bytes under way to the process itself turn out to be outside, and its checkpoint is a base again", () => {
  const cut = { sent: new Map([["bb", 4]]), received: new Map([["bb", 0]]) };
  const events: Event[] = [
    { type: "checkpoint", process: "b", checkpoint: 1, usable: true, cut },
    { type: "outside", process: "b", channel: "bb" },
  ];
  neverNeeded(events, 1, { dsm: "sequential", inTransit: "logged" });
});

test("what every set of rules needs is the union of what each needs", () => {
  const all: Rule[] = [
    { dsm: "sequential", inTransit: "any" },
    { dsm: "sequential", inTransit: "logged" },
    { dsm: "transfers", inTransit: "any" },
    { dsm: "transfers", inTransit: "logged" },
  ];
  fc.assert(
    fc.property(anything, (events) => {
      const logging = events.some(({ type }) => type === "stable");
      const gone = collected(events, all, logging);
      for (const rule of all) for (const base of basesOf(events, rule)) expect(gone).not.toContain(base);
    }),
    { numRuns },
  );
});

test("on clean evidence without a message log exactly the bases of all lines remain, at most N(N+1)/2", () => {
  const rule = { dsm: "sequential", inTransit: "any" } as const;
  fc.assert(
    fc.property(execution(80, { stable: false, cuts: false }), (events) => {
      const gone = collected(events, [rule], false);
      const needed = new Set(basesOf(events, rule).filter((at) => at >= 0));
      const held = inEffect(events)
        .flat()
        .filter((at) => at >= 0);
      expect(held.filter((at) => !gone.has(at)).sort()).toEqual([...needed].sort());
      expect(needed.size).toBeLessThanOrEqual(6);
    }),
    { numRuns },
  );
});

test("too many steps: only what is below every line goes, and the answer says so", () => {
  const model = rollbackModel(evidenceOf(ladder(6)), { dsm: "sequential", inTransit: "any" });
  const exact = obsoleteCheckpoints([model], { logging: false, maxSteps: 1e6 });
  const rough = obsoleteCheckpoints([model], { logging: false, maxSteps: 1 });
  expect(exact.exactness).toBe("exact");
  expect(rough.exactness).toBe("too-large");
  rough.obsolete.forEach((gone, s) => {
    expect(gone).toBeLessThanOrEqual(exact.obsolete[s] as number);
  });
});

test("prunable: received before the checkpoint that the worst line restarts from, byte for byte", () => {
  fc.assert(
    fc.property(execution(60), (events) => {
      const rule = { dsm: "sequential", inTransit: "any" } as const;
      const evidence = evidenceOf(events);
      const model = rollbackModel(evidence, rule);
      const { oldestBase } = obsoleteCheckpoints([model], { logging: true, maxSteps: 1 });
      const pruned = new Set(
        prunableRanges(evidence, model.matches, oldestBase).flatMap(({ channel, begin, end }) =>
          Array.from({ length: end - begin }, (_, i) => `${evidence.channels[channel]}:${begin + i}`),
        ),
      );
      const lines = new Map<string, number>();
      const slow = new Set<string>();
      for (const event of events) {
        const line = (lines.get(event.process) ?? 0) + 1;
        lines.set(event.process, line);
        const base = oldestBase[PROCESSES.indexOf(event.process as "a")] as number;
        if (event.type !== "receive" || line > base || event.channel.startsWith("w")) continue;
        for (let byte = event.begin; byte < event.end; byte += 1) slow.add(`${event.channel}:${byte}`);
      }
      expect(pruned).toEqual(slow);
    }),
    { numRuns },
  );
});

/** Randell's ladder: each checkpoint stands between a receive and the send that follows it. */
function ladder(rungs: number): Event[] {
  const events: Event[] = [];
  for (let k = 0; k < rungs; k += 1) {
    const range = { begin: k, end: k + 1 };
    events.push(
      { type: "send", process: "a", channel: "ab", ...range },
      { type: "receive", process: "b", channel: "ab", ...range },
      { type: "checkpoint", process: "b", checkpoint: k + 1, usable: true },
      { type: "send", process: "b", channel: "ba", ...range },
      { type: "receive", process: "a", channel: "ba", ...range },
      { type: "checkpoint", process: "a", checkpoint: k + 1, usable: true },
    );
  }
  return events;
}

test("a byte under way that no log can replay keeps the checkpoint before its send", () => {
  // Today b's failure takes a back before its second send; once b has received that one and checkpointed, only before the third.
  const told = [send("a", "ab", 0, 1), receive("b", "ab", 0, 1)];
  const now = [...told, send("a", "ab", 1, 2), checkpoint("a", 1), send("a", "ab", 2, 3), checkpoint("a", 2)];
  const later = [receive("b", "ab", 1, 2), checkpoint("b", 1), receive("b", "ab", 2, 3)];
  neverNeeded([...now, ...later], now.length, { dsm: "sequential", inTransit: "logged" });
});

test("a cut to come may tell of a receive right after the cut before it", () => {
  const cut = (index: number, received: number): Event => ({
    type: "checkpoint",
    process: "b",
    checkpoint: index,
    usable: true,
    cut: { sent: new Map(), received: new Map([["ab", received]]) },
  });
  const now = [cut(1, 0), checkpoint("b", 2), checkpoint("b", 3)];
  const later = [send("a", "ab", 0, 1), cut(4, 1)];
  neverNeeded([...now, ...later], now.length, { dsm: "sequential", inTransit: "any" });
});

test("a byte known only from a cut may turn out to be an invalidate, and no message", () => {
  const cut = { sent: new Map(), received: new Map([["ab", 2]]) };
  const now: Event[] = [
    { type: "page-invalidate", process: "c", page: 1, role: "source", channel: "ca", begin: 0, end: 1 },
    checkpoint("b", 1),
    receive("b", "ab", 1, 2),
    checkpoint("b", 2),
    { type: "checkpoint", process: "b", checkpoint: 3, usable: true, cut },
    send("a", "ab", 0, 2),
  ];
  const later: Event[] = [
    { type: "page-invalidate", process: "a", page: 1, role: "source", channel: "ab", begin: 0, end: 1 },
  ];
  neverNeeded([...now, ...later], now.length, { dsm: "transfers", inTransit: "any" });
});

test("a byte that nobody sent yet keeps the checkpoints that it only seems to make useless", () => {
  // The send stands in a block that has not arrived: today every line keeps b before its receive.
  const now = [checkpoint("b", 1), receive("b", "ab", 0, 1), checkpoint("b", 2)];
  neverNeeded([...now, send("a", "ab", 0, 1), checkpoint("a", 1)], now.length, {
    dsm: "sequential",
    inTransit: "any",
  });
});
