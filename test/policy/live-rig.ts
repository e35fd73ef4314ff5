/** The policy host over a collector, commands and a clock that tests play: no kernel, no process of its own. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ProcessInfo } from "../../src/client/protocol.ts";
import type { ProcessCounts } from "../../src/collect/process-buffer.ts";
import type { PlugRequest } from "../../src/daemon/app-policy.ts";
import { LineFacts } from "../../src/daemon/line-facts.ts";
import type { LineAnswer } from "../../src/daemon/line-worker.ts";
import type { CommandAnswer } from "../../src/daemon/own-commands.ts";
import { Policies, type PoliciesOptions } from "../../src/daemon/policies.ts";
import { readPolicyLog } from "../../src/daemon/policy-log.ts";
import type { PolicyLogLine } from "../../src/model/plugged-policy.ts";
import type { PlugTerms } from "../../src/model/policy-terms.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import type { BuiltPolicy, Component } from "../../src/policy/component.ts";
import { PolicyProcesses } from "../../src/policy/host.ts";
import { PolicyFault, type PolicyProcess } from "../../src/policy/host-process.ts";
import { type Answer, fromWire, type Request } from "../../src/policy/host-protocol.ts";
import { Program } from "../../src/policy/program.ts";

export const APP = "shop";

export function built(body: string): BuiltPolicy {
  return buildPolicy(
    "test.xml",
    `<policy xmlns="urn:recovery-line:policy:1" name="test" version="1">\n${body}\n</policy>`,
  );
}

/** Runs the component in this process; `fault`: what becomes of the next answers. */
export class PlayedProcess {
  static fault: "crash" | undefined;
  running = true;
  readonly #component: Component;

  constructor(component: Component) {
    this.#component = component;
  }

  async ask({ sequence, epoch, event, each, parameters, rows }: Request): Promise<Answer> {
    if (PlayedProcess.fault !== undefined) {
      this.running = false;
      throw new PolicyFault(PlayedProcess.fault, "it was told to");
    }
    const names = this.#component.parameters.map(({ name }, at) => [name, fromWire(parameters[at])] as const);
    const program = new Program(this.#component, new Map(names));
    const steps = rows.map(([facts, state]) =>
      program.step(event, each, facts.map(fromWire), Float64Array.from(state, fromWire)),
    );
    return {
      sequence,
      epoch,
      rows: steps.map(({ actions, state }) => ({ actions, state: Float64Array.from(state) })),
    };
  }

  async close(): Promise<void> {
    this.running = false;
  }
}

interface Played {
  live: boolean;
  incarnation: number;
  newest: number;
  changed: boolean;
  received: number;
  group?: string;
  /** Started with `run --hold-output`. */
  held?: true;
  /** Exit code of the last life. */
  code?: number;
}

export class LiveRig {
  readonly home = mkdtempSync(join(tmpdir(), "rl-policy-live-"));
  readonly processes = new Map<string, Played>();
  /** Every command that was run, without its program. */
  readonly ran: string[] = [];
  readonly trouble: string[] = [];
  nowMs = 1_000_000;
  stored: { record: unknown; memory: unknown } = { record: undefined, memory: undefined };
  /** What keeping a record throws. */
  refusesWrites: Error | undefined;
  /** How long a checkpoint holds a process still, ms. */
  frozenMs = 10;
  policies: Policies;
  /** Answers a command; undefined: as usual. */
  answer: (args: readonly string[]) => CommandAnswer | undefined = () => undefined;
  /** What the next look at the lines finds; undefined: nothing new. */
  line: LineAnswer | undefined;
  readonly waitedMs: number[] = [];
  waited: () => Promise<unknown> = async () => undefined;
  readonly #options: Partial<PoliciesOptions>;

  constructor(names: readonly string[], options: Partial<PoliciesOptions> = {}) {
    for (const name of names)
      this.processes.set(name, { live: true, incarnation: 1, newest: 0, changed: true, received: 0 });
    mkdirSync(join(this.home, APP));
    this.#options = options;
    this.policies = this.#open();
  }

  #open(): Policies {
    const start = async (one: Component) => new PlayedProcess(one) as unknown as PolicyProcess;
    return new Policies({
      home: this.home,
      collector: {
        policies: {
          of: async () => structuredClone(this.stored),
          keep: async (_, record, memory) => {
            if (this.refusesWrites !== undefined) throw this.refusesWrites;
            this.stored = structuredClone({ record, memory });
          },
          remember: (_, memory) => {
            this.stored = structuredClone({ ...this.stored, memory });
          },
          counts: () => this.#counts(),
        },
        processes: () => this.#infos(),
      },
      payloads: {
        enable: async () => void this.ran.push("payload on"),
        disable: async () => void this.ran.push("payload off"),
      },
      program: ["unused"],
      withoutRights: false,
      onTrouble: (sentence) => this.trouble.push(sentence),
      now: () => this.nowMs,
      beatMs: 2 ** 30,
      processes: new PolicyProcesses(start),
      lines: {
        due: async () => (this.line === undefined ? undefined : new LineFacts(this.line, this.nowMs)),
        dependents: async () => undefined,
        forget: () => undefined,
        close: async () => undefined,
      },
      wait: async (ms) => {
        this.waitedMs.push(ms);
        await this.waited();
      },
      commands: { run: async (args) => this.#run(args), close: async () => undefined },
      ...this.#options,
    });
  }

  /** As `policy plug` does. */
  plug({ component, lines }: BuiltPolicy, terms: Partial<PlugTerms> = {}, rest: Partial<PlugRequest> = {}) {
    const whole: PlugTerms = { set: [], allow: [], fallback: { interval: 60 }, driver: "none", ...terms };
    const request = { component, lines, terms: whole, shadowMs: 0, dryRun: false, ...rest };
    return this.policies.plug(APP, request, terms.allow !== undefined);
  }

  /** Time goes on, second by second; what is asked for is done before the next. */
  async beats(count: number, seconds = 1): Promise<void> {
    for (let beat = 0; beat < count; beat += 1) {
      this.nowMs += seconds * 1000;
      await this.policies.beat();
      await this.settled();
    }
  }

  async settled(): Promise<void> {
    for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }

  /** The collector is killed and starts again. */
  async killed(): Promise<void> {
    this.policies = this.#open();
    await this.policies.comeBack();
    await this.settled();
  }

  set fault(fault: "crash" | undefined) {
    PlayedProcess.fault = fault;
  }

  async status() {
    return (await this.policies.list())[0];
  }

  get log(): PolicyLogLine[] {
    return readPolicyLog(join(this.home, APP));
  }

  /** "action outcome" of what was asked for. */
  get outcomes(): string[] {
    return this.log.flatMap(({ action, outcome }) => (action === undefined ? [] : [`${action} ${outcome}`]));
  }

  async remove(): Promise<void> {
    PlayedProcess.fault = undefined;
    await this.policies.close();
    rmSync(this.home, { recursive: true, force: true });
  }

  #run(args: readonly string[]): CommandAnswer {
    this.ran.push(args.join(" "));
    const own = this.answer(args);
    if (own !== undefined) return own;
    if (args[0] !== "checkpoint") return { code: 0, answer: {}, why: "" };
    const named = args.slice(2, args.indexOf("--driver"));
    const checkpoints = named.map((process) => {
      const one = this.processes.get(process)!;
      one.newest += 1;
      one.changed = false;
      return { process, checkpoint: one.newest, frozenMs: this.frozenMs };
    });
    return { code: 0, answer: { checkpoints, failed: [] }, why: "" };
  }

  #counts(): ProcessCounts[] {
    return [...this.processes].map(([process, { newest, changed, received }]) => ({
      process,
      sent: 0,
      received,
      sentSince: 0,
      receivedSince: 0,
      hidden: false,
      changed,
      checkpoints: newest,
      newest,
    }));
  }

  #infos(): ProcessInfo[] {
    return [...this.processes].map(([process, { live, incarnation, newest, group, code, held }]) => ({
      app: APP,
      process,
      cgroupId: 1,
      live,
      rings: false,
      incarnation,
      uncaptured: [],
      failed: false,
      left: [],
      ...(group === undefined ? {} : { group }),
      ...(held === undefined ? {} : { hold: { limitMs: 1000 } }),
      ...(live || code === undefined ? {} : { end: { code } }),
      lines: 0,
      checkpoints: newest,
      newestCheckpoint: newest,
    }));
  }
}

/** Waits take their time. */
export const REAL_WAITS = { wait: undefined } as unknown as Partial<PoliciesOptions>;

export async function withLiveRig(
  names: readonly string[],
  work: (rig: LiveRig) => Promise<void>,
  options: Partial<PoliciesOptions> = {},
): Promise<void> {
  const rig = new LiveRig(names, options);
  try {
    await work(rig);
  } finally {
    await rig.remove();
  }
}
