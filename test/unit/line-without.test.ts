/** The line without some checkpoints is that of a log in which they are not usable, also from ranges that were joined. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { buildEvidence } from "../../src/compute/build-evidence.ts";
import { computeLine } from "../../src/compute/compute.ts";
import type { Event } from "../../src/model/event.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { lineWithout } from "../../src/restart/line-without.ts";
import { anyEvents, namesOf, numRuns, pick, simulated } from "../property/cases.ts";
import { evidenceOf } from "../property/laws-executions.ts";
import { memoryLog } from "./memory-log.ts";

const told = ({ line, inTransit, outcome, evidence }: RecoveryLine) => ({
  line,
  inTransit,
  outcome,
  evidence,
});

const executions = fc.oneof(anyEvents, simulated(4, 60), simulated(3, 60, { rollbacks: true }));

test("what can't be restored is passed over as if it had never been usable", async () => {
  let lower = 0;
  await fc.assert(
    fc.asyncProperty(
      executions,
      fc.array(fc.nat(4), { minLength: 1 }),
      fc.nat(),
      fc.nat(15),
      async (events, cut, mask, who) => {
        const checkpoints = events.flatMap((event) =>
          event.type === "checkpoint" ? [{ process: event.process, checkpoint: event.checkpoint }] : [],
        );
        fc.pre(events.length > 0);
        const unusable = pick(checkpoints, mask);
        const isUnusable = (event: Event): boolean =>
          event.type === "checkpoint" &&
          unusable.some((one) => one.process === event.process && one.checkpoint === event.checkpoint);
        const log = await memoryLog(events, cut);
        const { ends } = log;
        const joined = await buildEvidence([{ name: "memory", ends, blocks: () => log.blocks() }], {
          workers: 0,
        });
        const failed = pick(namesOf(events), who);
        const found = lineWithout(joined, failed, [...unusable, { process: "nobody", checkpoint: 1 }]).line;
        const marked = events.map((event) => (isUnusable(event) ? { ...event, usable: false } : event));
        const judge = computeLine(evidenceOf(marked as Event[], []), {
          failed,
          dsm: "sequential",
          inTransit: "any",
        });
        expect(told(found)).toEqual(told(judge));
        const before = computeLine(joined, { failed, dsm: "sequential", inTransit: "any" });
        if (JSON.stringify(before.line) !== JSON.stringify(found.line)) lower += 1;
      },
    ),
    { numRuns },
  );
  expect(lower).toBeGreaterThan(0);
});
