/** Bugs that the laws found, and cases where readings of the contract could differ, by name. */
import { expect, test } from "vitest";
import { keptPositions, rollbackModel, undoneBy } from "../../src/graph/rollback/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import { canonical } from "../reference/answer.ts";
import { bruteForce } from "../reference/brute-force.ts";
import { lineOf } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

test("what only a cut after a gap knows came at the gap: a position before it still needs those bytes replayed", () => {
  const events: Event[] = [
    { type: "send", process: "p", channel: "c", begin: 0, end: 8 },
    { type: "receive", process: "q", channel: "c", begin: 0, end: 3 },
    { type: "stable", process: "q" },
    { type: "gap", process: "q" },
    {
      type: "checkpoint",
      process: "q",
      checkpoint: 1,
      usable: false,
      cut: { sent: new Map(), received: new Map([["c", 8]]) },
    },
  ];
  const options = { failed: ["q"], dsm: "sequential", inTransit: "any" } as const;
  const answer = lineOf(events, options);
  expect(answer.line.map(({ position }) => position)).toEqual([1, 2]);
  expect(answer.inTransit).toEqual([{ channel: "c", from: "p", to: "q", begin: 3, end: 8 }]);
  expect(canonical(answer)).toBe(canonical(bruteForce(events, options)));
});

test("what only a cut after a gap knows came at the gap: a position before it is no orphan of a send undone", () => {
  const events: Event[] = [
    { type: "checkpoint", process: "p", checkpoint: 1, usable: true },
    { type: "send", process: "p", channel: "c", begin: 0, end: 8 },
    { type: "page-fault", process: "q", page: 1, access: "read" },
    { type: "stable", process: "q" },
    { type: "gap", process: "q" },
    {
      type: "checkpoint",
      process: "q",
      checkpoint: 1,
      usable: true,
      cut: { sent: new Map(), received: new Map([["c", 8]]) },
    },
  ];
  const options = { failed: ["p"], dsm: "sequential", inTransit: "any" } as const;
  expect(lineOf(events, options).line.map(({ position }) => position)).toEqual([1, 2]);
});

test("processes checkpointed together are not restored at an unusable checkpoint that one member's log could replay to", () => {
  const events: Event[] = [
    { type: "checkpoint", process: "p", checkpoint: 1, usable: true },
    { type: "checkpoint", process: "q", checkpoint: 1, usable: false },
    { type: "stable", process: "q" },
  ];
  const rules = { dsm: "sequential", inTransit: "any", together: [[0, 1]] } as const;
  const model = rollbackModel(evidenceOf(events, []), rules);
  expect([...keptPositions(model.evidence, undoneBy(model, [0]))]).toEqual([0, 0]);
});

test("a receive of what a rollback undid is an orphan until the sender has sent that range again", () => {
  const events: Event[] = [
    { type: "send", process: "p", channel: "c", begin: 0, end: 5 },
    { type: "receive", process: "q", channel: "c", begin: 0, end: 5 },
    { type: "rollback", process: "p", checkpoint: 0 },
  ];
  const again: Event[] = [
    { type: "send", process: "p", channel: "c", begin: 0, end: 3 },
    { type: "send", process: "p", channel: "c", begin: 3, end: 5 },
  ];
  const options = { failed: [], dsm: "sequential", inTransit: "any" } as const;
  const entries = (list: readonly Event[]) =>
    lineOf(list, options).line.map(({ action, position }) => [action, position]);
  expect(entries(events)).toEqual([
    ["continue", 1],
    ["initial", 0],
  ]);
  expect(lineOf(events, options).witnesses[0]?.because[0]?.rule).toBe("never-sent");
  expect(entries([...events, again[0] as Event])).toEqual([
    ["continue", 2],
    ["initial", 0],
  ]);
  expect(entries([...events, ...again])).toEqual([
    ["continue", 3],
    ["continue", 1],
  ]);
});
