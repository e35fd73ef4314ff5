/**
 * Vector clocks → messages whose happened-before relation is that of the clocks.
 *
 * Where an event of host p knows more of host q than p's event before it did, p has learned of q's event v: a message q → p, sent by that
 * event and received by this one, unless another message that arrives with it told as much (the clock of its sending event says so). A
 * message that nobody received leaves no trace in vector clocks.
 *
 * Processes are the hosts; the channel q → p is `shiviz:<q>-><p>` and counts whole messages, so both ends agree by counting. An event
 * becomes its receives, then its sends; an event with neither becomes an empty range, which means nothing (interchange.md) but keeps
 * its place.
 *
 * Two passes, because a log may hold a receive before its send. Memory: 16 bytes for each increment of a foreign component.
 */
import { type InputPlace, quoted } from "../format/interchange-error.ts";
import { Uint32List } from "../graph/evidence/growable.ts";
import { assert } from "../model/assert.ts";
import type { Event } from "../model/event.ts";
import { firstWhere } from "../model/search.ts";
import { badLog } from "./shiviz-layout.ts";
import { readShivizLog, type ShivizEvent } from "./shiviz-log.ts";

/** What host `to` learned of host `from`, in the order of both hosts' clocks. */
class Lessons {
  readonly from: Host;
  readonly to: Host;
  readonly channel: string;
  /** Own component of the event that learned, of the event it learned of (both rising), and the line it stands on. */
  readonly at = new Uint32List(4);
  readonly of = new Uint32List(4);
  readonly line = new Uint32List(4);
  /** 1: no message of its own is needed. */
  readonly implied = new Uint32List(4);
  /** Where the second pass stands at either end: next row, and messages so far. */
  readonly received = { next: 0, messages: 0 };
  readonly sent = { next: 0, messages: 0 };

  constructor(from: Host, to: Host) {
    this.from = from;
    this.to = to;
    this.channel = `shiviz:${from.name}->${to.name}`;
  }

  /** What `to` knows at its event `own`: the component of `from` in its clock. */
  known(own: number): number {
    const learned = firstWhere(0, this.at.length, (at) => this.at.at(at) > own);
    return learned === 0 ? 0 : this.of.at(learned - 1);
  }
}

class Host {
  readonly name: string;
  /** Events so far. */
  events = 0;
  /** By the other host's name. */
  readonly learns = new Map<string, Lessons>();
  readonly teaches: Lessons[] = [];

  constructor(name: string) {
    this.name = name;
  }

  /** The component of `host` in the clock of this host's event `own`. */
  clock(own: number, host: Host): number {
    return host === this ? own : (this.learns.get(host.name)?.known(own) ?? 0);
  }
}

/** The messages of one log: `add` every event, `seal`, then ask for the lines of every event in the same order. */
export class ShivizMessages {
  readonly #hosts = new Map<string, Host>();
  #file = "";

  add({ host, own, others, place }: ShivizEvent): void {
    this.#file = place.file;
    const here = this.#host(host);
    here.events = own;
    for (const [name, component] of others) this.#learn(here, own, name, component, place);
    for (const { from, of } of here.learns.values())
      if (!others.has(from.name))
        throw badLog(place, `clock.${from.name}`, `is 0, was ${of.at(of.length - 1)} before`);
  }

  #host(name: string): Host {
    let host = this.#hosts.get(name);
    if (host === undefined) {
      host = new Host(name);
      this.#hosts.set(name, host);
    }
    return host;
  }

  #learn(here: Host, own: number, name: string, component: number, place: InputPlace): void {
    let lessons = here.learns.get(name);
    if (lessons === undefined) {
      lessons = new Lessons(this.#host(name), here);
      here.learns.set(name, lessons);
      lessons.from.teaches.push(lessons);
    }
    const before = lessons.of.length === 0 ? 0 : lessons.of.at(lessons.of.length - 1);
    if (component === before) return;
    if (component < before)
      throw badLog(place, `clock.${name}`, `${component} falls behind ${before}, known before`);
    lessons.at.push(own);
    lessons.of.push(component);
    lessons.line.push(place.line);
    lessons.implied.push(0);
  }

  /** Checks that the clocks are vector clocks and finds the lessons that need no message of their own. */
  seal(): void {
    for (const host of this.#hosts.values())
      for (const lessons of host.learns.values())
        for (let row = 0; row < lessons.at.length; row += 1) this.#sealRow(lessons, row);
  }

  #sealRow(lessons: Lessons, row: number): void {
    const { from, to } = lessons;
    const at = lessons.at.at(row);
    const of = lessons.of.at(row);
    const wrong = (what: string): Error =>
      badLog({ file: this.#file, line: lessons.line.at(row) }, `clock.${from.name}`, what);
    if (of > from.events) throw wrong(`names event ${of}, but the log has ${from.events} of this host`);
    if (from.clock(of, to) >= at) throw wrong(`event ${of} of this host knows of this event: a cycle`);
    for (const passed of from.learns.values()) {
      const told = passed.known(of);
      if (to.clock(at, passed.from) < told)
        throw wrong(
          `event ${of} of this host knew event ${told} of ${quoted(passed.from.name)}, this clock does not`,
        );
    }
    for (const other of to.learns.values())
      if (other !== lessons && learnedAt(other, at) && other.from.clock(other.known(at), from) >= of)
        lessons.implied.data[row] = 1;
  }

  /** The lines of an event, receives first. */
  linesOf({ host, own }: ShivizEvent): Event[] {
    const here = this.#hosts.get(host);
    assert(here !== undefined, "every event was added before");
    const lines: Event[] = [];
    for (const lessons of here.learns.values())
      step(lessons, lessons.at, lessons.received, own, "receive", host, lines);
    for (const lessons of here.teaches) step(lessons, lessons.of, lessons.sent, own, "send", host, lines);
    if (lines.length === 0) lines.push(placeHolder(host));
    return lines;
  }
}

/** True if something is learned of `lessons.from` at this very event. */
function learnedAt({ at, of }: Lessons, own: number): boolean {
  const first = firstWhere(0, of.length, (index) => at.at(index) >= own);
  return first < at.length && at.at(first) === own;
}

/** Appends the message that stands at the event `own` of one end, if there is one. */
function step(
  lessons: Lessons,
  clocks: Uint32List,
  end: { next: number; messages: number },
  own: number,
  type: "send" | "receive",
  host: string,
  lines: Event[],
): void {
  const row = end.next;
  if (row === clocks.length || clocks.at(row) !== own) return;
  end.next += 1;
  if (lessons.implied.at(row) === 1) return;
  const begin = end.messages++;
  lines.push({ type, process: host, channel: lessons.channel, begin, end: begin + 1 });
}

function placeHolder(host: string): Event {
  return { type: "send", process: host, channel: `shiviz:${host}`, begin: 0, end: 0 };
}

/** All events of a log, in the order of its lines. `open` is called twice and must give the same bytes. */
export async function* readShivizTrace(
  open: () => AsyncIterable<Uint8Array>,
  file: string,
  pattern?: RegExp,
): AsyncGenerator<Event> {
  const messages = new ShivizMessages();
  for await (const event of readShivizLog(open(), file, pattern)) messages.add(event);
  messages.seal();
  for await (const event of readShivizLog(open(), file, pattern)) yield* messages.linesOf(event);
}
