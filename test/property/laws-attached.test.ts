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
});
