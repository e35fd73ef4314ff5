import fc from "fast-check";
import { expect, test } from "vitest";
import { pointAtOrBefore } from "../../src/graph/evidence/restore-points.ts";
import { uselessCheckpoints } from "../../src/graph/questions/zigzag.ts";
import { type RollbackModel, rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import { chaos, evidenceOf, execution } from "../property/laws-executions.ts";
import { feasibleCuts, numRuns, rules } from "./graph-cases.ts";

test("useless checkpoints are those that no consistent cut contains", () => {
  fc.assert(
    fc.property(fc.oneof(chaos(20), execution(30)), rules, (events, rule) => {
      const evidence = evidenceOf(events);
      const model = rollbackModel(evidence, rule);
      const cuts = feasibleCuts(evidence, rule, []);
      const slow = restorable(model).filter(
        ({ process, position }) =>
          !cuts.some((cut) => cut[process]?.position === position && cut[process]?.volatile === false),
      );
      expect(uselessCheckpoints(model).map(({ process, position }) => ({ process, position }))).toEqual(slow);
    }),
    { numRuns },
  );
});

test("a Z-cycle is a zigzag path from a checkpoint back to before it", () => {
  fc.assert(
    fc.property(execution(40, { stable: false, cuts: false }), (events) => {
      const evidence = evidenceOf(events);
      const model = rollbackModel(evidence, { dsm: "sequential", inTransit: "any" });
      const slow = restorable(model).filter((c) => hasZigzagToItself(model, c.process, c.position));
      const found = uselessCheckpoints(model);
      expect(found.map(({ process, position }) => ({ process, position }))).toEqual(slow);
      expect(found.every(({ why }) => why === "z-cycle")).toBe(true);
    }),
    { numRuns },
  );
});

function restorable({ evidence, points }: RollbackModel): { process: number; position: number }[] {
  const { start, line } = evidence.segments;
  return evidence.processes.flatMap((_, process) =>
    [...line.slice((start[process] as number) + 1, start[process + 1])]
      .filter((position) => pointAtOrBefore(points, process, position) === position)
      .map((position) => ({ process, position })),
  );
}

/** Netzer & Xu's definition, message by message, over the matches: every path, one message after another. */
function hasZigzagToItself(model: RollbackModel, process: number, position: number): boolean {
  const { evidence, matches } = model;
  const messages = evidence.channels.flatMap((_, channel) =>
    Array.from(
      { length: (matches.start[channel + 1] as number) - (matches.start[channel] as number) },
      (_, i) => {
        const match = (matches.start[channel] as number) + i;
        return {
          from: evidence.processAt[channel * 2] as number,
          to: evidence.processAt[channel * 2 + 1] as number,
          sent: matches.sent[match] as number,
          received: matches.known[match] as number,
        };
      },
    ).filter(({ received }) => received !== 0),
  );
  const checkpoints = [...evidence.segments.line.keys()];
  /** Number of checkpoints of a process at or before a line: its interval. */
  const interval = (p: number, line: number): number =>
    checkpoints.filter(
      (s) =>
        s >= (evidence.segments.start[p] as number) &&
        s < (evidence.segments.start[p + 1] as number) &&
        (evidence.segments.line[s] as number) < line,
    ).length;
  const visited = new Set<number>();
  const queue = [...messages.keys()].filter(
    (m) => messages[m]?.from === process && (messages[m]?.sent as number) > position,
  );
  for (let m = queue.pop(); m !== undefined; m = queue.pop()) {
    if (visited.has(m)) continue;
    visited.add(m);
    const { to, received } = messages[m] as (typeof messages)[number];
    if (to === process && received <= position) return true;
    for (const [next, message] of messages.entries())
      if (message.from === to && interval(to, message.sent) >= interval(to, received)) queue.push(next);
  }
  return false;
}
