/**
 * Events of ONE process as struct-of-arrays: the currency between collector, log and engine.
 *
 * Invariants, for every row r < count:
 *   kind[r] is one of `EVENT_KIND`; channel[r] < channels.length where kind[r] names a channel, else 0;
 *   0 ≤ begin[r] ≤ end[r] ≤ MAX_OFFSET (0, 0 where the kind has no range); time[r] is ns, or NaN = none;
 *   a row in `extras` is defined by that event, and the columns repeat its kind, channel, range and time.
 * Channel names are distinct. Columns may be longer than `count`: only their first `count` entries mean anything.
 */
import type { Event, EventType } from "../model/event.ts";

/** Codes of `kind`, also on disk (logs-format.md). 0 is no event. */
export const EVENT_KIND = {
  send: 1,
  receive: 2,
  "page-fault": 3,
  "page-copy": 4,
  "page-invalidate": 5,
  checkpoint: 6,
  stable: 7,
  gap: 8,
  rollback: 9,
  peek: 10,
  outside: 11,
} as const satisfies Record<EventType, number>;

/** Names by code. */
const EVENT_TYPES: readonly (EventType | undefined)[] = [
  undefined,
  ...(Object.keys(EVENT_KIND) as EventType[]),
];

/** True for the kinds that tell about a process's history, not about communication: checkpoint, stable, gap, rollback. */
export function isControlKind(kind: number): boolean {
  return kind >= EVENT_KIND.checkpoint && kind <= EVENT_KIND.rollback;
}

/** True for the kinds that name a channel and a range. */
export function isRangeKind(kind: number): boolean {
  return (
    kind === EVENT_KIND.send ||
    kind === EVENT_KIND.receive ||
    kind === EVENT_KIND["page-copy"] ||
    kind === EVENT_KIND["page-invalidate"] ||
    kind === EVENT_KIND.peek
  );
}

/** True for the kinds that name a channel, with a range or without. */
export function namesChannel(kind: number): boolean {
  return isRangeKind(kind) || kind === EVENT_KIND.outside;
}

/** Where a range begins is where the one before it ended: 0 that of the sends (and page traffic), 1 that of the receives. */
export function predictedBy(kind: number): 0 | 1 {
  return kind === EVENT_KIND.receive || kind === EVENT_KIND.peek ? 1 : 0;
}

/** The arrays of a finished set of columns, for `EventColumns.from`. */
export interface ColumnArrays {
  readonly count: number;
  readonly kind: Uint8Array;
  readonly channel: Uint32Array;
  readonly begin: Float64Array;
  readonly end: Float64Array;
  readonly time: Float64Array;
  readonly thread: Uint32Array;
  readonly channels: string[];
  readonly extras: Map<number, Event>;
}

const FIRST_ROWS = 16;

export class EventColumns {
  readonly process: string;
  /** Rows that are valid. */
  count = 0;
  kind: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Index into `channels`. */
  channel: Uint32Array = new Uint32Array(FIRST_ROWS);
  begin: Float64Array = new Float64Array(FIRST_ROWS);
  end: Float64Array = new Float64Array(FIRST_ROWS);
  /** Nanoseconds; NaN = none. */
  time: Float64Array = new Float64Array(FIRST_ROWS);
  thread: Uint32Array = new Uint32Array(FIRST_ROWS);
  channels: string[] = [];
  /** Row → the event that defines it. */
  extras: Map<number, Event> = new Map();
  /** Made at the first `addChannel`: decoded columns seldom need it. */
  #indices: Map<string, number> | undefined;

  constructor(process: string) {
    this.process = process;
  }

  /** Takes over finished arrays; the caller vouches for the invariants above. */
  static from(process: string, arrays: ColumnArrays): EventColumns {
    const columns = new EventColumns(process);
    Object.assign(columns, arrays);
    return columns;
  }

  /** The channel's index in these columns, made the first time. */
  addChannel(name: string): number {
    this.#indices ??= new Map(this.channels.map((known, index) => [known, index]));
    const known = this.#indices.get(name);
    if (known !== undefined) return known;
    const index = this.channels.push(name) - 1;
    this.#indices.set(name, index);
    return index;
  }

  /** The hot path: one row without extras. `channel` is an index of `addChannel`; `time` in ns, NaN = none. */
  pushRange(kind: number, channel: number, begin: number, end: number, time: number, thread: number): void {
    const row = this.count;
    if (row === this.kind.length) this.#grow(row * 2);
    this.kind[row] = kind;
    this.channel[row] = channel;
    this.begin[row] = begin;
    this.end[row] = end;
    this.time[row] = time;
    this.thread[row] = thread;
    this.count = row + 1;
  }

  /** Any event of this process. Throws `TypeError` for an event of another one. */
  push(event: Event, thread = 0): void {
    if (event.process !== this.process)
      throw new TypeError(`event of "${event.process}" in columns of "${this.process}"`);
    const kind = EVENT_KIND[event.type];
    const time = event.time ?? Number.NaN;
    if (needsExtra(event)) this.extras.set(this.count, event);
    if ("begin" in event)
      this.pushRange(kind, this.addChannel(event.channel), event.begin, event.end, time, thread);
    else if ("channel" in event) this.pushRange(kind, this.addChannel(event.channel), 0, 0, time, thread);
    else this.pushRange(kind, 0, 0, 0, time, thread);
  }

  /** No row is left; room and channel names stay. */
  clear(): void {
    this.count = 0;
    this.extras = new Map();
  }

  /** Row `row` as an event. */
  event(row: number): Event {
    const extra = this.extras.get(row);
    if (extra !== undefined) return extra;
    const time = this.time[row]!;
    const type = EVENT_TYPES[this.kind[row]!] as "send" | "stable";
    const common = Number.isNaN(time) ? { process: this.process } : { process: this.process, time };
    const kind = this.kind[row]!;
    if (!namesChannel(kind)) return { type: type as "stable", ...common };
    const channel = this.channels[this.channel[row]!]!;
    if (!isRangeKind(kind)) return { type: "outside", ...common, channel };
    return { type: type as "send", ...common, channel, begin: this.begin[row]!, end: this.end[row]! };
  }

  *events(): Generator<Event> {
    for (let row = 0; row < this.count; row += 1) yield this.event(row);
  }

  /** Rows [from, to) of `source`, which may be of another process only if it has no extras. */
  appendRows(source: EventColumns, from: number, to: number): void {
    const first = this.count;
    const rows = to - from;
    if (first + rows > this.kind.length) this.#grow(Math.max(first + rows, first * 2));
    this.kind.set(source.kind.subarray(from, to), first);
    this.begin.set(source.begin.subarray(from, to), first);
    this.end.set(source.end.subarray(from, to), first);
    this.time.set(source.time.subarray(from, to), first);
    this.thread.set(source.thread.subarray(from, to), first);
    this.#mapChannels(source, from, to, first);
    this.count = first + rows;
    if (source.extras.size === 0) return;
    for (const [row, event] of source.extras)
      if (row >= from && row < to) this.extras.set(first + row - from, event);
  }

  #mapChannels(source: EventColumns, from: number, to: number, first: number): void {
    const here = new Int32Array(source.channels.length).fill(-1);
    for (let row = from; row < to; row += 1) {
      let index = 0;
      if (namesChannel(source.kind[row]!)) {
        const there = source.channel[row]!;
        index = here[there]!;
        if (index < 0) {
          index = this.addChannel(source.channels[there]!);
          here[there] = index;
        }
      }
      this.channel[first + row - from] = index;
    }
  }

  #grow(rows: number): void {
    this.kind = grown(this.kind, new Uint8Array(rows));
    this.channel = grown(this.channel, new Uint32Array(rows));
    this.begin = grown(this.begin, new Float64Array(rows));
    this.end = grown(this.end, new Float64Array(rows));
    this.time = grown(this.time, new Float64Array(rows));
    this.thread = grown(this.thread, new Uint32Array(rows));
  }
}

/** True where the columns alone can't hold the event. */
function needsExtra(event: Event): boolean {
  if (event.node !== undefined) return true;
  switch (event.type) {
    case "send":
    case "receive":
      return event.owner === true;
    case "stable":
    case "peek":
    case "outside":
      return false;
    case "gap":
      return event.lost !== undefined || event.reason !== undefined;
    default:
      return true;
  }
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(from: T, into: T): T {
  into.set(from);
  return into;
}
