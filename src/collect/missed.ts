/**
 * What goes by a log that was given up: per process how many events, and how far each channel got. The ranges of a channel end tile, so
 * that one joined range stands for all that went by: what is lost is where in the process's order they stood.
 */
import { EVENT_KIND } from "../format/event-columns.ts";
import { RingFlag, RingKind } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";
import { channelName } from "../model/channel-names.ts";
import { MAX_COVERAGE_NAMES } from "../model/limits.ts";

/** [begin, end) of what went by on one channel. */
export interface MissedRange {
  readonly kind: number;
  readonly channel: string;
  begin: number;
  end: number;
}

export interface MissedEvents {
  count: number;
  /** By kind and channel; undefined: too many, nobody knows what went by. */
  ranges: Map<string, MissedRange> | undefined;
}

export class Missed {
  readonly byProcess = new Map<string, MissedEvents>();
  /** Ring position: all of it was read before, so that a log which holds that position holds all of it, or the word of it. */
  upTo: number;
  readonly #bootId: string;

  constructor(bootId: string, upTo = Number.POSITIVE_INFINITY) {
    this.#bootId = bootId;
    this.upTo = upTo;
  }

  /** Returns the events that one record stands for: itself, and the losses it tells of. */
  add(process: string, records: RecordColumns, row: number): number {
    const missed = this.#of(process);
    const events = 1 + records.lostBefore[row]!;
    missed.count += events;
    this.#range(missed, records, row);
    return events;
  }

  /** Takes over what went by in a later stretch. */
  join({ byProcess }: Missed): void {
    for (const [process, { count, ranges }] of byProcess) {
      const missed = this.#of(process);
      missed.count += count;
      if (ranges === undefined) missed.ranges = undefined;
      for (const [key, range] of ranges ?? []) joinRange(missed, key, range);
    }
  }

  #of(process: string): MissedEvents {
    let missed = this.byProcess.get(process);
    if (missed === undefined) {
      missed = { count: 0, ranges: new Map() };
      this.byProcess.set(process, missed);
    }
    return missed;
  }

  /** Openings and endings go by: both ends of them stand in the same log, and a receive without its send is dropped. */
  #range(missed: MissedEvents, records: RecordColumns, row: number): void {
    const kind = EVENT_OF[records.kind[row]!];
    if (kind === undefined || missed.ranges === undefined) return;
    const flags = records.flags[row]!;
    if ((flags & (RingFlag.OPEN | RingFlag.END)) !== 0) return;
    const sends = kind === EVENT_KIND.send;
    const [local, remote] = [records.local[row]!, records.remote[row]!];
    const unix = (flags & RingFlag.UNIX) !== 0;
    const channel = sends
      ? channelName(unix, this.#bootId, local, remote)
      : channelName(unix, this.#bootId, remote, local);
    const key = `${kind}${channel}`;
    const begin = records.begin[row]!;
    const end = begin + records.length[row]!;
    joinRange(missed, key, { kind, channel, begin, end });
  }
}

function joinRange(missed: MissedEvents, key: string, range: MissedRange): void {
  const { ranges } = missed;
  if (ranges === undefined) return;
  const known = ranges.get(key);
  if (known === undefined) ranges.set(key, { ...range });
  else {
    known.begin = Math.min(known.begin, range.begin);
    known.end = Math.max(known.end, range.end);
  }
  if (ranges.size > MAX_COVERAGE_NAMES) missed.ranges = undefined;
}

const EVENT_OF: Readonly<Partial<Record<number, number>>> = {
  [RingKind.SEND]: EVENT_KIND.send,
  [RingKind.RECEIVE]: EVENT_KIND.receive,
  [RingKind.PEEK]: EVENT_KIND.peek,
};
