/** Laws 1 and 3 of theory.md: the engine against definitions that share none of its code (test/reference). */
import fc from "fast-check";
import { expect, test } from "vitest";
import { canonical } from "../reference/answer.ts";
import { bruteForce } from "../reference/brute-force.ts";
import { checkpointGraphLine } from "../reference/checkpoint-graph.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { answerAt, buildInstance, enumerateMaximum, isConsistent } from "../reference/instance.ts";
import { cases, lineOf, numRuns, scribbled, simulated } from "./cases.ts";

test("law 1: the line is consistent and the exhaustive maximum, with its actions, bases and in-transit ranges", () => {
  fc.assert(
    fc.property(cases(), ({ events, options }) => {
      expect(canonical(lineOf(events, options))).toBe(canonical(bruteForce(events, options)));
    }),
    { numRuns: numRuns * 2 },
  );
});

test("law 3: R-graph = checkpoint graph = channel-count fixpoint = enumeration, small executions", () => {
  fc.assert(
    fc.property(cases(), ({ events, options }) => {
      const instance = buildInstance(events, options);
      const fixpoint = fixpointLine(instance);
      expect(isConsistent(instance, fixpoint)).toBe(true);
      expect(checkpointGraphLine(instance)).toEqual(fixpoint);
      expect(enumerateMaximum(instance)).toEqual(fixpoint);
      expect(lineOf(events, options).line.map(({ position }) => position)).toEqual(fixpoint);
    }),
    { numRuns },
  );
});

/** Without message logs a rollback goes back and forth between processes many times. */
const dominoes = simulated(4, 150, { stable: false, rollbacks: false });

test("law 3: R-graph = checkpoint graph = channel-count fixpoint, larger executions", () => {
  fc.assert(
    fc.property(cases(fc.oneof(simulated(6, 150), dominoes, scribbled(80))), ({ events, options }) => {
      const instance = buildInstance(events, options);
      const fixpoint = fixpointLine(instance);
      expect(checkpointGraphLine(instance)).toEqual(fixpoint);
      expect(canonical(lineOf(events, options))).toBe(canonical(answerAt(instance, fixpoint)));
    }),
    { numRuns: Math.ceil(numRuns / 4) },
  );
});
