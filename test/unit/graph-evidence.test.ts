import { expect, test } from "vitest";
import { EventColumns } from "../../src/format/event-columns.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { hasCode } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { checkpoint, receive, send } from "./graph-events.ts";

function build(events: readonly Event[]) {
  const builder = new EvidenceBuilder();
  for (const event of events) builder.addEvent(event);
  return builder.build();
}

function thrownBy(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}

const sample: Event[] = [
  send("q", "c2", 0, 5),
  receive("q", "c1", 0, 0),
  { type: "page-copy", process: "q", page: "x", role: "source", channel: "dsm", begin: 0, end: 1 },
  { type: "page-fault", process: "q", page: 1, access: "write" },
  {
    type: "checkpoint",
    process: "q",
    checkpoint: 2,
    usable: false,
    cut: { sent: new Map([["c2", 9]]), received: new Map() },
  },
  { type: "stable", process: "q" },
  { type: "gap", process: "q", lost: 3 },
  { type: "gap", process: "q" },
  receive("q", "c1", 4, 6),
  { type: "rollback", process: "q", checkpoint: 2 },
  { type: "stable", process: "q" },
];

test("columns and events give the same evidence", () => {
  const columns = new EventColumns("q");
  for (const event of sample) columns.push(event);
  const builder = new EvidenceBuilder();
  builder.addColumns(columns);
  expect(builder.build()).toEqual(build(sample));
});

test("a rollback takes lines, stable lines and gaps with it, and counts as a line itself", () => {
  const evidence = build(sample);
  expect(evidence.length).toEqual(Uint32Array.of(7));
  expect(evidence.gaps).toBe(0);
  expect(evidence.lost).toBe(0);
  expect(evidence.segments.line).toEqual(Uint32Array.of(0, 5));
  expect(evidence.segments.stable).toEqual(Uint32Array.of(0, 7));
  expect(evidence.channels).toEqual(["c1", "c2", "dsm"]);
  // c1: the receive is undone, its end is still known.
  expect(Array.from(evidence.processAt)).toEqual([-1, 0, 0, -1, 0, -1]);
  expect(Array.from(evidence.rows.line)).toEqual([1, 3]);
});

test("a rollback to an older checkpoint undoes what an earlier rollback had kept", () => {
  const evidence = build([
    send("p", "c", 0, 1),
    checkpoint("p", 1),
    send("p", "c", 1, 2),
    checkpoint("p", 2),
    send("p", "c", 2, 3),
    { type: "rollback", process: "p", checkpoint: 2 },
    send("p", "c", 2, 4),
    { type: "rollback", process: "p", checkpoint: 1 },
    send("p", "c", 1, 9),
    checkpoint("p", 2),
  ]);
  expect(Array.from(evidence.length)).toEqual([5]);
  expect(Array.from(evidence.rows.line)).toEqual([1, 4]);
  expect(Array.from(evidence.rows.end)).toEqual([1, 9]);
  expect(Array.from(evidence.segments.index)).toEqual([0, 1, 2]);
});

test("a second sender is a contradiction that names process, channel and range", () => {
  const error = thrownBy(() => build([send("p", "c", 0, 4), send("q", "c", 4, 6)]));
  expect(hasCode(error, "RL_CONTRADICTION")).toBe(true);
  expect(String(error)).toMatch(/"q" sends \[4, 6\) on channel "c".*"p"/);
});

test("a second receiver is found in a cut too, but offset 0 claims nothing against another", () => {
  const cut = (process: string, offset: number): Event => ({
    type: "checkpoint",
    process,
    checkpoint: 1,
    usable: true,
    cut: { sent: new Map(), received: new Map([["c", offset]]) },
  });
  expect(
    hasCode(
      thrownBy(() => build([receive("p", "c", 0, 4), cut("q", 2)])),
      "RL_CONTRADICTION",
    ),
  ).toBe(true);
  for (const events of [
    [receive("p", "c", 0, 4), cut("q", 0)],
    [cut("q", 0), receive("p", "c", 0, 4)],
  ]) {
    const evidence = build(events);
    expect(evidence.processes[evidence.processAt[1] as number]).toBe("p");
  }
  expect(build([cut("p", 0)]).processAt[1]).toBe(0);
  expect(build([cut("p", 0), cut("q", 0)]).processAt[1]).toBe(-1);
});

test("checkpoint indices rise; a rollback names a checkpoint that its history holds", () => {
  const falling = thrownBy(() => build([checkpoint("p", 2), checkpoint("p", 2)]));
  expect(hasCode(falling, "RL_BAD_INPUT")).toBe(true);
  expect(String(falling)).toMatch(/"p", position 2, field "checkpoint"/);
  const nowhere = thrownBy(() =>
    build([checkpoint("p", 2), { type: "rollback", process: "p", checkpoint: 1 }]),
  );
  expect(hasCode(nowhere, "RL_BAD_INPUT")).toBe(true);
});
