/** Laws 9 and 10 of theory.md: which checkpoints are in no consistent cut, and which no future line can need. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { obsoleteCheckpoints } from "../../src/graph/questions/obsolete.ts";
import { uselessCheckpoints } from "../../src/graph/questions/zigzag.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import type { InTransitPolicy } from "../../src/model/recovery-line.ts";
import { effectiveHistories } from "../reference/history.ts";
import { buildInstance, type Instance, isConsistent } from "../reference/instance.ts";
import { anyEvents, cases, lineOf, namesOf, numRuns, pick, simulated } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

/** Per process: the positions that stand in some consistent vector. By trying all vectors. */
function positionsInSomeCut(instance: Instance): Set<number>[] {
  const found = instance.processes.map(() => new Set<number>());
  const vector = instance.processes.map(() => 0);
  const visit = (i: number): void => {
    if (i < vector.length) {
      for (const point of instance.processes[i]!.points) {
        vector[i] = point;
        visit(i + 1);
      }
    } else if (isConsistent(instance, vector)) {
      vector.forEach((position, process) => {
        found[process]!.add(position);
      });
    }
  };
  visit(0);
  return found;
}

test("law 9: useless ⇔ in one strongly connected component with the interval before ⇔ in no consistent cut", () => {
  fc.assert(
    fc.property(cases(anyEvents), ({ events, names, options }) => {
      // A checkpoint that ends its history and the volatile end after it are two places; an idle line keeps them apart.
      const idle = names.map((process): Event => ({ type: "page-fault", process, page: 0, access: "read" }));
      const all = [...events, ...idle];
      const inCuts = positionsInSomeCut(buildInstance(all, { ...options, failed: [] }));
      const model = rollbackModel(evidenceOf(all, []), options);
      const useless = uselessCheckpoints(model);
      const histories = effectiveHistories(all);
      const instance = buildInstance(all, { ...options, failed: names });
      const expected = names.flatMap((name, process) =>
        instance.processes[process]!.points.filter(
          (n) => histories.get(name)![n - 1]?.type === "checkpoint" && !inCuts[process]!.has(n),
        ).map((position) => [process, position]),
      );
      const judged = useless.filter(({ process, position }) => {
        const event = histories.get(names[process]!)![position - 1]!;
        return event.type === "checkpoint";
      });
      expect(judged.map(({ process, position }) => [process, position])).toEqual(expected);
    }),
    { numRuns },
  );
});

test("law 9: in a true execution every useless checkpoint is on a Z-cycle", () => {
  fc.assert(
    fc.property(cases(simulated(3, 30, { stable: false, rollbacks: false })), ({ events }) => {
      const rules = { dsm: "sequential", inTransit: "any" } as const;
      const useless = uselessCheckpoints(rollbackModel(evidenceOf(events, []), rules));
      expect(useless.every(({ why }) => why === "z-cycle")).toBe(true);
    }),
    { numRuns },
  );
});

/** Each checkpoint with the place of its line in the execution as its image: that names it for ever. */
function named(events: readonly Event[]): Event[] {
  return events.map((event, i) => (event.type === "checkpoint" ? { ...event, image: String(i) } : event));
}

/** Names of the restorable checkpoints in effect that are not obsolete by any of the rules that a line or a restart may go by. */
function retained(
  events: readonly Event[],
  policies: readonly InTransitPolicy[],
  logging: boolean,
): string[] {
  const evidence = evidenceOf(events, []);
  const [first, ...more] = policies.map((inTransit) =>
    rollbackModel(evidence, { dsm: "sequential", inTransit }),
  );
  const { obsolete } = obsoleteCheckpoints([first!, ...more], { logging, maxSteps: 1_000_000 });
  const { start, line } = evidence.segments;
  const names: string[] = [];
  [...effectiveHistories(events).values()].forEach((history, process) => {
    for (let s = start[process]! + 1; s < start[process + 1]!; s += 1) {
      const event = history[line[s]! - 1]!;
      if (obsolete[s] === 0 && event.type === "checkpoint") names.push(event.image!);
    }
  });
  return names;
}

/** Name of the checkpoint that each process restarts from in the line of a failure set. */
function basesOf(events: readonly Event[], failed: string[], inTransit: "any" | "logged"): string[] {
  const histories = effectiveHistories(events);
  const { line } = lineOf(events, { failed, dsm: "sequential", inTransit });
  return line.flatMap(({ process, checkpoint }) => {
    const event = histories
      .get(process)!
      .find((candidate) => candidate.type === "checkpoint" && candidate.checkpoint === checkpoint);
    return event?.type === "checkpoint" ? [event.image!] : [];
  });
}

const settings = [
  { stable: false, rollbacks: false },
  { stable: false, rollbacks: true },
  { stable: true, rollbacks: true },
];

test("law 10: every base of every line of every future is retained now, or taken later", () => {
  fc.assert(
    fc.property(
      fc
        .constantFrom(...settings)
        .chain((fixed) => fc.tuple(cases(simulated(3, 40, fixed)), fc.constant(fixed.stable))),
      fc.nat(),
      fc.boolean(),
      ([{ events: all, names }, logging], cut, logged) => {
        const inTransit = logged ? "logged" : "any";
        const events = named(all);
        const present = cut % (events.length + 1);
        // Crashes of the simulation go by "any".
        const kept = new Set(retained(events.slice(0, present), ["any", inTransit], logging));
        for (let end = present; end <= events.length; end += 1)
          for (let mask = 1; mask < 1 << names.length; mask += 1) {
            const known = namesOf(events.slice(0, end));
            const failed = pick(names, mask).filter((name) => known.includes(name));
            if (known.length === 0) continue;
            for (const base of basesOf(events.slice(0, end), failed, inTransit))
              if (Number(base) < present) expect(kept).toContain(base);
          }
      },
    ),
    { numRuns: Math.ceil(numRuns / 8) },
  );
});

test("law 10: no more than N(N+1)/2 checkpoints are retained", () => {
  const setting = { stable: false, rollbacks: false, cuts: false };
  fc.assert(
    fc.property(cases(simulated(5, 120, setting)), ({ events, names }) => {
      expect(retained(named(events), ["any"], false).length).toBeLessThanOrEqual(
        (names.length * (names.length + 1)) / 2,
      );
    }),
    { numRuns: Math.ceil(numRuns / 2) },
  );
});
