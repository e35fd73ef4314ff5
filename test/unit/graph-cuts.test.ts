import fc from "fast-check";
import { expect, test } from "vitest";
import { greatestCut, isPlace, leastCut, type Wanted } from "../../src/graph/questions/consistent-cuts.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import { ATTACHED } from "../../src/model/gap-reasons.ts";
import { chaos, evidenceOf, execution } from "../property/laws-executions.ts";
import { effectiveHistories } from "../reference/history.ts";
import { failures, feasibleCuts, join, meet, numRuns, type Place, placesOf, rules } from "./graph-cases.ts";

const choices = fc.array(fc.option(fc.nat(), { freq: 1 }), { minLength: 3, maxLength: 3 });

function asNumber(evidence: Evidence, process: number, place: Place): number {
  return place.volatile ? (evidence.length[process] as number) + 1 : place.position;
}

/** Of each process that was chosen one of its places. */
function chosen(
  evidence: Evidence,
  places: readonly (readonly Place[])[],
  picks: readonly (number | null)[],
): Wanted[] {
  return picks.flatMap((pick, process) => {
    const own = places[process]!;
    const place = pick === null ? undefined : own[pick % own.length];
    return place === undefined ? [] : [{ process, place: asNumber(evidence, process, place) }];
  });
}

function holds(evidence: Evidence, cut: readonly Place[], wanted: readonly Wanted[]): boolean {
  return wanted.every(({ process, place }) => asNumber(evidence, process, cut[process] as Place) === place);
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
        const wanted = chosen(evidence, placesOf(evidence), picks);
        for (const { process, place } of wanted) expect(isPlace(model, process, place)).toBe(true);
        const numbers = failed.map((name) => evidence.processes.indexOf(name));
        const holding = feasibleCuts(evidence, rule, failed).filter((cut) => holds(evidence, cut, wanted));
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

test("attached processes keep at least a line in every cut: greatest and least are join and meet of those that do", () => {
  const seen = { feasible: 0, infeasible: 0, raised: 0 };
  fc.assert(
    fc.property(
      fc.oneof(chaos(20), execution(30)),
      rules,
      failures,
      choices,
      fc.subarray(["a", "b", "c"], { minLength: 1 }),
      (own, rule, failed, picks, attached) => {
        const gaps = attached.map((process): Event => ({ type: "gap", process, reason: ATTACHED }));
        const events = [...gaps, ...own];
        const evidence = evidenceOf(events);
        const model = rollbackModel(evidence, rule);
        const histories = effectiveHistories(events);
        const starts = evidence.processes.map((name) => {
          const first = histories.get(name)?.[0];
          return first?.type === "gap" && first.reason === ATTACHED ? 1 : 0;
        });
        const places = placesOf(evidence).map((all, p) =>
          all.filter(({ position }) => position >= (starts[p] as number)),
        );
        const wanted = chosen(evidence, places, picks);
        const numbers = failed.map((name) => evidence.processes.indexOf(name));
        const holding = feasibleCuts(evidence, rule, failed).filter(
          (cut) =>
            holds(evidence, cut, wanted) && cut.every(({ position }, p) => position >= (starts[p] as number)),
        );
        const greatest = greatestCut(model, wanted, numbers);
        const least = leastCut(model, wanted, numbers);
        expect([greatest.feasible, least.feasible]).toEqual([holding.length > 0, holding.length > 0]);
        seen[greatest.feasible ? "feasible" : "infeasible"] += 1;
        if (!greatest.feasible) expect(greatest.chain.length).toBeGreaterThan(0);
        if (!greatest.feasible || !least.feasible) return;
        const numbered = (cut: Place[]) => cut.map((place, p) => asNumber(evidence, p, place));
        expect(Array.from(greatest.places)).toEqual(numbered(holding.reduce(join)));
        expect(Array.from(least.places)).toEqual(numbered(holding.reduce(meet)));
        seen.raised += least.places.some((place, p) => place > 0 && starts[p] === 1) ? 1 : 0;
      },
    ),
    { numRuns },
  );
  expect(Math.min(seen.feasible, seen.infeasible, seen.raised)).toBeGreaterThan(0);
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
