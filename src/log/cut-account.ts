/**
 * What the next cut of a process must name to cover all that the process did (cut-coverage.ts says what covers), followed row by row: one
 * object a process, changed in place.
 */
import { EVENT_KIND, type EventColumns, isRangeKind } from "../format/event-columns.ts";
import type { Cut } from "../model/event.ts";
import { MAX_ENDED_OUTSIDE } from "../model/limits.ts";
import { type ChannelAccount, reverseChannel } from "./complete-cut.ts";

/** Offsets by channel that a cut must reach. */
export interface Required extends ChannelAccount {
  readonly sent: Map<string, number>;
  readonly received: Map<string, number>;
  /** What was looked at; where more was received that counts. */
  readonly seen: Map<string, number>;
  /** Channels known to be outside that it may still name. */
  outside: Set<string>;
  /** Channels that lines since the last cut were the first to name, sent and received: where the first of them begins. */
  readonly fresh: readonly [sent: Map<string, number>, received: Map<string, number>];
  /** The last covering cut: what it says stands, also where the next one is silent. Absent: silence covers nothing. */
  stated: Cut | undefined;
  /** Cuts in effect left channels out. */
  forgets: boolean;
  /** Connections to outside that the process has ended since, by the channel it sent on, oldest first. */
  readonly ended: Set<string>;
}

/** By row: which of the channels that its cut names are outside. Only rows where some are. */
export type OutsideAt = ReadonlyMap<number, ReadonlySet<string>>;

const NOTHING: Cut = { sent: new Map(), received: new Map() };

/** Rows [from, to) of one process. */
export interface Rows {
  readonly columns: EventColumns;
  readonly from: number;
  readonly to: number;
}

/** Of a process that has done nothing. */
export function nothingRequired(mayForget: boolean): Required {
  return requiredBy(NOTHING, false, mayForget);
}

/** Right behind a covering cut. */
export function requiredBy(cut: Cut, forgets: boolean, mayForget: boolean): Required {
  return {
    sent: new Map(cut.sent),
    received: new Map(cut.received),
    seen: new Map(cut.seen),
    outside: new Set(cut.outside),
    fresh: [new Map(), new Map()],
    stated: mayForget ? cut : undefined,
    settled: new Set(),
    forgets,
    ended: new Set(),
  };
}

export function namesIn({ sent, received, seen }: Required): number {
  return sent.size + received.size + seen.size;
}

/** The newest cut among the first `rows` rows. */
export function lastCut(columns: EventColumns, rows: number): { row: number; cut: Cut } | undefined {
  for (let row = rows - 1; row >= 0; row -= 1) {
    if (columns.kind[row] !== EVENT_KIND.checkpoint) continue;
    const event = columns.event(row);
    if (event.type === "checkpoint" && event.cut !== undefined) return { row, cut: event.cut };
  }
  return undefined;
}

/**
 * Brings `required` up to rows [from, to). True if every cut among them covers. `mayCover`: false where they can't, whatever they name: what a cut leaves
 * out says something only if it was completed (complete-cut.ts); their offsets count like those of lines.
 */
export function follow(
  required: Required,
  { columns, from, to }: Rows,
  mayCover: boolean,
  outsideAt?: Map<number, ReadonlySet<string>>,
): boolean {
  let covers = true;
  let done = from;
  for (let row = from; row < to; row += 1) {
    if (columns.kind[row] !== EVENT_KIND.checkpoint) continue;
    const event = columns.event(row);
    if (event.type !== "checkpoint" || event.cut === undefined) continue;
    raiseByRows(required, columns, done, row);
    done = row;
    const named = outsideOf(event.cut, required);
    if (named.size > 0) outsideAt?.set(row, named);
    const { stated } = required;
    const reached = mayCover && reachesAll(event.cut, required) && !comesAgain(event.cut, named, required);
    for (const side of required.fresh) side.clear();
    covers &&= reached;
    if (reached && stated !== undefined) {
      required.forgets ||= leavesOut(event.cut, stated, required.outside);
      required.stated = event.cut;
    }
    settle(required.sent, event.cut.sent, reached);
    settle(required.received, event.cut.received, reached);
    settle(required.seen, event.cut.seen ?? NOTHING.sent, reached);
    if (reached) {
      required.outside = named;
      required.ended.clear();
      for (const end of required.settled)
        if (!(end[0] === ">" ? required.sent : required.received).has(end.slice(1)))
          required.settled.delete(end);
    }
  }
  raiseByRows(required, columns, done, to);
  return covers;
}

type Offsets = ReadonlyMap<string, number>;

/** Which of the channels that the cut names are outside. */
function outsideOf(cut: Cut, { outside }: Required): Set<string> {
  const named = new Set(cut.outside);
  for (const channel of outside)
    if (cut.sent.has(channel) || cut.received.has(channel) || cut.seen?.has(channel) === true)
      named.add(channel);
  return named;
}

/** Names a channel outside that the cut before left out, and that did not begin since. */
function comesAgain(cut: Cut, outside: ReadonlySet<string>, { sent, received, fresh }: Required): boolean {
  for (const channel of outside)
    for (const [offset, known, first] of [
      [cut.sent.get(channel), sent, fresh[0].get(channel)],
      [cut.received.get(channel), received, fresh[1].get(channel)],
    ] as const)
      if ((offset ?? 0) > 0 && (!known.has(channel) || (first ?? 0) > 0)) return true;
  return false;
}

function reachesAll(cut: Cut, { sent, received, seen, outside, stated }: Required): boolean {
  return (
    reaches(
      (channel) => cut.sent.get(channel),
      sent,
      outside,
      (channel) => stated?.sent.get(channel),
    ) &&
    reaches(
      (channel) => cut.received.get(channel),
      received,
      outside,
      (channel) => stated?.received.get(channel),
    ) &&
    reaches(
      (channel) => seenBy(cut, channel),
      seen,
      outside,
      (channel) => stated && seenBy(stated, channel),
    )
  );
}

/** What is received has been seen. */
function seenBy({ received, seen }: Cut, channel: string): number | undefined {
  return seen?.get(channel) ?? received.get(channel);
}

type OffsetOf = (channel: string) => number | undefined;

/** `stated`: a channel that the cut does not name stands where this says; one that is outside, where the lines left it. */
function reaches(cut: OffsetOf, required: Offsets, outside: ReadonlySet<string>, stated: OffsetOf): boolean {
  for (const [channel, offset] of required) {
    const said = cut(channel);
    if (said === undefined && outside.has(channel)) continue;
    if (!((said ?? stated(channel) ?? -1) >= offset)) return false;
  }
  return true;
}

/** Inside channels that it does not name any more. */
function leavesOut(cut: Cut, stated: Cut, outside: ReadonlySet<string>): boolean {
  const missing = (now: OffsetOf, before: Offsets | undefined): boolean =>
    [...(before?.keys() ?? [])].some((channel) => now(channel) === undefined && !outside.has(channel));
  return (
    missing((channel) => cut.sent.get(channel), stated.sent) ||
    missing((channel) => cut.received.get(channel), stated.received) ||
    missing((channel) => seenBy(cut, channel), stated.seen)
  );
}

/** After a covering cut its offsets are all that is required; else they add to it. */
function settle(required: Map<string, number>, cut: ReadonlyMap<string, number>, covering: boolean): void {
  if (covering) required.clear();
  for (const [channel, offset] of cut) raise(required, channel, offset);
}

function raise(required: Map<string, number>, channel: string, offset: number): void {
  if (!((required.get(channel) ?? -1) >= offset)) required.set(channel, offset);
}

function raiseByRows(required: Required, columns: EventColumns, from: number, to: number): void {
  const { kind, channel, begin, end, channels } = columns;
  /** By channel and what was done (0 sent, 1 received, 2 seen); 0 = not touched, since empty ranges say nothing. */
  const reach = new Float64Array(from < to ? channels.length * 3 : 0);
  const first = new Float64Array(reach.length);
  const offsets = [required.sent, required.received, required.seen] as const;
  for (let row = from; row < to; row += 1) {
    const code = kind[row] as number;
    if (code === EVENT_KIND.outside) required.outside.add(channels[channel[row] as number] as string);
    if (!isRangeKind(code) || (begin[row] as number) >= (end[row] as number)) continue;
    const slot = (channel[row] as number) * 3 + sideOf(columns, row, code);
    if (reach[slot] === 0) first[slot] = begin[row] as number;
    if ((end[row] as number) > (reach[slot] as number)) reach[slot] = end[row] as number;
  }
  for (let slot = 0; slot < reach.length; slot += 1) {
    if (reach[slot] === 0) continue;
    const name = channels[Math.floor(slot / 3)] as string;
    const side = offsets[slot % 3] as Map<string, number>;
    if (!side.has(name)) required.fresh[slot % 3]?.set(name, first[slot] as number);
    raise(side, name, reach[slot] as number);
  }
  if (required.stated !== undefined) forgetEnded(required, required.stated, columns, from, to);
}

const END = "/end";

/** Of the connections to outside that these rows end, or that they say of that they lead there, all but the newest are forgotten. */
function forgetEnded(required: Required, stated: Cut, columns: EventColumns, from: number, to: number): void {
  const { kind, channel, channels } = columns;
  const { ended, outside, sent } = required;
  for (let row = from; row < to; row += 1) {
    if (kind[row] !== EVENT_KIND.outside && kind[row] !== EVENT_KIND.send) continue;
    const name = channels[channel[row] as number] as string;
    if (name.endsWith(END) && outside.has(name) && sent.has(name)) ended.add(name.slice(0, -END.length));
  }
  for (const sends of ended) {
    if (ended.size <= MAX_ENDED_OUTSIDE) return;
    ended.delete(sends);
    forget(required, stated, sends);
  }
}

/** Not of one that the last covering cut names: that this one is outside is what excuses the next cut from naming it. */
function forget({ sent, received, seen, fresh, outside }: Required, stated: Cut, sends: string): void {
  const receives = reverseChannel(sends);
  const units = ["", "/open", END];
  if (units.some((unit) => stated.sent.has(sends + unit) || stated.received.has(receives + unit))) return;
  for (const unit of units) {
    for (const side of [sent, fresh[0], outside]) side.delete(sends + unit);
    for (const side of [received, fresh[1]]) side.delete(receives + unit);
  }
  for (const side of [seen, outside]) side.delete(receives);
}

function sideOf(columns: EventColumns, row: number, code: number): 0 | 1 | 2 {
  if (code === EVENT_KIND.send) return 0;
  if (code === EVENT_KIND.receive) return 1;
  if (code === EVENT_KIND.peek) return 2;
  const event = columns.event(row);
  return "role" in event && event.role === "destination" ? 1 : 0;
}
