import type { ChildProcess, StdioOptions } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Engine } from "../../host/containers.ts";
import { spawn } from "../../host/spawn.ts";

/** A shell that has descriptor 3 while the command, which has not, runs. */
const HOLDING = '"$@" 3>&-; exit $?';

/** Longest wait for what was killed, in ms. */
const DEATH_LIMIT_MS = 2000;

/** One command of a container engine, in a process group of its own with what it starts. */
export class EngineRun {
  code: number | null | undefined;
  printed = "";
  readonly #child: ChildProcess;
  readonly #end: Promise<void>;

  /** `guard`: a descriptor that is held until it has ended, also where we are killed; what it starts, and leaves behind, does not have it. */
  constructor(engine: Engine, args: readonly string[], env = process.env, guard?: number) {
    const words = guard === undefined ? [engine, ...args] : ["sh", "-c", HOLDING, "sh", engine, ...args];
    const stdio: StdioOptions = ["ignore", "ignore", "pipe", guard ?? "ignore"];
    this.#child = spawn(words[0]!, words.slice(1), { env, stdio, detached: true });
    this.#child.stderr!.on("data", (bytes: Buffer) => {
      this.printed = (this.printed + bytes.toString()).slice(-8192);
    });
    this.#end = new Promise((resolve) => {
      const done = (code: number | null): void => {
        this.code = code;
        this.#child.stderr!.destroy(); // what it started may hold it for years
        resolve();
      };
      this.#child.once("exit", done);
      this.#child.once("error", ({ message }) => {
        this.printed = message;
        done(null);
      });
    });
  }

  get ended(): boolean {
    return this.code !== undefined;
  }

  /** True if it has ended within that time. */
  async within(limitMs: number): Promise<boolean> {
    const timer = new AbortController();
    const late = sleep(limitMs, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([this.#end, late]);
    timer.abort();
    return this.ended;
  }

  /** False: it has ended by itself. */
  async kill(): Promise<boolean> {
    if (this.ended || this.#child.pid === undefined) return false;
    try {
      process.kill(-this.#child.pid, "SIGKILL");
    } catch {} // it has just ended
    await this.#end;
    for (
      const untilMs = performance.now() + DEATH_LIMIT_MS;
      this.#hasGroup() && performance.now() < untilMs;
    )
      await sleep(5);
    return true;
  }

  #hasGroup(): boolean {
    try {
      return process.kill(-this.#child.pid!, 0);
    } catch {
      return false;
    }
  }
}
