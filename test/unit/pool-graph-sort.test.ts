/** The dependency graph holds, by source, exactly the smallest target of each kind, whatever the order and spread of lines. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { DependencyList } from "../../src/graph/evidence/dependencies.ts";
import { buildDependencyGraph } from "../../src/graph/evidence/dependency-graph.ts";

const line = fc.oneof(fc.nat(12), fc.integer({ min: 1, max: 0xfffffff0 }), fc.constantFrom(1, 0xfffffff0));
const edges = fc.array(fc.tuple(fc.nat(2), line, fc.nat(2), fc.nat(5)), { maxLength: 60 });

test("dense and sparse lines, in any order", () => {
  fc.assert(
    fc.property(edges, (pushes) => {
      const list = new DependencyList();
      const least = new Map<string, number>();
      pushes.forEach(([from, sent, to, received], cause) => {
        list.push(from, sent, to, received, cause);
        if (from === to && sent <= received) return;
        const key = [from, sent, to].join();
        least.set(key, Math.min(least.get(key) ?? Number.POSITIVE_INFINITY, received));
      });
      const graph = buildDependencyGraph(list, 3);
      const found = new Map<string, number>();
      for (let from = 0; from < 3; from += 1)
        for (let edge = graph.start[from] as number; edge < (graph.start[from + 1] as number); edge += 1) {
          if (edge > (graph.start[from] as number))
            expect(graph.sourceLine[edge]).toBeGreaterThanOrEqual(graph.sourceLine[edge - 1] as number);
          const key = [from, graph.sourceLine[edge], graph.targetProcess[edge]].join();
          expect(found.has(key)).toBe(false);
          found.set(key, graph.targetLine[edge] as number);
          const cause = pushes[graph.cause[edge] as number] as (typeof pushes)[number];
          expect([cause[0], cause[1], cause[2], cause[3]].join()).toBe([key, graph.targetLine[edge]].join());
        }
      expect([...found].sort()).toEqual([...least].sort());
    }),
    { numRuns: 1000 },
  );
});
