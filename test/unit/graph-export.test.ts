import fc from "fast-check";
import { expect, test } from "vitest";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import {
  exportGraph,
  graphDot,
  graphJson,
  type IntervalLabel,
} from "../../src/graph/questions/graph-export.ts";
import { propagateRollback } from "../../src/graph/rollback/propagate-rollback.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import { hasCode } from "../../src/model/errors.ts";
import { printable } from "../../src/model/printable.ts";
import { chaos, evidenceOf, execution } from "../property/laws-executions.ts";
import { numRuns, rules } from "./graph-cases.ts";

const rule = { dsm: "sequential", inTransit: "any" } as const;

test("following the exported edges undoes what propagation undoes, from every node", () => {
  fc.assert(
    fc.property(fc.oneof(chaos(30), execution(40)), rules, (events, used) => {
      const evidence = evidenceOf(events);
      const model = rollbackModel(evidence, used);
      const graph = exportGraph(model);
      for (const start of graph.nodes()) {
        const { process, first } = graph.node(start) as IntervalLabel;
        const number = evidence.processes.indexOf(process);
        const undone = propagateRollback(model.graph, { process: [number], line: [first] });
        const reached = new Set([start]);
        for (const node of reached) for (const next of graph.successors(node) ?? []) reached.add(next);
        const least = evidence.processes.map((name) =>
          Math.min(
            0xffffffff,
            ...[...reached]
              .map((node) => graph.node(node) as IntervalLabel)
              .filter((label) => label.process === name)
              .map((label) => label.first),
          ),
        );
        expect(least).toEqual(Array.from(undone));
      }
    }),
    { numRuns: Math.ceil(numRuns / 3) },
  );
});

test("names can't break out of dot or move the cursor", () => {
  const nasty = 'a"]; evil [label="\\\n\u001b[31m';
  const model = rollbackModel(
    evidenceOf(
      [
        { type: "send", process: nasty, channel: 'c"\\', begin: 0, end: 1 },
        { type: "receive", process: "b", channel: 'c"\\', begin: 0, end: 1 },
      ],
      [],
    ),
    rule,
  );
  const dot = graphDot(exportGraph(model), printable);
  const outside = dot.replace(/"(?:[^"\\]|\\.)*"/g, "Q");
  expect(outside).not.toContain("evil");
  expect(outside).toMatch(/^digraph recovery_line \{\n(?: {2}[\w =\->[\],;]+\n)+\}\n$/);
  expect(/[^\n\x20-\x7e]/.test(dot)).toBe(false);
});

test("the JSON form is graphlib's own, and complete", () => {
  const model = rollbackModel(
    evidenceOf([
      { type: "send", process: "a", channel: "ab", begin: 0, end: 1 },
      { type: "receive", process: "b", channel: "ab", begin: 0, end: 1 },
    ]),
    rule,
  );
  const graph = exportGraph(model);
  const json = JSON.parse(JSON.stringify(graphJson(graph)));
  expect(json.nodes.length).toBe(graph.nodeCount());
  expect(json.edges).toEqual([
    {
      v: expect.any(String),
      w: expect.any(String),
      name: "0",
      value: { rule: "orphan", channel: "ab", begin: 0, end: 1 },
    },
  ]);
});

test("a graph beyond the bound is refused by name", () => {
  const builder = new EvidenceBuilder();
  for (let k = 1; k <= 200_001; k += 1)
    builder.addEvent({ type: "checkpoint", process: "a", checkpoint: k, usable: true });
  const model = rollbackModel(builder.build(), rule);
  let thrown: unknown;
  try {
    exportGraph(model);
  } catch (error) {
    thrown = error;
  }
  expect(hasCode(thrown, "RL_LIMIT")).toBe(true);
});
