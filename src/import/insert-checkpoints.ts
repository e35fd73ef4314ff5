import type { Event } from "../model/event.ts";

/** Where foreign traces get checkpoints from: after every N events of a process, or by a seeded chance per event. */
export type CheckpointSchedule =
  | { readonly every: number }
  | { readonly rate: number; readonly seed: number };

/** mulberry32: a small seeded generator, so that one seed gives one answer on every machine; values in [0, 1). */
function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A seed per process name (FNV-1a), so that a process's checkpoints don't depend on how lines interleave. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name, "utf8")) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

class ProcessSchedule {
  readonly #due: () => boolean;
  #checkpoint = 0;

  constructor(process: string, schedule: CheckpointSchedule) {
    if ("every" in schedule) {
      let since = 0;
      this.#due = () => ++since % schedule.every === 0;
    } else {
      const random = seededRandom(schedule.seed ^ hashName(process));
      this.#due = () => random() < schedule.rate;
    }
  }

  /** The index of the checkpoint due after one more event, or 0. Indices the trace itself has are stepped over. */
  next(event: Event): number {
    if (event.type === "checkpoint") {
      this.#checkpoint = Math.max(this.#checkpoint, event.checkpoint);
      return 0;
    }
    return this.#due() ? ++this.#checkpoint : 0;
  }
}

/** Passes events on and adds `checkpoint` events per process by the schedule. Holds a few words per process. */
export async function* insertCheckpoints(
  events: AsyncIterable<Event> | Iterable<Event>,
  schedule: CheckpointSchedule,
): AsyncGenerator<Event> {
  const schedules = new Map<string, ProcessSchedule>();
  for await (const event of events) {
    let of = schedules.get(event.process);
    if (of === undefined) {
      of = new ProcessSchedule(event.process, schedule);
      schedules.set(event.process, of);
    }
    yield event;
    const checkpoint = of.next(event);
    if (checkpoint > 0) yield { type: "checkpoint", process: event.process, checkpoint, usable: true };
  }
}
