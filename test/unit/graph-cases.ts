/** All cuts of a small execution, judged by the sets of verify-sets.ts: the definition, without lines per byte or graphs. */
import fc from "fast-check";
import { Histories } from "../../src/graph/verify/verify-histories.ts";
import { OffsetSets, subtract } from "../../src/graph/verify/verify-sets.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import type { DsmModel, InTransitPolicy } from "../../src/model/recovery-line.ts";
import { sized } from "../size.ts";

export interface Rule {
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
}

/** A place a process can stand at: a restore point, or its volatile end. */
export interface Place {
  readonly position: number;
  readonly volatile: boolean;
}

/** Places by process, rising; the volatile end comes after a restore point at the same position. */
export function placesOf(evidence: Evidence, failed: readonly string[] = []): Place[][] {
  const histories = new Histories(evidence);
  return evidence.processes.map((name, process) => {
    const length = evidence.length[process] as number;
    const places: Place[] = [];
    for (let n = 0; n <= length; n += 1)
      if (histories.pointAtOrBefore(process, n) === n) places.push({ position: n, volatile: false });
    if (!failed.includes(name) && histories.endIsCertain(process))
      places.push({ position: length, volatile: true });
    return places;
  });
}

/** Judges whether one vector of places is feasible. */
export function judge(evidence: Evidence, rule: Rule): (cut: readonly Place[]) => boolean {
  const sets = new OffsetSets(evidence, new Histories(evidence), rule.dsm);
  return (cut) =>
    evidence.channels.every((_, channel) => {
      if (evidence.outside[channel] !== -1) return true;
      const sender = evidence.processAt[channel * 2] as number;
      const receiver = evidence.processAt[channel * 2 + 1] as number;
      const sent = sender < 0 ? [] : sets.sentAt(channel, (cut[sender] as Place).position);
      const received = receiver < 0 ? [] : sets.receivedAt(channel, (cut[receiver] as Place).position);
      const known = receiver < 0 ? [] : sets.seenAt(channel, (cut[receiver] as Place).position);
      if (subtract(known, sent).length > 0) return false;
      if (rule.inTransit === "any" || sender < 0) return true;
      if (receiver >= 0 && (cut[receiver] as Place).volatile) return true;
      return subtract(subtract(sent, received), sets.logged(channel, sender)).length === 0;
    });
}

/** Every vector that takes one place of each process. */
export function* allCuts(places: readonly (readonly Place[])[]): Generator<Place[]> {
  const [first, ...rest] = places;
  if (first === undefined) {
    yield [];
    return;
  }
  for (const place of first) for (const others of allCuts(rest)) yield [place, ...others];
}

export function feasibleCuts(evidence: Evidence, rule: Rule, failed: readonly string[]): Place[][] {
  const feasible = judge(evidence, rule);
  return [...allCuts(placesOf(evidence, failed))].filter(feasible);
}

/** A place as one number: places of one process compare as they stand in time. */
export function rank({ position, volatile }: Place): number {
  return position * 2 + (volatile ? 1 : 0);
}

/** The greater of each pair of places. */
export function join(a: readonly Place[], b: readonly Place[]): Place[] {
  return a.map((place, i) => (rank(place) >= rank(b[i] as Place) ? place : (b[i] as Place)));
}

/** The lesser of each pair of places. */
export function meet(a: readonly Place[], b: readonly Place[]): Place[] {
  return a.map((place, i) => (rank(place) <= rank(b[i] as Place) ? place : (b[i] as Place)));
}

export const numRuns = Number(process.env["RL_PROPERTY_RUNS"] ?? sized(300, 150));

export const failures: fc.Arbitrary<string[]> = fc.subarray(["a", "b", "c"]);

export const rules = fc.record({
  dsm: fc.constantFrom("sequential" as const, "transfers" as const),
  inTransit: fc.constantFrom("any" as const, "logged" as const),
});
