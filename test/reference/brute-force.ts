/**
 * The judge: the recovery line by definition, for executions small enough to try every vector of restore points.
 *
 * Every byte is one element of a plain Set, every set is written down as docs/semantics.md words it, nothing is
 * shared between positions, nothing is clever. It also asserts what the theory promises: the component-wise
 * maximum (and minimum) of the consistent vectors is consistent.
 */
import { assert } from "../../src/model/assert.ts";
import type { Event } from "../../src/model/event.ts";
import type { DsmModel, InTransitRange, OutsideRange } from "../../src/model/recovery-line.ts";
import type { Answer, Options } from "./answer.ts";
import { evidenceOf, isFailed, lineEntry } from "./answer.ts";
import type { Bytes } from "./byte-sets.ts";
import { difference, isSubset, maximalRanges, NONE, range, union } from "./byte-sets.ts";
import { channelEnds, isSend } from "./channel-ends.ts";
import type { History } from "./history.ts";
import { effectiveHistories } from "./history.ts";
import { isVolatileEnd, lastStable, restorePoints } from "./restore-points.ts";

type Side = "sent" | "received";

function isMessage(event: Event, dsm: DsmModel): boolean {
  if (event.type === "page-invalidate") return dsm === "sequential";
  return event.type === "send" || event.type === "receive" || event.type === "page-copy";
}

/** What the events among the first n lines say was sent (received) on the channel. */
function fromEvents(history: History, n: number, channel: string, side: Side, dsm: DsmModel): Bytes {
  let bytes = NONE;
  for (const event of history.slice(0, n))
    if (isMessage(event, dsm) && "begin" in event && event.channel === channel)
      if (isSend(event) === (side === "sent")) bytes = union(bytes, range(event.begin, event.end));
  return bytes;
}

/** Bytes that are no messages under `transfers`: what page-invalidate rows of the channel cover. */
function ignoredBytes(histories: Iterable<History>, channel: string, dsm: DsmModel): Bytes {
  let bytes = NONE;
  if (dsm === "transfers")
    for (const history of histories)
      for (const event of history)
        if (event.type === "page-invalidate" && event.channel === channel)
          bytes = union(bytes, range(event.begin, event.end));
  return bytes;
}

/** [0, cut) of the cut on line m for the channel, without the ignored bytes; empty if line m carries no cut. */
function fromCut(history: History, m: number, channel: string, side: Side, ignored: Bytes): Bytes {
  const event = history[m - 1]!;
  if (event.type !== "checkpoint" || event.cut === undefined) return NONE;
  return difference(range(0, event.cut[side].get(channel) ?? 0), ignored);
}

/** The line of the previous checkpoint with a cut, 0 if there is none. */
function previousCut(history: History, m: number): number {
  for (let line = m - 1; line > 0; line--) {
    const event = history[line - 1]!;
    if (event.type === "checkpoint" && event.cut !== undefined) return line;
  }
  return 0;
}

/** Rule 4 for sends: events and cuts among the first n lines. */
function sentAt(history: History, n: number, channel: string, dsm: DsmModel, ignored: Bytes): Bytes {
  let bytes = fromEvents(history, n, channel, "sent", dsm);
  for (let m = 1; m <= n; m++) bytes = union(bytes, fromCut(history, m, channel, "sent", ignored));
  return bytes;
}

/** The earliest line of what only the cut on line m knows: the first gap since the cut before it, else the line after that cut. */
function earliestLine(history: History, m: number): number {
  const before = previousCut(history, m);
  for (let line = before + 1; line < m; line++) if (history[line - 1]!.type === "gap") return line;
  return before + 1;
}

/** Rule 4 for receives: as for sends, and what only a later cut knows counts from the earliest line that may hold it. */
function receivedAt(history: History, n: number, channel: string, dsm: DsmModel, ignored: Bytes): Bytes {
  let bytes = fromEvents(history, n, channel, "received", dsm);
  for (let m = 1; m <= history.length; m++) {
    const cut = fromCut(history, m, channel, "received", ignored);
    if (m <= n) bytes = union(bytes, cut);
    else if (earliestLine(history, m) <= n)
      bytes = union(bytes, difference(cut, fromEvents(history, m, channel, "received", dsm)));
  }
  return bytes;
}

/** Looked at by line n, as far as events say. */
function peekedBy(history: History, n: number, channel: string): Bytes {
  let bytes = NONE;
  for (const event of history.slice(0, n))
    if (event.type === "peek" && event.channel === channel)
      bytes = union(bytes, range(event.begin, event.end));
  return bytes;
}

/** [0, seen) of the cut on line m. */
function fromSeen(history: History, m: number, channel: string, ignored: Bytes): Bytes {
  const event = history[m - 1]!;
  if (event.type !== "checkpoint") return NONE;
  return difference(range(0, event.cut?.seen?.get(channel) ?? 0), ignored);
}

/** Rule 4 for what is known: what was received, and by the same rule what was looked at. */
function knownAt(history: History, n: number, channel: string, dsm: DsmModel, ignored: Bytes): Bytes {
  let bytes = union(receivedAt(history, n, channel, dsm, ignored), peekedBy(history, n, channel));
  for (let m = 1; m <= history.length; m++) {
    const seen = fromSeen(history, m, channel, ignored);
    if (m <= n) bytes = union(bytes, seen);
    else if (earliestLine(history, m) <= n) {
      const told = union(fromEvents(history, m, channel, "received", dsm), peekedBy(history, m, channel));
      bytes = union(bytes, difference(seen, told));
    }
  }
  return bytes;
}

/** Rule 6: the bytes sent by position n that the last stable line covers. */
function loggedAt(history: History, n: number, channel: string, dsm: DsmModel, ignored: Bytes): Bytes {
  return sentAt(history, Math.min(n, lastStable(history)), channel, dsm, ignored);
}

interface Candidate {
  readonly position: number;
  /** Not rolled back: what is in its kernel's buffers is not lost. */
  readonly continues: boolean;
  readonly sent: Map<string, Bytes>;
  readonly received: Map<string, Bytes>;
  readonly known: Map<string, Bytes>;
  readonly unlogged: Map<string, Bytes>;
}

/** Every vector with one entry of each list. */
function* vectors<T>(lists: readonly (readonly T[])[]): Generator<T[]> {
  if (lists.length === 0) yield [];
  else
    for (const rest of vectors(lists.slice(0, -1))) for (const last of lists.at(-1)!) yield [...rest, last];
}

export function bruteForce(events: readonly Event[], options: Options): Answer {
  const histories = effectiveHistories(events);
  const ends = channelEnds(events);
  const names = [...histories.keys()];
  const named = [...new Set([...ends.sender.keys(), ...ends.receiver.keys()])].sort();
  const channels = named.filter((channel) => !ends.outside.has(channel));

  const candidates = names.map((name) => {
    const history = histories.get(name)!;
    const failed = isFailed(options, name);
    return restorePoints(history, failed).map((position): Candidate => {
      const sent = new Map<string, Bytes>();
      const received = new Map<string, Bytes>();
      const known = new Map<string, Bytes>();
      const unlogged = new Map<string, Bytes>();
      for (const channel of channels) {
        const ignored = ignoredBytes(histories.values(), channel, options.dsm);
        const out = sentAt(history, position, channel, options.dsm, ignored);
        sent.set(channel, out);
        received.set(channel, receivedAt(history, position, channel, options.dsm, ignored));
        known.set(channel, knownAt(history, position, channel, options.dsm, ignored));
        unlogged.set(channel, difference(out, loggedAt(history, position, channel, options.dsm, ignored)));
      }
      const continues = !failed && isVolatileEnd(history, position);
      return { position, continues, sent, received, known, unlogged };
    });
  });

  const at = (vector: readonly Candidate[], process: string | undefined) =>
    process === undefined ? undefined : vector[names.indexOf(process)];
  const consistent = (vector: readonly Candidate[]) =>
    channels.every((channel) => {
      const sender = at(vector, ends.sender.get(channel));
      const receiver = at(vector, ends.receiver.get(channel));
      const received = receiver?.received.get(channel) ?? NONE;
      if (!isSubset(receiver?.known.get(channel) ?? NONE, sender?.sent.get(channel) ?? NONE)) return false;
      if (options.inTransit === "any" || receiver?.continues) return true;
      return isSubset(sender?.unlogged.get(channel) ?? NONE, received);
    });

  let maximum: Candidate[] | undefined;
  let minimum: Candidate[] | undefined;
  for (const vector of vectors(candidates))
    if (consistent(vector)) {
      maximum = vector.map((point, i) =>
        maximum && maximum[i]!.position > point.position ? maximum[i]! : point,
      );
      minimum = vector.map((point, i) =>
        minimum && minimum[i]!.position < point.position ? minimum[i]! : point,
      );
    }
  assert(maximum !== undefined && minimum !== undefined, "the initial states are consistent");
  assert(consistent(maximum), "the maximum of consistent vectors is consistent");
  assert(consistent(minimum), "the minimum of consistent vectors is consistent");

  const line = maximum;
  const inTransit: InTransitRange[] = channels.flatMap((channel) => {
    const from = ends.sender.get(channel);
    const to = ends.receiver.get(channel) ?? null;
    const sent = at(line, from)?.sent.get(channel) ?? NONE;
    const lost = difference(sent, at(line, to ?? undefined)?.received.get(channel) ?? NONE);
    return maximalRanges(lost).map(([begin, end]) => ({ channel, from: from!, to, begin, end }));
  });
  /** Of outside channels: what the process did on them behind its position. */
  const undone = (side: Side): OutsideRange[] =>
    named.flatMap((channel) => {
      const process = ends.outside.get(channel);
      const position = at(line, process)?.position;
      if (process === undefined || position === undefined) return [];
      const history = histories.get(process)!;
      const ignored = ignoredBytes(histories.values(), channel, options.dsm);
      const by = (n: number) =>
        (side === "sent" ? sentAt : receivedAt)(history, n, channel, options.dsm, ignored);
      return maximalRanges(difference(by(history.length), by(position))).map(([begin, end]) => ({
        channel,
        process,
        begin,
        end,
      }));
    });
  return {
    ...evidenceOf(histories.values()),
    lostInputs: undone("received"),
    unsayable: undone("sent"),
    line: names.map((name, i) =>
      lineEntry(name, histories.get(name)!, line[i]!.position, isFailed(options, name)),
    ),
    inTransit,
  };
}
