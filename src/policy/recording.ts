/**
 * What was recorded, ready to be replayed under other checkpoints: events of all processes in typed arrays that threads share, and which
 * sends each receive got its bytes from. Recorded checkpoints and message logs are left out, what a rollback undid too: the policies
 * bring their own. Bytes that were looked at count as received at the first look: who has seen them depends on their sender.
 */
import { EVENT_KIND, type EventColumns } from "../format/event-columns.ts";
import { Float64List, Uint32List } from "../graph/evidence/growable.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import { MAX_COMPARED_PROCESSES } from "../model/limits.ts";
import { firstWhere } from "../model/search.ts";

/** Codes of `Recording.kind`. */
export const OTHER = 0;
export const SEND = 1;
export const RECEIVE = 2;
/** While it is recorded only: a look at bytes that are not received yet. */
const LOOK = 3;

/** Plain data over shared memory: it goes to worker threads as it is. */
export interface Recording {
  readonly processes: readonly string[];
  readonly channels: readonly string[];
  /** Events of process p are [start[p], start[p + 1]), in its order. */
  readonly start: Uint32Array;
  readonly kind: Uint8Array;
  readonly channel: Uint32Array;
  readonly begin: Float64Array;
  readonly end: Float64Array;
  /** Timed: seconds since the process's first event, never falling. Else how many events it has had, this one included. */
  readonly clock: Float64Array;
  readonly timed: boolean;
  /** Receive e got bytes of the sends matched[matchStart[e]] … matched[matchStart[e + 1] - 1], event numbers, rising. */
  readonly matchStart: Uint32Array;
  readonly matched: Uint32Array;
  /** Process that receives from a channel, -1 = nobody known. */
  readonly receiver: Int32Array;
  /** Lines of gaps in effective histories. */
  readonly gaps: number;
}

class History {
  readonly kind = new Uint32List();
  readonly channel = new Uint32List();
  readonly begin = new Float64List();
  readonly end = new Float64List();
  readonly time = new Float64List();
  /** Recorded checkpoints: index, and events and gaps before it. */
  readonly checkpoints: { readonly index: number; readonly events: number; readonly gaps: number }[] = [];
  gaps = 0;
  looks = false;

  rollBack(index: number): void {
    while ((this.checkpoints.at(-1)?.index ?? 0) > index) this.checkpoints.pop();
    const { events, gaps } = this.checkpoints.at(-1) ?? { events: 0, gaps: 0 };
    for (const list of [this.kind, this.channel, this.begin, this.end, this.time]) list.length = events;
    this.gaps = gaps;
  }
}

export class Recorder {
  readonly #processes = new Map<string, History>();
  readonly #channels = new Map<string, number>();

  addEvent(event: Event): void {
    const history = this.#history(event.process);
    if (event.type === "rollback") history.rollBack(event.checkpoint);
    else if (event.type === "gap") history.gaps += 1;
    else if (event.type === "checkpoint")
      history.checkpoints.push({ index: event.checkpoint, events: history.kind.length, gaps: history.gaps });
    else if (event.type !== "stable") this.#push(history, event);
  }

  /** Rows of one process's columns; no object an event for sends and receives. */
  addColumns(columns: EventColumns): void {
    const history = this.#history(columns.process);
    const numbers = columns.channels.map((name) => this.#channel(name));
    for (let row = 0; row < columns.count; row += 1) {
      const code = columns.kind[row];
      if (code !== EVENT_KIND.send && code !== EVENT_KIND.receive) this.addEvent(columns.event(row));
      else {
        const isEmpty = columns.begin[row] === columns.end[row];
        history.kind.push(isEmpty ? OTHER : code === EVENT_KIND.send ? SEND : RECEIVE);
        history.channel.push(numbers[columns.channel[row] as number] as number);
        history.begin.push(columns.begin[row] as number);
        history.end.push(columns.end[row] as number);
        history.time.push(columns.time[row] as number);
      }
    }
  }

  #push(history: History, event: Event): void {
    const range = "begin" in event && event.begin < event.end ? event : undefined;
    const isSend = event.type === "send" || ("role" in event && event.role === "source");
    const code = isSend ? SEND : event.type === "peek" ? LOOK : RECEIVE;
    history.looks ||= code === LOOK;
    history.kind.push(range === undefined ? OTHER : code);
    history.channel.push(range === undefined ? 0 : this.#channel(range.channel));
    history.begin.push(range?.begin ?? 0);
    history.end.push(range?.end ?? 0);
    history.time.push(event.time ?? Number.NaN);
  }

  #history(process: string): History {
    const known = this.#processes.get(process);
    if (known !== undefined) return known;
    if (this.#processes.size === MAX_COMPARED_PROCESSES)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `more than ${MAX_COMPARED_PROCESSES} processes can't be compared`,
      );
    const history = new History();
    this.#processes.set(process, history);
    return history;
  }

  #channel(name: string): number {
    const known = this.#channels.get(name);
    if (known !== undefined) return known;
    this.#channels.set(name, this.#channels.size);
    return this.#channels.size - 1;
  }

  /** Processes in order of name. */
  build(): Recording {
    const names = [...this.#processes.keys()].sort();
    const histories = names.map((name) => this.#processes.get(name) as History);
    const start = new Uint32Array(shared(4 * (names.length + 1)));
    histories.forEach(({ kind }, p) => {
      start[p + 1] = (start[p] as number) + kind.length;
    });
    const events = start[names.length] as number;
    const timed =
      events > 0 && histories.every(({ time }) => time.view().every((value) => !Number.isNaN(value)));
    const columns = {
      processes: names,
      channels: [...this.#channels.keys()],
      start,
      kind: new Uint8Array(shared(events)),
      channel: new Uint32Array(shared(4 * events)),
      begin: new Float64Array(shared(8 * events)),
      end: new Float64Array(shared(8 * events)),
      clock: new Float64Array(shared(8 * events)),
      timed,
      gaps: histories.reduce((sum, { gaps }) => sum + gaps, 0),
    };
    histories.forEach((history, p) => {
      const at = start[p] as number;
      columns.kind.set(history.kind.view(), at);
      columns.channel.set(history.channel.view(), at);
      columns.begin.set(history.begin.view(), at);
      columns.end.set(history.end.view(), at);
      if (history.looks) receiveLooks(columns, at, start[p + 1] as number);
      setClock(columns.clock.subarray(at, start[p + 1]), timed ? history.time.view() : undefined);
    });
    return { ...columns, ...matches(columns) };
  }
}

/** Events [from, to) of one process: looks become receives, and later ones of the same channel begin where the bytes looked at end. */
function receiveLooks({ kind, channel, begin, end }: Columns, from: number, to: number): void {
  const looks = new Map<number, { readonly begin: number; end: number }[]>();
  for (let e = from; e < to; e += 1) {
    if (kind[e] !== RECEIVE && kind[e] !== LOOK) continue;
    const of = channel[e] as number;
    const seen = looks.get(of) ?? [];
    for (const look of seen)
      if (look.begin <= (begin[e] as number)) begin[e] = Math.max(begin[e] as number, look.end);
    if (kind[e] === LOOK) {
      const last = seen.at(-1);
      if (last !== undefined && last.end === begin[e]) last.end = end[e] as number;
      else looks.set(of, [...seen, { begin: begin[e] as number, end: end[e] as number }]);
    }
    kind[e] = (begin[e] as number) < (end[e] as number) ? RECEIVE : OTHER;
  }
}

function shared(bytes: number): SharedArrayBuffer {
  return new SharedArrayBuffer(bytes);
}

/** Its own clock, since its first event; a clock that was set back stands still meanwhile. */
function setClock(clock: Float64Array, times: Float64Array | undefined): void {
  let latest = 0;
  for (let at = 0; at < clock.length; at += 1) {
    if (times === undefined) clock[at] = at + 1;
    else {
      latest = Math.max(latest, ((times[at] as number) - (times[0] as number)) / 1e9);
      clock[at] = latest;
    }
  }
}

type Columns = Omit<Recording, "matchStart" | "matched" | "receiver">;

/** Which sends a receive got its bytes from: by overlap of ranges, as nothing else is certain. */
function matches(columns: Columns): Pick<Recording, "matchStart" | "matched" | "receiver"> {
  const { kind, channel, begin, end, start } = columns;
  const sends = sendsByChannel(columns);
  const matchStart = new Uint32Array(shared(4 * (kind.length + 1)));
  const matched = new Uint32List();
  const receiver = new Int32Array(shared(4 * columns.channels.length)).fill(-1);
  /** Per channel: where the last search ended. Receives of one channel mostly follow one another. */
  const hint = sends.start.slice();
  for (let p = 0; p + 1 < start.length; p += 1)
    for (let e = start[p] as number; e < (start[p + 1] as number); e += 1) {
      if (kind[e] === RECEIVE) {
        const c = channel[e] as number;
        receiver[c] = p;
        const first = firstOverlap(columns, sends, c, hint[c] as number, begin[e] as number);
        hint[c] = first;
        for (let at = first; at < (sends.start[c + 1] as number); at += 1) {
          const send = sends.event[at] as number;
          if ((begin[send] as number) >= (end[e] as number)) break;
          // Within one process it orders nothing: what its tasks send each other may stand in the log behind its receipt.
          if (send > e && send < (start[p + 1] as number)) continue;
          if ((end[send] as number) > (begin[e] as number)) matched.push(send);
        }
      }
      matchStart[e + 1] = matched.length;
    }
  const all = new Uint32Array(shared(4 * matched.length));
  all.set(matched.view());
  return { matchStart, matched: all, receiver };
}

interface Sends {
  readonly start: Uint32Array;
  /** Rising in `begin` within a channel. */
  readonly event: Uint32Array;
}

function sendsByChannel({ kind, channel, begin, channels }: Columns): Sends {
  const start = new Uint32Array(channels.length + 1);
  for (let e = 0; e < kind.length; e += 1)
    if (kind[e] === SEND)
      start[(channel[e] as number) + 1] = (start[(channel[e] as number) + 1] as number) + 1;
  for (let c = 0; c < channels.length; c += 1) start[c + 1] = (start[c + 1] as number) + (start[c] as number);
  const next = start.slice();
  const event = new Uint32Array(start[channels.length] as number);
  for (let e = 0; e < kind.length; e += 1)
    if (kind[e] === SEND) {
      const c = channel[e] as number;
      event[next[c] as number] = e;
      next[c] = (next[c] as number) + 1;
    }
  for (let c = 0; c < channels.length; c += 1)
    event
      .subarray(start[c], start[c + 1])
      .sort((a, b) => (begin[a] as number) - (begin[b] as number) || a - b);
  return { start, event };
}

/** First send of the channel whose bytes reach beyond `offset`: from the hint on where it is not past it, else by search. */
function firstOverlap({ end }: Columns, sends: Sends, c: number, hint: number, offset: number): number {
  const first = sends.start[c] as number;
  const stop = sends.start[c + 1] as number;
  const reaches = (at: number): boolean => (end[sends.event[at] as number] as number) > offset;
  let low = hint;
  if (low > first && reaches(low - 1)) low = first;
  for (let tries = 0; low < stop && !reaches(low); tries += 1, low += 1)
    if (tries === 32) return firstWhere(low, stop, reaches);
  return low;
}

/**
 * One order of all events that happened-before allows, drawn by a seed: the process of each step. Processes advance in proportion to
 * what they have done, since no two clocks may be compared. Throws RL_CONTRADICTION where no order exists.
 */
export function drawOrder(recording: Recording, seed: number): Uint16Array {
  const { start, processes } = recording;
  const events = start[processes.length] as number;
  const order = new Uint16Array(events);
  const next = start.slice(0, processes.length);
  const random = randomBelow(seed);
  const owners = ownersOf(recording);
  const isReady = (p: number): boolean =>
    (next[p] as number) < (start[p + 1] as number) && isSent(recording, owners, next, next[p] as number);
  for (let step = 0; step < events; step += 1) {
    let p = owners[random(events)] as number;
    for (let tried = 0; !isReady(p); tried += 1) {
      if (tried === processes.length) throw noOrder(recording, next);
      p = (p + 1) % processes.length;
    }
    order[step] = p;
    next[p] = (next[p] as number) + 1;
  }
  return order;
}

function ownersOf({ start }: Recording): Uint16Array {
  const owners = new Uint16Array(start[start.length - 1] as number);
  for (let p = 0; p + 1 < start.length; p += 1) owners.fill(p, start[p], start[p + 1]);
  return owners;
}

/** All that the event has received was sent before. */
function isSent(recording: Recording, owners: Uint16Array, next: Uint32Array, event: number): boolean {
  const { matchStart, matched } = recording;
  for (let at = matchStart[event] as number; at < (matchStart[event + 1] as number); at += 1) {
    const send = matched[at] as number;
    if ((next[owners[send] as number] as number) <= send) return false;
  }
  return true;
}

function noOrder({ processes, start }: Recording, next: Uint32Array): RecoveryLineError {
  const p = next.findIndex((at, process) => at < (start[process + 1] as number));
  return new RecoveryLineError(
    "RL_CONTRADICTION",
    `event ${(next[p] as number) - (start[p] as number) + 1} of "${processes[p]}" received what could only be sent after it`,
    "No order of the events exists: the log is not one of a real execution.",
  );
}

/** mulberry32, integers below a bound. */
function randomBelow(seed: number): (bound: number) => number {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) * (bound / 4_294_967_296));
  };
}
