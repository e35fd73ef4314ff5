import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { pointAtOrBefore, restorePoints } from "../../src/graph/evidence/restore-points.ts";
import { dominoOf } from "../../src/graph/questions/domino.ts";
import { chaos, evidenceOf, execution } from "../property/laws-executions.ts";
import { failures, numRuns, rules } from "./graph-cases.ts";

test("depth, breadth and unbounded processes, counted checkpoint by checkpoint", () => {
  fc.assert(
    fc.property(fc.oneof(chaos(40), execution(60)), rules, failures, (events, rule, failed) => {
      const evidence = evidenceOf(events);
      const { line } = computeLine(evidence, { failed, ...rule });
      const points = restorePoints(evidence);
      const depths = line.map(({ action, position }, process) => {
        if (action === "continue") return { lost: -1, position };
        const { start, line: lines } = evidence.segments;
        const later = [...lines.subarray(start[process], start[process + 1])].filter(
          (at) => at > position && pointAtOrBefore(points, process, at) === at,
        );
        return { lost: later.length, position };
      });
      expect(dominoOf(evidence, line)).toEqual({
        depth: Math.max(...depths.map(({ lost }) => lost + 1)),
        breadth: depths.filter(({ lost }) => lost >= 0).length,
        unbounded: depths.filter(({ lost, position }) => lost > 0 && position === 0).length,
      });
    }),
    { numRuns },
  );
});
