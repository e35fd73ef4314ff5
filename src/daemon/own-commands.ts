/**
 * How what a policy asks for, or a followed container needs, is done: by the commands that a person would give, each a process of its own. Images are written and logs are read
 * there and not on the collector's thread; whatever kills one leaves a running application (freeze.ts) or a restart that is taken up again.
 */
import type { ChildProcess } from "node:child_process";
import { constants, setPriority } from "node:os";
import { spawn } from "../host/spawn.ts";
import { POLICY_ACTION_LIMIT_MS, POLICY_CLOSE_MS } from "../model/limits.ts";

export interface CommandAnswer {
  readonly code: number | null;
  /** What it printed, as JSON; undefined where that is none. */
  readonly answer: unknown;
  /** Why it failed, in one sentence; "" where it did not. */
  readonly why: string;
}

export interface RunOptions {
  readonly limitMs?: number;
  /** Runs when nothing else wants to. */
  readonly idle?: boolean;
}

export class OwnCommands {
  readonly #program: readonly [string, ...string[]];
  readonly #home: string;
  readonly #running = new Map<ChildProcess, Promise<unknown>>();
  #closed = false;

  /** `program`: what starts the command line, node and its main file. */
  constructor(program: readonly [string, ...string[]], home: string) {
    this.#program = program;
    this.#home = home;
  }

  /** Runs `recovery-line <args> --log <home> --json` to its end. Throws nothing: what went wrong is in the answer. */
  run(args: readonly string[], options: RunOptions = {}): Promise<CommandAnswer> {
    if (this.#closed) return Promise.resolve({ code: null, answer: undefined, why: "the collector ends" });
    try {
      const child = this.#start(args);
      const done = answerOf(child, options).finally(() => this.#running.delete(child));
      this.#running.set(child, done);
      return done;
    } catch (error) {
      return Promise.resolve({ code: null, answer: undefined, why: (error as Error).message });
    }
  }

  #start(args: readonly string[]): ChildProcess {
    const [file, ...first] = this.#program;
    return spawn(file, [...first, ...args, "--log", this.#home, "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true, // a terminal's signals are for the collector, which ends it in its own way
    });
  }

  /** Takes no more; what runs may end, for a while. A restart goes on whatever becomes of us. */
  async close(): Promise<void> {
    this.#closed = true;
    const all = Promise.all(this.#running.values());
    const timer = setTimeout(() => {
      for (const child of this.#running.keys()) child.kill("SIGTERM");
    }, POLICY_CLOSE_MS);
    const last = new Promise((resolve) => setTimeout(resolve, 2 * POLICY_CLOSE_MS).unref());
    await Promise.race([all, last]);
    clearTimeout(timer);
  }
}

function answerOf(child: ChildProcess, options: RunOptions): Promise<CommandAnswer> {
  return new Promise((resolve) => {
    let [out, err] = ["", ""];
    child.stdout!.on("data", (text: Buffer) => {
      out += text.toString();
    });
    child.stderr!.on("data", (text: Buffer) => {
      err += text.toString();
    });
    if (options.idle === true)
      child.on("spawn", () => setPriority(child.pid!, constants.priority.PRIORITY_BELOW_NORMAL));
    const timer = setTimeout(() => child.kill("SIGKILL"), options.limitMs ?? POLICY_ACTION_LIMIT_MS);
    child.on("error", (error) => {
      clearTimeout(timer);
      resolve({ code: null, answer: undefined, why: error.message });
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      const answer = parsed(out);
      const why =
        code === 0
          ? ""
          : (toldBy(answer) ?? firstLine(err) ?? `it ended by ${signal ?? `exit code ${code}`}`);
      resolve({ code, answer, why });
    });
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function toldBy(answer: unknown): string | undefined {
  const { error } = (answer ?? {}) as { error?: { message?: string } };
  return error?.message;
}

function firstLine(text: string): string | undefined {
  const line = text.trim().split("\n")[0] ?? "";
  return line === "" ? undefined : line.replace(/^recovery-line: /, "");
}
