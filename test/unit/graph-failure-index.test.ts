import fc from "fast-check";
import { expect, test } from "vitest";
import { FailureIndex } from "../../src/graph/questions/failure-index.ts";
import { propagateRollback } from "../../src/graph/rollback/propagate-rollback.ts";
import {
  rollbackModel,
  startMarks,
  undoneBy,
  volatileFrom,
} from "../../src/graph/rollback/rollback-model.ts";
import { RollbackProbe } from "../../src/graph/rollback/rollback-probe.ts";
import { chaos, evidenceOf, execution } from "../property/laws-executions.ts";
import { failures, numRuns, rules } from "./graph-cases.ts";

const anything = fc.oneof(chaos(40), execution(60));

test("the index gives the line of any failure set, asked in any order", () => {
  fc.assert(
    fc.property(anything, rules, fc.array(failures, { minLength: 1, maxLength: 6 }), (events, rule, sets) => {
      const model = rollbackModel(evidenceOf(events), rule);
      const index = new FailureIndex(model);
      for (const names of sets) {
        const failed = names.map((name) => model.evidence.processes.indexOf(name));
        expect(index.of(failed)).toEqual(undoneBy(model, failed));
      }
    }),
    { numRuns },
  );
});

test("a probe finds what propagation finds, whatever was probed before", () => {
  const probes = fc.array(fc.tuple(fc.nat(2), fc.nat(20)), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(anything, rules, probes, fc.boolean(), (events, rule, marks, onBase) => {
      const model = rollbackModel(evidenceOf(events), rule);
      const { process, line } = startMarks(model, []);
      const base = onBase ? undoneBy(model, []) : null;
      const probe = new RollbackProbe(model.graph, base);
      for (const [p, back] of marks) {
        const from = Math.max(1, volatileFrom(model, p) - back);
        const touched = probe.from(p, from);
        const slow = propagateRollback(model.graph, {
          process: [...(onBase ? Array.from(process) : []), p],
          line: [...(onBase ? Array.from(line) : []), from],
        });
        expect(probe.undone).toEqual(slow);
        const before = base ?? new Uint32Array(slow.length).fill(0xffffffff);
        expect([...touched].sort()).toEqual([...slow.keys()].filter((i) => slow[i] !== before[i]));
      }
    }),
    { numRuns },
  );
});

test("a single failure costs what it rolls back: many processes that do not talk", () => {
  const events = Array.from({ length: 200_000 }, (_, p) => `p${p}`);
  const model = rollbackModel(evidenceOf([], events), { dsm: "sequential", inTransit: "any" });
  const index = new FailureIndex(model);
  const before = process.memoryUsage().arrayBuffers;
  for (let p = 0; p < events.length; p += 1) expect(index.single(p).process.length).toBe(1);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20_000_000);
});
