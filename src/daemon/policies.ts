/** The policies of a collector: one an application. Beats, comes back with what the logs name, refuses what can't run here. */

import { readdirSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { RecoveryLineError } from "../model/errors.ts";
import { POLICY_BEAT_MS } from "../model/limits.ts";
import type { PlugAnswer, PolicyStatus } from "../model/plugged-policy.ts";
import { ALLOWABLE, type PlugTerms } from "../model/policy-terms.ts";
import type { PayloadLoggers } from "../payload/payload-loggers.ts";
import type { Component, Instruction } from "../policy/component.ts";
import { PolicyProcesses } from "../policy/host.ts";
import { PolicyFault } from "../policy/host-process.ts";
import {
  AppPolicy,
  handlesOutput,
  type PlugRequest,
  type PolicyCollector,
  type SwapStep,
} from "./app-policy.ts";
import { LineWatch } from "./line-watch.ts";
import type { DependentsAnswer } from "./line-worker.ts";
import { OwnCommands } from "./own-commands.ts";
import type { NodeFacts } from "./policy-facts.ts";
import { hasPolicyLog } from "./policy-log.ts";

export interface PoliciesOptions {
  readonly home: string;
  readonly collector: PolicyCollector;
  readonly payloads: Pick<PayloadLoggers, "enable" | "disable">;
  /** What starts the command line. */
  readonly program: readonly [string, ...string[]];
  /** True: the collector has no rights (collect --user), and what needs them is refused. */
  readonly withoutRights: boolean;
  readonly onTrouble: (sentence: string) => void;
  /** For tests. */
  readonly now?: () => number;
  readonly onStep?: (step: SwapStep) => void;
  readonly commands?: Pick<OwnCommands, "run" | "close">;
  readonly beatMs?: number;
  readonly lines?: Pick<LineWatch, "due" | "dependents" | "forget" | "close">;
  readonly processes?: PolicyProcesses;
  readonly wait?: (ms: number) => Promise<void>;
  readonly node?: () => NodeRoom;
}

/** What is left of the node's disk and memory, and all of it; bytes. */
interface NodeRoom extends NodeFacts {
  readonly size: number;
  readonly allMemory: number;
}

/** What acts on processes or on the kernel. */
const NEEDS_RIGHTS: ReadonlySet<string> = new Set([
  "checkpoint",
  "synchronize",
  "restart",
  "roll-back",
  "log",
]);
/** `pressure` is raised below this share of a file system or of memory, and again after so many ms while it lasts. */
const SHORT_SHARE = 0.05;
const PRESSURE_MS = 30_000;

export class Policies {
  readonly #options: PoliciesOptions;
  readonly #now: () => number;
  readonly #apps = new Map<string, Promise<AppPolicy>>();
  readonly #processes: PolicyProcesses;
  readonly #commands: Pick<OwnCommands, "run" | "close">;
  readonly #lines: Pick<LineWatch, "due" | "dependents" | "forget" | "close">;
  readonly #timer: NodeJS.Timeout;
  /** Aborted when the collector ends: nobody sleeps on, and nothing is tried again. */
  readonly #ending = new AbortController();
  #pressedMs = Number.NEGATIVE_INFINITY;
  #plugged: readonly PolicyStatus[] = [];
  /** Why the last beat failed; "": it did not. */
  #trouble = "";
  /** What the last beat took, ms. */
  beatMs = 0;

  constructor(options: PoliciesOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#processes = options.processes ?? new PolicyProcesses();
    this.#commands = options.commands ?? new OwnCommands(options.program, options.home);
    this.#lines = options.lines ?? new LineWatch(options.home, this.#now);
    this.#timer = setInterval(() => void this.#beatSafely(), options.beatMs ?? POLICY_BEAT_MS);
  }

  /** What the logs name decides again. What can't is told, and keeps nothing else from it. */
  async comeBack(): Promise<void> {
    const { home, onTrouble } = this.#options;
    for (const entry of readdirSync(home, { withFileTypes: true })) {
      if (!entry.isDirectory() || !hasPolicyLog(join(home, entry.name))) continue;
      await this.#open(entry.name).catch((error: unknown) => {
        onTrouble(`the policy of ${entry.name} does not come back: ${(error as Error).message}`);
      });
    }
  }

  /**
   * `isAllowed`: whoever plugs has said what it may do. Throws RL_UNKNOWN_APP, RL_NOT_SUPPORTED, RL_REFUSED where it wants to do what nobody
   * allowed, RL_LIMIT, RL_LOG_WRITE; what was plugged before goes on then.
   */
  async plug(app: string, request: PlugRequest, isAllowed: boolean): Promise<PlugAnswer> {
    const { component, terms } = request;
    if (this.#options.withoutRights) refuseWithoutRights(component, terms);
    if (!isAllowed) refuseUnasked(component);
    refuseHook(component, terms);
    try {
      return await (await this.#open(app)).plug(request);
    } catch (error) {
      if (!(error instanceof PolicyFault)) throw error;
      throw new RecoveryLineError(
        "RL_REFUSED",
        `the process of ${component.name} does not start (${error.fault}): ${error.message}`,
        "What was plugged before goes on.",
        error,
      );
    }
  }

  async unplug(app: string): Promise<{ policy: string; epoch: number }> {
    return (await this.#open(app)).unplug();
  }

  async list(): Promise<PolicyStatus[]> {
    const all = await this.#all();
    return all.flatMap(({ status }) => status ?? []).sort((a, b) => (a.app < b.app ? -1 : 1));
  }

  /** For metrics: what is plugged, and what was done, as of the last beat. */
  get plugged(): readonly PolicyStatus[] {
    return this.#plugged;
  }

  /** Something may have ended. */
  async look(): Promise<void> {
    for (const one of await this.#all()) one.look();
  }

  /** What goes wrong at every beat is told once. */
  async #beatSafely(): Promise<void> {
    try {
      await this.beat();
      this.#trouble = "";
    } catch (error) {
      const { message } = error as Error;
      if (message !== this.#trouble) this.#options.onTrouble(`policies can't be asked: ${message}`);
      this.#trouble = message;
    }
  }

  async beat(): Promise<void> {
    if (this.#apps.size === 0) return;
    const beganMs = performance.now();
    const node = this.#options.node?.() ?? nodeFacts(this.#options.home);
    const all = await this.#all();
    const isShort = node.free < SHORT_SHARE * node.size || node.memory < SHORT_SHARE * node.allMemory;
    const pressed = isShort && this.#now() - this.#pressedMs >= PRESSURE_MS;
    if (pressed) this.#pressedMs = this.#now();
    await Promise.all(
      all.map(async (one) => {
        await one
          .beat(node)
          .catch((error: unknown) =>
            this.#options.onTrouble(`the policy of ${one.app}: ${(error as Error).message}`),
          );
        if (pressed) await one.raise("pressure", {});
      }),
    );
    this.#plugged = all.flatMap(({ status }) => status ?? []);
    this.beatMs = performance.now() - beganMs;
  }

  /** Output of these processes waits: AppPolicy.output. */
  async output(app: string, processes: readonly string[]): Promise<boolean> {
    const one = await this.#apps.get(app)?.catch(() => undefined);
    return (await one?.output(processes)) ?? false;
  }

  /** Throws RL_REFUSED where a policy of the application decides what output waits for, and nothing would hold that of a new process. */
  async requireHeld(app: string, process: string): Promise<void> {
    const policy = (await this.#apps.get(app)?.catch(() => undefined))?.outputPolicy;
    if (policy !== undefined) throw unheld(policy, [process]);
  }

  /** What sends without waiting can't be kept from showing what a failure undoes; without an image nothing keeps it. */
  #refuseUnheld(app: string, component: Component, { driver }: PlugTerms): void {
    if (!handlesOutput(component)) return;
    const all = this.#options.collector.processes().filter((one) => one.app === app && one.live);
    const free = all.filter(({ hold }) => hold === undefined).map(({ process }) => process);
    if (free.length > 0) throw unheld(component.name, free.sort());
    if (driver === "none")
      throw new RecoveryLineError(
        "RL_NOT_SUPPORTED",
        `not supported here: ${component.name} lets output go once a checkpoint keeps it, and driver none keeps no image`,
        "Take driver criu.",
      );
  }

  /** Resolves once what policies wanted done is done, or the time is up. */
  async leaving(withinSeconds: number): Promise<void> {
    const done = this.#all().then((all) =>
      Promise.all(
        all.map(async (one) => {
          await one.raise("leaving", { "leaving.within": withinSeconds });
          await one.idle();
        }),
      ),
    );
    let timer: NodeJS.Timeout | undefined;
    const up = new Promise((resolve) => {
      timer = setTimeout(resolve, withinSeconds * 1000);
    });
    await Promise.race([done, up]);
    clearTimeout(timer);
  }

  /** `LineWatch.dependents`. */
  dependents(app: string, processes: readonly string[]): Promise<DependentsAnswer> {
    return this.#lines.dependents(app, processes);
  }

  async close(): Promise<void> {
    if (this.#ending.signal.aborted) return;
    this.#ending.abort();
    clearInterval(this.#timer);
    await this.#commands.close();
    for (const one of await this.#all()) await one.close();
    await this.#lines.close();
  }

  async #all(): Promise<AppPolicy[]> {
    const opened = await Promise.allSettled(this.#apps.values());
    return opened.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  }

  #open(app: string): Promise<AppPolicy> {
    const known = this.#apps.get(app);
    if (known !== undefined) return known;
    const opened = AppPolicy.open(this.#parts(app));
    this.#apps.set(app, opened);
    opened.catch(() => this.#apps.delete(app));
    return opened;
  }

  #parts(app: string) {
    const { home, collector, payloads, onTrouble, onStep } = this.#options;
    return {
      app,
      home,
      folder: join(home, app),
      collector,
      processes: this.#processes,
      commands: this.#commands,
      lines: this.#lines,
      now: this.#now,
      wait: this.#options.wait ?? ((ms: number) => this.#wait(ms)),
      ending: this.#ending.signal,
      payload: (name: string, on: boolean) => (on ? payloads.enable(name) : payloads.disable(name)),
      tell: (from: string, value: number) => void this.#tell(from, value),
      fit: (component: Component, terms: PlugTerms) => this.#refuseUnheld(app, component, terms),
      onTrouble,
      ...(onStep === undefined ? {} : { onStep }),
    };
  }

  /** Ends early where the collector ends. */
  async #wait(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#ending.signal }).catch(() => undefined);
  }

  async #tell(from: string, value: number): Promise<void> {
    for (const one of await this.#all())
      if (one.app !== from) await one.raise("told", { "told.value": value });
  }
}

function unheld(policy: string, processes: readonly string[]): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `${policy} decides when output may go, and nothing holds that of ${processes.join(", ")}`,
    "Start them with `run --hold-output`, or plug another policy.",
  );
}

/** Everything that the component may do. */
function wordsOf(component: Component): Set<string> {
  const words = new Set<string>();
  const walk = (body: readonly Instruction[]): void => {
    for (const one of body) {
      words.add(one.do);
      if (one.do === "if") [one.yes, one.no].forEach(walk);
      if (one.do === "synchronize") walk(one.body);
    }
  };
  for (const { body } of component.handlers) walk(body);
  return words;
}

function refuseWithoutRights(component: Component, { fallback, mostLoss }: PlugTerms): void {
  const words = [...wordsOf(component)].filter((word) => NEEDS_RIGHTS.has(word));
  if (fallback !== null) words.push("--fallback periodic");
  if (mostLoss !== undefined) words.push("--most-loss");
  if (words.length === 0) return;
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `not supported here: this collector has no rights (collect --user), and ${words.join(", ")} needs root`,
    "Start the collector without --user, or take a policy that only notes, tells and collects, with --fallback none.",
  );
}

function refuseUnasked(component: Component): void {
  const words = wordsOf(component);
  const hurts = ALLOWABLE.filter((word) => words.has(word));
  if (hurts.length === 0) return;
  throw new RecoveryLineError(
    "RL_REFUSED",
    `${component.name} may ${hurts.join(", ")}, and no --allow says whether it is allowed to`,
    `Say --allow ${hurts.join(",")}, or --allow none: then it is plugged, and does not.`,
  );
}

/** A hook takes one program's image at its own moment: there is no set of them at one instant. */
function refuseHook(component: Component, { driver, hooks }: PlugTerms): void {
  if ((driver === "hook") !== (hooks !== undefined))
    throw new RecoveryLineError("RL_USAGE", "--driver hook and --hooks FILE go together");
  if (driver !== "hook" || !wordsOf(component).has("synchronize")) return;
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `not supported here: ${component.name} synchronizes, and driver hook takes one process at a time`,
    "Take driver criu or none, or a policy without synchronize.",
  );
}

/** Cheap: two calls. */
function nodeFacts(home: string): NodeRoom {
  const { bavail, blocks, bsize } = statfsSync(home);
  const memory = readFileSync("/proc/meminfo", "utf8");
  const kib = (name: string): number => Number(new RegExp(`^${name}: *(\\d+)`, "m").exec(memory)?.[1] ?? 0);
  return {
    free: bavail * bsize,
    size: blocks * bsize,
    memory: kib("MemAvailable") * 1024,
    allMemory: kib("MemTotal") * 1024,
  };
}
