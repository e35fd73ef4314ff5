/**
 * Matches what was sent with what was received, by ranges of offsets and never by counts, time or order (facts.md: up to 1.5 % of
 * receive records come before their send record).
 */
import type { DsmModel } from "../model/recovery-line.ts";
import { type Evidence, RECEIVER, SENDER } from "./evidence-layout.ts";
import { FirstLines, FROM_CUT, type Ignored, LineRanges } from "./first-lines.ts";
import { Float64List, Uint32List } from "./growable.ts";

/** Flags of a match. */
export const SENT_FROM_CUT = 1;
export const RECEIVED_FROM_CUT = 4;

/**
 * Disjoint ranges by channel, in rising offset order; each byte that was sent or received is in exactly one.
 * `sent` and `received` are lines of the sender and the receiver, 0 = never.
 */
export interface Matches {
  readonly start: Uint32Array;
  readonly begin: Float64Array;
  readonly end: Float64Array;
  readonly sent: Uint32Array;
  readonly received: Uint32Array;
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
  for (let channel = 0; channel < channels; channel += 1) {
    const ignored = dsm === "transfers" ? invalidated(evidence, channel) : null;
    lines.compute(channel * 2 + SENDER, ignored, sent);
    lines.compute(channel * 2 + RECEIVER, ignored, received);
    mergeEnds(sent, received, into);
    start[channel + 1] = into.begin.length;
  }
  return into.seal(start);
}

class MatchList {
  readonly begin = new Float64List();
  readonly end = new Float64List();
  readonly sent = new Uint32List();
  readonly received = new Uint32List();
  readonly flags = new Uint32List();

  push(begin: number, end: number, sent: number, received: number, flags: number): void {
    this.begin.push(begin);
    this.end.push(end);
    this.sent.push(sent);
    this.received.push(received);
    this.flags.push(flags);
  }

  seal(start: Uint32Array): Matches {
    return {
      start,
      begin: this.begin.view(),
      end: this.end.view(),
      sent: this.sent.view(),
      received: this.received.view(),
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
    const flags =
      (inSend ? (sent.flags.at(s) & FROM_CUT ? SENT_FROM_CUT : 0) : 0) |
      (inReceive && received.flags.at(r) & FROM_CUT ? RECEIVED_FROM_CUT : 0);
    into.push(begin, end, inSend ? sent.line.at(s) : 0, inReceive ? received.line.at(r) : 0, flags);
    at = end;
    if (inSend && sendStop === end) s += 1;
    if (inReceive && receiveStop === end) r += 1;
  }
}
