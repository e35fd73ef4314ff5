/**
 * A component over a recording: the recorded events in one order that happened-before allows, the component asked at each of its events,
 * its checkpoints inserted. *Frozen*: clocks stay as recorded. *Pushed*: a checkpoint delays its process, and the delay goes along with
 * every message, without any slack to take it up.
 */
import type { Rules } from "../graph/rollback/rollback-model.ts";
import type { Event } from "../model/event.ts";
import { firstAbove } from "../model/search.ts";
import type { Component, Instruction, Term } from "./component.ts";
import { LEAST_DROPPED } from "./evidence-window.ts";
import { type CostModel, Measurer, type Measures } from "./measures.ts";
import { type Piggyback, piggybackOf } from "./piggyback.ts";
import { type PolicyAction, Program } from "./program.ts";
import { OTHER, RECEIVE, type Recording, SEND } from "./recording.ts";
import { ReplayEvidence } from "./replay-evidence.ts";
import type { EventName, FactName, LogOrder, Scope, Who } from "./vocabulary.ts";

export interface ReplayOptions {
  readonly pushed: boolean;
  /** Instants at which every process fails once, count; `line` is raised at each. */
  readonly instants: number;
  readonly cost: CostModel;
  readonly rules: Rules;
  /** Rows from which on what lies below every line is collapsed, for whoever checks that it changes nothing. */
  readonly leastDropped?: number;
  /** Every event of the replay, for whoever checks it. */
  readonly observe?: (event: Event) => void;
}

export interface ReplayResult {
  readonly measures: Measures;
  /** At the end: per failed process the position that each process keeps, or CONTINUES. */
  readonly lines: readonly Uint32Array[];
  readonly evidence: ReplayEvidence;
}

/** Seconds between two beats. */
const BEAT = 1;
/** Beats raised while nothing was recorded, count: after these only the last one before the next event. */
const MAX_IDLE_BEATS = 100;
/** `checkpointed` handlers that take checkpoints don't go on for ever, levels. */
const MAX_ECHO = 1;

export function replay(
  recording: Recording,
  order: ArrayLike<number>,
  component: Component,
  parameters: ReadonlyMap<string, number>,
  options: ReplayOptions,
): ReplayResult {
  return new Replay(recording, component, parameters, options).run(order);
}

type Filler = (p: number) => number;

/** A handler's facts: places in the component's list, and how each is found. */
interface Needed {
  readonly index: readonly number[];
  readonly fill: readonly Filler[];
}

class Replay {
  readonly #recording: Recording;
  readonly #options: ReplayOptions;
  readonly #program: Program;
  readonly #evidence: ReplayEvidence;
  readonly #measurer: Measurer;
  readonly #piggyback: Piggyback | undefined;
  readonly #needed = new Map<string, Needed>();
  readonly #facts: Float64Array;
  readonly #states: Float64Array[];
  readonly #nodeStates: readonly number[];
  /** Asked at every event, so found once. */
  readonly #hears: Readonly<Record<"beat" | "nodeBeat" | "receiving" | "received" | "sent", boolean>>;
  readonly #processes: number;

  /** Per process. */
  readonly #next: Uint32Array;
  readonly #now: Float64Array;
  readonly #delay: Float64Array;
  readonly #nextBeat: Float64Array;
  readonly #checkpointed: Float64Array;
  readonly #interval: Uint32Array;
  readonly #sent: Uint32Array;
  readonly #received: Uint32Array;
  readonly #beatSent: Uint32Array;
  readonly #beatReceived: Uint32Array;
  readonly #frozen: Float64Array;
  /** Per pair (p, q): newest interval of q that p has received from. */
  readonly #from: Uint32Array;
  /** Per send: interval and delay of its process. */
  readonly #sentIn: Uint32Array;
  readonly #sentDelay: Float64Array;

  #order: LogOrder = "none";
  #basic = 0;
  #forced = 0;
  #echo = 0;
  #nodeBeat = BEAT;
  #clockSum = 0;
  #lineAt = 0;
  /** The send whose message is about to be delivered. */
  #message: number | undefined;

  constructor(
    recording: Recording,
    component: Component,
    parameters: ReadonlyMap<string, number>,
    options: ReplayOptions,
  ) {
    const n = recording.processes.length;
    const events = recording.kind.length;
    this.#recording = recording;
    this.#options = options;
    this.#processes = n;
    this.#program = new Program(component, parameters);
    const hears = (event: EventName, each: Scope): boolean => this.#program.handles(event, each);
    this.#hears = {
      beat: hears("beat", "process"),
      nodeBeat: hears("beat", "node"),
      receiving: hears("receiving", "process"),
      received: hears("received", "process"),
      sent: hears("sent", "process"),
    };
    this.#evidence = new ReplayEvidence(
      recording,
      !logsOrder(component),
      options.leastDropped ?? LEAST_DROPPED,
      options.observe,
    );
    this.#measurer = new Measurer(this.#evidence, n, options.rules, options.cost);
    this.#facts = new Float64Array(component.facts.length);
    this.#states = Array.from({ length: n + 1 }, () => this.#program.initialState());
    this.#nodeStates = component.states.flatMap(({ each }, index) => (each === "node" ? [index] : []));
    this.#next = recording.start.slice(0, n);
    const clocks = (): Float64Array => new Float64Array(n);
    [this.#now, this.#delay, this.#checkpointed, this.#frozen] = [clocks(), clocks(), clocks(), clocks()];
    this.#nextBeat = clocks().fill(BEAT);
    const counts = (): Uint32Array => new Uint32Array(n);
    [this.#sent, this.#received, this.#beatSent, this.#beatReceived] = [
      counts(),
      counts(),
      counts(),
      counts(),
    ];
    this.#interval = counts().fill(1);
    this.#from = new Uint32Array(n * n);
    this.#sentIn = new Uint32Array(events);
    this.#sentDelay = new Float64Array(options.pushed ? events : 0);
    for (const { event, each, body } of component.handlers)
      this.#needed.set(`${event} ${each}`, this.#needsOf(component, body));
    this.#piggyback = piggybackOf(component, n);
  }

  run(order: ArrayLike<number>): ReplayResult {
    this.#raise("plugged", "node", -1);
    const steps = order.length;
    const instants = Math.min(this.#options.instants, steps);
    let instant = 1;
    for (let step = 0; step < steps; step += 1) {
      this.#step(order[step] as number);
      if (step + 1 < Math.floor((instant * steps) / instants) || instant === instants) continue;
      instant += 1;
      this.#instant();
      this.#raiseLine();
    }
    const lines = this.#instant(true);
    const frozen = this.#frozen.reduce((sum, time) => sum + time, 0);
    const counts = { basic: this.#basic, forced: this.#forced, frozen };
    return { measures: this.#measurer.measures(counts, this.#now), lines, evidence: this.#evidence };
  }

  /** The next recorded event of a process. */
  #step(p: number): void {
    const { kind } = this.#recording;
    const e = this.#next[p] as number;
    this.#next[p] = e + 1;
    const code = kind[e] as number;
    if (code === RECEIVE && this.#options.pushed) this.#arrivals(p, e);
    if (this.#hears.beat) this.#idleBeats(p, e);
    if (code === RECEIVE) this.#beforeDelivery(p, e);
    this.#advance(p, this.#clockOf(p, e));
    if (code !== OTHER) this.#evidence.range(p, e, this.#now[p] as number);
    if (code === RECEIVE) this.#deliver(p, e);
    else if (code === SEND) this.#send(p, e);
    this.#afterEvent(p);
  }

  #clockOf(p: number, e: number): number {
    const { clock, timed } = this.#recording;
    const recorded = (clock[e] as number) * (timed ? 1 : this.#options.cost.event);
    return recorded + (this.#delay[p] as number);
  }

  #advance(p: number, clock: number): void {
    const before = this.#now[p] as number;
    if (clock <= before) return;
    this.#now[p] = clock;
    this.#clockSum += clock - before;
  }

  /** A message comes no earlier than its sender's delay lets it. */
  #arrivals(p: number, e: number): void {
    const { matchStart, matched } = this.#recording;
    for (let at = matchStart[e] as number; at < (matchStart[e + 1] as number); at += 1)
      this.#delay[p] = Math.max(this.#delay[p] as number, this.#sentDelay[matched[at] as number] as number);
  }

  /** Beats between the event before and this one. */
  #idleBeats(p: number, e: number): void {
    for (let beats = 0; (this.#nextBeat[p] as number) < this.#clockOf(p, e); beats += 1) {
      if (beats === MAX_IDLE_BEATS)
        this.#nextBeat[p] = lastBeatBefore(this.#nextBeat[p] as number, this.#clockOf(p, e));
      this.#beat(p);
    }
  }

  /** Beats that fall due while a checkpoint holds the process still are left out: else eager policies would live on beats alone. */
  #beat(p: number): void {
    this.#advance(p, this.#nextBeat[p] as number);
    this.#raise("beat", "process", p);
    this.#nextBeat[p] = nextBeatAfter(this.#now[p] as number);
    this.#beatSent[p] = 0;
    this.#beatReceived[p] = 0;
    if (this.#order === "later") this.#stable(p);
  }

  #stable(p: number): void {
    this.#evidence.stable(p, this.#now[p] as number);
  }

  #afterEvent(p: number): void {
    if (this.#hears.beat && (this.#nextBeat[p] as number) <= (this.#now[p] as number)) this.#beat(p);
    if (!this.#hears.nodeBeat || this.#nodeBeat > this.#nodeClock()) return;
    this.#raise("beat", "node", -1);
    this.#nodeBeat = nextBeatAfter(this.#nodeClock());
  }

  /** Mean of all clocks: what the node's beats and ages go by. */
  #nodeClock(): number {
    return this.#clockSum / Math.max(1, this.#processes);
  }

  #beforeDelivery(p: number, e: number): void {
    if (!this.#hears.receiving) return;
    const { matchStart, matched } = this.#recording;
    for (let at = matchStart[e] as number; at < (matchStart[e + 1] as number); at += 1) {
      this.#message = matched[at] as number;
      this.#raise("receiving", "process", p);
      this.#learn(p, e, this.#message);
    }
    this.#message = undefined;
  }

  #learn(p: number, e: number, send: number): void {
    const { end } = this.#recording;
    this.#piggyback?.deliver(p, send, (end[send] as number) <= (end[e] as number));
  }

  #deliver(p: number, e: number): void {
    const { matchStart, matched } = this.#recording;
    const row = p * this.#processes;
    const learns = !this.#hears.receiving;
    for (let at = matchStart[e] as number; at < (matchStart[e + 1] as number); at += 1) {
      const send = matched[at] as number;
      const q = this.#senderOf(send);
      this.#from[row + q] = Math.max(this.#from[row + q] as number, this.#sentIn[send] as number);
      if (learns) this.#learn(p, e, send);
    }
    this.#received[p] = (this.#received[p] as number) + 1;
    this.#beatReceived[p] = (this.#beatReceived[p] as number) + 1;
    if (this.#hears.received) this.#raise("received", "process", p);
  }

  #senderOf(send: number): number {
    const { start } = this.#recording;
    return firstAbove(start, 1, this.#processes, send) - 1;
  }

  #send(p: number, e: number): void {
    this.#sentIn[e] = this.#interval[p] as number;
    if (this.#options.pushed) this.#sentDelay[e] = this.#delay[p] as number;
    this.#piggyback?.send(p, e, this.#recording.receiver[this.#recording.channel[e] as number] as number);
    this.#sent[p] = (this.#sent[p] as number) + 1;
    this.#beatSent[p] = (this.#beatSent[p] as number) + 1;
    if (this.#order === "carried") this.#stable(p);
    if (this.#hears.sent) this.#raise("sent", "process", p);
  }

  #instant(keep = false): Uint32Array[] {
    if (this.#order === "before") for (let p = 0; p < this.#processes; p += 1) this.#stable(p);
    this.#lineAt = this.#nodeClock();
    return this.#measurer.instant(this.#now, this.#order !== "none", keep);
  }

  #raiseLine(): void {
    for (let p = 0; p < this.#processes; p += 1) this.#raise("line", "process", p);
    this.#raise("line", "node", -1);
  }

  /** Asks the component and does what it says. `p` -1: for the node. */
  #raise(event: EventName, each: Scope, p: number): void {
    if (!this.#program.handles(event, each)) return;
    const { index, fill } = this.#needed.get(`${event} ${each}`) as Needed;
    for (let at = 0; at < index.length; at += 1) this.#facts[index[at] as number] = (fill[at] as Filler)(p);
    const before = this.#stateOf(p);
    const { actions, state } = this.#program.step(event, each, this.#facts, before);
    if (state !== before) this.#keep(p, state);
    for (const action of actions) this.#act(action, p);
  }

  /** The node's values stand in the last row; each process's row sees them. */
  #stateOf(p: number): Float64Array {
    const node = this.#states[this.#processes] as Float64Array;
    if (p < 0) return node;
    const own = this.#states[p] as Float64Array;
    for (const index of this.#nodeStates) own[index] = node[index] as number;
    return own;
  }

  #keep(p: number, state: Float64Array): void {
    this.#states[p < 0 ? this.#processes : p] = state;
    const node = this.#states[this.#processes] as Float64Array;
    for (const index of this.#nodeStates) node[index] = state[index] as number;
  }

  #act(action: PolicyAction, p: number): void {
    switch (action.do) {
      case "checkpoint":
        for (const q of this.#members(action.who, p)) this.#checkpoint(q, action.forced);
        break;
      case "synchronize": {
        const held = this.#members(action.who, p);
        for (const inner of action.body)
          if (inner.do === "checkpoint") for (const q of held) this.#checkpoint(q, inner.forced);
        break;
      }
      case "log":
        this.#order = action.order;
        break;
      default: // nothing of it shows in a recorded log
    }
  }

  #members(who: Who, p: number): number[] {
    if (who === "self" || who === "group") return [p];
    if (who === "dependents") return dependentsOf(p, this.#from, this.#interval);
    return who === "failed" ? [] : Array.from({ length: this.#processes }, (_, q) => q);
  }

  #checkpoint(p: number, forced: boolean): void {
    if (this.#echo > MAX_ECHO) return;
    const { cost, pushed } = this.#options;
    this.#evidence.checkpoint(p, this.#now[p] as number);
    this.#piggyback?.checkpoint(
      p,
      this.#ofMessage((kit, send) => kit.messageIndex(send)),
    );
    if (forced) this.#forced += 1;
    else this.#basic += 1;
    this.#interval[p] = (this.#interval[p] as number) + 1;
    this.#sent[p] = 0;
    this.#received[p] = 0;
    this.#frozen[p] = (this.#frozen[p] as number) + cost.checkpoint;
    if (pushed) {
      this.#delay[p] = (this.#delay[p] as number) + cost.checkpoint;
      this.#advance(p, (this.#now[p] as number) + cost.checkpoint);
    }
    this.#checkpointed[p] = this.#now[p] as number;
    this.#echo += 1;
    this.#raise("checkpointed", "process", p);
    this.#echo -= 1;
  }

  #needsOf(component: Component, body: readonly Instruction[]): Needed {
    const index = [...factsIn(body)].sort((a, b) => a - b);
    return { index, fill: index.map((at) => this.#filler(component.facts[at] as FactName)) };
  }

  #age(p: number): number {
    return (this.#now[p] as number) - (this.#checkpointed[p] as number);
  }

  #changed(p: number): boolean {
    return (this.#sent[p] as number) + (this.#received[p] as number) > 0;
  }

  #frozenShare(p: number): number {
    const now = this.#now[p] as number;
    return now === 0 ? 0 : Math.min(1, (this.#frozen[p] as number) / now);
  }

  /** Greatest value over all processes, or over those that p has received from. */
  #greatest(of: Filler, p = -1): number {
    let most = 0;
    for (let q = 0; q < this.#processes; q += 1)
      if (p < 0 || (this.#from[p * this.#processes + q] as number) > 0) most = Math.max(most, of(q));
    return most;
  }

  /** How each fact is found of a process; what is not here is in no recorded log, and 0. */
  static readonly #FILLERS: Readonly<Partial<Record<FactName, (of: Replay) => Filler>>> = {
    "self.age": (of) => (p) => of.#age(p),
    "self.changed": (of) => (p) => (of.#changed(p) ? 1 : 0),
    "self.cost": (of) => () => of.#options.cost.checkpoint,
    "self.frozen": (of) => (p) => of.#frozenShare(p),
    "self.loss": (of) => (p) => of.#measurer.costs.loss[p] as number,
    "self.depth": (of) => (p) => of.#measurer.costs.depth[p] as number,
    "self.breadth": (of) => (p) => of.#measurer.costs.breadth[p] as number,
    "self.sent": (of) => (p) => of.#sent[p] as number,
    "self.received": (of) => (p) => of.#received[p] as number,
    "self.fixed": (of) => (p) => ((of.#sent[p] as number) > 0 ? 1 : 0),
    "self.index": (of) => (p) => of.#piggyback?.indexOf(p) ?? 0,
    "self.turn": (of) => (p) => p / of.#processes,
    "peer.age": (of) => (p) => of.#greatest((q) => of.#age(q), p),
    "peer.loss": (of) => (p) => of.#greatest((q) => of.#measurer.costs.loss[q] as number, p),
    "app.processes": (of) => () => of.#processes,
    "app.age": (of) => () => of.#greatest((q) => (of.#changed(q) ? of.#age(q) : 0)),
    "app.loss": (of) => () => of.#greatest((q) => of.#measurer.costs.loss[q] as number),
    "app.frozen": (of) => () => of.#greatest((q) => of.#frozenShare(q)),
    "app.retained": (of) => () => of.#basic + of.#forced,
    "app.garbage": (of) => () => of.#measurer.garbage,
    "line.age": (of) => () => of.#nodeClock() - of.#lineAt,
    "beat.received": (of) => (p) => (p < 0 ? 0 : (of.#beatReceived[p] as number)),
    "beat.sent": (of) => (p) => (p < 0 ? 0 : (of.#beatSent[p] as number)),
    "message.index": (of) => () => of.#ofMessage((kit, send) => kit.messageIndex(send)),
    "message.news": (of) => (p) => of.#ofMessage((kit, send) => (kit.bringsNews(p, send) ? 1 : 0)),
    "message.closes": (of) => (p) => of.#ofMessage((kit, send) => (kit.mayClose(p, send) ? 1 : 0)),
    "node.free": () => () => Number.POSITIVE_INFINITY,
    "node.memory": () => () => Number.POSITIVE_INFINITY,
  };

  #filler(fact: FactName): Filler {
    return Replay.#FILLERS[fact]?.(this) ?? (() => 0);
  }

  #ofMessage(ask: (kit: Piggyback, send: number) => number): number {
    if (this.#piggyback === undefined || this.#message === undefined) return 0;
    return ask(this.#piggyback, this.#message);
  }
}

function nextBeatAfter(clock: number): number {
  return Math.floor(clock / BEAT) * BEAT + BEAT;
}

/** The last beat of the grid that is before a clock, for a process that did nothing for long. */
function lastBeatBefore(beat: number, clock: number): number {
  return beat + Math.max(0, Math.ceil((clock - beat) / BEAT) - 1) * BEAT;
}

/**
 * Who must keep more than its newest checkpoint for the present of `p` to be on a line: whose present interval somebody of them has
 * received from (Koo & Toueg 1987). `from` per pair: newest interval received from; rising.
 */
export function dependentsOf(p: number, from: Uint32Array, interval: Uint32Array): number[] {
  const processes = interval.length;
  const found = [p];
  const isIn = new Uint8Array(processes);
  isIn[p] = 1;
  for (let at = 0; at < found.length; at += 1)
    for (let q = 0; q < processes; q += 1) {
      if (isIn[q] === 1 || from[(found[at] as number) * processes + q] !== interval[q]) continue;
      isIn[q] = 1;
      found.push(q);
    }
  return found.sort((a, b) => a - b);
}

/** Some instruction has the order of receipt logged: states between checkpoints can be gone back to. */
function logsOrder({ handlers }: Component): boolean {
  const logs = (body: readonly Instruction[]): boolean =>
    body.some((one) =>
      one.do === "log" ? one.order !== "none" : one.do === "if" && (logs(one.yes) || logs(one.no)),
    );
  return handlers.some(({ body }) => logs(body));
}

function factsIn(body: readonly Instruction[], into = new Set<number>()): Set<number> {
  for (const instruction of body) {
    if (instruction.do === "if") {
      termFacts(instruction.test, into);
      factsIn(instruction.yes, into);
      factsIn(instruction.no, into);
    } else if (instruction.do === "synchronize") {
      termFacts(instruction.within, into);
      factsIn(instruction.body, into);
    } else if (instruction.do === "set" || instruction.do === "tell") termFacts(instruction.value, into);
  }
  return into;
}

function termFacts(term: Term, into: Set<number>): void {
  if (term[0] === "fact") into.add(term[1]);
  else for (const part of term.slice(1)) if (Array.isArray(part)) termFacts(part as unknown as Term, into);
}
