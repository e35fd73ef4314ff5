/**
 * Processes that are only ever checkpointed and restored together (theory.md, table of rules: both ways between equal points).
 * Their restore points are the usable checkpoints that all of them hold under the same index, and the initial state.
 */

import { type Evidence, USABLE } from "../../model/evidence-layout.ts";
import { type DependencyList, TOGETHER } from "../evidence/dependencies.ts";
import { pointAtOrBefore, type RestorePoints } from "../evidence/restore-points.ts";

type Groups = readonly (readonly number[])[];

/** Positions of the restorable checkpoints of one process by index; the initial state is index 0. */
function restorable(evidence: Evidence, points: RestorePoints, process: number): Map<number, number> {
  const { start, line, index, flags } = evidence.segments;
  const found = new Map<number, number>();
  for (let s = start[process] as number; s < (start[process + 1] as number); s += 1) {
    const at = line[s] as number;
    // An image, not a replay: each member's log knows nothing of the memory that they share.
    if ((flags[s] as number) & USABLE && pointAtOrBefore(points, process, at) === at)
      found.set(index[s] as number, at);
  }
  return found;
}

/** Checkpoint indices that every member can restore, rising, with each member's position. */
function common(evidence: Evidence, points: RestorePoints, group: readonly number[]): number[][] {
  const positions = group.map((process) => restorable(evidence, points, process));
  const indices = [...(positions[0]?.keys() ?? [])].filter((k) => positions.every((held) => held.has(k)));
  return indices.sort((a, b) => a - b).map((k) => positions.map((held) => held.get(k) as number));
}

/** Restore points with those of each group's members cut down to the common ones. */
export function restrictToCommon(evidence: Evidence, points: RestorePoints, groups: Groups): RestorePoints {
  const only = new Map<number, number[]>();
  for (const group of groups) {
    const rows = common(evidence, points, group);
    group.forEach((process, member) => {
      only.set(
        process,
        rows.map((row) => row[member] as number),
      );
    });
  }
  const start = new Uint32Array(points.start.length);
  const first: number[] = [];
  const last: number[] = [];
  for (let process = 0; process + 1 < points.start.length; process += 1) {
    const positions = only.get(process);
    for (const position of positions ?? []) {
      first.push(position);
      last.push(position);
    }
    if (positions === undefined)
      for (let r = points.start[process] as number; r < (points.start[process + 1] as number); r += 1) {
        first.push(points.first[r] as number);
        last.push(points.last[r] as number);
      }
    start[process + 1] = first.length;
  }
  return { ...points, start, first: Uint32Array.from(first), last: Uint32Array.from(last) };
}

/** Appends the dependencies of each group: a ring over the members at each common checkpoint, and at the volatile end. */
export function checkpointedTogether(
  evidence: Evidence,
  points: RestorePoints,
  groups: Groups,
  list: DependencyList,
): void {
  for (const group of groups) {
    const rows = common(evidence, points, group);
    // Undoing the interval after the common point k at one member undoes it at the next; the last one is the volatile interval.
    for (const row of rows)
      group.forEach((process, member) => {
        const next = (member + 1) % group.length;
        list.push(
          process,
          (row[member] as number) + 1,
          group[next] as number,
          (row[next] as number) + 1,
          TOGETHER,
        );
      });
  }
}
