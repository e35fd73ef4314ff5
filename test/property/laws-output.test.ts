/** Output commit: what is let go by the line where everybody fails is undone by no failure. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { committedOutput } from "../../src/graph/questions/committed-output.ts";
import type { Event } from "../../src/model/event.ts";
import { failures, numRuns } from "../unit/graph-cases.ts";
import { evidenceOf, execution, PROCESSES } from "./laws-executions.ts";

const RULES = { dsm: "sequential", inTransit: "any" } as const;

/** Bytes that each process has sent to the world within its first `kept` lines; "w" is no process. */
function sentToWorld(events: readonly Event[], kept: ReadonlyMap<string, number>): Map<string, number> {
  const lines = new Map<string, number>();
  const sent = new Map<string, number>();
  for (const event of events) {
    const line = (lines.get(event.process) ?? 0) + 1;
    lines.set(event.process, line);
    if (event.type === "send" && event.channel.endsWith("w") && line <= (kept.get(event.process) ?? 0))
      sent.set(event.channel, Math.max(sent.get(event.channel) ?? 0, event.end));
  }
  return sent;
}

/** Each process tells the world what it has received and sent so far, after every event of its own. */
function speaking(events: readonly Event[]): Event[] {
  const said = new Map<string, number>();
  return events.flatMap((event): Event[] => {
    const begin = said.get(event.process) ?? 0;
    said.set(event.process, begin + 1);
    const { process } = event;
    return [event, { type: "send", process, channel: `${process}w`, begin, end: begin + 1 }];
  });
}

/** Cuts name what goes to the world, too. */
function withCuts(events: readonly Event[]): Event[] {
  const said = new Map<string, number>();
  return events.map((event) => {
    if (event.type === "send" && event.channel.endsWith("w")) said.set(event.process, event.end);
    if (event.type !== "checkpoint" || event.cut === undefined) return event;
    const sent = new Map(event.cut.sent);
    const own = said.get(event.process);
    if (own !== undefined) sent.set(`${event.process}w`, own);
    return { ...event, cut: { ...event.cut, sent } };
  });
}

test("committed output lies on the line of every failure set, and is all that the line of all keeps", () => {
  const runs = execution(40, { stable: false, cuts: true });
  fc.assert(
    fc.property(runs, failures, (quiet, failed) => {
      const outside = PROCESSES.map(
        (process): Event => ({ type: "outside", process, channel: `${process}w` }),
      );
      const events = [...outside, ...withCuts(speaking(quiet))];
      const evidence = evidenceOf(events);
      const keptBy = (names?: readonly string[]): Map<string, number> => {
        const { line } = computeLine(evidence, {
          ...RULES,
          ...(names === undefined ? {} : { failed: names }),
        });
        return new Map(line.map(({ process, position }) => [process, position]));
      };
      const all = keptBy();
      const committed = committedOutput(evidence, (process) => all.get(evidence.processes[process]!)!);
      const [byAll, byThese] = [sentToWorld(events, all), sentToWorld(events, keptBy(failed))];
      for (const process of PROCESSES) {
        const channel = `${process}w`;
        expect(committed.get(channel) ?? 0).toBe(byAll.get(channel) ?? 0);
        expect(committed.get(channel) ?? 0).toBeLessThanOrEqual(byThese.get(channel) ?? 0);
      }
    }),
    { numRuns },
  );
});
