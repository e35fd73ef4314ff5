import { assert } from "../../model/assert.ts";
import {
  type CutRows,
  channelOfTag,
  type Evidence,
  endOfTag,
  HAS_CUT,
  LOOKED,
  type RangeRows,
  type RowRanges,
  type Segments,
  USABLE,
  whatOfTag,
} from "../../model/evidence-layout.ts";
import type { Float64List, Uint32List } from "./growable.ts";
import { knownProcess, NOBODY, type RawEvidence } from "./raw-evidence.ts";

/** Numbers in plain `<` order of the names, and where each number in order of arrival went. */
interface Ranking {
  readonly names: string[];
  readonly order: Uint32Array;
  readonly rank: Uint32Array;
}

/**
 * Sorts raw evidence by process and channel and drops what rollbacks undid. O(events + processes log processes), with
 * counting sorts over typed arrays; the raw arrays stay as they are.
 */
export function assembleEvidence(raw: RawEvidence): Evidence {
  const processes = rankNames(raw.processes);
  const channels = rankNames(raw.channels);
  const placed = placeSegments(raw, processes);
  const { lost } = placed.segments;
  const cuts = { segment: raw.cutSegment, key: raw.cutEnd, offset: raw.cutOffset };
  const seen = { segment: raw.seenSegment, key: raw.seenChannel, offset: raw.seenOffset };
  return {
    processes: processes.names,
    length: processes.order.map((id) => raw.length.at(id)),
    channels: channels.names,
    processAt: placeEnds(raw, processes, channels),
    ...placeRows(raw, channels),
    segments: placed.segments,
    cuts: placeCuts(cuts, channels.order.length * 2, (end) => newEnd(end, channels), placed.newSegment),
    seen: placeCuts(
      seen,
      channels.order.length,
      (channel) => channels.rank[channel] as number,
      placed.newSegment,
    ),
    outside: placeOutside(raw, processes, channels),
    sawStable: raw.sawStable,
    ...countGaps(placed.segments),
    lost: lost.reduce((sum, count) => sum + count, 0),
  };
}

function rankNames(names: readonly string[]): Ranking {
  const order = Uint32Array.from(names.keys());
  order.sort((a, b) => ((names[a] as string) < (names[b] as string) ? -1 : 1));
  const rank = new Uint32Array(names.length);
  order.forEach((id, position) => {
    rank[id] = position;
  });
  return { names: Array.from(order, (id) => names[id] as string), order, rank };
}

function placeEnds(raw: RawEvidence, processes: Ranking, channels: Ranking): Int32Array {
  const processAt = new Int32Array(channels.order.length * 2).fill(-1);
  for (let end = 0; end < processAt.length; end += 1) {
    const process = knownProcess(raw, end);
    if (process >= 0) processAt[newEnd(end, channels)] = processes.rank[process] as number;
  }
  return processAt;
}

function placeOutside(raw: RawEvidence, processes: Ranking, channels: Ranking): Int32Array {
  const outside = new Int32Array(channels.order.length).fill(-1);
  const isOfAttached = openingsAndEndings(raw);
  for (let channel = 0; channel < outside.length; channel += 1) {
    const process = raw.outsideOf.at(channel);
    if (process !== NOBODY && !isOfAttached(channel))
      outside[channels.rank[channel] as number] = processes.rank[process] as number;
  }
  return outside;
}

/** True of the opening and the ending of a channel that an attached process stands at: who said that they are outside did not know it yet. */
function openingsAndEndings(raw: RawEvidence): (channel: number) => boolean {
  if (raw.attached.size === 0) return () => false;
  const numbers = new Map(raw.channels.map((name, number) => [name, number]));
  const isAttached = (end: number): boolean =>
    raw.weak.at(end) === 0 && raw.attached.has(raw.processAt.at(end));
  return (channel) => {
    const of = numbers.get(/^(.+)\/(?:open|end)$/.exec(raw.channels[channel] as string)?.[1] ?? "");
    return of !== undefined && (isAttached(2 * of) || isAttached(2 * of + 1));
  };
}

/** A gap is healed by a later checkpoint with a cut, usable or not. */
function countGaps({ start, flags, gapCount }: Segments): { gaps: number; healed: number } {
  let [gaps, healed] = [0, 0];
  for (let process = 0; process + 1 < start.length; process += 1) {
    let open = true;
    for (let s = (start[process + 1] as number) - 1; s >= (start[process] as number); s -= 1) {
      if (open) gaps += gapCount[s] as number;
      else healed += gapCount[s] as number;
      if ((flags[s] as number) & HAS_CUT) open = false;
    }
  }
  return { gaps, healed };
}

function newEnd(end: number, channels: Ranking): number {
  return (channels.rank[end >>> 1] as number) * 2 + (end & 1);
}

/** Counts → CSR offsets, in place of a sort: `start[key]` is where the first item of `key` goes. */
function offsets(counts: Uint32Array): Uint32Array {
  const start = new Uint32Array(counts.length + 1);
  for (let key = 0; key < counts.length; key += 1)
    start[key + 1] = (start[key] as number) + (counts[key] as number);
  return start;
}

/** The segments that still stand, by process; `newSegment[old] = new + 1`, 0 where a rollback undid it. */
function placeSegments(
  raw: RawEvidence,
  processes: Ranking,
): { segments: Segments; newSegment: Uint32Array } {
  const counts = new Uint32Array(processes.order.length);
  processes.order.forEach((id, process) => {
    let depth = 1;
    for (let s = raw.top.at(id); raw.segmentBelow.at(s) !== s; s = raw.segmentBelow.at(s)) depth += 1;
    counts[process] = depth;
  });
  const start = offsets(counts);
  const old = new Uint32Array(start[start.length - 1] as number);
  const newSegment = new Uint32Array(raw.segmentLine.length);
  processes.order.forEach((id, process) => {
    let s = raw.top.at(id);
    for (let at = start[process + 1] as number; at > (start[process] as number); at -= 1) {
      old[at - 1] = s;
      newSegment[s] = at;
      s = raw.segmentBelow.at(s);
    }
  });
  const segments: Segments = {
    start,
    line: old.map((s) => raw.segmentLine.at(s)),
    index: Float64Array.from(old, (s) => raw.segmentIndex.at(s)),
    flags: Uint8Array.from(old, (s) => raw.segmentFlags.at(s)),
    stable: old.map((s) => raw.segmentStable.at(s)),
    gap: old.map((s) => raw.segmentGap.at(s)),
    gapCount: old.map((s) => raw.segmentGapCount.at(s)),
    lost: Float64Array.from(old, (s) => raw.segmentLost.at(s)),
  };
  assertSegments(segments);
  return { segments, newSegment };
}

/** What restore points and bases are found by. */
function assertSegments({ start, line, flags }: Segments): void {
  for (let process = 0; process + 1 < start.length; process += 1) {
    const first = start[process] as number;
    const initial = line[first] === 0 && ((flags[first] as number) & USABLE) !== 0;
    assert(initial, "the first segment of a process is its initial state");
    for (let s = first + 1; s < (start[process + 1] as number); s += 1)
      assert((line[s - 1] as number) < (line[s] as number), "checkpoints stand in rising order of lines");
  }
}

function placeRows(raw: RawEvidence, channels: Ranking): { rows: RangeRows; peeks: RowRanges } {
  const tags = raw.rowTag.view();
  const undone = undoneRows(raw);
  const counts = new Uint32Array(channels.order.length * 2);
  const peekCounts = new Uint32Array(channels.order.length);
  for (let row = 0; row < tags.length; row += 1) {
    if (undone !== null && undone[row] === 1) continue;
    const tag = tags[row] as number;
    const looked = whatOfTag(tag) === LOOKED;
    const key = looked ? (channels.rank[channelOfTag(tag)] as number) : newEnd(endOfTag(tag), channels);
    const into = looked ? peekCounts : counts;
    into[key] = (into[key] as number) + 1;
  }
  const [rows, peeks] = [emptyRows(counts), emptyRows(peekCounts)];
  const invalidate = new Uint8Array(rows.line.length);
  const [nextRow, nextPeek] = [rows.start.slice(), peeks.start.slice()];
  for (let row = 0; row < tags.length; row += 1) {
    if (undone !== null && undone[row] === 1) continue;
    const tag = tags[row] as number;
    const looked = whatOfTag(tag) === LOOKED;
    const key = looked ? (channels.rank[channelOfTag(tag)] as number) : newEnd(endOfTag(tag), channels);
    const next = looked ? nextPeek : nextRow;
    const to = next[key] as number;
    next[key] = to + 1;
    const into = looked ? peeks : rows;
    into.line[to] = raw.rowLine.at(row);
    into.begin[to] = raw.rowBegin.at(row);
    into.end[to] = raw.rowEnd.at(row);
    if (!looked) invalidate[to] = tag & 1;
  }
  return { rows: { ...rows, invalidate }, peeks };
}

function emptyRows(counts: Uint32Array): RowRanges {
  const start = offsets(counts);
  const total = start[start.length - 1] as number;
  return {
    start,
    line: new Uint32Array(total),
    begin: new Float64Array(total),
    end: new Float64Array(total),
  };
}

/**
 * 1 for each row that a rollback undid: a later rollback of the same process kept only lines below it. One pass backwards with
 * the least line kept so far per process; null without any rollback.
 */
function undoneRows(raw: RawEvidence): Uint8Array | null {
  let rollback = raw.rollbackRow.length - 1;
  if (rollback < 0) return null;
  const kept = new Uint32Array(raw.processes.length).fill(0xffffffff);
  const undone = new Uint8Array(raw.rowTag.length);
  for (let row = raw.rowTag.length - 1; row >= 0; row -= 1) {
    for (; rollback >= 0 && raw.rollbackRow.at(rollback) > row; rollback -= 1) {
      const process = raw.rollbackProcess.at(rollback);
      kept[process] = Math.min(kept[process] as number, raw.rollbackKept.at(rollback));
    }
    const process = knownProcess(raw, endOfTag(raw.rowTag.at(row)));
    if (raw.rowLine.at(row) > (kept[process] as number)) undone[row] = 1;
  }
  return undone;
}

/** Cut vectors in order of arrival, by end or by channel. */
interface RawCuts {
  readonly segment: Uint32List;
  readonly key: Uint32List;
  readonly offset: Float64List;
}

function placeCuts(
  raw: RawCuts,
  keys: number,
  newKey: (key: number) => number,
  newSegment: Uint32Array,
): CutRows {
  const counts = new Uint32Array(keys);
  for (let cut = 0; cut < raw.key.length; cut += 1) {
    if (newSegment[raw.segment.at(cut)] === 0) continue;
    const key = newKey(raw.key.at(cut));
    counts[key] = (counts[key] as number) + 1;
  }
  const start = offsets(counts);
  const next = start.slice();
  const total = start[start.length - 1] as number;
  const segment = new Uint32Array(total);
  const offset = new Float64Array(total);
  for (let cut = 0; cut < raw.key.length; cut += 1) {
    const placed = newSegment[raw.segment.at(cut)] as number;
    if (placed === 0) continue;
    const key = newKey(raw.key.at(cut));
    const to = next[key] as number;
    next[key] = to + 1;
    segment[to] = placed - 1;
    offset[to] = raw.offset.at(cut);
  }
  return { start, segment, offset };
}
