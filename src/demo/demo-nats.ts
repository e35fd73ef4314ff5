/**
 * The live demo: unmodified programs traced in the kernel, checkpointed together once and then independently at random times, one killed,
 * the line printed. It uses nothing but the commands that everybody has, and shows each one it runs.
 *
 * Its end does not depend on luck: the first checkpoint, of all at one moment, is a line by itself, so no line lies before it. The demo
 * looks at the answers itself (demo-check.ts) and fails where they are not what it promises.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KernelSource } from "../capture/kernel-source.ts";
import { chooseDriver } from "../checkpoint/driver-choice.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { cleanedUp } from "../terminal/clean-up.ts";
import { EXIT } from "../terminal/exit-codes.ts";
import { write } from "../terminal/print.ts";
import {
  askCommand,
  commandFailed,
  MAIN,
  runCommand,
  showCommand,
  triedCommand,
} from "../terminal/run-command.ts";
import { checkedVerdict, type DemoAnswer } from "./demo-check.ts";
import { type DemoProgram, natsPrograms } from "./demo-programs.ts";
import { seeded } from "./seeded.ts";

export interface DemoOptions {
  /** Chooses pauses, order and victim: the same seed gives the same plan, though never the same run. */
  readonly seed: number;
  /** How long checkpoints are taken before one process is killed, in seconds. */
  readonly seconds: number;
}

const READY_MS = 60_000;
/** Pause between two checkpoints, in ms: at least, and the random rest. */
const PAUSE_MS = 20;
const RANDOM_PAUSE_MS = 300;
/** A driver may refuse at one moment what it takes at the next (a connection that is just being made), count. */
const COORDINATED_TRIES = 5;
/** Independent checkpoints at least, however slow the machine is, count. */
const LEAST_CHECKPOINTS = 2;

/** Runs it and cleans up whatever happens; the log stays. Throws what its commands fail with. */
export async function natsDemo(options: DemoOptions): Promise<void> {
  const demo = new NatsDemo(options);
  await cleanedUp(
    () => demo.run(),
    () => demo.stop(),
  );
  await write("\n7. Is the log whole?\n");
  await runCommand(["verify", demo.app, "--log", demo.home], [EXIT.clean]);
  await write(
    `\nThe log is in ${demo.home} and stays there. Ask it again:\n` +
      `  recovery-line compute ${demo.app} --log ${demo.home} --failed nats-1,publisher\n` +
      `  recovery-line failures ${demo.app} --log ${demo.home}\n` +
      `  recovery-line explain ${demo.app} --log ${demo.home}\n\n${demo.verdict()}\n`,
  );
}

class NatsDemo {
  readonly home = mkdtempSync(join(tmpdir(), "recovery-line-demo-"));
  /** A name of its own: cgroups are shared by the whole machine. */
  readonly app = `demo-${process.pid}`;
  readonly #pinDir = `/sys/fs/bpf/recovery-line-${this.app}`;
  readonly #options: DemoOptions;
  readonly #random: (limit: number) => number;
  readonly #started: DemoProgram[] = [];
  #collector: ChildProcess | undefined;
  #client: ChildProcess | undefined;
  #server = "";
  #driver = "none";
  #victim = "";
  #taken = 0;
  #refused = 0;
  #answers: { readonly one: DemoAnswer; readonly all: DemoAnswer } | undefined;

  constructor(options: DemoOptions) {
    this.#options = options;
    this.#random = seeded(options.seed);
  }

  async run(): Promise<void> {
    await write("1. A collector records what chosen processes tell each other.\n");
    await this.#startCollector();
    await write(
      "\n2. Four programs that nobody here wrote. Each runs in a cgroup and is one process of the application.\n",
    );
    const folder = join(this.home, "programs");
    mkdirSync(folder);
    const { recorded, client, server } = await natsPrograms(folder);
    for (const program of recorded) await this.#start(program);
    this.#server = server;
    await write(
      `\nAnd a client of ${server} that nobody records: it is outside, never goes back, and spoils no checkpoint.\n`,
    );
    this.#client = spawn(client[0]!, client.slice(1), { stdio: "ignore" });
    this.#driver = (await chooseDriver("auto", this.home)).driver.name;
    await write("\n3. One checkpoint of all at the same moment: no line will ever lie before it.\n");
    await this.#together();
    await write(`\n4. Independent checkpoints at random times (seed ${this.#options.seed}).\n`);
    await this.#checkpoints();
    this.#victim = this.#started[this.#random(this.#started.length)]!.process;
    await write(`\n5. SIGKILL for ${this.#victim}.\n`);
    new ProcessCgroup(this.app, this.#victim).kill();
    await sleep(300);
    await this.#cli(["status", this.app]);
    const one = await this.#line(
      "\nFrom where may each process go on, so that nobody remembers what nobody sent?\n",
      ["compute", this.app, "--failed", this.#victim],
    );
    const all = await this.#line("\n6. And had the whole machine gone down?\n", ["compute", this.app]);
    this.#answers = { one, all };
  }

  /** The line for people, and then for the demo's own check: those that go on move meanwhile, and change no point of return. */
  async #line(question: string, command: readonly string[]): Promise<DemoAnswer> {
    await write(question);
    await this.#cli([...command, ...(command.includes("--failed") ? ["--diagram"] : [])]);
    return askCommand<DemoAnswer>([...command, "--log", this.home]);
  }

  /** What was seen, in one line. Throws RL_DRIVER where it is not what the demo promises. */
  verdict(): string {
    const { one, all } = this.#answers!;
    const counts = { together: this.#started.length, alone: this.#taken, refused: this.#refused };
    return checkedVerdict({ victim: this.#victim, server: this.#server }, one, all, counts);
  }

  async #startCollector(): Promise<void> {
    const args = ["collect", "--log", this.home, "--pin-dir", this.#pinDir];
    await showCommand(args);
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    this.#collector = child;
    const ended = once(child, "exit").then(([code]) =>
      Promise.reject(commandFailed("collect", code as number)),
    );
    const [ready] = (await Promise.race([once(child.stdout!, "data"), ended])) as [Buffer];
    ended.catch(() => undefined);
    await write(ready.toString());
  }

  async #start(program: DemoProgram): Promise<void> {
    const where = ["run", this.app, program.process, "--log", this.home, "--detach", "--"];
    await runCommand([...where, ...program.command], undefined, "ignore");
    this.#started.push(program);
    if (program.ready === undefined) await sleep(300);
    else await ready(program.process, program.ready);
  }

  async #together(): Promise<void> {
    const command = ["checkpoint", this.app, "--coordinated", "--driver", this.#driver, "--log", this.home];
    for (let attempt = 1; !(await triedCommand(command)); attempt += 1) {
      if (attempt === COORDINATED_TRIES) throw commandFailed("checkpoint", 1);
      await sleep(PAUSE_MS + RANDOM_PAUSE_MS);
    }
  }

  /** One process at a time, no two at the same instant. */
  async #checkpoints(): Promise<void> {
    const names = this.#started.map((program) => program.process);
    const endMs = Date.now() + this.#options.seconds * 1000;
    for (let tries = 0; Date.now() < endMs || tries < LEAST_CHECKPOINTS; tries += 1) {
      await sleep(PAUSE_MS + this.#random(RANDOM_PAUSE_MS));
      const name = names[this.#random(names.length)]!;
      const taken = await triedCommand([
        "checkpoint",
        this.app,
        name,
        "--driver",
        this.#driver,
        "--log",
        this.home,
      ]);
      if (taken) this.#taken += 1;
      else this.#refused += 1;
    }
  }

  #cli(args: readonly string[]): Promise<void> {
    return runCommand([...args, "--log", this.home]);
  }

  /** Ends everything it started, and takes the capture out of the kernel. */
  async stop(): Promise<void> {
    this.#client?.kill("SIGKILL");
    for (const { process: name } of this.#started) await removeCgroup(new ProcessCgroup(this.app, name));
    const collector = this.#collector;
    this.#collector = undefined;
    if (collector === undefined) return;
    if (collector.exitCode === null && collector.kill("SIGTERM")) await once(collector, "exit");
    KernelSource.unpin(this.#pinDir);
  }
}

async function removeCgroup(cgroup: ProcessCgroup): Promise<void> {
  if (cgroup.id === undefined) return;
  cgroup.kill();
  for (let attempt = 0; attempt < 100 && !cgroup.remove(); attempt += 1) await sleep(20);
}

/** Waits until the program's log says that it is ready: a connection to it would stand in its history. */
async function ready(name: string, { log, text }: { log: string; text: string }): Promise<void> {
  const deadlineMs = Date.now() + READY_MS;
  while (!(await readFile(log, "utf8").catch(() => "")).includes(text)) {
    if (Date.now() > deadlineMs)
      throw new RecoveryLineError("RL_TIMEOUT", `${name} is not ready; see ${log}`);
    await sleep(50);
  }
}
