/** Laws 6, 7 and 8 of theory.md: what more events, more dependencies and more logs may change. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Event } from "../../src/model/event.ts";
import { singleLosses } from "../reference/lose.ts";
import { atMost, cases, lineOf, namesOf, numRuns, pick, ranks, simulated } from "./cases.ts";
import { execution } from "./laws-executions.ts";

const withoutRollbacks = fc.oneof(execution(40), simulated(3, 30, { rollbacks: false }));

/** The line of `events` for the whole application, processes that only `all` knows included. */
function everybodyFails(events: readonly Event[], all: readonly Event[], policy: object): number[] {
  const known = namesOf(all).map((process): Event => ({ type: "stable", process }));
  const options = { dsm: "sequential", inTransit: "any", ...policy } as const;
  return ranks(lineOf([...known, ...events], options));
}

test("law 6: more events never lower the line of the whole application", () => {
  fc.assert(
    fc.property(cases(withoutRollbacks), fc.nat(), fc.nat(), fc.boolean(), (asked, cut, which, lossy) => {
      const losses = lossy ? [...singleLosses(asked.events)] : [];
      const events = losses[which % Math.max(1, losses.length)]?.events ?? asked.events;
      const { dsm, inTransit } = asked.options;
      const fewer = everybodyFails(events.slice(0, cut % (events.length + 1)), events, { dsm, inTransit });
      expect(atMost(fewer, everybodyFails(events, events, { dsm, inTransit }))).toBe(true);
    }),
    { numRuns },
  );
});

/** Lines that do nothing at the end of every history and in between: places for what a test adds without moving any position. */
function withIdleLines(events: readonly Event[], every: number): Event[] {
  const idle = (process: string): Event => ({ type: "page-fault", process, page: "idle", access: "read" });
  const padded = events.flatMap((event, i) => (i % every === 0 ? [event, idle(event.process)] : [event]));
  return [...padded, ...namesOf(events).map(idle)];
}

/** Index of some idle line of a process, the last where `choice` finds no other. */
function idleLine(events: readonly Event[], process: string, choice: number): number {
  const found = events.flatMap((event, i) =>
    event.process === process && event.type === "page-fault" && event.page === "idle" ? [i] : [],
  );
  return found[choice % found.length] as number;
}

test("law 7: an added dependency never raises the line", () => {
  fc.assert(
    fc.property(cases(), fc.nat(), fc.nat(), fc.nat(), fc.nat(), (asked, from, to, i, k) => {
      const { names, options } = asked;
      const padded = withIdleLines(asked.events, 2);
      const added = [...padded];
      const sender = names[from % names.length] as string;
      const receiver = names[to % names.length] as string;
      const common = { channel: "added", begin: 0, end: 1 };
      const sends = idleLine(added, sender, i);
      added[sends] = { type: "send", process: sender, ...common };
      const receives = idleLine(added, receiver, k);
      if (receives !== undefined) added[receives] = { type: "receive", process: receiver, ...common };
      expect(atMost(ranks(lineOf(added, options)), ranks(lineOf(padded, options)))).toBe(true);
    }),
    { numRuns },
  );
});

test("law 7: an added log never lowers the line", () => {
  fc.assert(
    fc.property(cases(), fc.nat(), fc.nat(), (asked, who, i) => {
      const { names, options } = asked;
      const padded = withIdleLines(asked.events, 2);
      const process = names[who % names.length] as string;
      const logged = [...padded];
      logged[idleLine(padded, process, i)] = { type: "stable", process };
      expect(atMost(ranks(lineOf(padded, options)), ranks(lineOf(logged, options)))).toBe(true);
    }),
    { numRuns },
  );
});

test("law 8: with everything stable only the unpersisted tail is lost", () => {
  fc.assert(
    fc.property(cases(fc.oneof(execution(30), simulated(4, 30))), fc.nat(15), (asked, tails) => {
      const { events, names, options } = asked;
      const stable = names.map((process): Event => ({ type: "stable", process }));
      // The tail: sends that nobody has received yet. With `logged` they may be undone, and only they.
      const tail = pick(names, tails).map(
        (process): Event => ({ type: "send", process, channel: `tail of ${process}`, begin: 0, end: 1 }),
      );
      const { line } = lineOf([...events, ...stable, ...tail], { ...options, inTransit: "any" });
      const persisted = ranks(lineOf([...events, ...stable], { ...options, failed: [], inTransit: "any" }));
      line.forEach(({ process, position, action }, i) => {
        const end = Math.floor((persisted[i] as number) / 2);
        const lostNothing = tail.some((event) => event.process === process) ? end + 1 : end;
        expect(position).toBe(options.failed.includes(process) ? end : lostNothing);
        expect(action === "continue").toBe(!options.failed.includes(process));
      });
    }),
    { numRuns },
  );
});

test("law 8: a receive of an unpersisted send is lost with it, and nothing else", () => {
  fc.assert(
    fc.property(cases(fc.oneof(execution(30), simulated(4, 30))), ({ events, names }) => {
      fc.pre(names.length > 1);
      const [p, q] = names as [string, string];
      const stable = names.map((process): Event => ({ type: "stable", process }));
      const common = { channel: "late", begin: 0, end: 1 };
      const late: Event[] = [
        { type: "send", process: p, ...common },
        { type: "receive", process: q, ...common },
        { type: "stable", process: q },
      ];
      const before = lineOf([...events, ...stable], { failed: [], dsm: "sequential", inTransit: "any" });
      const after = lineOf([...events, ...stable, ...late], {
        failed: [p],
        dsm: "sequential",
        inTransit: "any",
      });
      expect(after.line.map(({ position }) => position)).toEqual(before.line.map(({ position }) => position));
      expect(after.line.map(({ action }) => action === "continue")).toEqual(
        names.map((name) => name !== p && name !== q),
      );
    }),
    { numRuns },
  );
});
