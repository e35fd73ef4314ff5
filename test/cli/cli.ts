/** Runs the real compiled command line: as a child process, or, what only asks, in one process for all of a test's questions. */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { build, dist, main } from "../built.ts";

export { build, main };

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** They read, print and end: a start of their own each would cost ten times what they do. */
const QUESTIONS =
  /^(compute|cut|explain|export|failures|gc|graph|import|policy (build|check|compare|schema)|verify|zcycles)\b/;

/** Runs `recovery-line ARGS`. `input` goes to its standard input. */
export function run(
  args: readonly string[],
  input = "",
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  return QUESTIONS.test(args.join(" "))
    ? ask({ args, input, env: { ...process.env, ...env } })
    : spawned(args, input, env);
}

/** What starts, freezes or restores something, and is over when it has answered. */
const ACTIONS = /^(attach|checkpoint|detach|restart|run .*--detach|status)\b/;

interface Question {
  readonly args: readonly string[];
  readonly input: string;
  /** All of the command's environment. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

let questions = 0;
let asked: ChildProcess | undefined;
let before: Promise<unknown> = Promise.resolve();

/**
 * Asks in the process of all questions what does not need one of its own. Undefined: this command does, or another question is under way there
 * (whoever asks may want both at one time), or each is to have its own: only `npm test` sets RL_SHARED_COMMANDS (scripts/task.sh). A command
 * without an answer after `limitMs` fails.
 */
export function askIdle(question: Question, limitMs: number): Promise<Ran> | undefined {
  const end = question.args.indexOf("--");
  const line = question.args.slice(0, end < 0 ? undefined : end).join(" ");
  const shared = process.env["RL_SHARED_COMMANDS"] !== undefined && questions === 0;
  return shared && (QUESTIONS.test(line) || ACTIONS.test(line)) ? ask(question, limitMs) : undefined;
}

function ask(question: Question, limitMs?: number): Promise<Ran> {
  questions += 1;
  const answer = before
    .then(() => askNow(question, limitMs))
    .finally(() => {
      questions -= 1;
    });
  before = answer.catch(() => undefined);
  return answer;
}

async function askNow(question: Question, limitMs: number | undefined): Promise<Ran> {
  const gone = new AbortController();
  const { signal } = gone;
  const line = question.args.join(" ");
  const late = limitMs === undefined ? undefined : setTimeout(end, limitMs);
  try {
    asked ??= started();
    const told = once(asked, "message", { signal }).then(([ran]) => ran as Ran & { left?: string });
    const ended = once(asked, "exit", { signal }).then(([code, by]) => {
      throw new Error(`the process that answers ended with ${code ?? by} at ${line}`);
    });
    asked.send({ ...question, umask: process.umask(), cwd: process.cwd() });
    const { left, ...ran } = await Promise.race([told, ended]);
    if (left === undefined) return ran;
    end(); // it would be held against all that ask next
    throw new Error(`${line} would not end: ${left}`);
  } finally {
    gone.abort();
    clearTimeout(late);
  }
}

/** A restart goes on through any other signal. Whoever asks next has a new one. */
function end(): void {
  asked?.kill("SIGKILL");
  asked = undefined;
}

/** It ends with this process. */
function started(): ChildProcess {
  const path = join(import.meta.dirname, "asked.mjs");
  const child = fork(path, [join(dist, "cli/command-line.js")], { execArgv: [] });
  child.once("exit", (code, by) => {
    if (asked !== child) return; // ended by us
    asked = undefined;
    if (questions > 0 || code === 0) return; // who asks hears of it
    throw new Error(`the process that answers ended with ${code ?? by}`); // after an answer: no test would fail
  });
  child.unref();
  child.channel?.unref();
  return child;
}

/** `run` in a process of its own, as users start it. */
function spawned(
  args: readonly string[],
  input = "",
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...env } });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
    child.stdin.on("error", () => undefined); // it may end before it has read all
    child.stdin.end(input);
  });
}

/** What `--json` prints: an answer, or an outcome with an error. */
export interface Printed extends Omit<RecoveryLine, "outcome"> {
  readonly application: string | null;
  readonly outcome: string;
  readonly diagram?: string;
  readonly error?: { readonly code: string; readonly message: string; readonly advice: string };
}

/** One JSON object is all that stdout holds. */
export async function runJson(
  args: readonly string[],
  input = "",
): Promise<{ code: number | null; value: Printed; stderr: string }> {
  const { code, stdout, stderr } = await run([...args, "--json"], input);
  return { code, value: JSON.parse(stdout), stderr };
}

/** A folder that `clean` removes. */
export function scratch(): { dir: string; clean(): void } {
  const dir = mkdtempSync(join(tmpdir(), "recovery-line-cli-"));
  return { dir, clean: () => rmSync(dir, { recursive: true, force: true }) };
}

/** JSON Lines. */
export function lines(...events: readonly object[]): string {
  return events.map((event) => `${JSON.stringify(event)}\n`).join("");
}

/** Short writing of events of one process. */
export function does(process: string) {
  return {
    send: (channel: string, begin: number, end: number) => ({ type: "send", process, channel, begin, end }),
    receive: (channel: string, begin: number, end: number) => ({
      type: "receive",
      process,
      channel,
      begin,
      end,
    }),
    checkpoint: (checkpoint: number, more: object = {}) => ({
      type: "checkpoint",
      process,
      checkpoint,
      ...more,
    }),
    stable: () => ({ type: "stable", process }),
    gap: (lost?: number) => ({ type: "gap", process, ...(lost === undefined ? {} : { lost }) }),
    rollback: (checkpoint: number) => ({ type: "rollback", process, checkpoint }),
    fault: (page: string | number = 1) => ({ type: "page-fault", process, page, access: "read" }),
    copy: (role: "source" | "destination", channel: string, begin: number, end: number) => ({
      type: "page-copy",
      process,
      page: 7,
      role,
      channel,
      begin,
      end,
    }),
    invalidate: (role: "source" | "destination", channel: string, begin: number, end: number) => ({
      type: "page-invalidate",
      process,
      page: 7,
      role,
      channel,
      begin,
      end,
    }),
  };
}
