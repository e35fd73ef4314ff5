/** The process that takes the checkpoints which output waits for (cli/commit-output.ts): started when it is needed, and again when it has ended. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { CommitAnswer, CommitRequest } from "../client/protocol.ts";
import { spawn } from "../host/spawn.ts";
import { POLICY_ACTION_LIMIT_MS, POLICY_CLOSE_MS } from "../model/limits.ts";

interface Running {
  readonly child: ChildProcess;
  readonly answers: AsyncIterator<string>;
}

export class OutputCommitter {
  readonly #program: readonly [string, ...string[]];
  readonly #home: string;
  #running: Running | undefined;
  #closed = false;

  /** `program`: what starts the command line, node and its main file. */
  constructor(program: readonly [string, ...string[]], home: string) {
    this.#program = program;
    this.#home = home;
  }

  /** One at a time. Throws nothing: what went wrong is in the answer. */
  async ask(request: CommitRequest): Promise<CommitAnswer> {
    const began = performance.now();
    const nothing = (why: string): CommitAnswer => ({
      committed: [],
      unheld: [],
      why,
      tookMs: performance.now() - began,
    });
    if (this.#closed) return nothing("the collector ends");
    try {
      this.#running ??= this.#start();
      const answer = await answerOf(this.#running, request);
      if (answer !== undefined) return answer;
      this.#running = undefined;
      return nothing("the process that takes its checkpoints has ended");
    } catch (error) {
      return nothing(`its checkpoints can't be taken: ${(error as Error).message}`);
    }
  }

  #start(): Running {
    const [file, ...first] = this.#program;
    const child = spawn(file, [...first, "commit-output", "--log", this.#home], {
      stdio: ["pipe", "pipe", "ignore"],
      detached: true, // a terminal's signals are for the collector, which ends it in its own way
    });
    child.on("error", () => undefined); // its output ends, too
    child.stdin!.on("error", () => undefined);
    return { child, answers: createInterface({ input: child.stdout! })[Symbol.asyncIterator]() };
  }

  /** A round that is under way may end, for a while. */
  async close(): Promise<void> {
    this.#closed = true;
    const { child } = this.#running ?? {};
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const timer = setTimeout(() => child.kill("SIGKILL"), POLICY_CLOSE_MS);
    child.stdin!.end();
    await once(child, "close");
    clearTimeout(timer);
  }
}

/** Undefined: it has ended, or was ended, as it took too long. */
async function answerOf(
  { child, answers }: Running,
  request: CommitRequest,
): Promise<CommitAnswer | undefined> {
  const timer = setTimeout(() => child.kill("SIGKILL"), POLICY_ACTION_LIMIT_MS);
  try {
    child.stdin!.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await answers.next();
    return done === true ? undefined : (JSON.parse(value) as CommitAnswer);
  } finally {
    clearTimeout(timer);
  }
}
