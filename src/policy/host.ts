/**
 * The trusted side of policies: one process a component, epochs, budgets, restarts, fallback. It asks a policy what to do about an event and hands out
 * only what its guard lets through; what becomes of the actions is the caller's. Nothing of a policy is believed: whatever goes wrong drops that
 * event's actions and counts against it.
 *
 *   ACTIVE ─fault─► restarted with the state it had, at most 3 in 60 s ─► FALLBACK(reason)
 *   ACTIVE ─too eager─► FALLBACK(budget)
 */
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_POLICY_PROCESSES } from "../model/limits.ts";
import { type Component, hashOf } from "./component.ts";
import { PolicyFault, PolicyProcess, type ProcessFault } from "./host-process.ts";
import { type Request, toWire } from "./host-protocol.ts";
import { type PolicyAction, Program } from "./program.ts";
import type { EventName, Scope } from "./vocabulary.ts";

export type ExitReason = ProcessFault | "budget" | "stall" | "unplugged" | "replaced";

/** Faults within this time, ms, after which a policy is not started again, count. */
const FAULT_WINDOW_MS = 60_000;
const MAX_FAULTS = 3;
/** A process takes at most one checkpoint in this time, ms. */
const LEAST_INTERVAL_MS = 1_000;
/**
 * More seconds with a refusal than this, count, within the window, ms, end the policy. They need not follow one another: one that spends its share in
 * a burst is refused nothing meanwhile, again and again.
 */
const MAX_EAGER_SECONDS = 60;
const EAGER_WINDOW_MS = 120_000;
/** Share of the time that checkpoints may hold a process still, over this window, ms. */
const MAX_FROZEN_SHARE = 0.1;
const FROZEN_WINDOW_MS = 60_000;

interface Frozen {
  readonly atMs: number;
  readonly frozenMs: number;
  readonly budgeted: boolean;
}

/** What a process's checkpoints may cost. Times are given: ms of any clock that only goes forward. */
export class Guard {
  readonly #lastMs = new Map<string, number>();
  readonly #frozen = new Map<string, Frozen[]>();
  /** Seconds of the clock in which something was refused, rising. */
  #eager: number[] = [];

  /** May it take a checkpoint now? What may is counted as taken. */
  allows(process: string, nowMs: number): boolean {
    if (!this.#may(process, nowMs)) {
      this.#refuse(nowMs);
      return false;
    }
    this.#lastMs.set(process, nowMs);
    return true;
  }

  /** The same for all of them together: all, or none. */
  allowsAll(processes: readonly string[], nowMs: number): boolean {
    const early = processes.find((process) => !this.#may(process, nowMs));
    if (early !== undefined) return this.allows(early, nowMs); // refuses, and counts that
    for (const process of processes) this.allows(process, nowMs);
    return true;
  }

  #may(process: string, nowMs: number): boolean {
    const early = nowMs - (this.#lastMs.get(process) ?? Number.NEGATIVE_INFINITY) < LEAST_INTERVAL_MS;
    return !early && this.#share(process, nowMs, ({ budgeted }) => budgeted) <= MAX_FROZEN_SHARE;
  }

  /** A checkpoint held it still. `budgeted`: it counts against what a policy may. */
  held(process: string, frozenMs: number, nowMs: number, budgeted = true): void {
    const known = (this.#frozen.get(process) ?? []).filter(({ atMs }) => nowMs - atMs < FROZEN_WINDOW_MS);
    this.#frozen.set(process, [...known, { atMs: nowMs, frozenMs, budgeted }]);
  }

  frozenShare(process: string, nowMs: number): number {
    return this.#share(process, nowMs, () => true);
  }

  #share(process: string, nowMs: number, counts: (one: Frozen) => boolean): number {
    let sumMs = 0;
    for (const one of this.#frozen.get(process) ?? [])
      if (nowMs - one.atMs < FROZEN_WINDOW_MS && counts(one)) sumMs += one.frozenMs;
    return sumMs / FROZEN_WINDOW_MS;
  }

  /** Another policy asks from now on. */
  forgive(): void {
    this.#eager = [];
  }

  /** It has asked for too much in more than a minute of the last two. */
  isTooEager(nowMs: number): boolean {
    const since = (nowMs - EAGER_WINDOW_MS) / 1000;
    while (this.#eager.length > 0 && this.#eager[0]! < since) this.#eager.shift();
    return this.#eager.length > MAX_EAGER_SECONDS;
  }

  #refuse(nowMs: number): void {
    const second = Math.floor(nowMs / 1000);
    if (this.#eager.at(-1) !== second) this.#eager.push(second);
  }
}

/** One process a component, shared by all who plugged it; at most `MAX_POLICY_PROCESSES`. */
export class PolicyProcesses {
  readonly #start: (component: Component) => Promise<PolicyProcess>;
  readonly #known = new Map<string, { users: number; process: Promise<PolicyProcess> }>();

  /** `start`: other than real starts are for tests of faults. */
  constructor(start: (component: Component) => Promise<PolicyProcess> = (one) => PolicyProcess.start(one)) {
    this.#start = start;
  }

  /** Throws RL_LIMIT, PolicyFault. Who takes it lets it go. */
  async take(component: Component): Promise<PolicyProcess> {
    const hash = hashOf(component);
    const known = this.#known.get(hash);
    if (known === undefined && this.#known.size >= MAX_POLICY_PROCESSES)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `${MAX_POLICY_PROCESSES} policies run on this node, as many as may`,
        "Unplug one first.",
      );
    const entry = known ?? { users: 0, process: this.#start(component) };
    this.#known.set(hash, entry);
    entry.users += 1;
    try {
      return await entry.process;
    } catch (error) {
      await this.release(component);
      throw error;
    }
  }

  /** The one that runs, or a new one in place of one that failed. Throws PolicyFault. */
  async running(component: Component): Promise<PolicyProcess> {
    const hash = hashOf(component);
    const entry = this.#known.get(hash);
    if (entry === undefined) throw new TypeError("nobody has taken this component's process");
    const before = entry.process;
    const process = await before.catch(() => undefined);
    if (process?.running === true) return process;
    if (this.#known.get(hash) !== entry) throw new PolicyFault("crash", "it was ended"); // nobody would end a new one
    if (entry.process === before) entry.process = this.#start(component); // of several who find it dead one starts it
    return entry.process;
  }

  async release(component: Component): Promise<void> {
    const hash = hashOf(component);
    const entry = this.#known.get(hash);
    if (entry === undefined) return;
    entry.users -= 1;
    if (entry.users > 0) return;
    this.#known.delete(hash);
    const process = await entry.process.catch(() => undefined);
    await process?.close();
  }
}

/** Facts of one process, or of the node, in the component's order; booleans are 0 and 1. */
export interface FactRow {
  /** Whose; "" for the node. */
  readonly process: string;
  readonly facts: readonly number[];
}

export interface Asked {
  readonly process: string;
  readonly action: PolicyAction;
  /** Of the policy that asked; what comes with an older one is dropped. */
  readonly epoch: number;
}

/** One policy of one application. */
export class PluggedPolicy {
  readonly component: Component;
  #epoch: number;
  readonly #processes: PolicyProcesses;
  readonly #parameters: readonly number[];
  readonly #initial: Float64Array;
  readonly #states = new Map<string, Float64Array>();
  readonly #faultsMs: number[] = [];
  readonly #now: () => number;
  #process: PolicyProcess | undefined;
  #sequence = 0;
  #over: ExitReason | undefined;
  #why = "";
  #total = 0;
  #lastFault = "";

  private constructor(
    component: Component,
    processes: PolicyProcesses,
    set: ReadonlyMap<string, number>,
    epoch: number,
    now: () => number,
  ) {
    const program = new Program(component, set);
    this.component = component;
    this.#epoch = epoch;
    this.#processes = processes;
    this.#parameters = [...program.parameters];
    this.#initial = program.initialState();
    this.#now = now;
  }

  /** Throws RL_NOT_SUPPORTED where the policy can't run on unmodified programs, RL_LIMIT, PolicyFault; nothing is left behind then. */
  static async plug(
    component: Component,
    processes: PolicyProcesses,
    options: { set?: ReadonlyMap<string, number>; epoch: number; now?: () => number },
  ): Promise<PluggedPolicy> {
    const { live } = component.refused;
    if (live.length > 0)
      throw new RecoveryLineError(
        "RL_NOT_SUPPORTED",
        `not supported here: ${component.name} needs ${live.join(", ")}, which unmodified programs do not have`,
        "Take another policy; `recovery-line policy list --json` says where each runs.",
      );
    const { set = new Map(), epoch, now = () => performance.now() } = options;
    const made = new PluggedPolicy(component, processes, set, epoch, now);
    await processes.take(component);
    return made;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** It decides from now on, under this epoch. */
  enter(epoch: number): void {
    this.#epoch = epoch;
  }

  /** Why it decides nothing any more; undefined: it does. */
  get over(): { readonly reason: ExitReason; readonly why: string } | undefined {
    return this.#over === undefined ? undefined : { reason: this.#over, why: this.#why };
  }

  /** Faults of the last minute, count. */
  get faults(): number {
    return this.#faultsMs.length;
  }

  /** All of them, count, and what the last one was. */
  get total(): number {
    return this.#total;
  }

  get lastFault(): string {
    return this.#lastFault;
  }

  /** In the component's order; seconds, bytes. */
  get parameters(): readonly number[] {
    return this.#parameters;
  }

  state(process: string): Float64Array {
    const own = Float64Array.from(this.#states.get(process) ?? this.#initial);
    const node = this.#states.get("") ?? this.#initial;
    this.component.states.forEach(({ each }, at) => {
      if (each === "node") own[at] = node[at]!;
    });
    return own;
  }

  /** What it remembers, by process; "" is the node. */
  memory(): [string, number[]][] {
    return [...this.#states].map(([process, state]) => [process, [...state]]);
  }

  /** It remembers what another one did, where a state has equal name, type and scope, and nothing else. */
  takeOver(
    { states }: Pick<Component, "states">,
    memory: readonly (readonly [string, readonly number[]])[],
  ): void {
    this.#states.clear();
    const from = this.component.states.map(({ name, type, each }) =>
      states.findIndex((one) => one.name === name && one.type === type && one.each === each),
    );
    for (const [process, values] of memory)
      this.#states.set(
        process,
        this.#initial.map((initial, at) => values[from[at]!] ?? initial),
      );
  }

  /** What it wants done about an event. A fault of it is nothing: it counts, and may be the last. */
  async handle(event: EventName, each: Scope, rows: readonly FactRow[]): Promise<Asked[]> {
    if (this.#over !== undefined || rows.length === 0) return [];
    if (!this.component.handlers.some((one) => one.event === event && one.each === each)) return [];
    try {
      const process = await this.#processes.running(this.component);
      this.#noticeOther(process);
      if (this.#over !== undefined) return [];
      const answer = await process.ask(this.#request(event, each, rows));
      if (this.#over !== undefined) return []; // it was unplugged meanwhile
      return answer.rows.flatMap(({ actions, state }, at) => {
        const { process: name } = rows[at]!;
        this.#states.set(name, state);
        this.#states.set("", state);
        return actions.map((action) => ({ process: name, action, epoch: this.epoch }));
      });
    } catch (error) {
      if (!(error instanceof PolicyFault)) throw error;
      this.#process = undefined;
      if (this.#over === undefined) this.#failed(error); // what is unplugged may end in the midst of an answer
      return [];
    }
  }

  /** One that died between two events has dropped nothing, and counts all the same. */
  #noticeOther(process: PolicyProcess): void {
    if (this.#process !== undefined && this.#process !== process)
      this.#failed(new PolicyFault("crash", "its process ended between two events"));
    this.#process = process;
  }

  /** It ends; what was asked of it and is still to come is dropped. */
  async end(reason: ExitReason, why: string): Promise<void> {
    if (this.#over !== undefined) return;
    this.#over = reason;
    this.#why = why;
    await this.#processes.release(this.component);
  }

  #request(event: EventName, each: Scope, rows: readonly FactRow[]): Request {
    this.#sequence += 1;
    return {
      sequence: this.#sequence,
      epoch: this.epoch,
      event,
      each,
      parameters: this.#parameters.map(toWire),
      rows: rows.map(({ process, facts }) => [facts.map(toWire), Array.from(this.state(process), toWire)]),
    };
  }

  #failed({ fault, message }: PolicyFault): void {
    const nowMs = this.#now();
    this.#total += 1;
    this.#lastFault = `${fault}: ${message}`;
    while (this.#faultsMs.length > 0 && nowMs - this.#faultsMs[0]! >= FAULT_WINDOW_MS) this.#faultsMs.shift();
    this.#faultsMs.push(nowMs);
    if (this.#faultsMs.length > MAX_FAULTS) void this.end(fault, message);
  }
}
