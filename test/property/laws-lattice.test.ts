/** Laws 2, 4 and 5 of theory.md: consistent cuts form a lattice, and failure sets combine as it says. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { rollbackModel, undoneBy } from "../../src/graph/rollback/rollback-model.ts";
import { buildInstance, type Instance, isConsistent } from "../reference/instance.ts";
import { atMost, cases, lineOf, numRuns, pick, ranks } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

/** A random vector of restore points, and the greatest consistent one below it: the fixpoint's downward steps, in any order. */
function consistentBelow(instance: Instance, picks: readonly number[]): number[] {
  const vector = instance.processes.map(({ points }, i) => points[(picks[i] ?? 0) % points.length] as number);
  while (!isConsistent(instance, vector)) {
    // Undoing more and more of everything ends at the initial states, which are consistent.
    const greatest = vector.indexOf(Math.max(...vector));
    const points = instance.processes[greatest]!.points;
    vector[greatest] = points[Math.max(0, points.indexOf(vector[greatest]!) - 1)] as number;
  }
  return vector;
}

test("law 2: join and meet of consistent cuts are consistent", () => {
  const picks = fc.array(fc.nat(60), { minLength: 3, maxLength: 3 });
  fc.assert(
    fc.property(cases(), picks, picks, ({ events, options }, one, other) => {
      const instance = buildInstance(events, options);
      const a = consistentBelow(instance, one);
      const b = consistentBelow(instance, other);
      expect(
        isConsistent(
          instance,
          a.map((n, i) => Math.max(n, b[i]!)),
        ),
      ).toBe(true);
      expect(
        isConsistent(
          instance,
          a.map((n, i) => Math.min(n, b[i]!)),
        ),
      ).toBe(true);
    }),
    { numRuns },
  );
});

test("law 4: the line of a failure set is the least of its members' lines", () => {
  fc.assert(
    fc.property(cases(), ({ events, options, names }) => {
      const model = rollbackModel(evidenceOf(events, []), options);
      const numbers = options.failed.map((name) => names.indexOf(name));
      const singles = numbers.map((number) => undoneBy(model, [number]));
      const least = undoneBy(model, []).map((line, p) =>
        Math.min(line, ...singles.map((single) => single[p] as number)),
      );
      expect(undoneBy(model, numbers)).toEqual(least);
    }),
    { numRuns },
  );
});

test("law 5: more failures never give a later line", () => {
  fc.assert(
    fc.property(cases(), fc.nat(63), ({ events, options, names }, mask) => {
      const more = [...new Set([...options.failed, ...pick(names, mask)])];
      const fewer = ranks(lineOf(events, options));
      expect(atMost(ranks(lineOf(events, { ...options, failed: more })), fewer)).toBe(true);
    }),
    { numRuns },
  );
});
