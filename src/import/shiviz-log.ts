/**
 * ShiViz logs: text → one record an event, each host's events in the order of its own clock.
 *
 * Lines of one host may come in any order within REORDER_EVENTS (concurrent loggers swap them). `shiviz-layout.ts` finds the clocks.
 */
import { type InputPlace, quoted } from "../format/interchange-error.ts";
import { MAX_PROCESS_NAME_BYTES } from "../model/limits.ts";
import { badLog, type FoundClock, findClocks } from "./shiviz-layout.ts";

export interface ShivizEvent {
  readonly host: string;
  /** The host's own component: 1, 2, 3, … */
  readonly own: number;
  /** The components of other hosts, none of them 0. */
  readonly others: ReadonlyMap<string, number>;
  readonly place: InputPlace;
}

/** Events of one file that may wait for an earlier one of their host, count. */
const REORDER_EVENTS = 65_536;
/** Components are kept in 32 bits. */
const MAX_COMPONENT = 0xffff_fffe;

/**
 * The events of one log. Throws RL_BAD_INPUT naming file, line and field: clocks that fit no layout or are no JSON objects of integers,
 * a host's own component that is missing, repeats or leaves one out, and a file without any event.
 */
export async function* readShivizLog(
  chunks: AsyncIterable<Uint8Array>,
  file: string,
  pattern?: RegExp,
): AsyncGenerator<ShivizEvent> {
  const order = new OwnOrder();
  let events = 0;
  for await (const found of findClocks(chunks, file, pattern)) {
    events += 1;
    yield* order.add(readClock(found));
  }
  order.end();
  if (events === 0) throw badLog({ file, line: 1 }, undefined, "no line holds a vector clock");
}

function readClock({ host, clock: text, place }: FoundClock): ShivizEvent {
  if (host === "" || Buffer.byteLength(host) > MAX_PROCESS_NAME_BYTES)
    throw badLog(place, "host", `must have 1 to ${MAX_PROCESS_NAME_BYTES} bytes, is ${quoted(host)}`);
  const clock = parseClock(text, place);
  const others = new Map<string, number>();
  let own = 0;
  for (const [name, component] of clock) {
    if (!Number.isInteger(component) || component < 0 || component > MAX_COMPONENT)
      throw badLog(
        place,
        `clock.${name}`,
        `must be an integer from 0 to ${MAX_COMPONENT}, is ${quoted(component)}`,
      );
    if (name === host) own = component;
    else if (component > 0) others.set(name, component);
  }
  if (own === 0) throw badLog(place, "clock", `lacks the component of its own host ${quoted(host)}`);
  return { host, own, others, place };
}

/** The components of a clock. `JSON.parse` keeps the last of two of one name, so they are counted. */
function parseClock(text: string, place: InputPlace): [string, number][] {
  let clock: unknown;
  try {
    clock = JSON.parse(text);
  } catch (error) {
    throw badLog(place, "clock", `broken JSON: ${(error as Error).message}`);
  }
  if (typeof clock !== "object" || clock === null || Array.isArray(clock))
    throw badLog(place, "clock", "must be a JSON object of host: integer");
  const components = Object.entries(clock);
  if (text.match(/"(?:[^"\\]|\\.)*"\s*:/g)?.length !== (components.length || undefined))
    throw badLog(place, "clock", "names one host twice, or holds more than host: integer");
  return components;
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
      throw badLog(event.place, `clock.${event.host}`, `a second event ${event.own} of this host`);
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
    return badLog(
      event.place,
      `clock.${event.host}`,
      `is ${event.own}, but the log lacks event ${next} of this host`,
    );
  }
}
