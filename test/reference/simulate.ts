/**
 * True executions: processes that send and receive over FIFO byte channels, datagrams and page transfers, take
 * checkpoints, log messages, fail together and go on from a correct line. What comes out happened exactly so.
 */
import type { Cut, Event } from "../../src/model/event.ts";
import { fixpointLine } from "./fixpoint.ts";
import { appendLine } from "./history.ts";
import { answerAt, buildInstance } from "./instance.ts";
import { Random } from "./random.ts";
import { basePosition } from "./restore-points.ts";

export interface Setting {
  readonly processes: number;
  readonly steps: number;
  /** Message channels that lose and reorder. */
  readonly datagrams: boolean;
  readonly pages: boolean;
  readonly cuts: boolean;
  readonly stable: boolean;
  readonly rollbacks: boolean;
  /** Channels from a process to itself. */
  readonly loops: boolean;
  /** Processes look at what they have not received yet. */
  readonly looks: boolean;
  /** Processes talk with somebody who is none, and say so. */
  readonly outside: boolean;
}

interface PageMove {
  readonly type: "page-copy" | "page-invalidate";
  readonly page: number;
}

/** What one process has done on its channels along its effective history. */
interface Counters {
  readonly sent: Map<string, number>;
  readonly received: Map<string, number>;
  /** What was looked at beyond it. */
  readonly seen: Map<string, number>;
  readonly datagrams: Set<string>;
  readonly moves: Map<string, PageMove[]>;
}

class Simulation {
  readonly events: Event[] = [];
  readonly #random: Random;
  readonly #setting: Setting;
  readonly #names: string[];
  readonly #histories = new Map<string, Event[]>();
  readonly #counters = new Map<string, Counters>();

  constructor(seed: number, setting: Setting) {
    this.#random = new Random(seed);
    this.#setting = setting;
    this.#names = Array.from({ length: setting.processes }, (_, k) => `p${k}`);
    for (const name of this.#names) {
      this.#histories.set(name, []);
      this.#counters.set(name, count([]));
    }
  }

  #happen(event: Event): void {
    this.events.push(event);
    const history = this.#histories.get(event.process)!;
    appendLine(history, event);
    if (event.type === "rollback") this.#counters.set(event.process, count(history));
    else countLine(this.#counters.get(event.process)!, event);
  }

  step(): void {
    const random = this.#random;
    const process = random.pick(this.#names);
    const peers = this.#setting.loops ? this.#names : this.#names.filter((name) => name !== process);
    const peer = random.pick(peers);
    const dice = random.below(20);
    if (this.#setting.looks && random.oneIn(8)) this.#look(peer, process);
    else if (this.#setting.outside && random.oneIn(5)) this.#exchange(process);
    else if (dice < 6) this.#send(process, peer);
    else if (dice < 12) this.#receive(peer, process);
    else if (dice < 15) this.#checkpoint(process);
    else if (dice < 17) {
      if (this.#setting.stable) this.#happen({ type: "stable", process });
    } else if (dice < 18) {
      if (this.#setting.pages) this.#happen({ type: "page-fault", process, page: 1, access: "read" });
    } else if (dice < 19) {
      if (this.#setting.rollbacks && random.oneIn(3)) this.#crash();
    } else this.#receive(peer, process);
  }

  #send(process: string, to: string): void {
    const random = this.#random;
    const { sent } = this.#counters.get(process)!;
    const kind = random.below(4);
    if (kind === 0 && this.#setting.datagrams) {
      const channel = `${process}~${to}`;
      const begin = sent.get(channel) ?? 0;
      this.#happen({ type: "send", process, channel, begin, end: begin + 1 });
    } else if (kind === 1 && this.#setting.pages) {
      const channel = `${process}#${to}`;
      const begin = sent.get(channel) ?? 0;
      const type = random.oneIn(2) ? "page-copy" : "page-invalidate";
      this.#happen({ type, process, page: random.below(3), role: "source", channel, begin, end: begin + 1 });
    } else {
      const channel = `${process}>${to}`;
      const begin = sent.get(channel) ?? 0;
      this.#happen({ type: "send", process, channel, begin, end: begin + random.below(4) });
    }
  }

  #receive(from: string, process: string): void {
    const random = this.#random;
    const { sent, moves } = this.#counters.get(from)!;
    const { received, datagrams } = this.#counters.get(process)!;
    const ready: Event[] = [];
    const stream = `${from}>${process}`;
    const begin = received.get(stream) ?? 0;
    const available = (sent.get(stream) ?? 0) - begin;
    if (available > 0) {
      const end = begin + 1 + random.below(available);
      ready.push({ type: "receive", process, channel: stream, begin, end });
    }
    const pages = `${from}#${process}`;
    const next = received.get(pages) ?? 0;
    const move = moves.get(pages)?.[next];
    if (move !== undefined)
      ready.push({ ...move, process, role: "destination", channel: pages, begin: next, end: next + 1 });
    const loose = `${from}~${process}`;
    for (let n = 0; n < (sent.get(loose) ?? 0); n++)
      if (!datagrams.has(`${loose}:${n}`))
        ready.push({ type: "receive", process, channel: loose, begin: n, end: n + 1 });
    if (ready.length > 0) this.#happen(random.pick(ready));
  }

  /** At all or some of what is there, now and then a second time. */
  #look(from: string, process: string): void {
    const channel = `${from}>${process}`;
    const begin = this.#counters.get(process)!.received.get(channel) ?? 0;
    const available = (this.#counters.get(from)!.sent.get(channel) ?? 0) - begin;
    if (available > 0)
      this.#happen({ type: "peek", process, channel, begin, end: begin + 1 + this.#random.below(available) });
  }

  /** An input, an output, a look at what comes from outside; the line that says so before it, after it, and again now and then. */
  #exchange(process: string): void {
    const random = this.#random;
    const { sent, received } = this.#counters.get(process)!;
    const channel = random.oneIn(2) ? `${process}>w` : `w>${process}`;
    const begin = (channel.startsWith("w") ? received : sent).get(channel) ?? 0;
    const range = { channel, begin, end: begin + 1 + random.below(3) };
    const isInput = channel.startsWith("w");
    const type = !isInput ? "send" : this.#setting.looks && random.oneIn(4) ? "peek" : "receive";
    const told = this.events.some((event) => event.type === "outside" && event.channel === channel);
    const [before, after] = told
      ? [random.oneIn(9), false]
      : random.pick([
          [true, random.oneIn(9)],
          [false, true],
        ]);
    if (before) this.#happen({ type: "outside", process, channel });
    this.#happen({ type, process, ...range });
    if (after) this.#happen({ type: "outside", process, channel });
  }

  #checkpoint(process: string): void {
    const random = this.#random;
    const history = this.#histories.get(process)!;
    let checkpoint = 1;
    for (const event of history) if (event.type === "checkpoint") checkpoint = event.checkpoint + 1;
    checkpoint += random.oneIn(4) ? 1 : 0;
    const usable = !random.oneIn(5);
    const covered = this.#setting.cuts && !this.#usedDatagrams(process);
    const cut = covered && random.oneIn(2) ? { cut: this.#cut(process) } : {};
    this.#happen({ type: "checkpoint", process, checkpoint, usable, ...cut });
  }

  /** Since no cut covers datagrams, a process that used them carries none (docs/semantics.md, 11). */
  #usedDatagrams(process: string): boolean {
    const { sent, datagrams } = this.#counters.get(process)!;
    return datagrams.size > 0 || [...sent.keys()].some((channel) => channel.includes("~"));
  }

  /** The offsets of all FIFO channels; some that stand at 0 are named, some are not. */
  #cut(process: string): Cut {
    const { sent, received, seen } = this.#counters.get(process)!;
    const isLeftOut = this.#leavesOut(process);
    const fifo = (offsets: Map<string, number>, make: (peer: string) => string) => {
      const result = new Map(offsets);
      for (const peer of this.#names)
        if (this.#random.oneIn(3) && !result.has(make(peer))) result.set(make(peer), 0);
      for (const channel of result.keys()) if (isLeftOut(channel)) result.delete(channel);
      return result;
    };
    const taken = fifo(received, (peer) => `${peer}>${process}`);
    const further = [...seen].filter(
      ([channel, end]) => end > (received.get(channel) ?? 0) && !isLeftOut(channel),
    );
    return {
      sent: fifo(sent, (peer) => `${process}>${peer}`),
      received: taken,
      ...(further.length > 0 || this.#random.oneIn(4) ? { seen: new Map(further) } : {}),
    };
  }

  /** A cut may be silent about channels that are known to be outside. */
  #leavesOut(process: string): (channel: string) => boolean {
    const outside = this.events.flatMap((event) =>
      event.type === "outside" && event.process === process ? [event.channel] : [],
    );
    const silent = new Set(this.#random.subset(outside));
    return (channel) => silent.has(channel);
  }

  /** Some processes fail; all go on from the line, some after replaying their log up to it. */
  #crash(): void {
    const random = this.#random;
    const failed = random.subset(this.#names);
    // Half of the recoveries have no message log at hand: nothing is stable then.
    const known = random.oneIn(2) ? this.events : this.events.map(withoutLog);
    const instance = buildInstance(known, { failed, dsm: "sequential", inTransit: "any" });
    const { line } = answerAt(instance, fixpointLine(instance));
    for (const { process, checkpoint, position } of line) {
      if (checkpoint === null) continue;
      const history = this.#histories.get(process)!;
      const replayed = history.slice(basePosition(history, position), position);
      this.#happen({ type: "rollback", process, checkpoint });
      for (const event of replayed) if ("begin" in event) this.#happen(event);
    }
  }
}

function withoutLog(event: Event): Event {
  const { process } = event;
  return event.type === "stable" ? { type: "page-fault", process, page: 0, access: "read" } : event;
}

function countLine(counters: Counters, event: Event): void {
  if (!("begin" in event)) return;
  if (event.type === "peek") {
    counters.seen.set(event.channel, Math.max(event.end, counters.seen.get(event.channel) ?? 0));
    return;
  }
  const isSource = event.type === "send" || ("role" in event && event.role === "source");
  const offsets = isSource ? counters.sent : counters.received;
  offsets.set(event.channel, Math.max(event.end, offsets.get(event.channel) ?? 0));
  if (event.type === "receive") counters.datagrams.add(`${event.channel}:${event.begin}`);
  if (isSource && event.type !== "send") {
    const moves = counters.moves.get(event.channel) ?? [];
    counters.moves.set(event.channel, moves);
    moves.push({ type: event.type as PageMove["type"], page: event.page as number });
  }
}

function count(history: readonly Event[]): Counters {
  const counters: Counters = {
    sent: new Map(),
    received: new Map(),
    seen: new Map(),
    datagrams: new Set(),
    moves: new Map(),
  };
  for (const event of history) countLine(counters, event);
  return counters;
}

/** A true execution: the same seed and setting always give the same one. */
export function simulate(seed: number, setting: Setting): Event[] {
  const simulation = new Simulation(seed, setting);
  for (let step = 0; step < setting.steps; step++) simulation.step();
  return simulation.events;
}

/** A random setting: small enough for brute-force.ts unless told otherwise. */
export function randomSetting(random: Random, maxProcesses = 3, maxSteps = 14): Setting {
  return {
    processes: 2 + random.below(maxProcesses - 1),
    steps: 1 + random.below(maxSteps),
    datagrams: random.oneIn(3),
    pages: random.oneIn(3),
    cuts: random.oneIn(2),
    stable: random.oneIn(2),
    rollbacks: random.oneIn(2),
    loops: random.oneIn(4),
    looks: random.oneIn(3),
    outside: random.oneIn(3),
  };
}
