/** Laws 5, 11 and 12 of theory.md on whole answers. fast-check prints the seed of a failure. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { keptPositions, rollbackModel, undoneBy } from "../../src/graph/rollback/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import { channelEnds } from "../reference/channel-ends.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { effectiveHistories } from "../reference/history.ts";
import { answerAt, buildInstance } from "../reference/instance.ts";
import { cases, lineOf, namesOf, numRuns, simulated } from "./cases.ts";
import { evidenceOf, execution } from "./laws-executions.ts";

test("law 5: where nobody failed nobody is rolled back, after restarts too", () => {
  fc.assert(
    fc.property(cases(fc.oneof(execution(), simulated(4, 40))), ({ events }) => {
      const { line } = lineOf(events, { failed: [], dsm: "sequential", inTransit: "any" });
      expect(line.every(({ action }) => action === "continue")).toBe(true);
    }),
    { numRuns },
  );
});

test("law 11: what is in transit is what was sent and not received, byte for byte, in maximal ranges", () => {
  fc.assert(
    fc.property(cases(fc.oneof(execution(), simulated(3, 30, { pages: false }))), ({ events, options }) => {
      const answer = lineOf(events, options);
      const kept = new Map(answer.line.map(({ process, position }) => [process, position]));
      const listed = answer.inTransit.flatMap(({ channel, begin, end }) => bytes(channel, begin, end));
      expect(listed).toEqual([...new Set(listed)]);
      const sent = movedInside(events, kept, "send");
      const received = movedInside(events, kept, "receive");
      expect(new Set(listed)).toEqual(new Set([...sent].filter((byte) => !received.has(byte))));
      expect([...received].filter((byte) => !sent.has(byte))).toEqual([]);
      answer.inTransit.forEach((range, i) => {
        const next = answer.inTransit[i + 1];
        if (next?.channel === range.channel) expect(next.begin).toBeGreaterThan(range.end);
        else if (next !== undefined) expect(next.channel > range.channel).toBe(true);
      });
    }),
    { numRuns },
  );
});

test("law 11: a restart that replays the list goes on without a hole and without a repetition", () => {
  fc.assert(
    fc.property(cases(simulated(3, 20, { datagrams: false, pages: false })), ({ events, options }) => {
      const answer = lineOf(events, options);
      const instance = buildInstance(events, options);
      expect(answerAt(instance, fixpointLine(instance)).inTransit).toEqual(answer.inTransit);
      const kept = new Map(answer.line.map(({ process, position }) => [process, position]));
      const sent = movedInside(events, kept, "send");
      const after = movedInside(events, kept, "receive");
      for (const { channel, begin, end } of answer.inTransit)
        for (const byte of bytes(channel, begin, end)) {
          expect(after.has(byte)).toBe(false);
          after.add(byte);
        }
      // FIFO: received so far, then the replay, is all that was sent, from 0 on.
      expect(after).toEqual(sent);
    }),
    { numRuns },
  );
});

function bytes(channel: string, begin: number, end: number): string[] {
  return Array.from({ length: end - begin }, (_, i) => `${channel}:${begin + i}`);
}

/** Bytes that events of one type name within the kept positions of the effective histories, on channels that are not outside. */
function movedInside(
  events: readonly Event[],
  kept: Map<string, number>,
  type: "send" | "receive",
): Set<string> {
  const moved = new Set<string>();
  const { outside } = channelEnds(events);
  for (const [process, history] of effectiveHistories(events))
    for (const event of history.slice(0, kept.get(process)))
      if (event.type === type && !outside.has(event.channel))
        for (const byte of bytes(event.channel, event.begin, event.end)) moved.add(byte);
  return moved;
}

test("law 12: the order in which processes' lines arrive does not change a byte of the answer", () => {
  fc.assert(
    fc.property(cases(), fc.array(fc.nat(2), { minLength: 60 }), ({ events, options }, picks) => {
      const inOrder = lineOf(events, options);
      expect(JSON.stringify(lineOf(interleave(events, picks), options))).toBe(JSON.stringify(inOrder));
    }),
    { numRuns },
  );
});

test("law 12: blocks of columns, cut anywhere and interleaved anyhow, give the same answer as events", () => {
  fc.assert(
    fc.property(
      cases(),
      fc.array(fc.nat(2), { minLength: 60 }),
      fc.integer({ min: 1, max: 9 }),
      (asked, picks, rows) => {
        const builder = new EvidenceBuilder();
        for (const columns of blocks(interleave(asked.events, picks), rows)) builder.addColumns(columns);
        const answer = computeLine(builder.build(), asked.options);
        expect(JSON.stringify(answer)).toBe(JSON.stringify(lineOf(asked.events, asked.options)));
      },
    ),
    { numRuns },
  );
});

/** The events as blocks of one process each, in order, of at most `rows` rows. */
function blocks(events: readonly Event[], rows: number): EventColumns[] {
  const open = new Map<string, EventColumns>();
  const done: EventColumns[] = [];
  for (const event of events) {
    const columns = open.get(event.process) ?? new EventColumns(event.process);
    open.set(event.process, columns);
    columns.push(event);
    if (columns.count < rows) continue;
    done.push(columns);
    open.delete(event.process);
  }
  return [...done, ...open.values()];
}

/** The lines of each process in their order, processes picked in turn. */
function interleave(events: readonly Event[], picks: readonly number[]): Event[] {
  const queues = namesOf(events).map((name) => events.filter(({ process }) => process === name));
  const mixed: Event[] = [];
  for (const pick of picks) mixed.push(...(queues[pick]?.splice(0, 1) ?? []));
  return [...mixed, ...queues.flat()];
}

test("positions kept are what the line says", () => {
  fc.assert(
    fc.property(cases(), ({ events, names, options }) => {
      const model = rollbackModel(evidenceOf(events, []), options);
      const numbers = options.failed.map((name) => names.indexOf(name));
      const kept = keptPositions(model.evidence, undoneBy(model, numbers));
      const { line } = lineOf(events, options);
      expect(Array.from(kept)).toEqual(line.map(({ position }) => position));
    }),
    { numRuns },
  );
});
