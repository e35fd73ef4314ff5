/**
 * ShiViz logs: text → one record an event, each host's events in the order of its own clock.
 *
 * ShiViz itself asks its user for a regular expression; two layouts are known here without one:
 *
 *     <host> {"<host>":3, "<other>":7}                           a line of its own; the event's text stands on the line before or after
 *     … /<host>] {"<host>" : 3, "<other>" : 7} <text>            Akka's logger, all on one line
 *
 * Lines that match neither are text. Lines of one host may come in any order within REORDER_EVENTS (concurrent loggers swap them).
 */
import { badInput, type Place, quoted } from "../../format/interchange-error.ts";
import { LineSplitter } from "../../format/interchange-lines.ts";
import { MAX_PROCESS_NAME_BYTES } from "../../model/limits.ts";

export interface ShivizEvent {
  readonly host: string;
  /** The host's own component: 1, 2, 3, … */
  readonly own: number;
  /** The components of other hosts, none of them 0. */
  readonly others: ReadonlyMap<string, number>;
  readonly place: Place;
}

/** Layouts that need no `--pattern`. */
const PATTERNS: readonly RegExp[] = [
  /^(?<host>\S+) (?<clock>\{.*\})\s*$/,
  /\/(?<host>[^/\]\s]+)\] (?<clock>\{[^}]*\}) /,
];
/** Events of one file that may wait for an earlier one of their host, count. */
const REORDER_EVENTS = 65_536;
/** Components are kept in 32 bits. */
const MAX_COMPONENT = 0xffff_fffe;

/** A pattern of the user's: must have the named groups `host` and `clock`. Throws `SyntaxError` where it is no pattern. */
export function shivizPattern(source: string): RegExp {
  const pattern = new RegExp(source);
  if (source.includes("(?<host>") && source.includes("(?<clock>")) return pattern;
  throw new SyntaxError("it needs the groups (?<host>…) and (?<clock>…)");
}

/**
 * The events of one log. Throws RL_BAD_INPUT naming file, line and field: clocks that are no JSON objects of integers, a host's own
 * component that is missing, repeats or leaves one out, and a file without any event.
 */
export async function* readShivizLog(
  chunks: AsyncIterable<Uint8Array>,
  file: string,
  pattern?: RegExp,
): AsyncGenerator<ShivizEvent> {
  const splitter = new LineSplitter(file);
  const order = new OwnOrder();
  const patterns = pattern === undefined ? PATTERNS : [pattern];
  let events = 0;
  const take = function* (lines: readonly string[], first: number): Generator<ShivizEvent> {
    for (const [index, text] of lines.entries()) {
      const event = parseLine(text, patterns, { file, line: first + index });
      if (event === undefined) continue;
      events += 1;
      yield* order.add(event);
    }
  };
  for await (const chunk of chunks) {
    const first = splitter.handedOut + 1;
    yield* take(splitter.push(chunk), first);
  }
  const first = splitter.handedOut + 1;
  yield* take(splitter.end(), first);
  order.end();
  if (events === 0)
    throw badInput({ file, line: splitter.handedOut }, undefined, "no line holds a vector clock");
}

function parseLine(text: string, patterns: readonly RegExp[], place: Place): ShivizEvent | undefined {
  for (const pattern of patterns) {
    const groups = pattern.exec(text)?.groups;
    if (groups === undefined) continue;
    const host = groups["host"] ?? "";
    if (host === "" || Buffer.byteLength(host) > MAX_PROCESS_NAME_BYTES)
      throw badInput(place, "host", `must have 1 to ${MAX_PROCESS_NAME_BYTES} bytes, is ${quoted(host)}`);
    return readClock(host, groups["clock"] ?? "", place);
  }
  return undefined;
}

function readClock(host: string, text: string, place: Place): ShivizEvent {
  let clock: unknown;
  try {
    clock = JSON.parse(text);
  } catch (error) {
    throw badInput(place, "clock", `broken JSON: ${(error as Error).message}`);
  }
  if (typeof clock !== "object" || clock === null || Array.isArray(clock))
    throw badInput(place, "clock", "must be a JSON object of host: integer");
  const others = new Map<string, number>();
  let own = 0;
  for (const [name, component] of Object.entries(clock)) {
    if (!Number.isInteger(component) || component < 0 || component > MAX_COMPONENT)
      throw badInput(
        place,
        `clock.${name}`,
        `must be an integer from 0 to ${MAX_COMPONENT}, is ${quoted(component)}`,
      );
    if (name === host) own = component;
    else if (component > 0) others.set(name, component);
  }
  if (own === 0) throw badInput(place, "clock", `lacks the component of its own host ${quoted(host)}`);
  return { host, own, others, place };
}

/** Holds events back until all earlier ones of their host have come. */
class OwnOrder {
  readonly #next = new Map<string, number>();
  readonly #waiting = new Map<string, Map<number, ShivizEvent>>();
  #held = 0;

  *add(event: ShivizEvent): Generator<ShivizEvent> {
    const next = this.#next.get(event.host) ?? 1;
    const waiting = this.#waiting.get(event.host);
    if (event.own < next || waiting?.has(event.own))
      throw badInput(event.place, `clock.${event.host}`, `a second event ${event.own} of this host`);
    if (event.own > next) {
      this.#hold(event, waiting);
      return;
    }
    yield event;
    let own = next + 1;
    for (let held = waiting?.get(own); held !== undefined; held = waiting?.get(own)) {
      waiting?.delete(own);
      this.#held -= 1;
      yield held;
      own += 1;
    }
    this.#next.set(event.host, own);
  }

  #hold(event: ShivizEvent, waiting: Map<number, ShivizEvent> | undefined): void {
    if (this.#held === REORDER_EVENTS) throw this.#missing(event);
    this.#held += 1;
    if (waiting !== undefined) waiting.set(event.own, event);
    else this.#waiting.set(event.host, new Map([[event.own, event]]));
  }

  /** Throws if events still wait for one that never came. */
  end(): void {
    for (const waiting of this.#waiting.values())
      for (const event of waiting.values()) throw this.#missing(event);
  }

  #missing(event: ShivizEvent): Error {
    const next = this.#next.get(event.host) ?? 1;
    return badInput(
      event.place,
      `clock.${event.host}`,
      `is ${event.own}, but the log lacks event ${next} of this host`,
    );
  }
}
