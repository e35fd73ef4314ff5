/**
 * At which line of its process a byte counts as sent (or received), for one channel end (docs/semantics.md, 4).
 *
 * An event counts at its line. A byte that no event up to a cut's checkpoint names is known only from that cut: a send counts at the
 * checkpoint (latest), a receive from the earliest line that may hold it: the first gap after the previous checkpoint with a cut or,
 * where nothing is declared missing, the first line after that checkpoint. The least line wins.
 */
import { assert } from "../../model/assert.ts";
import {
  type CutRows,
  type Evidence,
  HAS_CUT,
  RECEIVER,
  type RowRanges,
} from "../../model/evidence-layout.ts";
import { firstWhere } from "../../model/search.ts";
import { Float64List, Uint32List } from "./growable.ts";

/** The line is a bound taken from a cut, not an event's. */
export const FROM_CUT = 1;

/** What every walk over such ranges rests on; asserted where two of them are laid over each other. */
export const SORTED = "ranges stand in rising order, disjoint and not empty";

/** Disjoint ranges in rising offset order, each with one line and flags. */
export class LineRanges {
  readonly begin = new Float64List();
  readonly end = new Float64List();
  readonly line = new Uint32List();
  readonly flags = new Uint32List();

  get length(): number {
    return this.begin.length;
  }

  clear(): void {
    this.begin.clear();
    this.end.clear();
    this.line.clear();
    this.flags.clear();
  }

  /** Appends; joins what touches and says the same. */
  push(begin: number, end: number, line: number, flags: number): void {
    const last = this.length - 1;
    if (
      last >= 0 &&
      this.end.at(last) === begin &&
      this.line.at(last) === line &&
      this.flags.at(last) === flags
    ) {
      this.end.data[last] = end;
      return;
    }
    this.begin.push(begin);
    this.end.push(end);
    this.line.push(line);
    this.flags.push(flags);
  }
}

/**
 * Per segment that carries a cut: the first line its cut alone may stand for. All events before the first gap are known, so what only
 * the cut knows came at that gap or after it; were it counted earlier, it would not be replayed.
 */
function cutWindows(evidence: Evidence): Uint32Array {
  const { start, line, flags, gap } = evidence.segments;
  const windows = new Uint32Array(line.length);
  for (let process = 0; process + 1 < start.length; process += 1) {
    let first = 1;
    let firstGap = 0;
    for (let s = start[process] as number; s < (start[process + 1] as number); s += 1) {
      if ((flags[s] as number) & HAS_CUT) {
        windows[s] = firstGap === 0 ? first : firstGap;
        first = (line[s] as number) + 1;
        firstGap = 0;
      }
      if (firstGap === 0) firstGap = gap[s] as number;
    }
  }
  return windows;
}

/** Ranges that count for nothing, sorted and disjoint (invalidates under `--dsm transfers`). */
export interface Ignored {
  readonly begin: readonly number[];
  readonly end: readonly number[];
}

/** Cuts of one channel end: [from, to) of the rows. */
interface CutSlice {
  readonly rows: CutRows;
  readonly from: number;
  readonly to: number;
}

/** Computes `LineRanges` for one channel end after another, with scratch space that is reused. */
export class FirstLines {
  readonly #evidence: Evidence;
  readonly #windows: Uint32Array;
  readonly #events = new LineRanges();
  /** The cuts' staircase: ranges whose first covering cut is that of segment `line`. */
  readonly #stairs = new LineRanges();

  constructor(evidence: Evidence) {
    this.#evidence = evidence;
    this.#windows = cutWindows(evidence);
  }

  /** Fills `into`. `ignored` non-null: page-invalidate rows and these ranges of cuts count for nothing. */
  compute(channelEnd: number, ignored: Ignored | null, into: LineRanges): void {
    const { rows, cuts } = this.#evidence;
    const from = rows.start[channelEnd] as number;
    const to = rows.start[channelEnd + 1] as number;
    const slice = cutsOf(cuts, channelEnd);
    into.clear();
    if (slice.from === slice.to) {
      this.#reduceRows(from, to, ignored !== null, into);
      return;
    }
    this.#events.clear();
    this.#reduceRows(from, to, ignored !== null, this.#events);
    this.#buildStairs(slice, ignored);
    this.#merge(channelEnd % 2 === RECEIVER, into);
  }

  /**
   * From which line on the channel's receiver knows a byte: the least of what `received` says, of its peeks, and of what only the `seen` of
   * a cut tells. Who looks counts like who receives.
   */
  computeKnown(channel: number, ignored: Ignored | null, received: LineRanges, into: LineRanges): void {
    const looked = new LineRanges();
    this.#events.clear();
    sweepRows(receivesAndPeeks(this.#evidence, channel, ignored !== null), this.#events);
    this.#buildStairs(cutsOf(this.#evidence.seen, channel), ignored);
    this.#merge(true, looked);
    into.clear();
    leastLines(received, looked, into);
  }

  /** Rows → least line per byte. Rows that rise in offset (FIFO) pass straight through; others are swept. */
  #reduceRows(from: number, to: number, skipInvalidates: boolean, into: LineRanges): void {
    const { begin, end, line, invalidate } = this.#evidence.rows;
    let reached = Number.NEGATIVE_INFINITY;
    for (let row = from; row < to; row += 1) {
      if (skipInvalidates && invalidate[row] === 1) continue;
      if ((begin[row] as number) < reached) {
        into.clear();
        sweepRows(rowsWithin(this.#evidence, from, to, skipInvalidates), into);
        return;
      }
      reached = end[row] as number;
      into.push(begin[row] as number, reached, line[row] as number, 0);
    }
  }

  #buildStairs({ rows, from, to }: CutSlice, ignored: Ignored | null): void {
    const { segment, offset } = rows;
    this.#stairs.clear();
    let reached = 0;
    for (let cut = from; cut < to; cut += 1) {
      const end = offset[cut] as number;
      if (end <= reached) continue;
      if (ignored === null) this.#stairs.push(reached, end, segment[cut] as number, 0);
      else pushWithout(ignored, reached, end, segment[cut] as number, this.#stairs);
      reached = end;
    }
  }

  /** Lays events over stairs, both in offset order. */
  #merge(receives: boolean, into: LineRanges): void {
    const events = this.#events;
    const stairs = this.#stairs;
    let e = 0;
    let s = 0;
    let at = Number.NEGATIVE_INFINITY;
    while (e < events.length || s < stairs.length) {
      const eventBegin = e < events.length ? Math.max(at, events.begin.at(e)) : Number.POSITIVE_INFINITY;
      const stairBegin = s < stairs.length ? Math.max(at, stairs.begin.at(s)) : Number.POSITIVE_INFINITY;
      const begin = Math.min(eventBegin, stairBegin);
      const inEvent = eventBegin === begin;
      const inStair = stairBegin === begin;
      const eventStop = inEvent ? events.end.at(e) : eventBegin;
      const stairStop = inStair ? stairs.end.at(s) : stairBegin;
      const end = Math.min(eventStop, stairStop);
      assert(begin < end, SORTED);
      if (!inStair) into.push(begin, end, events.line.at(e), events.flags.at(e));
      else this.#pushStair(begin, end, inEvent ? events.line.at(e) : 0, stairs.line.at(s), receives, into);
      at = end;
      if (inEvent && eventStop === end) e += 1;
      if (inStair && stairStop === end) s += 1;
    }
  }

  #pushStair(
    begin: number,
    end: number,
    eventLine: number,
    segment: number,
    receives: boolean,
    into: LineRanges,
  ): void {
    const checkpoint = this.#evidence.segments.line[segment] as number;
    if (eventLine !== 0 && eventLine <= checkpoint) {
      into.push(begin, end, eventLine, 0);
      return;
    }
    into.push(begin, end, receives ? (this.#windows[segment] as number) : checkpoint, FROM_CUT);
  }
}

function cutsOf(rows: CutRows, key: number): CutSlice {
  return { rows, from: rows.start[key] as number, to: rows.start[key + 1] as number };
}

/** Per byte the lesser line of two lists; a tie says less where it is from a cut. */
function leastLines(a: LineRanges, b: LineRanges, into: LineRanges): void {
  let [i, j] = [0, 0];
  let at = Number.NEGATIVE_INFINITY;
  while (i < a.length || j < b.length) {
    const beginA = i < a.length ? Math.max(at, a.begin.at(i)) : Number.POSITIVE_INFINITY;
    const beginB = j < b.length ? Math.max(at, b.begin.at(j)) : Number.POSITIVE_INFINITY;
    const begin = Math.min(beginA, beginB);
    const [inA, inB] = [beginA === begin, beginB === begin];
    const end = Math.min(inA ? a.end.at(i) : beginA, inB ? b.end.at(j) : beginB);
    assert(begin < end, SORTED);
    const takeA = inA && (!inB || a.line.at(i) <= b.line.at(j));
    into.push(begin, end, takeA ? a.line.at(i) : b.line.at(j), takeA ? a.flags.at(i) : b.flags.at(j));
    at = end;
    if (inA && a.end.at(i) === end) i += 1;
    if (inB && b.end.at(j) === end) j += 1;
  }
}

function pushWithout(ignored: Ignored, from: number, to: number, tag: number, into: LineRanges): void {
  let at = from;
  const { end } = ignored;
  for (
    let i = firstWhere(0, end.length, (place) => (end[place] as number) > from);
    i < ignored.begin.length && at < to;
    i += 1
  ) {
    const begin = ignored.begin[i] as number;
    if (begin >= to) break;
    if (begin > at) into.push(at, begin, tag, 0);
    at = Math.max(at, end[i] as number);
  }
  if (at < to) into.push(at, to, tag, 0);
}

/** Ranges in line order. */
type Swept = Pick<RowRanges, "line" | "begin" | "end">;

function rowsWithin({ rows }: Evidence, from: number, to: number, skipInvalidates: boolean): Swept {
  const kept: number[] = [];
  for (let row = from; row < to; row += 1)
    if (!(skipInvalidates && rows.invalidate[row] === 1)) kept.push(row);
  return {
    line: Uint32Array.from(kept, (row) => rows.line[row] as number),
    begin: Float64Array.from(kept, (row) => rows.begin[row] as number),
    end: Float64Array.from(kept, (row) => rows.end[row] as number),
  };
}

/** What the receiver took and what it looked at. */
function receivesAndPeeks(evidence: Evidence, channel: number, skipInvalidates: boolean): Swept {
  const { rows, peeks } = evidence;
  const end = channel * 2 + RECEIVER;
  const taken = rowsWithin(
    evidence,
    rows.start[end] as number,
    rows.start[end + 1] as number,
    skipInvalidates,
  );
  const [from, to] = [peeks.start[channel] as number, peeks.start[channel + 1] as number];
  const all = [
    ...Array.from(taken.line, (line, row) => [line, taken.begin[row], taken.end[row]] as const),
    ...Array.from(
      { length: to - from },
      (_, row) => [peeks.line[from + row], peeks.begin[from + row], peeks.end[from + row]] as const,
    ),
  ].sort(([a], [b]) => (a as number) - (b as number));
  return {
    line: Uint32Array.from(all, ([line]) => line as number),
    begin: Float64Array.from(all, ([, first]) => first as number),
    end: Float64Array.from(all, ([, , last]) => last as number),
  };
}

/**
 * Rows in any offset order, overlapping or repeated → least line per byte. Rows stand in line order, so an interval stack over a
 * sweep by offset needs a heap of the open rows: the least row number open is the least line. O(n log n).
 */
function sweepRows({ line, begin, end }: Swept, into: LineRanges): void {
  const byBegin = Array.from(begin.keys());
  byBegin.sort((a, b) => (begin[a] as number) - (begin[b] as number) || a - b);
  const open = new MinHeap();
  let next = 0;
  let at = 0;
  while (next < byBegin.length || open.size > 0) {
    while (open.size > 0 && (end[open.top] as number) <= at) open.pop();
    if (open.size === 0) {
      if (next === byBegin.length) return;
      at = begin[byBegin[next] as number] as number;
    }
    while (next < byBegin.length && (begin[byBegin[next] as number] as number) <= at)
      open.push(byBegin[next++] as number);
    const row = open.top;
    assert(
      row === 0 || (line[row - 1] as number) <= (line[row] as number),
      "rows of one end stand in rising order of lines",
    );
    const nextBegin =
      next < byBegin.length ? (begin[byBegin[next] as number] as number) : Number.POSITIVE_INFINITY;
    const stop = Math.min(end[row] as number, nextBegin);
    into.push(at, stop, line[row] as number, 0);
    at = stop;
  }
}

/** A binary heap of row numbers, least on top. */
class MinHeap {
  readonly #items: number[] = [];

  get size(): number {
    return this.#items.length;
  }

  get top(): number {
    return this.#items[0] as number;
  }

  push(value: number): void {
    const items = this.#items;
    let at = items.push(value) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((items[parent] as number) <= value) break;
      items[at] = items[parent] as number;
      at = parent;
    }
    items[at] = value;
  }

  pop(): void {
    const items = this.#items;
    const value = items.pop() as number;
    if (items.length === 0) return;
    let at = 0;
    for (let child = 1; child < items.length; child = 2 * at + 1) {
      if (child + 1 < items.length && (items[child + 1] as number) < (items[child] as number)) child += 1;
      if ((items[child] as number) >= value) break;
      items[at] = items[child] as number;
      at = child;
    }
    items[at] = value;
  }
}
