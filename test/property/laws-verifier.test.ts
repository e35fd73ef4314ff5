/** The verifier accepts the engine's answers (it runs in every other law) and rejects everything that differs from them. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { verifyLine } from "../../src/graph/verify/verify-line.ts";
import { hasCode } from "../../src/model/errors.ts";
import type {
  InTransitRange,
  LineEntry,
  OutsideRange,
  RecoveryLine,
  WitnessLink,
} from "../../src/model/recovery-line.ts";
import { POLICIES } from "../reference/answer.ts";
import { type Case, cases, lineOf, numRuns, pick } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

function isRejected({ events, options }: Case, answer: RecoveryLine): boolean {
  try {
    verifyLine(evidenceOf(events, []), options, answer);
  } catch (error) {
    if (!hasCode(error, "RL_REJECTED")) throw error;
    return true;
  }
  return false;
}

/** What makes two answers different answers: all but the choice of witnesses. */
function claims({ line, inTransit, outcome, evidence }: RecoveryLine): string {
  return JSON.stringify([line, inTransit, outcome, evidence]);
}

const ACTIONS = ["continue", "restore", "replay", "initial"] as const;

function changedEntry(entry: LineEntry, how: number, by: number): LineEntry {
  if (how === 0) return { ...entry, position: Math.max(0, entry.position + by) };
  if (how === 1) return { ...entry, action: ACTIONS[(by + 4) % 4] as LineEntry["action"] };
  if (how === 2) return { ...entry, checkpoint: entry.checkpoint === null ? 0 : entry.checkpoint + by };
  return { ...entry, process: `${entry.process}?` };
}

function changedRanges<R extends { readonly begin: number; readonly end: number }>(
  ranges: readonly R[],
  which: number,
  how: number,
  further: R,
  other: (range: R) => R,
): R[] {
  const at = which % (ranges.length + 1);
  const range = ranges[at];
  if (range === undefined) return [...ranges, further];
  const rest = ranges.toSpliced(at, 1);
  if (how === 0) return rest;
  if (how === 1) return ranges.toSpliced(at, 1, { ...range, end: range.end + 1 });
  if (how === 2) return ranges.toSpliced(at, 1, { ...range, begin: range.begin + 1 });
  return ranges.toSpliced(at, 1, other(range));
}

const changedTransit = (ranges: readonly InTransitRange[], which: number, how: number) =>
  changedRanges(ranges, which, how, { channel: "zz", from: "a", to: null, begin: 0, end: 1 }, (range) => ({
    ...range,
    to: range.to === null ? "a" : null,
  }));

const changedOutside = (ranges: readonly OutsideRange[], which: number, how: number) =>
  changedRanges(ranges, which, how, { channel: "zz", process: "a", begin: 0, end: 1 }, (range) => ({
    ...range,
    process: `${range.process}z`,
  }));

const how = fc.nat(3);
const by = fc.integer({ min: -3, max: 3 });

test("the verifier accepts an answer on its printed witnesses alone", () => {
  fc.assert(
    fc.property(cases(), (asked) => {
      expect(isRejected(asked, lineOf(asked.events, asked.options))).toBe(false);
    }),
    { numRuns },
  );
});

test("the verifier rejects an answer with one entry changed", () => {
  fc.assert(
    fc.property(cases(), fc.nat(), how, by, (asked, which, kind, amount) => {
      const right = lineOf(asked.events, asked.options);
      const at = which % right.line.length;
      const wrong = { ...right, line: right.line.with(at, changedEntry(right.line[at]!, kind, amount)) };
      fc.pre(claims(wrong) !== claims(right));
      expect(isRejected(asked, wrong)).toBe(true);
      expect(isRejected(asked, { ...right, line: right.line.toSpliced(at, 1) })).toBe(true);
    }),
    { numRuns },
  );
});

test("the verifier rejects an answer with one in-transit range changed, or the summary", () => {
  fc.assert(
    fc.property(cases(), fc.nat(), how, (asked, which, kind) => {
      const right = lineOf(asked.events, asked.options);
      expect(isRejected(asked, { ...right, inTransit: changedTransit(right.inTransit, which, kind) })).toBe(
        true,
      );
      const outcome = right.outcome === "clean" ? "tainted" : "clean";
      expect(isRejected(asked, { ...right, outcome })).toBe(true);
      for (const count of ["gaps", "lost", "healed"] as const) {
        const evidence = { ...right.evidence, [count]: right.evidence[count] + 1 };
        expect(isRejected(asked, { ...right, evidence })).toBe(true);
      }
      for (const list of ["lostInputs", "unsayable"] as const)
        expect(isRejected(asked, { ...right, [list]: changedOutside(right[list], which, kind) })).toBe(true);
    }),
    { numRuns },
  );
});

test("the verifier rejects the right answer to another question: other failures, other rules", () => {
  fc.assert(
    fc.property(cases(), fc.nat(63), fc.constantFrom(...POLICIES), (asked, mask, policy) => {
      const right = lineOf(asked.events, asked.options);
      const others = [
        lineOf(asked.events, { ...asked.options, failed: pick(asked.names, mask) }),
        lineOf(asked.events, { ...asked.options, ...policy }),
      ];
      for (const other of others)
        if (claims(other) !== claims(right)) expect(isRejected(asked, other)).toBe(true);
    }),
    { numRuns },
  );
});

test("the verifier rejects a line without the witnesses that force it", () => {
  fc.assert(
    fc.property(cases(), fc.nat(), (asked, which) => {
      const right = lineOf(asked.events, asked.options);
      fc.pre(right.witnesses.length > 0);
      const at = which % right.witnesses.length;
      const { process, because } = right.witnesses[at]!;
      // Another chain may pass through the same process and force it as far: then nothing is missing.
      const elsewhere = right.witnesses.some(
        (w, i) => i !== at && w.because.some((l) => l.process === process),
      );
      if (!elsewhere)
        expect(isRejected(asked, { ...right, witnesses: right.witnesses.toSpliced(at, 1) })).toBe(true);
      const headless = right.witnesses.with(at, { process, because: because.slice(1) });
      if (!elsewhere) expect(isRejected(asked, { ...right, witnesses: headless })).toBe(true);
    }),
    { numRuns },
  );
});

test("the verifier rejects a witness that names another line than the one it is about", () => {
  fc.assert(
    fc.property(cases(), fc.nat(), fc.constantFrom(-1, 1), (asked, which, amount) => {
      const right = lineOf(asked.events, asked.options);
      const told = right.witnesses.filter(({ because }) => because.some(isMessage));
      fc.pre(told.length > 0);
      const witness = told[which % told.length]!;
      const at = witness.because.findIndex(isMessage);
      const link = witness.because[at]!;
      const because = witness.because.with(at, { ...link, position: link.position! + amount });
      const witnesses = right.witnesses.map((w) => (w === witness ? { ...w, because } : w));
      expect(isRejected(asked, { ...right, witnesses })).toBe(true);
    }),
    { numRuns },
  );
});

function isMessage({ channel, position }: WitnessLink): boolean {
  return channel !== undefined && position !== undefined;
}
