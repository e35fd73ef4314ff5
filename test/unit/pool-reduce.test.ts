/** Reduced stretches give the answer that the events give, however a history is cut into stretches. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { reduceColumns } from "../../src/graph/evidence/reduced-lines.ts";
import type { Event } from "../../src/model/event.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { anyEvents, cases, namesOf, numRuns } from "../property/cases.ts";
import { evidenceOf } from "../property/laws-executions.ts";

/** Each process's lines cut into stretches of the given sizes, in turns. */
function stretches(events: readonly Event[], sizes: readonly number[]): EventColumns[] {
  return namesOf(events).flatMap((name) => {
    const lines = events.filter(({ process }) => process === name);
    const cut: EventColumns[] = [];
    for (let turn = 0; lines.length > 0; turn += 1) {
      const columns = new EventColumns(name);
      for (const event of lines.splice(0, 1 + (sizes[turn % sizes.length] as number))) columns.push(event);
      cut.push(columns);
    }
    return cut;
  });
}

function reduced(events: readonly Event[], sizes: readonly number[], join: boolean): Evidence {
  const builder = new EvidenceBuilder();
  for (const columns of stretches(events, sizes)) builder.addReduced(reduceColumns(columns, join), join);
  return builder.build();
}

const withoutWitnesses = ({ line, inTransit, outcome, evidence }: RecoveryLine) => ({
  line,
  inTransit,
  outcome,
  evidence,
});
const sizes = fc.array(fc.nat(5), { minLength: 1, maxLength: 8 });

test("without joins the evidence is the events' evidence, byte for byte", () => {
  fc.assert(
    fc.property(anyEvents, sizes, (events, cut) => {
      expect(reduced(events, cut, false)).toEqual(evidenceOf(events, []));
    }),
    { numRuns },
  );
});

test("joined rows give the same line, and the same rows for any stretches", () => {
  const unlogged = anyEvents.map((events) => events.filter(({ type }) => type !== "stable"));
  fc.assert(
    fc.property(cases(unlogged), sizes, ({ events, options }, cut) => {
      const joined = reduced(events, cut, true);
      expect(joined).toEqual(reduced(events, [1000], true));
      expect(withoutWitnesses(computeLine(joined, options))).toEqual(
        withoutWitnesses(computeLine(evidenceOf(events, []), options)),
      );
    }),
    { numRuns },
  );
});

test("ranges that touch become one row until a checkpoint", () => {
  const columns = new EventColumns("a");
  for (let i = 0; i < 10; i += 1) {
    columns.push({ type: "send", process: "a", channel: "ab", begin: i, end: i + 1 });
    if (i === 5) columns.push({ type: "checkpoint", process: "a", checkpoint: 1, usable: true });
  }
  const { line, begin, end } = reduceColumns(columns, true);
  expect([...line]).toEqual([1, 8]);
  expect([...begin]).toEqual([0, 6]);
  expect([...end]).toEqual([6, 10]);
});
