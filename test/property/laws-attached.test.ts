/** Processes that were recorded from a later moment on have no initial state: where the line needs it there is none. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { lossReport } from "../../src/index.ts";
import type { Event } from "../../src/model/event.ts";
import { ATTACHED } from "../../src/model/gap-reasons.ts";
import { canonical } from "../reference/answer.ts";
import { bruteForce } from "../reference/brute-force.ts";
import { effectiveHistories } from "../reference/history.ts";
import { cases, lineOf, numRuns } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

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

/**
 * As a container that is made anew under its name is recorded (`attach --follow`), behind `lines` lines of the process: what nobody saw, and a
 * checkpoint that says all; no rollback.
 */
function withNextLife(events: readonly Event[], process: string, lines: number): Event[] {
  const sent = new Map<string, number>();
  const received = new Map<string, number>();
  let [seenLines, newest] = [0, 0];
  const anew: Event[] = [];
  for (const event of events) {
    if (event.process !== process) {
      anew.push(event);
      continue;
    }
    // Twice as many numbers, so that one more checkpoint has its own.
    if (event.type === "checkpoint" || event.type === "rollback")
      anew.push({ ...event, checkpoint: event.checkpoint * 2 });
    else anew.push(event);
    if (event.type === "checkpoint") newest = event.checkpoint;
    if (event.type === "send") sent.set(event.channel, Math.max(sent.get(event.channel) ?? 0, event.end));
    if (event.type === "receive")
      received.set(event.channel, Math.max(received.get(event.channel) ?? 0, event.end));
    seenLines += 1;
    if (seenLines !== lines) continue;
    anew.push({ type: "gap", process, reason: ATTACHED });
    anew.push({
      type: "checkpoint",
      process,
      checkpoint: 2 * newest + 1,
      usable: true,
      cut: { sent, received },
    });
  }
  return anew;
}

test("law 1 with next lives, which begin without a rollback: the reference's line, or a refusal where that needs a start", () => {
  let [later, kept] = [0, 0];
  const lives = fc
    .tuple(cases(), fc.nat(), fc.nat())
    .filter(([{ events }]) =>
      events.every(({ type }) => ["send", "receive", "checkpoint", "stable", "gap"].includes(type)),
    );
  fc.assert(
    fc.property(lives, ([one, pick, at]) => {
      const process = one.names[pick % one.names.length]!;
      const count = one.events.filter((event) => event.process === process).length;
      const first: Event = { type: "gap", process, reason: ATTACHED };
      const events = [first, ...withNextLife(one.events, process, 1 + (at % count))];
      const answer = bruteForce(events, one.options);
      const at0 = answer.line.find((entry) => entry.process === process)!.position === 0;
      if (at0)
        expect(() => lineOf(events, one.options)).toThrow(expect.objectContaining({ code: "RL_REFUSED" }));
      else expect(canonical(lineOf(events, one.options))).toBe(canonical(answer));
      later += at0 ? 0 : 1;
      kept += answer.line.some((entry) => entry.process === process && (entry.checkpoint ?? 0) % 2 === 1)
        ? 1
        : 0;
    }),
    { numRuns },
  );
  expect(later).toBeGreaterThan(0);
  expect(kept, "lines that go back to the beginning of a next life").toBeGreaterThan(0);
});

test("what the life before did stays done: who heard of it keeps that, and its own start is not the process's start", () => {
  const cut = (sent: number, received: number) => ({
    sent: new Map([["a>b", sent]]),
    received: new Map([["b>a", received]]),
  });
  const events: Event[] = [
    { type: "gap", process: "a", reason: ATTACHED },
    { type: "checkpoint", process: "a", checkpoint: 1, usable: true, cut: cut(0, 0) },
    { type: "send", process: "a", channel: "a>b", begin: 0, end: 9 },
    { type: "receive", process: "b", channel: "a>b", begin: 0, end: 9 },
    { type: "checkpoint", process: "b", checkpoint: 1, usable: true },
    // Its container is gone; one of its name is made anew.
    { type: "gap", process: "a", reason: ATTACHED },
    { type: "checkpoint", process: "a", checkpoint: 2, usable: true, cut: cut(9, 0) },
    { type: "send", process: "a", channel: "new", begin: 0, end: 5 },
    { type: "receive", process: "b", channel: "new", begin: 0, end: 5 },
  ];
  const options = { dsm: "sequential", inTransit: "any" } as const;
  const positions = (failed: string[]) =>
    lineOf(events, { ...options, failed }).line.map(({ process, checkpoint }) => [process, checkpoint]);
  expect(positions(["a"]), "b keeps what the first life sent, and gives back what the second did").toEqual([
    ["a", 2],
    ["b", 1],
  ]);
  expect(positions(["b"])).toEqual([
    ["a", null],
    ["b", 1],
  ]);
});

test("who is attached later is not outside from the start: on its channels, their openings and their endings", () => {
  const channel = "tcp:00000001-00000002";
  const outside = [channel, `${channel}/open`, `${channel}/end`].map(
    (name): Event => ({ type: "outside", process: "client", channel: name }),
  );
  const client: Event[] = [
    { type: "send", process: "client", channel: `${channel}/open`, begin: 0, end: 1 },
    ...outside,
    { type: "send", process: "client", channel, begin: 0, end: 9 },
    { type: "send", process: "client", channel: `${channel}/end`, begin: 0, end: 1 },
  ];
  const server: Event[] = [
    { type: "gap", process: "server", reason: ATTACHED },
    { type: "receive", process: "server", channel, begin: 0, end: 9 },
    {
      type: "checkpoint",
      process: "server",
      checkpoint: 1,
      usable: true,
      cut: { sent: new Map(), received: new Map([[channel, 9]]) },
    },
  ];
  const options = { failed: ["client"], dsm: "sequential", inTransit: "any" } as const;
  for (const events of [
    [...client, ...server],
    [...server, ...client],
  ])
    expect(() => lineOf(events, options), "the client's message is not outside's").toThrow(
      expect.objectContaining({ code: "RL_REFUSED" }),
    );
  const line = lineOf([...server, ...client], { ...options, failed: [] });
  expect(line.unsayable).toEqual([]);
  const strangers = [...client, ...server.slice(1)];
  expect(() => lineOf(strangers, options)).toThrow(expect.objectContaining({ code: "RL_CONTRADICTION" }));
});

test("failures names who has no initial state to go back to", () => {
  const events: Event[] = [
    { type: "gap", process: "a", reason: ATTACHED },
    {
      type: "checkpoint",
      process: "a",
      checkpoint: 1,
      usable: false,
      cut: { sent: new Map(), received: new Map() },
    },
    { type: "send", process: "b", channel: "c", begin: 0, end: 1 },
    { type: "receive", process: "a", channel: "c", begin: 0, end: 1 },
  ];
  const report = lossReport(evidenceOf(events, []), { dsm: "sequential", inTransit: "any" });
  expect([...report.numbersOf(undefined)].map((process) => report.single(process).withoutInitial)).toEqual([
    ["a"],
    ["a"],
  ]);
  expect(report.anyway().withoutInitial).toBeUndefined();
  const nobody = lossReport(evidenceOf([events[0] as Event, events[2] as Event], []), {});
  expect(
    [nobody.single(0), nobody.single(1), nobody.together(["b"])].map((loss) => loss.withoutInitial),
  ).toEqual([["a"], ["a"], ["a"]]);
});
