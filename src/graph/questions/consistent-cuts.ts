/**
 * The greatest and the least consistent cut that contain given restore points (Wang 1997): forward and backward reachability over the
 * same graph. There is one iff forward reachability from the lines after the points does not hit one of them.
 *
 * A *place* is how many lines a process keeps: a restore point, or `length + 1` for its volatile end ("not rolled back"). Whoever ran before
 * it was recorded (semantics.md, 15) has no place at 0: every cut contains at least its first line.
 */
import { assert } from "../../model/assert.ts";
import { type Evidence, NO_INITIAL } from "../../model/evidence-layout.ts";
import type { WitnessLink } from "../../model/recovery-line.ts";
import { pointAtOrBefore, rangeAtOrBefore } from "../evidence/restore-points.ts";
import { NOTHING_UNDONE, propagateRollback } from "../rollback/propagate-rollback.ts";
import { type RollbackModel, volatileFrom } from "../rollback/rollback-model.ts";
import { type ChainStart, shortestChain, startsAnyway } from "./chain.ts";

/** One member of the set that the cut must contain. */
export interface Wanted {
  readonly process: number;
  readonly place: number;
}

/** Places of all processes, or why there is no such cut. */
export type GlobalCutAnswer =
  | { readonly feasible: true; readonly places: Uint32Array }
  | { readonly feasible: false; readonly chain: readonly WitnessLink[] };

/** The volatile end of a process as a place. */
export function volatilePlace(evidence: Evidence, process: number): number {
  return (evidence.length[process] as number) + 1;
}

/** The least that a process may keep: nothing, or its first line where it has no initial state. */
function leastKept({ segments }: Evidence, process: number): 0 | 1 {
  const initial = segments.flags[segments.start[process] as number] as number;
  return (initial & NO_INITIAL) === 0 ? 0 : 1;
}

/** True for restore points, and for the volatile end where no gap makes it uncertain. */
export function isPlace(model: RollbackModel, process: number, place: number): boolean {
  const length = model.evidence.length[process] as number;
  if (place < leastKept(model.evidence, process)) return false;
  if (place > length) return place === length + 1 && model.points.openGap[process] === 0;
  return pointAtOrBefore(model.points, process, place) === place;
}

/** The greatest consistent cut containing `wanted`: places (`isPlace`), one a process. `failed` can't stand at their volatile ends. */
export function greatestCut(
  model: RollbackModel,
  wanted: readonly Wanted[],
  failed: readonly number[] = [],
): GlobalCutAnswer {
  const starts = [...cutOff(model, wanted), ...failures(model, failed), ...startsAnyway(model)];
  const process = starts.map((start) => start.process);
  const undone = propagateRollback(model.graph, { process, line: starts.map((start) => start.line) });
  const members = new Map(wanted.map((member) => [member.process, member.place]));
  const hits = (p: number, line: number): boolean => line <= (members.get(p) ?? leastKept(model.evidence, p));
  if (!undone.some((line, p) => hits(p, line)))
    return { feasible: true, places: placesOf(model.evidence, undone) };
  const chain = shortestChain(model, starts, hits);
  assert(chain !== undefined, "the chain search finds what propagation found");
  return { feasible: false, chain };
}

/** The least consistent cut containing `wanted`; as for `greatestCut`. */
export function leastCut(
  model: RollbackModel,
  wanted: readonly Wanted[],
  failed: readonly number[] = [],
): GlobalCutAnswer {
  const greatest = greatestCut(model, wanted, failed);
  if (!greatest.feasible) return greatest;
  const places = keptBy(model, wanted);
  for (const { process, place } of wanted)
    assert(places[process] === place, "the least cut keeps its members where they are");
  places.forEach((place, process) => {
    assert(place <= (greatest.places[process] as number), "the least cut is no later than the greatest");
  });
  return { feasible: true, places };
}

/** A member undoes what follows it; at its volatile end nothing does. */
function cutOff(model: RollbackModel, wanted: readonly Wanted[]): ChainStart[] {
  const starts: ChainStart[] = [];
  for (const { process, place } of wanted)
    if (place < volatilePlace(model.evidence, process)) starts.push({ process, line: place + 1 });
  return starts;
}

function failures(model: RollbackModel, failed: readonly number[]): ChainStart[] {
  return failed.map((process) => {
    const because = { rule: "failed", process: model.evidence.processes[process] as string } as const;
    return { process, line: volatileFrom(model, process), because };
  });
}

function placesOf(evidence: Evidence, undone: Uint32Array): Uint32Array {
  return undone.map((line, process) =>
    line === NOTHING_UNDONE ? volatilePlace(evidence, process) : line - 1,
  );
}

/**
 * What keeping requires: a dependency "undoing a undoes b" read backwards is "keeping b requires keeping a", and an interval is kept
 * whole, up to the next restore point or the volatile end.
 */
function keptBy(model: RollbackModel, wanted: readonly Wanted[]): Uint32Array {
  const reversed = reverse(model);
  const places = new Uint32Array(model.evidence.processes.length);
  const done = reversed.start.slice(0, -1);
  const stack: number[] = [];
  const raise = (process: number, place: number): void => {
    if (place <= (places[process] as number)) return;
    places[process] = place;
    stack.push(process);
  };
  for (const { process, place } of wanted) raise(process, place);
  for (const process of places.keys())
    if (leastKept(model.evidence, process) > 0) raise(process, endOfInterval(model, process, 1));
  for (let process = stack.pop(); process !== undefined; process = stack.pop()) {
    const stop = reversed.start[process + 1] as number;
    for (let at = done[process] as number; at < stop; at += 1) {
      const edge = reversed.edge[at] as number;
      if ((model.graph.targetLine[edge] as number) > (places[process] as number)) break;
      done[process] = at + 1;
      const source = reversed.source[at] as number;
      raise(source, endOfInterval(model, source, model.graph.sourceLine[edge] as number));
    }
  }
  return places;
}

/** Dependencies by target process, rising in target line. */
function reverse(model: RollbackModel): { start: Uint32Array; source: Uint32Array; edge: Uint32Array } {
  const { graph } = model;
  const processes = graph.start.length - 1;
  const start = new Uint32Array(processes + 1);
  for (const p of graph.targetProcess) start[p + 1] = (start[p + 1] as number) + 1;
  for (let p = 0; p < processes; p += 1) start[p + 1] = (start[p + 1] as number) + (start[p] as number);
  const edge = new Uint32Array(graph.targetProcess.length);
  const next = start.slice();
  graph.targetProcess.forEach((p, e) => {
    edge[next[p] as number] = e;
    next[p] = (next[p] as number) + 1;
  });
  for (let p = 0; p < processes; p += 1)
    edge
      .subarray(start[p], start[p + 1])
      .sort((a, b) => (graph.targetLine[a] as number) - (graph.targetLine[b] as number));
  const sourceOf = new Uint32Array(edge.length);
  for (let p = 0; p < processes; p += 1) sourceOf.fill(p, graph.start[p], graph.start[p + 1]);
  return { start, source: edge.map((e) => sourceOf[e] as number), edge };
}

/** The place that keeps the interval of a line: the first restore point at or after it, else the volatile end. */
function endOfInterval(model: RollbackModel, process: number, line: number): number {
  const { start, first, last } = model.points;
  const range = rangeAtOrBefore(model.points, process, line);
  if ((last[range] as number) >= line) return line;
  if (range + 1 < (start[process + 1] as number)) return first[range + 1] as number;
  return volatilePlace(model.evidence, process);
}
