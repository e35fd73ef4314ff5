/**
 * A policy's process: one of a component. A fault boundary, not a security one: it runs as nobody where we are root, without files, children and
 * environment (Node's permission flag), with 32 MiB of heap, without code from strings. It gets its code as bytes over a pipe: nobody can read a path below
 * a folder of mode 0700.
 */
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Duplex } from "node:stream";
import { spawn } from "../host/spawn.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import {
  POLICY_CPU_LIMIT_MS,
  POLICY_HEAP_MIB,
  POLICY_START_LIMIT_MS,
  POLICY_WALL_LIMIT_MS,
} from "../model/limits.ts";
import { compiledFile } from "../native/binding.ts";
import type { Component } from "./component.ts";
import {
  type Answer,
  BadAnswer,
  type Instructions,
  instructionsOf,
  Lines,
  type Request,
  readAnswer,
} from "./host-protocol.ts";

export type ProcessFault = "crash" | "hang" | "bad-answer";

/** The process is gone; what it was asked for does not happen. */
export class PolicyFault extends Error {
  readonly fault: ProcessFault;

  constructor(fault: ProcessFault, message: string) {
    super(message);
    this.fault = fault;
  }
}

/** User and group "nobody". */
const NOBODY = 65_534;
/** How often the time that a process has used is looked at, in ms. */
const LOOK_MS = 20;
/** A clock tick of /proc/<pid>/stat, in ms. */
const TICK_MS = 10;
const MAX_COMPLAINT_CHARACTERS = 2000;

interface Waiting {
  readonly request: Request | undefined;
  readonly cpuMs: number;
  readonly sinceMs: number;
  resolve(answer: Answer | undefined): void;
  reject(fault: PolicyFault): void;
}

export class PolicyProcess {
  readonly #component: Component;
  readonly #instructions: Instructions;
  readonly #child: ChildProcess;
  readonly #lines = new Lines();
  #waiting: Waiting | undefined;
  #watch: NodeJS.Timeout | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #complaint = "";
  #over: PolicyFault | undefined;

  private constructor(component: Component, code: string) {
    this.#component = component;
    this.#instructions = instructionsOf(component);
    this.#child = spawnChild();
    const { stdin, stderr } = this.#child;
    stdin!.on("error", () => undefined); // its end tells
    stdin!.end(code);
    stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#complaint = (this.#complaint + text).slice(0, MAX_COMPLAINT_CHARACTERS);
    });
    this.#pipe.on("error", () => undefined);
    this.#pipe.on("data", (chunk: Buffer) => this.#heard(chunk));
    this.#child.on("error", (error) => this.#end("crash", error.message));
    this.#child.on("close", (status, signal) => this.#end("crash", this.#lastWords(status, signal)));
  }

  /** `code`: what the process runs; other code is for tests of faults. Throws PolicyFault. */
  static async start(component: Component, code?: string): Promise<PolicyProcess> {
    const started = PolicyProcess.#begin(component, code);
    await started.#ask(undefined, `${JSON.stringify({ component })}\n`);
    return started;
  }

  /** Throws PolicyFault, and RL_NOT_SUPPORTED where none can ever be started. */
  static #begin(component: Component, code: string | undefined): PolicyProcess {
    try {
      return new PolicyProcess(component, code ?? childCode());
    } catch (error) {
      if (hasCode(error, "RL_NOT_SUPPORTED")) throw error;
      throw new PolicyFault("crash", `it can't be started: ${(error as Error).message}`);
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get running(): boolean {
    return this.#over === undefined;
  }

  /** Throws PolicyFault; the process is over then, and every later call throws the same. */
  async ask(request: Request): Promise<Answer> {
    const answer = this.#queue.then(() => this.#ask(request, `${JSON.stringify(request)}\n`));
    this.#queue = answer.catch(() => undefined);
    return (await answer)!;
  }

  async close(): Promise<void> {
    this.#end("crash", "it was ended");
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined)
      return;
    await new Promise((resolve) => this.#child.once("close", resolve));
  }

  get #pipe(): Duplex {
    return this.#child.stdio[3] as Duplex;
  }

  #ask(request: Request | undefined, line: string): Promise<Answer | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#over !== undefined) return reject(this.#over);
      const sinceMs = performance.now();
      this.#waiting = { request, cpuMs: cpuMs(this.pid), sinceMs, resolve, reject };
      this.#watch = setInterval(() => this.#look(), LOOK_MS);
      this.#pipe.write(line);
    });
  }

  /** While it owes an answer. Its start may take longer: a busy machine is no fault of it. */
  #look(): void {
    const waiting = this.#waiting!;
    const { request, cpuMs: before, sinceMs } = waiting;
    const wallMs = performance.now() - sinceMs;
    const limitMs = request === undefined ? POLICY_START_LIMIT_MS : POLICY_WALL_LIMIT_MS;
    if (wallMs > limitMs) this.#late(waiting, `no answer within ${limitMs} ms`);
    else if (request !== undefined && cpuMs(this.pid) - before > POLICY_CPU_LIMIT_MS)
      this.#late(waiting, `no answer after ${POLICY_CPU_LIMIT_MS} ms of its own time`);
  }

  /** Timers come before input: where this process itself stood still, the answer may be there and not yet read. */
  #late(waiting: Waiting, why: string): void {
    setImmediate(() => {
      if (this.#waiting === waiting) this.#end("hang", why);
    });
  }

  #heard(chunk: Buffer): void {
    if (this.#over !== undefined) return;
    try {
      for (const line of this.#lines.take(chunk)) this.#answered(line);
    } catch (error) {
      if (!(error instanceof BadAnswer)) throw error;
      this.#end("bad-answer", error.message);
    }
  }

  #answered(line: string): void {
    const waiting = this.#waiting;
    if (waiting === undefined) throw new BadAnswer("it answers what nobody asked");
    const { request } = waiting;
    if (request === undefined && line !== '{"ready":true}')
      throw new BadAnswer("it does not say that it is ready");
    const answer =
      request === undefined ? undefined : readAnswer(line, request, this.#component, this.#instructions);
    this.#settle();
    waiting.resolve(answer);
  }

  #settle(): void {
    clearInterval(this.#watch);
    this.#waiting = undefined;
  }

  #end(fault: ProcessFault, why: string): void {
    if (this.#over !== undefined) return;
    this.#over = new PolicyFault(fault, why);
    const waiting = this.#waiting;
    this.#settle();
    this.#child.kill("SIGKILL");
    this.#pipe.destroy();
    waiting?.reject(this.#over);
  }

  #lastWords(status: number | null, signal: string | null): string {
    const how = signal === null ? `exit code ${status}` : `signal ${signal}`;
    const said =
      this.#complaint
        .trim()
        .split("\n")
        .find((line) => /error/i.test(line)) ?? "";
    return said === "" ? how : `${how}: ${said.slice(0, 200)}`;
  }
}

/** Through /proc/self/exe: the path of node itself may lead through a folder that is closed to nobody. */
function spawnChild(): ChildProcess {
  const user = process.geteuid!() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
  return spawn("/proc/self/exe", childFlags(), {
    ...user,
    cwd: "/",
    env: {},
    detached: true, // signals of a terminal are not for it
    stdio: ["pipe", "ignore", "pipe", "pipe"],
  });
}

function childFlags(): string[] {
  const permission = ["--permission", "--experimental-permission"].find((flag) =>
    process.allowedNodeEnvironmentFlags.has(flag),
  );
  if (permission === undefined)
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `not supported here: a policy's process needs Node's permission flag, and node ${process.version} has none`,
      "Use Node 20 or newer.",
    );
  const heap = `--max-old-space-size=${POLICY_HEAP_MIB}`;
  return [
    permission,
    "--no-warnings",
    heap,
    "--disallow-code-generation-from-strings",
    "--input-type=module",
    "-",
  ];
}

/** The child's two modules, compiled, as one text: the import of the interpreter by its path becomes one by its bytes. */
function childCode(): string {
  const read = (name: string): string => readFileSync(compiledFile(name), "utf8");
  const interpreter = Buffer.from(read("policy/program.js")).toString("base64");
  return read("policy/host-child.js").replace(
    '"./program.js"',
    `"data:text/javascript;base64,${interpreter}"`,
  );
}

/** Time of a process on a core; 0 once it is gone. */
function cpuMs(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  } catch {
    return 0;
  }
}
