import fc from "fast-check";
import { expect, test } from "vitest";
import { greatestCut, isPlace, leastCut, type Wanted } from "../../src/graph/questions/consistent-cuts.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import { chaos, evidenceOf, execution } from "../property/laws-executions.ts";
import { failures, feasibleCuts, join, meet, numRuns, type Place, placesOf, rules } from "./graph-cases.ts";

const choices = fc.array(fc.option(fc.nat(), { freq: 1 }), { minLength: 3, maxLength: 3 });

function asNumber(evidence: Evidence, process: number, place: Place): number {
  return place.volatile ? (evidence.length[process] as number) + 1 : place.position;
}

test("greatest and least cut are the join and the meet of all consistent cuts that contain the set", () => {
  fc.assert(
    fc.property(
      fc.oneof(chaos(20), execution(30)),
      rules,
      failures,
      choices,
      (events, rule, failed, picks) => {
        const evidence = evidenceOf(events);
        const model = rollbackModel(evidence, rule);
        const places = placesOf(evidence);
        const wanted: Wanted[] = picks.flatMap((pick, process) => {
          const own = places[process] as Place[];
          return pick === null
            ? []
            : [{ process, place: asNumber(evidence, process, own[pick % own.length] as Place) }];
        });
        for (const { process, place } of wanted) expect(isPlace(model, process, place)).toBe(true);
        const numbers = failed.map((name) => evidence.processes.indexOf(name));
        const holding = feasibleCuts(evidence, rule, failed).filter((cut) =>
          wanted.every(({ process, place }) => asNumber(evidence, process, cut[process] as Place) === place),
        );
        const greatest = greatestCut(model, wanted, numbers);
        const least = leastCut(model, wanted, numbers);
        expect(greatest.feasible).toBe(holding.length > 0);
        expect(least.feasible).toBe(holding.length > 0);
        if (!greatest.feasible) expect(greatest.chain.length).toBeGreaterThan(0);
        if (!greatest.feasible || !least.feasible) return;
        const numbered = (cut: Place[]) => cut.map((place, p) => asNumber(evidence, p, place));
        expect(Array.from(greatest.places)).toEqual(numbered(holding.reduce(join)));
        expect(Array.from(least.places)).toEqual(numbered(holding.reduce(meet)));
      },
    ),
    { numRuns },
  );
});

test("places are restore points and certain ends, nothing else", () => {
  fc.assert(
    fc.property(chaos(), rules, (events, rule) => {
      const evidence = evidenceOf(events);
      const model = rollbackModel(evidence, rule);
      placesOf(evidence).forEach((own, process) => {
        const slow = own.map((place) => asNumber(evidence, process, place));
        const all = Array.from({ length: (evidence.length[process] as number) + 3 }, (_, n) => n);
        expect(all.filter((place) => isPlace(model, process, place))).toEqual(slow);
      });
    }),
    { numRuns },
  );
});
