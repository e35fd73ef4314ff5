/** Processes that were recorded from a later moment on have no initial state: where the line needs it there is none. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Event } from "../../src/model/event.ts";
import { ATTACHED } from "../../src/model/gap-reasons.ts";
import { canonical } from "../reference/answer.ts";
import { bruteForce } from "../reference/brute-force.ts";
import { effectiveHistories } from "../reference/history.ts";
import { cases, lineOf, numRuns } from "./cases.ts";

const withAttached = fc.tuple(cases(), fc.array(fc.nat(), { maxLength: 3 })).map(([one, picks]) => {
  const names = [...new Set(one.events.map(({ process }) => process))];
  const attached = [...new Set(picks.map((pick) => names[pick % names.length]))].filter(
    (name) => name !== undefined,
  );
  const gaps: Event[] = attached.map((process) => ({ type: "gap", process, reason: ATTACHED }));
  return { events: [...gaps, ...one.events], options: one.options };
});

test("law 1 with attached processes: the reference's line, or a refusal exactly where that takes one of them to its start", () => {
  let refused = 0;
  fc.assert(
    fc.property(withAttached, ({ events, options }) => {
      const answer = bruteForce(events, options);
      const histories = effectiveHistories(events);
      const impossible = answer.line.some(({ process, position }) => {
        const first = histories.get(process)?.[0];
        return position === 0 && first?.type === "gap" && first.reason === ATTACHED;
      });
      if (!impossible) expect(canonical(lineOf(events, options))).toBe(canonical(answer));
      else expect(() => lineOf(events, options)).toThrow(expect.objectContaining({ code: "RL_REFUSED" }));
      refused += impossible ? 1 : 0;
    }),
    { numRuns },
  );
  expect(refused).toBeGreaterThan(0);
});
