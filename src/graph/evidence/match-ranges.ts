/**
 * Matches what was sent with what was received, by ranges of offsets and never by counts, time or order (facts.md: up to 1.5 % of
 * receive records come before their send record).
 */

import { assert } from "../../model/assert.ts";
import { type Evidence, RECEIVER, SENDER } from "../../model/evidence-layout.ts";
import type { DsmModel } from "../../model/recovery-line.ts";
import { FirstLines, FROM_CUT, type Ignored, LineRanges, SORTED } from "./first-lines.ts";
import { Float64List, Uint32List } from "./growable.ts";

/** Flags of a match. */
export const SENT_FROM_CUT = 1;
export const KNOWN_FROM_CUT = 2;
export const RECEIVED_FROM_CUT = 4;

/**
 * Disjoint ranges by channel, in rising offset order; each byte that was sent, received or looked at is in exactly one.
 * `sent` and `received` are lines of the sender and the receiver, 0 = never; `known` is where the receiver knew it, at the latest when it
 * received it. A channel that is outside has none: nothing on it makes a dependency or is in transit (outside-world.ts).
 */
export interface Matches {
  readonly start: Uint32Array;
  readonly begin: Float64Array;
  readonly end: Float64Array;
  readonly sent: Uint32Array;
  readonly received: Uint32Array;
  readonly known: Uint32Array;
  readonly flags: Uint8Array;
}

/** All matches of all channels. Linear for FIFO channels; `n log n` where rows overlap or come out of order. */
export function matchRanges(evidence: Evidence, dsm: DsmModel): Matches {
  const channels = evidence.channels.length;
  const into = new MatchList();
  const start = new Uint32Array(channels + 1);
  const lines = new FirstLines(evidence);
  const sent = new LineRanges();
  const received = new LineRanges();
  const known = new LineRanges();
  for (let channel = 0; channel < channels; channel += 1) {
    if (evidence.outside[channel] === -1) {
      const ignored = ignoredRanges(evidence, channel, dsm);
      lines.compute(channel * 2 + SENDER, ignored, sent);
      lines.compute(channel * 2 + RECEIVER, ignored, received);
      if (looksBeyond(evidence, channel)) {
        lines.computeKnown(channel, ignored, received, known);
        mergeKnown(sent, received, known, into);
      } else mergeEnds(sent, received, into);
    }
    start[channel + 1] = into.begin.length;
  }
  return into.seal(start);
}

/** The receiver has looked at something, or its cuts say so. */
function looksBeyond({ peeks, seen }: Evidence, channel: number): boolean {
  return peeks.start[channel] !== peeks.start[channel + 1] || seen.start[channel] !== seen.start[channel + 1];
}

/** What counts for nothing on the channel; null: all counts. */
export function ignoredRanges(evidence: Evidence, channel: number, dsm: DsmModel): Ignored | null {
  return dsm === "transfers" ? invalidated(evidence, channel) : null;
}

class MatchList {
  readonly begin = new Float64List();
  readonly end = new Float64List();
  readonly sent = new Uint32List();
  readonly received = new Uint32List();
  readonly known = new Uint32List();
  readonly flags = new Uint32List();

  push(begin: number, end: number, sent: number, received: number, known: number, flags: number): void {
    this.begin.push(begin);
    this.end.push(end);
    this.sent.push(sent);
    this.received.push(received);
    this.known.push(known);
    this.flags.push(flags);
  }

  seal(start: Uint32Array): Matches {
    return {
      start,
      begin: this.begin.view(),
      end: this.end.view(),
      sent: this.sent.view(),
      received: this.received.view(),
      known: this.known.view(),
      flags: Uint8Array.from(this.flags.view()),
    };
  }
}

/** The ranges of a channel that page-invalidate rows of either end name, as a sorted union. */
function invalidated(evidence: Evidence, channel: number): Ignored {
  const { start, begin, end, invalidate } = evidence.rows;
  const rows: number[] = [];
  for (let row = start[channel * 2] as number; row < (start[channel * 2 + 2] as number); row += 1)
    if (invalidate[row] === 1) rows.push(row);
  rows.sort((a, b) => (begin[a] as number) - (begin[b] as number));
  const union = { begin: [] as number[], end: [] as number[] };
  for (const row of rows) {
    const last = union.end.length - 1;
    if (last >= 0 && (begin[row] as number) <= (union.end[last] as number))
      union.end[last] = Math.max(union.end[last] as number, end[row] as number);
    else {
      union.begin.push(begin[row] as number);
      union.end.push(end[row] as number);
    }
  }
  return union;
}

/** One merge over both lists of disjoint ranges. */
function mergeEnds(sent: LineRanges, received: LineRanges, into: MatchList): void {
  const sentCount = sent.length;
  const receivedCount = received.length;
  let s = 0;
  let r = 0;
  let at = Number.NEGATIVE_INFINITY;
  while (s < sentCount || r < receivedCount) {
    const sendBegin = s < sentCount ? Math.max(at, sent.begin.at(s)) : Number.POSITIVE_INFINITY;
    const receiveBegin = r < receivedCount ? Math.max(at, received.begin.at(r)) : Number.POSITIVE_INFINITY;
    const begin = Math.min(sendBegin, receiveBegin);
    const inSend = sendBegin === begin;
    const inReceive = receiveBegin === begin;
    const sendStop = inSend ? sent.end.at(s) : sendBegin;
    const receiveStop = inReceive ? received.end.at(r) : receiveBegin;
    const end = Math.min(sendStop, receiveStop);
    assert(begin < end, SORTED);
    const flags =
      (inSend ? (sent.flags.at(s) & FROM_CUT ? SENT_FROM_CUT : 0) : 0) |
      (inReceive && received.flags.at(r) & FROM_CUT ? RECEIVED_FROM_CUT | KNOWN_FROM_CUT : 0);
    const line = inReceive ? received.line.at(r) : 0;
    into.push(begin, end, inSend ? sent.line.at(s) : 0, line, line, flags);
    at = end;
    if (inSend && sendStop === end) s += 1;
    if (inReceive && receiveStop === end) r += 1;
  }
}

/** The same over three lists: `known` holds all that `received` does, and more. */
function mergeKnown(sent: LineRanges, received: LineRanges, known: LineRanges, into: MatchList): void {
  const lists = [sent, received, known] as const;
  const bits = [SENT_FROM_CUT, RECEIVED_FROM_CUT, KNOWN_FROM_CUT] as const;
  const next = [0, 0, 0];
  const lines = [0, 0, 0];
  for (let at = Number.NEGATIVE_INFINITY; ; ) {
    const begins = lists.map((list, l) =>
      (next[l] as number) < list.length
        ? Math.max(at, list.begin.at(next[l] as number))
        : Number.POSITIVE_INFINITY,
    );
    const begin = Math.min(...begins);
    if (begin === Number.POSITIVE_INFINITY) return;
    let end = Number.POSITIVE_INFINITY;
    let flags = 0;
    lists.forEach((list, l) => {
      const row = next[l] as number;
      const inside = begins[l] === begin;
      end = Math.min(end, inside ? list.end.at(row) : (begins[l] as number));
      lines[l] = inside ? list.line.at(row) : 0;
      if (inside && list.flags.at(row) & FROM_CUT) flags |= bits[l] as number;
    });
    assert(begin < end, SORTED);
    into.push(begin, end, lines[0] as number, lines[1] as number, lines[2] as number, flags);
    lists.forEach((list, l) => {
      if (begins[l] === begin && list.end.at(next[l] as number) === end) next[l] = (next[l] as number) + 1;
    });
    at = end;
  }
}
