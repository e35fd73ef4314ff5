/** Inputs of every kind for the laws: what shrinks (laws-executions.ts) and what is true (test/reference/simulate.ts), with a question. */
import fc from "fast-check";
import { computeLine } from "../../src/compute/compute.ts";
import type { Event } from "../../src/model/event.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { type Options, POLICIES } from "../reference/answer.ts";
import { Random } from "../reference/random.ts";
import { scribble } from "../reference/scribble.ts";
import { randomSetting, type Setting, simulate } from "../reference/simulate.ts";
import { sized } from "../size.ts";
import { chaos, evidenceOf, execution } from "./laws-executions.ts";

/** Runs of one law; RL_PROPERTY_RUNS widens them all. */
export const numRuns = Number(process.env["RL_PROPERTY_RUNS"] ?? sized(400, 200));

export interface Case {
  readonly events: readonly Event[];
  /** All processes, in order of name. */
  readonly names: readonly string[];
  readonly options: Options & { readonly failed: readonly string[] };
}

/** A true execution with rollbacks, datagrams, pages, cuts and stable lines as its seed has them. */
export function simulated(maxProcesses = 3, maxSteps = 14, fixed: Partial<Setting> = {}) {
  return fc
    .integer()
    .map((seed) => simulate(seed, { ...randomSetting(new Random(seed), maxProcesses, maxSteps), ...fixed }));
}

/** Evidence that no execution needs to have. */
export function scribbled(lines = 14) {
  return fc.integer().map((seed) => {
    const random = new Random(seed);
    const [fallingCuts, outside, looks] = [random.oneIn(2), random.oneIn(2), random.oneIn(2)];
    return scribble(random, { processes: 2 + random.below(2), lines, fallingCuts, outside, looks });
  });
}

export const anyEvents: fc.Arbitrary<Event[]> = fc.oneof(
  chaos(18),
  execution(24),
  simulated(),
  simulated(),
  scribbled(),
);

export function namesOf(events: readonly Event[]): string[] {
  return [...new Set(events.map(({ process }) => process))].sort();
}

/** Events with a failed set and policies. Nothing without a process: that is refused, not answered. */
export function cases(events: fc.Arbitrary<Event[]> = anyEvents): fc.Arbitrary<Case> {
  return fc
    .tuple(
      events.filter((list) => list.length > 0),
      fc.nat(63),
      fc.constantFrom(...POLICIES),
    )
    .map(([list, mask, policy]) => {
      const names = namesOf(list);
      return { events: list, names, options: { ...policy, failed: pick(names, mask) } };
    });
}

/** The members whose bit is set. */
export function pick<T>(list: readonly T[], mask: number): T[] {
  return list.filter((_, bit) => (mask >> bit) & 1);
}

/** The engine's answer, verifier included. */
export function lineOf(events: readonly Event[], options: Options): RecoveryLine {
  return computeLine(evidenceOf(events, []), options);
}

/** Positions by process; a process that continues ranks above every restore point at the same position. */
export function ranks({ line }: Pick<RecoveryLine, "line">): number[] {
  return line.map(({ position, action }) => position * 2 + (action === "continue" ? 1 : 0));
}

/** True if no process is further in `lower` than in `upper`. */
export function atMost(lower: readonly number[], upper: readonly number[]): boolean {
  return lower.every((rank, i) => rank <= (upper[i] as number));
}
