/** Laws 1, 2, 4, 5, 11 and 12 of theory.md, on evidence of every kind. fast-check prints the seed of a failure. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/engine/compute.ts";
import { keptPositions, rollbackModel, undoneBy } from "../../src/graph/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { chaos, evidenceOf, execution, failures, PROCESSES, rules } from "./laws-executions.ts";
import { feasibleCuts, join, judge, meet, type Place, rank } from "./laws-exhaustive.ts";

const numRuns = Number(process.env["RL_PROPERTY_RUNS"] ?? 500);
const anything = fc.oneof(chaos(), execution());

function placesOfLine({ line }: RecoveryLine): Place[] {
  return line.map(({ position, action }) => ({ position, volatile: action === "continue" }));
}

test("law 1: the line is the exhaustive maximum of the consistent cuts", () => {
  fc.assert(
    fc.property(anything, failures, rules, (events, failed, rule) => {
      const evidence = evidenceOf(events);
      const cuts = feasibleCuts(evidence, rule, failed);
      const greatest = cuts.reduce(join);
      expect(placesOfLine(computeLine(evidence, { failed, ...rule }))).toEqual(greatest);
    }),
    { numRuns },
  );
});

test("law 2: join and meet of consistent cuts are consistent", () => {
  fc.assert(
    fc.property(fc.oneof(chaos(10), execution(16)), rules, fc.nat(), fc.nat(), (events, rule, i, k) => {
      const evidence = evidenceOf(events);
      const cuts = feasibleCuts(evidence, rule, []);
      const feasible = judge(evidence, rule);
      const one = cuts[i % cuts.length] as Place[];
      const other = cuts[k % cuts.length] as Place[];
      expect(feasible(join(one, other))).toBe(true);
      expect(feasible(meet(one, other))).toBe(true);
    }),
    { numRuns },
  );
});

test("law 4: the line of a failure set is the least of its members' lines", () => {
  fc.assert(
    fc.property(anything, failures, rules, (events, failed, rule) => {
      const model = rollbackModel(evidenceOf(events), rule);
      const numbers = failed.map((name) => model.evidence.processes.indexOf(name));
      const singles = numbers.map((number) => undoneBy(model, [number]));
      const least = undoneBy(model, []).map((line, p) =>
        Math.min(line, ...singles.map((single) => single[p] as number)),
      );
      expect(undoneBy(model, numbers)).toEqual(least);
    }),
    { numRuns },
  );
});

test("law 5: more failures never give a later line, and nobody failed rolls nobody back", () => {
  fc.assert(
    fc.property(anything, failures, failures, rules, (events, some, others, rule) => {
      const evidence = evidenceOf(events);
      const fewer = placesOfLine(computeLine(evidence, { failed: some, ...rule }));
      const more = placesOfLine(computeLine(evidence, { failed: [...some, ...others], ...rule }));
      more.forEach((place, p) => {
        expect(rank(place)).toBeLessThanOrEqual(rank(fewer[p] as Place));
      });
    }),
    { numRuns },
  );
  fc.assert(
    fc.property(execution(), (events) => {
      const { line } = computeLine(evidenceOf(events), { failed: [], dsm: "sequential", inTransit: "any" });
      expect(line.every(({ action }) => action === "continue")).toBe(true);
    }),
    { numRuns },
  );
});

test("law 11: what is in transit is what was sent and not received, byte for byte, in maximal ranges", () => {
  fc.assert(
    fc.property(execution(), failures, (events, failed) => {
      const evidence = evidenceOf(events);
      const answer = computeLine(evidence, { failed, dsm: "sequential", inTransit: "any" });
      const kept = new Map(answer.line.map(({ process, position }) => [process, position]));
      const listed = answer.inTransit.flatMap(({ channel, begin, end }) => bytes(channel, begin, end));
      expect(listed).toEqual([...new Set(listed)]);
      const sent = movedInside(events, kept, "send");
      const received = movedInside(events, kept, "receive");
      expect(new Set(listed)).toEqual(new Set([...sent].filter((byte) => !received.has(byte))));
      answer.inTransit.forEach((range, i) => {
        const next = answer.inTransit[i + 1];
        if (next?.channel === range.channel) expect(next.begin).toBeGreaterThan(range.end);
      });
    }),
    { numRuns },
  );
});

function bytes(channel: string, begin: number, end: number): string[] {
  return Array.from({ length: end - begin }, (_, i) => `${channel}:${begin + i}`);
}

/** Bytes that events of one type name within the kept positions of a run without rollbacks. */
function movedInside(
  events: readonly Event[],
  kept: Map<string, number>,
  type: "send" | "receive",
): Set<string> {
  const lines = new Map<string, number>();
  const moved = new Set<string>();
  for (const event of events) {
    const line = (lines.get(event.process) ?? 0) + 1;
    lines.set(event.process, line);
    if (event.type !== type || line > (kept.get(event.process) as number)) continue;
    for (const byte of bytes(event.channel, event.begin, event.end)) moved.add(byte);
  }
  return moved;
}

test("law 12: the order in which processes' lines arrive does not change a byte of the answer", () => {
  fc.assert(
    fc.property(
      anything,
      failures,
      rules,
      fc.array(fc.nat(2), { minLength: 60 }),
      (events, failed, rule, picks) => {
        fc.pre(events.length > 0);
        const inOrder = computeLine(evidenceOf(events, []), { failed: present(events, failed), ...rule });
        const shuffled = computeLine(evidenceOf(interleave(events, picks), []), {
          failed: present(events, failed),
          ...rule,
        });
        expect(JSON.stringify(shuffled)).toBe(JSON.stringify(inOrder));
      },
    ),
    { numRuns, examples: [] },
  );
});

/** The lines of each process in their order, processes picked in turn. */
function interleave(events: readonly Event[], picks: readonly number[]): Event[] {
  const queues = PROCESSES.map((name) => events.filter(({ process }) => process === name));
  const mixed: Event[] = [];
  for (const pick of picks) mixed.push(...(queues[pick]?.splice(0, 1) ?? []));
  return [...mixed, ...queues.flat()];
}

function present(events: readonly Event[], failed: readonly string[]): string[] {
  return failed.filter((name) => events.some(({ process }) => process === name));
}

test("positions kept are what the line says", () => {
  fc.assert(
    fc.property(anything, failures, rules, (events, failed, rule) => {
      const model = rollbackModel(evidenceOf(events), rule);
      const numbers = failed.map((name) => model.evidence.processes.indexOf(name));
      const kept = keptPositions(model.evidence, undoneBy(model, numbers));
      const { line } = computeLine(model.evidence, { failed, ...rule });
      expect(Array.from(kept)).toEqual(line.map(({ position }) => position));
    }),
    { numRuns },
  );
});
