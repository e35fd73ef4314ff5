/**
 * How far a line throws an application back, counted in checkpoints: depth of a process = L + 1 - line (theory.md), L its checkpoints that
 * can be restored. A restart from the newest one is depth 1; a place between two counts as the older one.
 */

import type { Evidence } from "../../model/evidence-layout.ts";
import type { LineEntry } from "../../model/recovery-line.ts";
import { firstAbove } from "../../model/search.ts";
import { pointAtOrBefore, restorePoints } from "../evidence/restore-points.ts";

export interface Domino {
  /** Greatest depth of any process, 0 = nobody is rolled back. */
  readonly depth: number;
  /** Processes rolled back, the failed ones among them, count. */
  readonly breadth: number;
  /** Processes at their initial state though they have checkpoints, count: the domino effect was not stopped. */
  readonly unbounded: number;
}

/** Of a line in the evidence's order of processes. */
export function dominoOf(
  evidence: Evidence,
  line: readonly Pick<LineEntry, "action" | "position">[],
): Domino {
  const restorable = restorableCheckpoints(evidence);
  let depth = 0;
  let breadth = 0;
  let unbounded = 0;
  line.forEach(({ action, position }, process) => {
    if (action === "continue") return;
    const lost = restorable(process, position);
    breadth += 1;
    depth = Math.max(depth, lost + 1);
    if (position === 0 && lost > 0) unbounded += 1;
  });
  return { depth, breadth, unbounded };
}

/** A function that counts a process's restorable checkpoints after a position, by binary search. */
export function restorableCheckpoints(evidence: Evidence): (process: number, position: number) => number {
  const { start, line } = evidence.segments;
  const points = restorePoints(evidence);
  /** Restorable checkpoints among the segments before each, count. */
  const before = new Uint32Array(line.length + 1);
  for (let process = 0; process < evidence.processes.length; process += 1)
    for (let s = start[process] as number; s < (start[process + 1] as number); s += 1) {
      const at = line[s] as number;
      const counts = at > 0 && pointAtOrBefore(points, process, at) === at;
      before[s + 1] = (before[s] as number) + (counts ? 1 : 0);
    }
  return (process, position) => {
    const stop = start[process + 1] as number;
    const later = firstAbove(line, start[process] as number, stop, position);
    return (before[stop] as number) - (before[later] as number);
  };
}
