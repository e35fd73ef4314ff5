import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Engine } from "../../host/containers.ts";

/** One command of a container engine, in a process group of its own with what it starts. */
export class EngineRun {
  code: number | null | undefined;
  printed = "";
  readonly #child: ChildProcess;
  readonly #end: Promise<void>;

  constructor(engine: Engine, args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
    this.#child = spawn(engine, args, { env, stdio: ["ignore", "ignore", "pipe"], detached: true });
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
    return true;
  }
}
