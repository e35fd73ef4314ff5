/**
 * All executions of a family: every sequence of steps up to a length, each partial order once. Two neighbouring steps of different
 * processes that do not depend on each other could stand either way round; only the order with the lesser process first is kept
 * (lexicographic normal form of a trace).
 */
import type { Event } from "../../src/model/event.ts";
import { greatestVector, truthOf } from "./truth.ts";

type Letter =
  | "send" // one byte to each other process, a step each
  | "receive" // the next byte from each other process, a step each
  | "receive-all" // all that is there, where that is more than one byte
  | "peek" // at the next byte from each other process, a step each
  | "input" // a byte from somebody outside; the first time the line that says so comes with it
  | "output" // a byte to somebody outside, likewise
  | "checkpoint"
  | "cut" // a checkpoint with its cut vector
  | "unusable-cut" // the same, but its image can't be restored
  | "stable"
  | "crash"; // every non-empty set of processes fails and all go on from the line

export interface Family {
  readonly name: string;
  readonly processes: readonly string[];
  readonly letters: readonly Letter[];
  /** Steps, not events: a crash appends several. */
  readonly maxSteps: number;
}

/** An execution as it stands: the caller must not keep it, it changes with the next one. */
export interface Execution {
  readonly processes: readonly string[];
  readonly events: readonly Event[];
}

/** Step number of a crash: everything before depends on it, everything after too. */
const EVERYBODY = -1;

interface Step {
  readonly process: number;
  /** Steps whose bytes this one receives. */
  readonly needs: readonly number[];
  readonly events: readonly Event[];
}

/** Bytes on the way of one direction. */
interface Stream {
  sent: number;
  received: number;
  seen: number;
  /** Step that sent each byte. */
  readonly by: number[];
}

/** Who is no process. */
export const OUTSIDE = "w";

export function channelName(from: string, to: string): string {
  return `${from}>${to}`;
}

/**
 * Calls `visit` for every execution of the family, the empty one not among them. `chosen` may skip whole subtrees below a depth: it is asked
 * once for each prefix of `depth` steps, and shorter executions are then skipped too.
 */
export function enumerate(
  family: Family,
  visit: (execution: Execution) => void,
  sample?: { readonly depth: number; readonly chosen: () => boolean },
): void {
  const walk = new Walk(family);
  const descend = (): void => {
    for (const step of walk.nextSteps()) {
      if (!walk.isNormal(step)) continue;
      walk.push(step);
      const skip = sample !== undefined && walk.depth === sample.depth && !sample.chosen();
      if (!skip) {
        if (sample === undefined || walk.depth >= sample.depth) visit(walk.execution);
        if (walk.depth < family.maxSteps) descend();
      }
      walk.pop();
    }
  };
  descend();
}

class Walk {
  readonly #family: Family;
  readonly #steps: Step[] = [];
  readonly #events: Event[] = [];

  constructor(family: Family) {
    this.#family = family;
  }

  get depth(): number {
    return this.#steps.length;
  }

  get execution(): Execution {
    return { processes: this.#family.processes, events: this.#events };
  }

  push(step: Step): void {
    this.#steps.push(step);
    this.#events.push(...step.events);
  }

  pop(): void {
    const step = this.#steps.pop()!;
    this.#events.length -= step.events.length;
  }

  /** Walks back over steps it does not depend on: none of them may be of a greater process. */
  isNormal(step: Step): boolean {
    if (step.process === EVERYBODY) return true;
    for (let k = this.#steps.length - 1; k >= 0; k -= 1) {
      const before = this.#steps[k]!;
      if (before.process === EVERYBODY || before.process === step.process || step.needs.includes(k))
        return true;
      if (before.process > step.process) return false;
    }
    return true;
  }

  nextSteps(): Step[] {
    const { processes, letters } = this.#family;
    const streams = this.#streams();
    const steps: Step[] = [];
    processes.forEach((process, p) => {
      for (const letter of letters)
        switch (letter) {
          case "send":
          case "receive":
          case "receive-all":
          case "peek":
            for (const peer of processes)
              if (peer !== process) steps.push(...this.#move(letter, p, peer, streams));
            break;
          case "input":
          case "output":
            steps.push(this.#exchange(letter, p));
            break;
          case "checkpoint":
          case "cut":
          case "unusable-cut":
            steps.push({ process: p, needs: [], events: [this.#checkpoint(letter, process, streams)] });
            break;
          case "stable":
            steps.push({ process: p, needs: [], events: [{ type: "stable", process }] });
        }
    });
    if (letters.includes("crash") && this.#steps.length > 0)
      for (let mask = 1; mask < 1 << processes.length; mask += 1) steps.push(this.#crash(mask));
    return steps;
  }

  #move(
    letter: "send" | "receive" | "receive-all" | "peek",
    p: number,
    peer: string,
    streams: Map<string, Stream>,
  ): Step[] {
    const process = this.#family.processes[p]!;
    if (letter === "send") {
      const channel = channelName(process, peer);
      const { sent } = streams.get(channel)!;
      return [
        { process: p, needs: [], events: [{ type: "send", process, channel, begin: sent, end: sent + 1 }] },
      ];
    }
    const channel = channelName(peer, process);
    const { sent, received: begin, by } = streams.get(channel)!;
    const end = letter === "receive-all" ? sent : begin + 1;
    if (end > sent || (letter === "receive-all" && end < begin + 2)) return [];
    return [
      {
        process: p,
        needs: by.slice(begin, end),
        events: [{ type: letter === "peek" ? "peek" : "receive", process, channel, begin, end }],
      },
    ];
  }

  #exchange(letter: "input" | "output", p: number): Step {
    const process = this.#family.processes[p]!;
    const channel = letter === "input" ? channelName(OUTSIDE, process) : channelName(process, OUTSIDE);
    let begin = 0;
    for (const event of this.#effective(process))
      if ("begin" in event && event.channel === channel) begin = event.end;
    const type = letter === "input" ? ("receive" as const) : ("send" as const);
    const moved: Event = { type, process, channel, begin, end: begin + 1 };
    const isTold = this.#events.some((event) => event.type === "outside" && event.channel === channel);
    return {
      process: p,
      needs: [],
      events: isTold ? [moved] : [moved, { type: "outside", process, channel }],
    };
  }

  #checkpoint(letter: Letter, process: string, streams: Map<string, Stream>): Event {
    let checkpoint = 1;
    for (const event of this.#effective(process)) if (event.type === "checkpoint") checkpoint += 1;
    const base = { type: "checkpoint", process, checkpoint, usable: letter !== "unusable-cut" } as const;
    if (letter === "checkpoint") return base;
    const cut = { sent: new Map<string, number>(), received: new Map<string, number>() };
    const seen = new Map<string, number>();
    for (const peer of this.#family.processes)
      if (peer !== process) {
        cut.sent.set(channelName(process, peer), streams.get(channelName(process, peer))!.sent);
        const from = streams.get(channelName(peer, process))!;
        cut.received.set(channelName(peer, process), from.received);
        if (from.seen > from.received) seen.set(channelName(peer, process), from.seen);
      }
    return { ...base, cut: seen.size > 0 ? { ...cut, seen } : cut };
  }

  /** The failed and whoever depends on them go back, replay their log up to the line, and go on. */
  #crash(mask: number): Step {
    const { processes } = this.#family;
    const truth = truthOf(this.execution);
    const failed = processes.map((_, p) => ((mask >> p) & 1) === 1);
    const { positions } = greatestVector(truth, failed, "any");
    const events: Event[] = [];
    processes.forEach((process, p) => {
      const history = truth.histories[p]!;
      const position = positions[p]!;
      if (!failed[p] && position === history.length) return;
      let base = position;
      while (base > 0 && !isUsable(history[base - 1]!)) base -= 1;
      const event = history[base - 1];
      events.push({
        type: "rollback",
        process,
        checkpoint: event?.type === "checkpoint" ? event.checkpoint : 0,
      });
      events.push(...history.slice(base, position).filter((line) => "begin" in line));
    });
    return { process: EVERYBODY, needs: [], events };
  }

  #effective(process: string): Event[] {
    const truth = truthOf(this.execution);
    return truth.histories[this.#family.processes.indexOf(process)]!;
  }

  /** All streams as the effective histories left them. */
  #streams(): Map<string, Stream> {
    const { processes } = this.#family;
    const streams = new Map<string, Stream>();
    for (const from of processes)
      for (const to of processes)
        streams.set(channelName(from, to), { sent: 0, received: 0, seen: 0, by: [] });
    const owner = new Map<Event, number>();
    this.#steps.forEach((step, k) => {
      for (const event of step.events) owner.set(event, k);
    });
    for (const history of truthOf(this.execution).histories)
      for (const event of history) {
        const stream = "begin" in event ? streams.get(event.channel) : undefined;
        if (stream === undefined || !("begin" in event)) continue; // to or from outside
        if (event.type === "send") {
          stream.sent = event.end;
          stream.by.push(owner.get(event)!);
        } else if (event.type === "receive") stream.received = event.end;
        else if (event.type === "peek") stream.seen = Math.max(stream.seen, event.end);
      }
    return streams;
  }
}

function isUsable(event: Event): boolean {
  return event.type === "checkpoint" && event.usable;
}
