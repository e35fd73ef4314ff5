/**
 * A collector in the test's own process, over real recorded processes, whose policies go by a clock that the test plays: a second of theirs passes as
 * soon as everything of the second before is done. What policies ask for is done by the commands, within this process: one that starts for each
 * takes longer than all of its work.
 */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import type { CheckpointResult } from "../../src/checkpoint/checkpoint.ts";
import * as checkpoint from "../../src/cli/checkpoint.ts";
import * as compute from "../../src/cli/compute.ts";
import * as gc from "../../src/cli/gc.ts";
import * as run from "../../src/cli/run.ts";
import * as status from "../../src/cli/status.ts";
import { type Daemon, startDaemon } from "../../src/daemon/daemon.ts";
import { LineWatch } from "../../src/daemon/line-watch.ts";
import type { CommandAnswer } from "../../src/daemon/own-commands.ts";
import type { Policies } from "../../src/daemon/policies.ts";
import { readPolicyLog } from "../../src/daemon/policy-log.ts";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import { Serial } from "../../src/host/serial.ts";
import type { PolicyLogLine } from "../../src/model/plugged-policy.ts";
import type { PlugTerms } from "../../src/model/policy-terms.ts";
import type { BuiltPolicy, Component } from "../../src/policy/component.ts";
import { PolicyProcesses } from "../../src/policy/host.ts";
import { PolicyProcess } from "../../src/policy/host-process.ts";
import { parseSettings } from "../../src/policy/settings.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";
import { ECHO, freePort, type Rig, until, withRig } from "./rig.ts";

const MAIN = join(import.meta.dirname, "../../dist/cli/main.js");
/** Asks, waits for the answer, says a byte of it, pauses for 20 ms. */
const CLIENT = `use Socket;socket(S,PF_INET,SOCK_STREAM,0);connect(S,pack_sockaddr_in($ARGV[0],inet_aton("127.0.0.1"))) or die;while(syswrite(S,"question\\n")&&sysread(S,$_,99)){syswrite(STDOUT,".");select(undef,undef,undef,.02)}`;

/** One checkpoint that a policy had taken. */
interface Taken {
  readonly app: string;
  readonly process: string;
  readonly checkpoint: number;
  readonly atMs: number;
  readonly frozenMs: number;
  /** The command that took it, count. */
  readonly command: number;
}

export class Clocked {
  readonly rig: Rig;
  readonly taken: Taken[] = [];
  readonly trouble: string[] = [];
  nowMs = 1_000_000;
  readonly #pending = new Set<Promise<unknown>>();
  readonly #apps: string[] = [];
  /** Outputs of the clients of applications where nobody was killed. */
  readonly #talking = new Map<string, readonly string[]>();
  readonly #one = new Serial();
  #daemon: Daemon | undefined;
  #commands = 0;

  private constructor(rig: Rig) {
    this.rig = rig;
  }

  static async start(rig: Rig, start: (one: Component) => Promise<PolicyProcess>): Promise<Clocked> {
    const made = new Clocked(rig);
    const lines = new LineWatch(rig.home, () => made.nowMs);
    made.#daemon = await startDaemon({
      home: rig.home,
      pinDir: rig.pinDir,
      ringBytes: 1 << 22,
      commitIntervalMs: 20,
      onFull: "taint",
      payloadLimitMib: 64,
      program: [process.execPath, MAIN],
      version: "test",
      onFatal: (error) => made.trouble.push(String(error)),
      onTrouble: (sentence) => {
        if (!sentence.includes("records on this machine already")) made.trouble.push(sentence);
      },
      policyParts: {
        now: () => made.nowMs,
        beatMs: 2 ** 30,
        commands: { run: (args) => made.#tracked(made.#run(args)), close: async () => undefined },
        lines: {
          due: (...asked) => made.#tracked(lines.due(...asked)),
          dependents: (...asked) => made.#tracked(lines.dependents(...asked)),
          forget: (app) => lines.forget(app),
          close: () => lines.close(),
        },
        processes: new PolicyProcesses(async (one) => made.#watched(await start(one))),
        wait: async (ms) => {
          made.nowMs += ms;
        },
      },
    });
    return made;
  }

  get policies(): Policies {
    return this.#daemon!.policies;
  }

  /** A server that answers, and clients that ask it again and again. */
  async talkers(
    app: string,
    clients: readonly string[],
    groupOf: (name: string) => string | undefined = () => undefined,
  ): Promise<void> {
    this.#apps.push(app);
    const port = String(await freePort());
    await this.#start(app, "server", groupOf("server"), process.execPath, "-e", ECHO, port);
    await until("the server listens", () => this.rig.output(`${app}-server`).includes("listening"));
    for (const name of clients) await this.#start(app, name, groupOf(name), "perl", "-e", CLIENT, port);
    this.#talking.set(
      app,
      clients.map((name) => this.rig.path(`${app}-${name}.out`)),
    );
  }

  async #start(app: string, name: string, group: string | undefined, ...command: string[]): Promise<void> {
    const how = ["--detach", "--output", this.rig.path(`${app}-${name}.out`), "--log", this.rig.home];
    const inGroup = group === undefined ? [] : ["--group", group];
    await this.command(["run", app, name, ...how, ...inGroup, "--", ...command]);
  }

  /** Resolves once the collector knows. */
  async kill(app: string, name: string): Promise<void> {
    this.#talking.delete(app);
    new ProcessCgroup(app, name).kill();
    const client = await this.rig.client();
    const isDead = async (): Promise<boolean> =>
      (await client.processes()).some((one) => one.app === app && one.process === name && !one.live);
    await until(`${name} is known to be dead`, isDead);
    client.close();
  }

  async plug(
    app: string,
    policy: string | BuiltPolicy,
    set: readonly string[] = [],
    terms: Partial<PlugTerms> = {},
  ): Promise<void> {
    const { component, lines } = typeof policy === "string" ? loadPolicy(policy) : policy;
    const whole: PlugTerms = {
      set: [...parseSettings(component, set)],
      allow: [],
      fallback: null,
      driver: "none",
      ...terms,
    };
    await this.policies.plug(app, { component, lines, terms: whole, shadowMs: 0, dryRun: false }, true);
  }

  /** Second by second; `each` after each of them, which can say that it is enough. */
  async beats(count: number, each: () => Promise<boolean> = async () => true): Promise<void> {
    for (let beat = 0; beat < count; beat += 1) {
      this.nowMs += 1000;
      await this.#talked();
      await this.policies.look();
      await this.policies.beat();
      await this.settled();
      if (!(await each())) return;
    }
  }

  /** In every second all clients are answered, however busy the machine is. */
  async #talked(): Promise<void> {
    const said = (): number[] => [...this.#talking.values()].flat().map((output) => statSync(output).size);
    const before = said();
    await until("all talk", () => said().every((bytes, at) => bytes > before[at]!));
  }

  /** All that was asked for is done, and the policies have heard of it. */
  async settled(): Promise<void> {
    for (let quiet = 0; quiet < 3; quiet += 1) {
      if (this.#pending.size > 0) quiet = 0;
      await Promise.allSettled(this.#pending);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  log(app: string): PolicyLogLine[] {
    return readPolicyLog(join(this.rig.home, app));
  }

  takenOf(app: string, process?: string): Taken[] {
    return this.taken.filter((one) => one.app === app && (process ?? one.process) === one.process);
  }

  async close(): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    for (const app of this.#apps)
      for (const name of ["server", ...clientNames(this.rig, app)]) {
        const cgroup = new ProcessCgroup(app, name);
        await until(`${name} is gone`, () => {
          if (cgroup.populated) cgroup.kill();
          return cgroup.remove();
        });
      }
    await daemon?.close();
  }

  /** What a command prints. Throws what it throws. */
  command(args: readonly string[]): Promise<string> {
    return this.#one.run(() => printed(args));
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.command([...args, "--log", this.rig.home, "--json"])) as T;
  }

  async #run(args: readonly string[]): Promise<CommandAnswer> {
    const command = ++this.#commands;
    try {
      const answer = await this.json<{ checkpoints?: readonly CheckpointResult[] }>(...args);
      for (const one of args[0] === "checkpoint" ? answer.checkpoints! : [])
        this.taken.push({ ...one, app: args[1]!, atMs: this.nowMs, command });
      return { code: 0, answer, why: "" };
    } catch (error) {
      return { code: 1, answer: undefined, why: (error as Error).message };
    }
  }

  #watched(process: PolicyProcess): PolicyProcess {
    const ask = process.ask.bind(process);
    process.ask = (request) => this.#tracked(ask(request));
    return process;
  }

  #tracked<T>(work: Promise<T>): Promise<T> {
    this.#pending.add(work);
    const done = (): void => void this.#pending.delete(work);
    work.then(done, done);
    return work;
  }
}

function clientNames(rig: Rig, app: string): string[] {
  const all = Array.from({ length: 16 }, (_, at) => `c${at}`);
  return all.filter((name) => existsSync(rig.path(`${app}-${name}.out`)));
}

async function printed(args: readonly string[]): Promise<string> {
  const program = new Command().exitOverride();
  for (const one of [checkpoint, compute, gc, run, status]) one.register(program);
  let text = "";
  const { write } = process.stdout;
  process.stdout.write = ((chunk: string) => {
    text += chunk;
    return true;
  }) as typeof write;
  try {
    await program.parseAsync([...args], { from: "user" });
  } finally {
    process.stdout.write = write;
    process.exitCode = undefined;
  }
  return text;
}

/** `start`: of policies' processes, for tests of their faults. */
export function withClocked(
  name: string,
  work: (world: Clocked, rig: Rig) => Promise<void>,
  start = (one: Component): Promise<PolicyProcess> => PolicyProcess.start(one),
): Promise<void> {
  return withRig(name, async (rig) => {
    const world = await Clocked.start(rig, start);
    try {
      await work(world, rig);
    } finally {
      await world.close();
    }
  });
}
