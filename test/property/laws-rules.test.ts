/** The two last rows of theory.md's table of rules: processes checkpointed together, and output that was already released. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { keptPositions, rollbackModel, undoneBy } from "../../src/graph/rollback/rollback-model.ts";
import { hasCode } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { buildInstance, continues, type Instance, isConsistent } from "../reference/instance.ts";
import { cases, lineOf, numRuns, pick } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

/** Index of the checkpoint that each restore point of a process is; 0 = initial state, undefined = a replay point or the volatile end. */
function indexAt(instance: Instance, process: number, position: number): number | undefined {
  if (position === 0) return 0;
  const event = instance.processes[process]!.history[position - 1];
  return event?.type === "checkpoint" && event.usable ? event.checkpoint : undefined;
}

/** All members go on, or all stand at checkpoints of one index. */
function standTogether(instance: Instance, group: readonly number[], vector: readonly number[]): boolean {
  const goesOn = group.map((p) => continues(instance.processes[p]!, vector[p]!));
  if (goesOn.every(Boolean)) return true;
  const indices = new Set(group.map((p) => indexAt(instance, p, vector[p]!)));
  return !goesOn.some(Boolean) && indices.size === 1 && !indices.has(undefined);
}

/** The greatest consistent vector whose group stands together, by trying all. */
function greatestTogether(instance: Instance, group: readonly number[]): number[] {
  const vector = instance.processes.map(() => 0);
  const greatest = instance.processes.map(() => 0);
  const visit = (i: number): void => {
    if (i < vector.length) {
      for (const point of instance.processes[i]!.points) {
        vector[i] = point;
        visit(i + 1);
      }
    } else if (isConsistent(instance, vector) && standTogether(instance, group, vector))
      vector.forEach((position, p) => {
        greatest[p] = Math.max(greatest[p]!, position);
      });
  };
  visit(0);
  return greatest;
}

test("processes checkpointed together are restored together, as late as that allows", () => {
  fc.assert(
    fc.property(cases(), fc.nat(7), ({ events, names, options }, mask) => {
      // A checkpoint that ends its history and the volatile end after it are two places; an idle line keeps them apart.
      const idle = names.map((process): Event => ({ type: "page-fault", process, page: 0, access: "read" }));
      const group = pick([...names.keys()], mask);
      fc.pre(group.length > 1);
      const all = [...events, ...idle];
      const instance = buildInstance(all, options);
      const model = rollbackModel(evidenceOf(all, []), { ...options, together: [group] });
      const failed = options.failed.map((name) => names.indexOf(name));
      expect([...keptPositions(model.evidence, undoneBy(model, failed))]).toEqual(
        greatestTogether(instance, group),
      );
    }),
    { numRuns },
  );
});

test("output released up to a position is a lower bound: refused exactly where the line keeps less", () => {
  fc.assert(
    fc.property(cases(), fc.nat(), fc.nat(20), ({ events, names, options }, who, position) => {
      const { line } = lineOf(events, options);
      const entry = line[who % names.length]!;
      const released = new Map([[entry.process, position]]);
      const ask = () => computeLine(evidenceOf(events, []), { ...options, released });
      if (position <= entry.position) expect(ask().line).toEqual(line);
      else expect(ask).toThrow(/released output/);
      try {
        ask();
      } catch (error) {
        expect(hasCode(error, "RL_REFUSED")).toBe(true);
      }
    }),
    { numRuns },
  );
});
