import fc from "fast-check";
import { expect, test } from "vitest";
import { explanationText } from "../../src/cli/explain.ts";
import { computeLine } from "../../src/compute/compute.ts";
import { explanation } from "../../src/compute/explanation.ts";
import { type ChainStart, shortestChain, startsAnyway } from "../../src/graph/questions/chain.ts";
import { rollbackModel, undoneBy, volatileFrom } from "../../src/graph/rollback/rollback-model.ts";
import { chaos, evidenceOf, execution } from "../property/laws-executions.ts";
import { failures, numRuns, rules } from "./graph-cases.ts";

test("a chain to what a line undoes is as short as the line's own witness, and each link hangs on the one before", () => {
  fc.assert(
    fc.property(fc.oneof(chaos(40), execution(60)), rules, failures, (events, rule, failed) => {
      const evidence = evidenceOf(events);
      const model = rollbackModel(evidence, rule);
      const numbers = failed.map((name) => evidence.processes.indexOf(name));
      const undone = undoneBy(model, numbers);
      const starts: ChainStart[] = [...startsAnyway(model)];
      for (const process of numbers)
        starts.push({
          process,
          line: volatileFrom(model, process),
          because: { rule: "failed", process: evidence.processes[process] as string },
        });
      for (const { process, because } of computeLine(evidence, { failed, ...rule }).witnesses) {
        const number = evidence.processes.indexOf(process);
        const chain = shortestChain(
          model,
          starts,
          (p, line) => p === number && line <= (undone[p] as number),
        );
        expect(chain?.length).toBe(because.length);
        expect(chain?.at(-1)?.process).toBe(process);
        chain?.forEach((link, at) => {
          expect(link.from).toBe(at === 0 ? undefined : chain[at - 1]?.process);
        });
      }
    }),
    { numRuns },
  );
});

test("a start that hits at once is its own chain, also behind others", () => {
  const model = rollbackModel(evidenceOf([]), { dsm: "sequential", inTransit: "any" });
  const starts = [0, 1].map((process) => ({
    process,
    line: 1,
    because: { rule: "failed", process: `${process}` } as const,
  }));
  expect(shortestChain(model, starts, (p) => p === 1)).toEqual([{ rule: "failed", process: "1" }]);
});

test("nothing is hit: no chain", () => {
  const model = rollbackModel(evidenceOf([]), { dsm: "sequential", inTransit: "any" });
  expect(shortestChain(model, [{ process: 0, line: 1 }], (p) => p === 1)).toBeUndefined();
});

test("an explanation tells as many steps as the witness has, for every process of every line", () => {
  fc.assert(
    fc.property(fc.oneof(chaos(30), execution(40)), rules, failures, (events, rule, failed) => {
      const evidence = evidenceOf(events);
      const line = computeLine(evidence, { failed, ...rule });
      for (const { process, action, position } of line.line) {
        const told = explanation(evidence, line, process);
        const steps = explanationText(told).match(/^ {2}\d+\. /gm)?.length ?? 0;
        expect(steps).toBe(told.because.length);
        expect(action === "continue").toBe(steps === 0);
        expect(told.undone).toBe((evidence.length[evidence.processes.indexOf(process)] as number) - position);
        expect(explanationText(told)).not.toContain("undefined");
      }
    }),
    { numRuns },
  );
});
