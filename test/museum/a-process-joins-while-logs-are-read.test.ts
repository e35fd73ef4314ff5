/** A process that joined after the list was made, before another one's log was read, looked like a sender that never was: the receiver, alive, was rolled back. */
import { expect, test } from "vitest";
import type { Event } from "../../src/model/event.ts";
import { channelName, type ProcessTrace, settle } from "../../src/sdk/trace.ts";

function message(type: "send" | "receive", from: string, to: string, at: number): Event {
  const process = type === "send" ? from : to;
  return { type, process, channel: channelName(from, to), begin: at, end: at + 1 };
}

function traces(): ProcessTrace[] {
  const a = [message("send", "a", "b", 0)];
  const b = [
    message("receive", "a", "b", 0),
    message("receive", "new", "b", 0),
    message("send", "b", "c", 0),
  ];
  const c = [message("receive", "b", "c", 0)];
  return [
    { process: "a", live: true, events: a },
    { process: "b", live: true, events: b },
    { process: "c", live: true, events: c },
  ];
}

test("what a newcomer sent counts as not yet received, and so does what follows from it", () => {
  const settled = traces();
  settle(settled, ["new"]);
  expect(settled.map(({ events }) => events.length)).toEqual([1, 1, 0]);
});

test("a sender that has no log at all stays an orphan's, and nothing is left out", () => {
  const settled = traces();
  settle(settled, []);
  expect(settled.map(({ events }) => events.length)).toEqual([1, 3, 1]);
});
