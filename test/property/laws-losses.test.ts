/** Law 13 of theory.md: what is lost never makes a line unsafe, nor later than the true one. Judged by the execution that lost nothing. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Event } from "../../src/model/event.ts";
import { canonical } from "../reference/answer.ts";
import { bruteForce } from "../reference/brute-force.ts";
import { channelEnds } from "../reference/channel-ends.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { answerAt, buildInstance, isConsistent, isRestorable } from "../reference/instance.ts";
import { type Evidence, randomLosses, singleLosses } from "../reference/lose.ts";
import { Random } from "../reference/random.ts";
import { type Case, cases, lineOf, numRuns, scribbled, simulated } from "./cases.ts";

/** Checks the answer from lossy evidence against the truth. */
function judge({ events, names, options }: Case, loss: Evidence): void {
  const truth = buildInstance(events, options);
  const answer = lineOf(loss.events, options);
  const kept = names.map((name) => {
    const entry = answer.line.find(({ process }) => process === name);
    return entry === undefined ? 0 : (loss.truePosition.get(name)![entry.position] as number);
  });
  expect(isRestorable(truth, kept)).toBe(true);
  expect(isConsistent(truth, kept)).toBe(true);
  fixpointLine(truth).forEach((position, i) => {
    expect(kept[i]).toBeLessThanOrEqual(position);
  });
  for (const { process, action } of answer.line)
    if (action === "continue") expect(options.failed).not.toContain(process);
  const needed = answerAt(truth, kept);
  // Where the line that says so was lost, what went outside counts as in transit: nobody received it.
  const { outside } = channelEnds(events);
  const inside = answer.inTransit.filter(({ channel }) => !outside.has(channel));
  checkReplay(inside, needed.inTransit, options.dsm === "sequential");
  for (const list of ["lostInputs", "unsayable"] as const)
    expect(bytesOf(needed[list])).toEqual(expect.arrayContaining(bytesOf(answer[list])));
}

interface Range {
  readonly channel: string;
  readonly begin: number;
  readonly end: number;
}

function bytesOf(ranges: readonly Range[]): string[] {
  return ranges.flatMap(({ channel, begin, end }) =>
    Array.from({ length: end - begin }, (_, i) => `${channel}:${begin + i}`),
  );
}

/**
 * Nothing that is truly in transit may be missing from what must be replayed. A lost page-invalidate that a cut still counts can't be told
 * from a copy, so with `transfers` the list may name more.
 */
function checkReplay(listed: readonly Range[], needed: readonly Range[], exactly: boolean): void {
  if (exactly) expect(bytesOf(listed).sort()).toEqual(bytesOf(needed).sort());
  else expect(bytesOf(listed)).toEqual(expect.arrayContaining(bytesOf(needed)));
}

const executions: fc.Arbitrary<Event[]> = fc.oneof(
  simulated(),
  simulated(3, 14, { cuts: true, datagrams: false }),
  simulated(2, 10, { cuts: true, datagrams: false, stable: true }),
);

test("law 13: every single-event loss gives a line that is safe, never later than the true one, with all replay ranges", () => {
  fc.assert(
    fc.property(cases(executions), (asked) => {
      for (const loss of singleLosses(asked.events)) judge(asked, loss);
    }),
    { numRuns },
  );
});

test("law 13: the same for many losses at once, runs of them and lost tails", () => {
  fc.assert(
    fc.property(cases(fc.oneof(executions, simulated(4, 60))), fc.integer(), (asked, seed) => {
      const failed = (process: string) => asked.options.failed.includes(process);
      judge(asked, randomLosses(asked.events, new Random(seed), failed));
    }),
    { numRuns },
  );
});

test("law 13: lossy evidence has the answer that its definition gives", () => {
  fc.assert(
    fc.property(cases(fc.oneof(executions, scribbled())), fc.integer(), ({ events, options }, seed) => {
      const { events: left } = randomLosses(events, new Random(seed), (p) => options.failed.includes(p));
      const failed = options.failed.filter((name) => left.some(({ process }) => process === name));
      expect(canonical(lineOf(left, { ...options, failed }))).toBe(
        canonical(bruteForce(left, { ...options, failed })),
      );
    }),
    { numRuns },
  );
});
