/**
 * Does what one application's policy asks for, within its budgets; also what the host itself wants of it. One action at a time, in order; what
 * is under way or waits already is not begun twice. Nothing here decides whether a line is safe: the commands do.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Serial } from "../host/serial.ts";
import {
  MAX_POLICY_CHECKPOINT_WAIT_MS,
  MAX_POLICY_RESTARTS,
  POLICY_CHECKPOINT_WAIT_MS,
  POLICY_COLLECT_MS,
  POLICY_RESTART_WAIT_MS,
  POLICY_RESTART_WINDOW_MS,
  POLICY_TELL_MS,
} from "../model/limits.ts";
import type { PolicyOutcome } from "../model/plugged-policy.ts";
import type { Allowable, PlugTerms } from "../model/policy-terms.ts";
import type { Guard } from "../policy/host.ts";
import type { PolicyAction } from "../policy/program.ts";
import type { Who } from "../policy/vocabulary.ts";
import { restartFolder } from "../restart/restart-journal.ts";
import type { CommandAnswer, OwnCommands } from "./own-commands.ts";
import type { FactTable } from "./policy-facts.ts";

/** Something asked for, and who hears what became of it. */
export interface Want {
  readonly action: PolicyAction;
  /** Whose handler asked; "" for the node's. */
  readonly process: string;
  /** Processes that have died, where that is what the handler was about. */
  readonly failed: readonly string[];
  /** Of the policy that asked. */
  readonly epoch: number;
  /** Output waits for it: the host paces that by itself (hold-watch.ts), and no budget is spent. */
  readonly unbudgeted?: true;
  /** It is tried also where the last one has just failed. */
  readonly insists?: true;
  came(outcome: PolicyOutcome, detail?: string): void;
}

export interface ActorParts {
  readonly app: string;
  readonly home: string;
  readonly commands: Pick<OwnCommands, "run">;
  readonly table: FactTable;
  readonly guard: Guard;
  readonly now: () => number;
  /** Returns early where `ending` is aborted. */
  wait(ms: number): Promise<void>;
  /** The collector ends: nothing is tried again. */
  readonly ending: AbortSignal;
  /** Keeps what the application sends, or no longer. */
  payload(on: boolean): Promise<void>;
  /** Raises `told` in the other policies of this node. */
  tell(value: number): void;
  /** Who was started in the same group. */
  groupOf(process: string): readonly string[];
  /** As of now; what an older policy asked for is dropped. */
  epoch(): number;
}

/** A command's word of one checkpoint. */
interface Taken {
  readonly process: string;
  readonly checkpoint: number;
  readonly frozenMs: number;
}

export class PolicyActor {
  readonly #parts: ActorParts;
  readonly #serial = new Serial();
  /** Processes whose checkpoint is under way or waits, and how many sets are. */
  readonly #busy = new Set<string>();
  #sets = 0;
  /** Processes whose last checkpoint failed: how often since one was taken, and until when none is tried. */
  readonly #failures = new Map<string, { readonly count: number; readonly untilMs: number }>();
  readonly #restartsMs: number[] = [];
  #restarting = false;
  #collectedMs = Number.NEGATIVE_INFINITY;
  #toldMs = Number.NEGATIVE_INFINITY;
  #idle: Promise<unknown> = Promise.resolve();
  /** Checkpoints that were taken since the collector began, count, and how long they held their processes still, ms. */
  readonly cost = { checkpoints: 0, frozenMs: 0 };
  terms: PlugTerms;

  constructor(parts: ActorParts, terms: PlugTerms) {
    this.#parts = parts;
    this.terms = terms;
  }

  /** A restart of the application is under way, whoever began it. */
  get restartUnderWay(): boolean {
    return this.#restarting || this.#isJournaled;
  }

  get #isJournaled(): boolean {
    const { home, app } = this.#parts;
    return existsSync(join(restartFolder(home, app), "journal.json"));
  }

  /** Restarts by policies within the window, count. */
  get restarts(): number {
    const since = this.#parts.now() - POLICY_RESTART_WINDOW_MS;
    while (this.#restartsMs.length > 0 && this.#restartsMs[0]! < since) this.#restartsMs.shift();
    return this.#restartsMs.length;
  }

  /** Resolves once all that was asked for is done or given up. */
  async idle(): Promise<void> {
    await this.#idle;
  }

  /**
   * What one event's handlers asked for: first what is only said, then checkpoints, then what goes by them. Checkpoints of single processes are
   * taken by one command, each by itself.
   */
  perform(wants: readonly Want[]): void {
    const alone: Want[] = [];
    const last: Want[] = [];
    const together = new Map<string, Want[]>();
    for (const want of wants) {
      const { action } = want;
      if (action.do === "checkpoint" && action.who !== "dependents") alone.push(want);
      else if (action.do === "checkpoint" || action.do === "synchronize") {
        const key = `${action.do} ${action.who}${action.who === "group" ? this.#who("group", want).join(" ") : ""}`;
        together.set(key, [...(together.get(key) ?? []), want]);
      } else if (LAST.has(action.do)) last.push(want);
      else this.#single(want);
    }
    if (alone.length > 0) this.#checkpointAlone(alone);
    for (const group of together.values()) this.#checkpointTogether(group);
    for (const want of last) this.#single(want);
  }

  #single(want: Want): void {
    const { action } = want;
    if (action.do === "note") want.came("done", action.text);
    else if (action.do === "tell") this.#tell(want, action.value);
    else if (action.do === "log") void this.#enqueue(want, () => this.#payload(want, action.payload));
    else if (action.do === "collect") this.#collect(want);
    else if (action.do === "restart" || action.do === "roll-back")
      this.#restart(want, action.do, this.#who(action.who, want));
  }

  #who(who: Who, { process, failed }: Want): readonly string[] {
    switch (who) {
      case "self":
      case "dependents":
        return [process];
      case "group":
        return this.#parts.groupOf(process);
      case "failed":
        return failed;
      default:
        return this.#parts.table.running;
    }
  }

  // ---- checkpoints

  #checkpointAlone(wants: readonly Want[]): void {
    const chosen = new Map<string, Want[]>();
    for (const want of wants) {
      const { action } = want;
      if (action.do !== "checkpoint") continue;
      for (const process of this.#who(action.who, want))
        if (this.#runs(process, want) && this.#isFree(process, want))
          chosen.set(process, [...(chosen.get(process) ?? []), want]);
    }
    const names = [...chosen.keys()].filter((process) => this.#withinBudget([process], chosen.get(process)!));
    if (names.length === 0) return;
    this.#take([...names].sort(), [], [...new Set(names.flatMap((name) => chosen.get(name)!))]);
  }

  /** Sets that several handlers asked for in one event are one: what holds for each holds for all of them. Each group is one by itself. */
  #checkpointTogether(asked: readonly Want[]): void {
    const names = new Set<string>();
    const wants: Want[] = [];
    let withinMs = Number.POSITIVE_INFINITY;
    for (const want of asked) {
      const set = this.#setOf(want);
      if (this.#failedJustNow(set, want)) {
        want.came("dropped");
        continue;
      }
      wants.push(want);
      for (const process of set) if (this.#runs(process, want)) names.add(process);
      if (want.action.do === "synchronize") withinMs = Math.min(withinMs, want.action.within * 1000);
    }
    const [first] = wants;
    const sorted = [...names].sort();
    if (first === undefined || sorted.length === 0) return;
    const isGroup = "who" in first.action && first.action.who === "group";
    const waits = isGroup ? sorted.some((name) => this.#busy.has(name)) : this.#sets > 0;
    if (waits || this.restartUnderWay) {
      for (const want of wants) want.came("dropped");
      return;
    }
    if (!this.#withinBudget(sorted, wants)) return;
    const dependents = "who" in first.action && first.action.who === "dependents";
    const rest = Number.isFinite(withinMs) ? ["--within", String(Math.max(1, Math.round(withinMs)))] : [];
    this.#take(sorted, [dependents ? "--dependents" : "--coordinated", ...rest], wants);
  }

  /** Who is held; a checkpoint inside is of all of them (policy/build.ts). */
  #setOf(want: Want): readonly string[] {
    const { action } = want;
    if (action.do !== "synchronize") return this.#who("self", want);
    for (const inner of action.body) if (inner.do === "note") want.came("done", inner.text);
    return action.body.some((inner) => inner.do === "checkpoint") ? this.#who(action.who, want) : [];
  }

  #runs(process: string, want: Want): boolean {
    if (this.#parts.table.running.includes(process)) return true;
    want.came("refused", `${process} is not running`);
    return false;
  }

  /** What is under way is not asked for again: a policy says the same at every beat until it is done. */
  #isFree(process: string, want: Want): boolean {
    const isBusy = this.#busy.has(process) || this.#sets > 0 || this.restartUnderWay;
    if (!isBusy && !this.#failedJustNow([process], want)) return true;
    want.came("dropped");
    return false;
  }

  /** A policy says the same at every beat, and what stood in the way is mostly still there: each try waits twice as long as the one before. */
  #failedJustNow(names: readonly string[], { unbudgeted, insists }: Want): boolean {
    if (unbudgeted || insists) return false;
    const nowMs = this.#parts.now();
    return names.some((name) => nowMs < (this.#failures.get(name)?.untilMs ?? 0));
  }

  /** `taken`: of these names; the others' failed. */
  #count(names: readonly string[], taken: ReadonlySet<string>): void {
    const nowMs = this.#parts.now();
    const { running } = this.#parts.table;
    for (const name of this.#failures.keys()) if (!running.includes(name)) this.#failures.delete(name);
    for (const name of names) {
      const count = (this.#failures.get(name)?.count ?? 0) + 1;
      const waitMs = Math.min(POLICY_CHECKPOINT_WAIT_MS * 2 ** (count - 1), MAX_POLICY_CHECKPOINT_WAIT_MS);
      if (taken.has(name)) this.#failures.delete(name);
      else if (running.includes(name)) this.#failures.set(name, { count, untilMs: nowMs + waitMs });
    }
  }

  #withinBudget(names: readonly string[], wants: readonly Want[]): boolean {
    if (wants.some(({ unbudgeted }) => unbudgeted)) return true;
    if (this.#parts.guard.allowsAll(names, this.#parts.now())) return true;
    for (const want of wants)
      want.came("refused", "more than one checkpoint a second, or a tenth of the time, is too much");
    return false;
  }

  #take(names: readonly string[], flags: readonly string[], wants: readonly Want[]): void {
    for (const name of names) this.#busy.add(name);
    if (flags.length > 0) this.#sets += 1;
    const { driver, hooks } = this.terms;
    const how = ["--driver", driver, ...(hooks === undefined ? [] : ["--hooks", hooks])];
    void this.#run(wants, async (valid) => {
      try {
        if (valid.length === 0) return;
        const answer = await this.#parts.commands.run([
          "checkpoint",
          this.#parts.app,
          ...names,
          ...how,
          ...flags,
        ]);
        this.#count(names, this.#tookThem(answer, valid));
      } finally {
        for (const name of names) this.#busy.delete(name);
        if (flags.length > 0) this.#sets -= 1;
      }
    });
  }

  /** The processes of which one was taken. */
  #tookThem({ answer, why }: CommandAnswer, wants: readonly Want[]): ReadonlySet<string> {
    const { checkpoints = [] } = (answer ?? {}) as { checkpoints?: readonly Taken[] };
    const failed =
      ((answer ?? {}) as { failed?: readonly { process: string; message: string }[] }).failed ?? [];
    const nowMs = this.#parts.now();
    for (const { process, checkpoint, frozenMs } of checkpoints) {
      this.#parts.table.measured(process, checkpoint, frozenMs, nowMs);
      this.#parts.guard.held(process, frozenMs, nowMs, !wants.some(({ unbudgeted }) => unbudgeted));
      this.cost.checkpoints += 1;
      this.cost.frozenMs += frozenMs;
    }
    const taken = checkpoints.map(({ process, checkpoint }) => `${process} ${checkpoint}`).join(", ");
    for (const want of wants) {
      const own = failed.find(({ process }) => process === want.process) ?? failed[0];
      if (checkpoints.length === 0) want.came("failed", own?.message ?? why);
      else if (own !== undefined && own.process === want.process) want.came("failed", own.message);
      else want.came("done", wants.length === 1 ? taken : this.#ownOf(want, checkpoints, taken));
    }
    return new Set(checkpoints.map(({ process }) => process));
  }

  #ownOf({ process }: Want, checkpoints: readonly Taken[], all: string): string {
    const own = checkpoints.find((one) => one.process === process);
    return own === undefined ? all : `${own.process} ${own.checkpoint}`;
  }

  // ---- everything else

  #tell(want: Want, value: number): void {
    const nowMs = this.#parts.now();
    const isSoon = nowMs - this.#toldMs < POLICY_TELL_MS;
    if (!isSoon) {
      this.#toldMs = nowMs;
      this.#parts.tell(value);
    }
    want.came(isSoon ? "refused" : "done", isSoon ? "it told something a moment ago" : String(value));
  }

  async #payload(want: Want, on: boolean): Promise<void> {
    try {
      await this.#parts.payload(on);
      want.came("done", on ? "payloads are kept" : "payloads are kept no longer");
    } catch (error) {
      want.came("failed", (error as Error).message);
    }
  }

  #collect(want: Want): void {
    if (!this.#allowed("collect", want)) return;
    const nowMs = this.#parts.now();
    if (nowMs - this.#collectedMs < POLICY_COLLECT_MS) want.came("dropped");
    else {
      this.#collectedMs = nowMs;
      void this.#enqueue(want, () => this.#collectNow(want));
    }
  }

  async #collectNow(want: Want): Promise<void> {
    const { app, commands } = this.#parts;
    const { code, answer, why } = await commands.run(["gc", app, "--apply"], { idle: true });
    const { obsolete } = (answer ?? {}) as { obsolete?: readonly unknown[] };
    if (code !== 0 && code !== TAINTED) want.came("failed", why);
    else want.came("done", `${obsolete?.length ?? 0} checkpoints that no line needs`);
  }

  #allowed(word: Allowable, want: Want): boolean {
    if (this.terms.allow.includes(word)) return true;
    want.came("refused", `whoever plugged it did not allow ${word}`);
    return false;
  }

  #restart(want: Want, word: "restart" | "roll-back", names: readonly string[]): void {
    if (!this.#allowed(word, want)) return;
    if (names.length === 0) want.came("refused", "nobody has failed");
    else if (this.#restarting) want.came("dropped");
    else {
      this.#restarting = true;
      void this.#enqueue(want, () => this.#restartAgain(want, word, names)).finally(() => {
        this.#restarting = false;
      });
    }
  }

  /**
   * Each try waits twice as long as the one before; so many within the window, and no more. One that found a gc or a person's restart at
   * work has touched nothing, and is none of them, for as long as the window: nothing that lasts longer is a gc.
   */
  async #restartAgain(want: Want, word: "restart" | "roll-back", names: readonly string[]): Promise<void> {
    // One that somebody else began is theirs; what a try of ours left behind is taken up by the next.
    if (this.#isJournaled) return want.came("dropped", "a restart that somebody began is under way");
    const untilMs = this.#parts.now() + POLICY_RESTART_WINDOW_MS;
    for (let isAgain = false; ; isAgain = true) {
      const { restarts } = this;
      if (restarts >= MAX_POLICY_RESTARTS)
        return want.came(
          "refused",
          `${restarts} restarts within ${POLICY_RESTART_WINDOW_MS / 60_000} minutes`,
        );
      if (restarts > 0 || isAgain)
        await this.#parts.wait(POLICY_RESTART_WAIT_MS * 2 ** Math.max(0, restarts - 1));
      if (this.#parts.ending.aborted) return want.came("dropped", "the collector ends");
      if (want.epoch !== this.#parts.epoch()) return want.came("dropped", "its policy ended meanwhile");
      const { running } = this.#parts.table;
      if (word === "restart" && names.every((name) => running.includes(name)))
        return want.came("dropped", "they run already");
      this.#restartsMs.push(this.#parts.now());
      const { code, answer, why } = await this.#restartNow(names);
      if (isLocked(answer) && this.#parts.now() < untilMs) this.#restartsMs.pop();
      if (code === 0) {
        this.#failures.clear(); // what stood in the way may have been the death
        return want.came("done", names.join(", "));
      }
      want.came("failed", why);
    }
  }

  /** Where bytes in transit are nowhere it is refused, and goes further back then: a policy has nobody to ask. */
  async #restartNow(names: readonly string[]): Promise<CommandAnswer> {
    const { app, commands } = this.#parts;
    const args = ["restart", app, "--failed", names.join(",")];
    const first = await commands.run(args);
    return first.code === REFUSED ? commands.run([...args, "--fall-back"]) : first;
  }

  /** In its turn, if what asked for it still decides then. */
  #enqueue(want: Want, work: () => Promise<void>): Promise<void> {
    return this.#run([want], (valid) => (valid.length === 0 ? Promise.resolve() : work()));
  }

  #run(wants: readonly Want[], work: (valid: readonly Want[]) => Promise<void>): Promise<void> {
    const done = this.#serial.run(() => {
      const valid = wants.filter((want) => want.epoch === this.#parts.epoch());
      for (const want of wants) if (!valid.includes(want)) want.came("dropped", "its policy ended meanwhile");
      return work(valid);
    });
    this.#idle = done;
    return done;
  }
}

function isLocked(answer: unknown): boolean {
  return (answer as { error?: { code?: string } } | undefined)?.error?.code === "RL_LOCKED";
}

const LAST: ReadonlySet<string> = new Set(["collect", "restart", "roll-back"]);
/** Exit codes of the commands (interchange.md). */
const TAINTED = 3;
const REFUSED = 4;
