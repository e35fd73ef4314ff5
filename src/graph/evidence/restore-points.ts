/**
 * Where a process can be restarted (docs/semantics.md, 3): its initial state, usable checkpoints that no unhealed gap
 * precedes, and every position that a message log makes replayable. The volatile end of a survivor is not among them.
 *
 * Replay points come as whole ranges, so a process's points are ranges [first, last] of positions: sorted, disjoint, not adjacent.
 */
import { assert } from "../../model/assert.ts";
import { type Evidence, HAS_CUT, USABLE } from "../../model/evidence-layout.ts";
import { firstAbove } from "../../model/search.ts";
import { Uint32List } from "./growable.ts";

export interface RestorePoints {
  /** CSR offsets by process; every process holds at least the range that starts at position 0. */
  readonly start: Uint32Array;
  readonly first: Uint32Array;
  readonly last: Uint32Array;
  /** Per process: line of the last gap that nothing healed, 0 = the end is certain. */
  readonly openGap: Uint32Array;
  /** Per process: the last effective `stable` line, 0 = none. */
  readonly stable: Uint32Array;
}

/** All restore points, one pass over the segments. */
export function restorePoints(evidence: Evidence): RestorePoints {
  const count = evidence.processes.length;
  const ranges = new RangeList();
  const start = new Uint32Array(count + 1);
  const openGap = new Uint32Array(count);
  const stable = new Uint32Array(count);
  for (let process = 0; process < count; process += 1) {
    stable[process] = lastStable(evidence, process);
    openGap[process] = processPoints(evidence, process, stable[process] as number, ranges);
    start[process + 1] = ranges.first.length;
    ranges.seal();
  }
  return { start, first: ranges.first.view().slice(), last: ranges.last.view().slice(), openGap, stable };
}

/** Appends ranges in rising order and joins those that touch. */
class RangeList {
  readonly first = new Uint32List();
  readonly last = new Uint32List();
  #sealed = 0;

  push(first: number, last: number): void {
    const at = this.first.length - 1;
    assert(first <= last, "a range of restore points is not empty");
    assert(at < this.#sealed || this.first.at(at) <= first, "restore points come in rising order");
    if (at >= this.#sealed && first <= this.last.at(at) + 1)
      this.last.data[at] = Math.max(this.last.at(at), last);
    else {
      this.first.push(first);
      this.last.push(last);
    }
  }

  /** What follows belongs to another process. */
  seal(): void {
    this.#sealed = this.first.length;
  }
}

/** Line up to which the message log of a process covers what it did, 0 = nothing. */
export function lastStable(evidence: Evidence, process: number): number {
  const { start, stable } = evidence.segments;
  for (let s = (start[process + 1] as number) - 1; s >= (start[process] as number); s -= 1)
    if (stable[s] !== 0) return stable[s] as number;
  return 0;
}

/** Appends the points of one process; returns the line of the last gap nothing healed, or 0. */
function processPoints(evidence: Evidence, process: number, stable: number, ranges: RangeList): number {
  const { start, line, flags, gap } = evidence.segments;
  const stop = start[process + 1] as number;
  let openGap = 0;
  let gapSinceBase = false;
  for (let s = start[process] as number; s < stop; s += 1) {
    const at = line[s] as number;
    if ((flags[s] as number) & HAS_CUT) openGap = 0;
    if ((flags[s] as number) & USABLE && openGap === 0) {
      ranges.push(at, at);
      gapSinceBase = false;
    }
    const firstGap = gap[s] as number;
    const next = s + 1 < stop ? (line[s + 1] as number) : (evidence.length[process] as number) + 1;
    const replayable = Math.min(stable, firstGap === 0 ? next - 1 : firstGap - 1);
    if (!gapSinceBase && replayable >= at) ranges.push(at, replayable);
    if (firstGap !== 0) {
      openGap = firstGap;
      gapSinceBase = true;
    }
  }
  return openGap;
}

/** The greatest restore point of `process` at or before `position`, by binary search over its ranges. */
export function pointAtOrBefore(points: RestorePoints, process: number, position: number): number {
  return Math.min(points.last[rangeAtOrBefore(points, process, position)] as number, position);
}

/** Index of the last range that starts at or before `position`: there is always one, since position 0 is a point. */
export function rangeAtOrBefore(points: RestorePoints, process: number, position: number): number {
  const { start, first } = points;
  return firstAbove(first, (start[process] as number) + 1, start[process + 1] as number, position) - 1;
}

/**
 * The segment whose checkpoint a restore point starts from. The newest usable one will do: were it behind an unhealed gap, or a gap
 * between it and the position, the position would be no restore point.
 */
export function baseSegment(evidence: Evidence, process: number, position: number): number {
  const { start, line, flags } = evidence.segments;
  let segment = firstAbove(line, (start[process] as number) + 1, start[process + 1] as number, position) - 1;
  while (((flags[segment] as number) & USABLE) === 0) segment -= 1;
  assert(segment >= (start[process] as number), "a process has its initial state to start from");
  return segment;
}

/**
 * Lines → the first line of their interval, for one process at a time: undoing any line of an interval undoes it from its first
 * line on. The volatile end is line `length + 1`. Remembers the last interval, so rising lines cost O(1).
 */
export class IntervalFinder {
  readonly #points: RestorePoints;
  #process = -1;
  #first = 1;
  #last = 0;

  constructor(points: RestorePoints) {
    this.#points = points;
  }

  firstLine(process: number, line: number): number {
    if (process !== this.#process || line < this.#first || line > this.#last) this.#locate(process, line);
    return this.#first;
  }

  #locate(process: number, line: number): void {
    const { start, first, last } = this.#points;
    const range = rangeAtOrBefore(this.#points, process, line - 1);
    const lastPoint = last[range] as number;
    this.#process = process;
    if (lastPoint >= line) {
      this.#first = line;
      this.#last = line;
      return;
    }
    this.#first = lastPoint + 1;
    this.#last =
      range + 1 < (start[process + 1] as number) ? (first[range + 1] as number) : Number.POSITIVE_INFINITY;
  }
}
