/**
 * The policy of one application: which one decides, which one is in its shadow phase, what has taken over from one that failed.
 *
 *   EMPTY ─plug─► CHECKING ► STARTING ► SHADOW ─ one durable record ─► ACTIVE ─unplug─► EMPTY
 *   ACTIVE ─plug─► (the new one goes the same way while the old one decides) ─ one durable record ─► ACTIVE
 *   ACTIVE ─fault, too eager, stall─► FALLBACK(reason) ─plug─► …
 *
 * Invariant: `#record` is what the application's log says. It changes after the commit that makes a new one durable, and with it, without anything
 * in between, what decides. What was asked for under another epoch is dropped.
 */
import type { ProcessInfo } from "../client/protocol.ts";
import type { Collector } from "../collect/collect.ts";
import type { PolicyStates } from "../collect/policy-states.ts";
import { Serial } from "../host/serial.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_POLICY_STALLS, POLICY_LINE_MS } from "../model/limits.ts";
import type {
  PlugAnswer,
  PolicyEnd,
  PolicyLogLine,
  PolicyOutcome,
  PolicyStatus,
  SourceLine,
} from "../model/plugged-policy.ts";
import type { PlugTerms } from "../model/policy-terms.ts";
import type { Component } from "../policy/component.ts";
import { type ExitReason, type FactRow, Guard, PluggedPolicy, type PolicyProcesses } from "../policy/host.ts";
import { Program } from "../policy/program.ts";
import type { EventName, FactName, Scope } from "../policy/vocabulary.ts";
import type { LineWatch } from "./line-watch.ts";
import type { OwnCommands } from "./own-commands.ts";
import { PolicyActor, type Want } from "./policy-actor.ts";
import { type EventFacts, FactTable, hasFailed, type NodeFacts } from "./policy-facts.ts";
import { PolicyLog } from "./policy-log.ts";
import {
  componentOf,
  decodeRecord,
  type PluggedRecord,
  type PolicyMemory,
  type PolicyRecord,
  recordOf,
} from "./policy-record.ts";

/** What policies need of the collector. */
export type PolicyCollector = Pick<Collector, "processes"> & {
  readonly policies: Pick<PolicyStates, keyof PolicyStates>;
};

/** What a swap has done; for tests that end the collector there. */
export type SwapStep = "checked" | "started" | "shadowed" | "committing" | "committed" | "switched" | "ended";

export interface AppPolicyParts {
  readonly app: string;
  /** Log directory, and the application's folder in it. */
  readonly home: string;
  readonly folder: string;
  readonly collector: PolicyCollector;
  readonly processes: PolicyProcesses;
  readonly commands: Pick<OwnCommands, "run">;
  readonly lines: Pick<LineWatch, "due" | "forget">;
  readonly now: () => number;
  /** Returns early where `ending` is aborted. */
  wait(ms: number): Promise<void>;
  /** The collector ends. */
  readonly ending: AbortSignal;
  payload(app: string, on: boolean): Promise<void>;
  tell(app: string, value: number): void;
  /** Throws where it can't decide for the processes that there are. */
  fit(component: Component, terms: PlugTerms): void;
  readonly onTrouble: (sentence: string) => void;
  readonly onStep?: (step: SwapStep) => void;
}

export interface PlugRequest {
  readonly component: Component;
  readonly lines: readonly SourceLine[];
  readonly terms: PlugTerms;
  /** How long it only says what it would do, ms; 0: of one beat. */
  readonly shadowMs: number;
  readonly dryRun: boolean;
}

/** Facts that rest on the lines of single failures. */
const FROM_LINES: readonly FactName[] = [
  "self.loss",
  "self.depth",
  "self.breadth",
  "peer.age",
  "peer.loss",
  "app.loss",
  "app.garbage",
  "line.age",
];
/** What a policy remembers goes to the log this often, in ms. */
const REMEMBER_MS = 5_000;
/** Would-be actions of a shadow phase that are told, count. */
const MAX_WOULD = 1000;

/** A policy and what it came from. */
interface Loaded {
  readonly policy: PluggedPolicy;
  readonly plugged: PluggedRecord;
}

export class AppPolicy {
  readonly app: string;
  readonly #parts: AppPolicyParts;
  readonly #log: PolicyLog;
  readonly #table: FactTable;
  #guard = new Guard();
  readonly #actor: PolicyActor;
  /** One is plugged at a time; what changes the record is shorter: a shadow phase keeps nobody from unplugging. */
  readonly #plugs = new Serial();
  readonly #changes = new Serial();
  readonly #events = new Serial();
  #record: PolicyRecord;
  #active: Loaded | undefined;
  #shadow: { readonly loaded: Loaded; readonly would: PolicyLogLine[] } | undefined;
  #node: NodeFacts = { free: 0, memory: 0 };
  /** Died, and nobody has been told yet: a restart may be what killed them. */
  readonly #dead = new Set<string>();
  #beating = false;
  #faults = 0;
  #stalls = 0;
  #rememberMs = 0;
  /** The log may hold what is not so: a commit failed. */
  #unsure = false;
  readonly #counts = new Map<string, number>();

  private constructor(parts: AppPolicyParts, record: PolicyRecord, memory: PolicyMemory | undefined) {
    this.app = parts.app;
    this.#parts = parts;
    this.#record = record;
    this.#log = new PolicyLog(parts.folder);
    this.#table = new FactTable((process, nowMs) => this.#guard.frozenShare(process, nowMs));
    this.#table.remember(memory?.clocks ?? []);
    for (const name of memory?.live ?? []) this.#dead.add(name);
    const { app, home, commands, now } = parts;
    this.#actor = new PolicyActor(
      {
        app,
        home,
        commands,
        table: this.#table,
        guard: this.#guard,
        now,
        wait: (ms) => parts.wait(ms),
        ending: parts.ending,
        payload: (on) => parts.payload(app, on),
        tell: (value) => parts.tell(app, value),
        groupOf: (process) => this.#groupOf(process),
        epoch: () => this.#record.epoch,
      },
      record.plugged ?? NO_TERMS,
    );
  }

  /** As the application's log has it. Throws RL_UNKNOWN_APP, RL_NOT_SUPPORTED, and what opening a log throws. */
  static async open(parts: AppPolicyParts): Promise<AppPolicy> {
    const { record, memory } = await parts.collector.policies.of(parts.app);
    const known = decodeRecord(record) ?? { format: 1, epoch: 0 };
    const made = new AppPolicy(
      parts,
      known,
      known.plugged === undefined ? undefined : (memory as PolicyMemory),
    );
    await made.#comeBack(memory as PolicyMemory | undefined);
    made.look();
    return made;
  }

  get isEmpty(): boolean {
    return this.#record.plugged === undefined && this.#shadow === undefined;
  }

  get status(): PolicyStatus | undefined {
    const { plugged, epoch, over } = this.#record;
    if (plugged === undefined) return undefined;
    const { component: text, lines: _, set, ...terms } = plugged;
    const component = this.#active?.policy.component ?? (JSON.parse(text) as Component);
    const values = this.#active?.policy.parameters ?? new Program(component, new Map(set)).parameters;
    return {
      ...terms,
      app: this.app,
      epoch,
      policy: component.name,
      version: component.version,
      title: component.title,
      state: over === undefined ? "active" : "fallback",
      ...(over === undefined ? {} : { over }),
      ...(this.#shadow === undefined ? {} : { shadow: this.#shadow.loaded.policy.component.name }),
      parameters: Object.fromEntries(component.parameters.map(({ name }, at) => [name, values[at]!])),
      faults: this.#faults,
      stalls: this.#stalls,
      restarts: this.#actor.restarts,
      ...this.#actor.cost,
      actions: Object.fromEntries(this.#counts),
    };
  }

  // ---- plug, swap, unplug

  /**
   * All that can fail comes before the record is written; what decides stays the same until then. Throws RL_NOT_SUPPORTED, RL_LIMIT, RL_REFUSED
   * where the policy fails while it only watches or nothing holds the output that it decides about, RL_LOG_WRITE.
   */
  plug(request: PlugRequest): Promise<PlugAnswer> {
    return this.#plugs.run(async () => {
      const { component, lines, terms } = request;
      this.#parts.fit(component, terms);
      this.#step("checked");
      const plugged = recordOf(component, lines, terms);
      const next: Loaded = { plugged, policy: await this.#start(component, terms, this.#record.epoch + 1) };
      this.#step("started");
      try {
        return await this.#plug(next, request);
      } finally {
        if (this.#active !== next) await next.policy.end("unplugged", "it never decided");
      }
    });
  }

  async #plug(next: Loaded, { component, terms, shadowMs, dryRun }: PlugRequest): Promise<PlugAnswer> {
    const would = await this.#watch(next, shadowMs);
    this.#step("shadowed");
    const { hash } = next.plugged;
    return this.#changes.run(async () => {
      this.#parts.fit(component, terms); // somebody may have come meanwhile
      const replaced = this.#name;
      const epoch = this.#record.epoch + 1;
      next.policy.enter(epoch);
      if (!dryRun) await this.#switch({ format: 1, epoch, plugged: next.plugged }, next);
      const { name: policy, version } = component;
      const answer = { epoch, policy, version, hash, would, dryRun };
      return replaced === undefined ? answer : { ...answer, replaced };
    });
  }

  /** Throws RL_USAGE where nothing is plugged, RL_LOG_WRITE. */
  unplug(): Promise<{ policy: string; epoch: number }> {
    return this.#changes.run(async () => {
      const policy = this.#name;
      if (policy === undefined)
        throw new RecoveryLineError(
          "RL_USAGE",
          `no policy is plugged into ${this.app}`,
          "See recovery-line policy list.",
        );
      const epoch = this.#record.epoch + 1;
      await this.#switch({ format: 1, epoch }, undefined);
      return { policy, epoch };
    });
  }

  /** What is remembered goes to the log with the last commit. */
  async close(): Promise<void> {
    await this.#changes.run(() => undefined);
    if (this.#record.plugged !== undefined) this.#parts.collector.policies.remember(this.app, this.#memory());
    await this.#active?.policy.end("unplugged", "the collector ends");
    await this.#shadow?.loaded.policy.end("unplugged", "the collector ends");
  }

  get #name(): string | undefined {
    const { plugged } = this.#record;
    return plugged === undefined ? undefined : (JSON.parse(plugged.component) as Component).name;
  }

  async #start(component: Component, { set }: PlugTerms, epoch: number): Promise<PluggedPolicy> {
    const { processes, now } = this.#parts;
    return PluggedPolicy.plug(component, processes, { set: new Map(set), epoch, now });
  }

  /** It hears what the active one hears, and nothing is done about what it says. */
  async #watch(next: Loaded, shadowMs: number): Promise<PolicyLogLine[]> {
    const would: PolicyLogLine[] = [];
    this.#inherit(next.policy);
    this.#shadow = { loaded: next, would };
    try {
      this.look();
      await this.#events.run(() => this.#askShadow("beat", {}, this.#table.running, []));
      if (shadowMs > 0) await this.#parts.wait(shadowMs);
    } finally {
      this.#shadow = undefined;
    }
    if (this.#parts.ending.aborted)
      throw new RecoveryLineError(
        "RL_NO_COLLECTOR",
        `the collector ends: ${next.policy.component.name} is not plugged`,
        "What was plugged before goes on with the next collector.",
      );
    const { over, faults } = next.policy;
    if (over === undefined && faults === 0) return would;
    throw new RecoveryLineError(
      "RL_REFUSED",
      `${next.policy.component.name} fails before it has decided anything: ${over?.why ?? next.policy.lastFault}`,
      "What was plugged before goes on. See `policy check`, and `policy compare` for what it does.",
    );
  }

  /** It remembers what the one before did, as far as both call it the same. */
  #inherit(next: PluggedPolicy): void {
    const before = this.#active?.policy;
    next.takeOver(before?.component ?? { states: [] }, before?.memory() ?? []);
  }

  /** One durable record is the switch; in memory it follows in the same breath. */
  async #switch(record: PolicyRecord, next: Loaded | undefined, over?: PolicyEnd): Promise<void> {
    const before = this.#active;
    const was = this.#name;
    if (next !== undefined) this.#inherit(next.policy);
    this.#step("committing");
    try {
      await this.#parts.collector.policies.keep(this.app, record, this.#memory(next));
    } catch (error) {
      this.#unsure = true;
      throw error;
    }
    this.#step("committed");
    this.#record = record;
    this.#active = next;
    this.#unsure = false;
    if (over === undefined) this.#anew(record.plugged);
    this.#step("switched");
    if (before !== undefined) {
      await before.policy.end(next === undefined ? "unplugged" : "replaced", "asked");
      const event = over !== undefined ? "fallback" : next === undefined ? "unplugged" : "replaced";
      this.#write({
        event,
        policy: before.policy.component.name,
        ...(over === undefined ? {} : { detail: `${over.reason}: ${over.why}` }),
      });
    } else if (next === undefined) this.#write({ event: "unplugged", policy: was ?? "" });
    this.#step("ended");
    if (next === undefined) return;
    this.#write({ event: "plugged", policy: next.policy.component.name, detail: next.plugged.hash });
    void this.#raise("plugged", {});
  }

  #anew(plugged: PluggedRecord | undefined): void {
    this.#faults = 0;
    this.#stalls = 0;
    this.#guard.forgive();
    this.#actor.terms = plugged ?? NO_TERMS;
    this.#parts.lines.forget(this.app);
  }

  /** What was plugged decides again. One that does not start is a fault of it: the fallback takes over. */
  async #comeBack(memory: PolicyMemory | undefined): Promise<void> {
    const { plugged, over, epoch } = this.#record;
    if (plugged === undefined) this.#dead.clear();
    if (plugged === undefined || over !== undefined) return;
    try {
      const component = componentOf(plugged);
      const policy = await this.#start(component, plugged, epoch);
      if (memory?.epoch === epoch) policy.takeOver(component, memory.states);
      this.#active = { policy, plugged };
      this.#write({ event: "plugged", policy: component.name, detail: "it came back with the collector" });
    } catch (error) {
      await this.#fallBack({ reason: "crash", why: (error as Error).message });
    }
  }

  async #fallBack(over: PolicyEnd): Promise<void> {
    const { plugged, epoch } = this.#record;
    if (plugged === undefined) return;
    const next = plugged.fallback === null ? "nothing takes over" : "periodic checkpoints take over";
    this.#parts.onTrouble(`the policy of ${this.app} decides no more (${over.reason}: ${over.why}); ${next}`);
    await this.#switch({ format: 1, epoch: epoch + 1, plugged, over }, undefined, over).catch(
      (error: unknown) => {
        this.#parts.onTrouble((error as Error).message);
      },
    );
  }

  #step(step: SwapStep): void {
    this.#parts.onStep?.(step);
  }

  // ---- events

  /** What has happened since the last look is told: checkpoints, deaths. Cheap; between beats, too. */
  look(): void {
    const all = this.#parts.collector.processes().filter(({ app }) => app === this.app);
    const { failed, checkpointed } = this.#table.look(
      all,
      this.#parts.collector.policies.counts(this.app),
      this.#parts.now(),
    );
    for (const name of failed) this.#dead.add(name);
    if (this.isEmpty) {
      this.#dead.clear();
      return;
    }
    if (checkpointed.length > 0) void this.#raise("checkpointed", {}, checkpointed);
    const dead = this.#takeDead(all);
    if (dead.length === 0) return;
    const facts = { "failed.count": dead.length, "failed.again": this.#actor.restarts };
    void this.#raise("failed", facts, dead, dead);
  }

  /** Who died and is dead still; while a restart is under way it is asked again later. */
  #takeDead(all: readonly ProcessInfo[]): string[] {
    if (this.#dead.size === 0 || this.#actor.restartUnderWay) return [];
    const dead = all.filter((one) => this.#dead.has(one.process) && !one.live && hasFailed(one));
    this.#dead.clear();
    return dead.map(({ process }) => process);
  }

  /** Once a second. One that is not done with the last beat is not asked again. */
  async beat(node: NodeFacts): Promise<void> {
    if (this.#beating) return;
    this.#beating = true;
    try {
      this.#node = node;
      this.look();
      if (this.isEmpty) return;
      if (this.#unsure) await this.#writeAgain();
      this.#table.beat();
      await this.#raise("beat", {});
      this.#beatFallback();
      if (this.#guard.isTooEager(this.#parts.now()))
        void this.#end(
          "budget",
          "it asked for more checkpoints than it may in more than 60 seconds of the last 120",
        );
      this.#remember();
      void this.#lines();
    } finally {
      this.#beating = false;
    }
  }

  /** `event` for all who handle it. Resolves once they have been asked; what goes wrong is told: recording goes on whatever becomes of a policy. */
  async #raise(
    event: EventName,
    facts: EventFacts,
    processes?: readonly string[],
    failed: readonly string[] = [],
  ): Promise<void> {
    await this.#events
      .run(() => this.#askAll(event, facts, processes, failed))
      .catch((error: unknown) =>
        this.#parts.onTrouble(`the policy of ${this.app} at ${event}: ${(error as Error).message}`),
      );
  }

  /** `told`, `pressure` and `leaving` come from outside. */
  raise(event: EventName, facts: EventFacts): Promise<void> {
    return this.isEmpty ? Promise.resolve() : this.#raise(event, facts);
  }

  /** Output of these waits, and no line keeps it. True: the policy decides that, and what it wanted is done or given up. */
  async output(processes: readonly string[]): Promise<boolean> {
    const deciding = [this.#active, this.#shadow?.loaded].map((one) => handlesOutput(one?.policy.component));
    if (!deciding.includes(true)) return false;
    await this.#raise("output", { "output.covered": 0 }, processes);
    await this.idle();
    return this.outputPolicy !== undefined;
  }

  /** Of the policy that decides what output waits for; undefined: none does. */
  get outputPolicy(): string | undefined {
    const component = this.#active?.policy.component;
    return handlesOutput(component) ? component?.name : undefined;
  }

  /** Resolves once all actions that were asked for are done or given up. */
  idle(): Promise<void> {
    return this.#actor.idle();
  }

  async #askAll(
    event: EventName,
    facts: EventFacts,
    processes?: readonly string[],
    failed: readonly string[] = [],
  ): Promise<void> {
    const names = processes ?? this.#table.running;
    await this.#askShadow(event, facts, names, failed);
    const active = this.#active;
    if (active === undefined) return;
    const wants = await this.#ask(active, event, facts, names, failed, (line) => this.#log.write(line));
    if (this.#active === active) this.#actor.perform(wants);
    this.#noticeFaults(active.policy);
  }

  async #askShadow(
    event: EventName,
    facts: EventFacts,
    names: readonly string[],
    failed: readonly string[],
  ): Promise<void> {
    const shadow = this.#shadow;
    if (shadow === undefined) return;
    const wants = await this.#ask(shadow.loaded, event, facts, names, failed, (line) => {
      if (shadow.would.length < MAX_WOULD) shadow.would.push(line);
    });
    for (const want of wants) want.came("shadow");
  }

  async #ask(
    { policy, plugged }: Loaded,
    event: EventName,
    facts: EventFacts,
    names: readonly string[],
    failed: readonly string[],
    write: (line: PolicyLogLine) => void,
  ): Promise<Want[]> {
    const wants: Want[] = [];
    for (const each of ["process", "node"] as const) {
      const rows = this.#rows(policy.component, each, facts, names);
      const byName = new Map(rows.map((row) => [row.process, row]));
      for (const { process, action, epoch } of await policy.handle(event, each, rows)) {
        const row = byName.get(process);
        const came = (outcome: PolicyOutcome, detail?: string): void => {
          this.#count(action.do, outcome);
          if (outcome === "dropped" && detail === undefined) return; // it is under way: asked again at every beat
          write({
            ...this.#stamp(policy),
            event,
            ...(process === "" ? {} : { process }),
            ...place(plugged.lines, action.id),
            facts: named(policy.component.facts, row),
            action: action.do,
            outcome,
            ...(detail === undefined ? {} : { detail }),
          });
        };
        const unbudgeted = event === "output" ? ({ unbudgeted: true } as const) : {};
        wants.push({ action, process, failed, epoch, came, ...unbudgeted });
      }
    }
    return wants;
  }

  #rows(
    { facts: names }: Component,
    each: Scope,
    event: EventFacts,
    processes: readonly string[],
  ): FactRow[] {
    const scene = { nowMs: this.#parts.now(), node: this.#node, event };
    if (each === "node") return [{ process: "", facts: this.#table.nodeRow(names, scene) }];
    return this.#table.rows(processes, names, scene);
  }

  #noticeFaults(policy: PluggedPolicy): void {
    const { total, over } = policy;
    if (total > this.#faults)
      this.#write({ event: "fault", policy: policy.component.name, detail: policy.lastFault });
    this.#faults = total;
    if (over !== undefined) void this.#end(over.reason, over.why);
  }

  /** The active policy, if it is still the one when its turn comes. */
  #end(reason: ExitReason, why: string): Promise<void> {
    const policy = this.#active?.policy;
    return this.#changes.run(async () => {
      if (policy === undefined || this.#active?.policy !== policy) return;
      await policy.end(reason, why);
      await this.#fallBack({ reason, why });
    });
  }

  // ---- what the host does by itself

  /** Built in, without XML: a checkpoint of each process that did something, after every interval. */
  #beatFallback(): void {
    const { over, plugged } = this.#record;
    const interval = over === undefined ? undefined : plugged?.fallback?.interval;
    if (interval === undefined) return;
    const due = [...this.#table.changedAges(this.#parts.now())].filter(([, age]) => age >= interval);
    this.#actor.perform(
      due.map(([process]) =>
        this.#own(process, "fallback", { id: 0, do: "checkpoint", who: "self", forced: false }),
      ),
    );
  }

  async #lines(): Promise<void> {
    const mostLoss = this.#record.plugged?.mostLoss;
    const component = (this.#active ?? this.#shadow?.loaded)?.policy.component;
    const wanted =
      mostLoss !== undefined ||
      component?.facts.some((name) => FROM_LINES.includes(name)) === true ||
      component?.handlers.some(({ event }) => event === "line") === true;
    if (!wanted) return;
    const garbage = component?.facts.includes("app.garbage") === true;
    try {
      const line = await this.#parts.lines.due(this.app, this.#table.mark, garbage, this.#lineMs);
      if (line === undefined) return;
      this.#table.line = line;
      await this.#raise("line", {});
      if (mostLoss !== undefined) await this.#keepBelow(mostLoss);
    } catch (error) {
      this.#parts.onTrouble(
        `the lines of ${this.app} could not be computed for its policy: ${(error as Error).message}`,
      );
    }
  }

  get #lineMs(): number {
    const seconds = this.#record.plugged?.lineEvery;
    return seconds === undefined ? POLICY_LINE_MS : seconds * 1000;
  }

  /** What the policy left undone. Where it leaves too much undone too often it ends. */
  async #keepBelow(mostLoss: number): Promise<void> {
    const nowMs = this.#parts.now();
    const behind = this.#table.lineAge(nowMs) + this.#lineMs / 1000; // nobody looks before that again
    const beyond = [...this.#table.losses(nowMs)].filter(([, loss]) => loss + behind > mostLoss);
    if (beyond.length === 0) return;
    this.#stalls += 1;
    this.#actor.perform(
      beyond.map(([process]) => ({
        ...this.#own(process, "most-loss", { id: 0, do: "checkpoint", who: "dependents", forced: true }),
        insists: true,
      })),
    );
    if (this.#stalls >= MAX_POLICY_STALLS)
      void this.#end("stall", `${this.#stalls} times a failure would have cost more than --most-loss`);
  }

  /** Something that no policy asked for. */
  #own(process: string, event: string, action: Want["action"]): Want {
    const { epoch } = this.#record;
    const came = (outcome: PolicyOutcome, detail?: string): void => {
      this.#count(action.do, outcome);
      if (outcome === "dropped" && detail === undefined) return;
      this.#write({
        epoch,
        event,
        policy: "host",
        process,
        action: action.do,
        outcome,
        ...(detail === undefined ? {} : { detail }),
      });
    };
    return { action, process, failed: [], epoch, came };
  }

  // ---- memory and notes

  #remember(): void {
    const nowMs = this.#parts.now();
    if (nowMs - this.#rememberMs < REMEMBER_MS) return;
    this.#rememberMs = nowMs;
    this.#parts.collector.policies.remember(this.app, this.#memory());
  }

  #memory(of: Loaded | undefined = this.#active): PolicyMemory {
    return {
      epoch: of?.policy.epoch ?? this.#record.epoch,
      states: of?.policy.memory() ?? [],
      clocks: this.#table.stored(this.#parts.now(), Date.now()),
      live: [...this.#table.running],
    };
  }

  /** A commit failed, and nobody knows whether it came through: what is so is written once more. */
  async #writeAgain(): Promise<void> {
    await this.#changes.run(async () => {
      await this.#parts.collector.policies.keep(this.app, this.#record, this.#memory()).then(
        () => {
          this.#unsure = false;
        },
        () => undefined,
      );
    });
  }

  #groupOf(process: string): readonly string[] {
    const all = this.#parts.collector.processes().filter(({ app }) => app === this.app);
    const group = all.find((one) => one.process === process)?.group;
    if (group === undefined) return [process];
    const running = new Set(this.#table.running);
    return all.filter((one) => one.group === group && running.has(one.process)).map((one) => one.process);
  }

  #count(action: string, outcome: PolicyOutcome): void {
    const key = `${action} ${outcome}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  #stamp(policy: PluggedPolicy): Pick<PolicyLogLine, "time" | "epoch" | "policy"> {
    return { time: new Date().toISOString(), epoch: policy.epoch, policy: policy.component.name };
  }

  #write(line: Omit<PolicyLogLine, "time" | "epoch"> & { readonly epoch?: number }): void {
    this.#log.write({ time: new Date().toISOString(), epoch: this.#record.epoch, ...line });
  }
}

export function handlesOutput(component: Component | undefined): boolean {
  return component?.handlers.some(({ event }) => event === "output") === true;
}

const NO_TERMS: PlugTerms = { set: [], allow: [], fallback: null, driver: "auto" };

function place(lines: readonly SourceLine[], id: number): Pick<PolicyLogLine, "line"> {
  const line = lines[id]?.line;
  return line === undefined ? {} : { line };
}

function named(names: readonly FactName[], row: FactRow | undefined): Record<string, number | string> {
  return Object.fromEntries(
    names.map((name, at) => {
      const value = row?.facts[at] ?? 0;
      return [name, Number.isFinite(value) ? Math.round(value * 1000) / 1000 : "unbounded"];
    }),
  );
}
