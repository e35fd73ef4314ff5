/**
 * A stretch of one process's lines in few rows: what a worker hands back instead of millions of events.
 *
 * Consecutive ranges of one channel end that touch become one row if no checkpoint and no rollback stands between them. That loses
 * nothing: no restore point lies between their lines (without `stable` lines only checkpoints and ends are restore points), so every
 * line keeps or undoes all of them. The row carries the first of their lines. What is looked at may overlap what was looked at before.
 *
 * The joins are maximal and each depends on two neighbours only, so that any way to cut a history into stretches gives the same rows
 * once `EvidenceBuilder.addReduced` has joined across the borders.
 */
import { EVENT_KIND, type EventColumns, isControlKind, isRangeKind } from "../../format/event-columns.ts";
import type { Event } from "../../model/event.ts";
import { LOOKED, OUTSIDE, RECEIVED, rowTag, SENT } from "../../model/evidence-layout.ts";

export interface ReducedLines {
  readonly process: string;
  /** Lines of the stretch, count. */
  readonly lines: number;
  readonly channels: readonly string[];
  /** Per row: tag (evidence-layout.ts); first line, 1-based in the stretch; range, [0, 0) of an OUTSIDE row. Lines rise. */
  readonly tag: Uint32Array;
  readonly line: Uint32Array;
  readonly begin: Float64Array;
  readonly end: Float64Array;
  /** Lines that are no ranges and more than a line: checkpoint, stable, gap, rollback. Lines rise. */
  readonly controls: readonly ReducedControl[];
}

export interface ReducedControl {
  readonly line: number;
  readonly event: Event;
}

const NO_ROW = -1;

/** Rows [0, count) of `columns`. `join` false: every range stays a row of its own (histories with `stable` lines need that). */
export function reduceColumns(columns: EventColumns, join: boolean): ReducedLines {
  const { kind, channel, begin, end, count } = columns;
  const out = new RowArrays(join ? Math.min(count, 1024) : count);
  const open = new Int32Array(rowTag(columns.channels.length, 0)).fill(NO_ROW);
  const controls: ReducedControl[] = [];
  /** Rows before it are closed: a checkpoint or rollback follows them. */
  let closed = 0;
  for (let row = 0; row < count; row += 1) {
    const code = kind[row] as number;
    if (code === EVENT_KIND.send || code === EVENT_KIND.receive || isRangeKind(code)) {
      const first = begin[row] as number;
      const last = end[row] as number;
      if (first >= last) continue;
      const what = whatOf(columns, row, code);
      const tag = rowTag(channel[row] as number, what);
      const at = open[tag] as number;
      if (join && at >= closed && out.continuedBy(at, first, what === LOOKED)) out.extend(at, last);
      else open[tag] = out.push(tag, row + 1, first, last);
    } else if (code === EVENT_KIND.outside) {
      out.push(rowTag(channel[row] as number, OUTSIDE), row + 1, 0, 0);
    } else if (isControlKind(code)) {
      controls.push({ line: row + 1, event: columns.event(row) });
      if (code === EVENT_KIND.checkpoint || code === EVENT_KIND.rollback) closed = out.length;
    }
  }
  return { process: columns.process, lines: count, channels: columns.channels, ...out.sealed(), controls };
}

function whatOf(columns: EventColumns, row: number, code: number): number {
  if (code === EVENT_KIND.send) return SENT;
  if (code === EVENT_KIND.receive) return RECEIVED;
  if (code === EVENT_KIND.peek) return LOOKED;
  const event = columns.event(row);
  const source = "role" in event && event.role === "source";
  return (source ? SENT : RECEIVED) + (code === EVENT_KIND["page-invalidate"] ? 1 : 0);
}

/** Four arrays that grow together. */
export class RowArrays {
  length = 0;
  tag: Uint32Array;
  line: Uint32Array;
  begin: Float64Array;
  end: Float64Array;

  constructor(capacity: number) {
    this.tag = new Uint32Array(capacity);
    this.line = new Uint32Array(capacity);
    this.begin = new Float64Array(capacity);
    this.end = new Float64Array(capacity);
  }

  /** Returns the row's number. */
  push(tag: number, line: number, begin: number, end: number): number {
    const row = this.length;
    if (row === this.tag.length) this.#grow(row * 2 + 16);
    this.tag[row] = tag;
    this.line[row] = line;
    this.begin[row] = begin;
    this.end[row] = end;
    this.length = row + 1;
    return row;
  }

  /** True where a range that begins at `first` joins the row: it touches, or may overlap. */
  continuedBy(row: number, first: number, overlaps: boolean): boolean {
    const end = this.end[row] as number;
    return first === end || (overlaps && first < end && first >= (this.begin[row] as number));
  }

  extend(row: number, last: number): void {
    if (last > (this.end[row] as number)) this.end[row] = last;
  }

  /** Copies of the right size: what is sent to another thread carries no spare room. */
  sealed(): Pick<ReducedLines, "tag" | "line" | "begin" | "end"> {
    const { length } = this;
    return {
      tag: this.tag.slice(0, length),
      line: this.line.slice(0, length),
      begin: this.begin.slice(0, length),
      end: this.end.slice(0, length),
    };
  }

  #grow(capacity: number): void {
    const { tag, line, begin, end } = this;
    this.tag = new Uint32Array(capacity);
    this.line = new Uint32Array(capacity);
    this.begin = new Float64Array(capacity);
    this.end = new Float64Array(capacity);
    this.tag.set(tag);
    this.line.set(line);
    this.begin.set(begin);
    this.end.set(end);
  }
}
