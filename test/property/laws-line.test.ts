import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/engine/compute.ts";
import { chaos, evidenceOf, execution, failures, rules } from "./laws-executions.ts";

const runs = { numRuns: Number(process.env["RL_PROPERTY_RUNS"] ?? 2000) };

test("on chaos the verifier accepts every line", () => {
  fc.assert(
    fc.property(chaos(), failures, rules, (events, failed, rule) => {
      const answer = computeLine(evidenceOf(events), { failed, ...rule });
      expect(answer.line).toHaveLength(3);
    }),
    runs,
  );
});

test("on true runs the verifier accepts every line", () => {
  fc.assert(
    fc.property(execution(), failures, rules, (events, failed, rule) => {
      computeLine(evidenceOf(events), { failed, ...rule });
    }),
    runs,
  );
});
