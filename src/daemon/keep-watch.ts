/**
 * `collect --keep-bytes`, `--keep-hours`: looks whether logs are larger or older than wanted, and if so runs `gc --apply` for them, a
 * process of its own: reading a whole log must not keep the ring waiting. What it may remove is what no line needs, whatever is wanted:
 * where that is not enough, the log stays as it is, is counted, and one sentence says why.
 */
import type { ChildProcess } from "node:child_process";
import { constants, setPriority } from "node:os";
import type { Collector } from "../collect/collect.ts";
import { spawn } from "../host/spawn.ts";
import type { Keep } from "../log/keep.ts";
import { KEEP_LOOK_MS, KEEP_RETRY_MAX_MS } from "../model/limits.ts";

export interface Retention {
  readonly keep: Keep;
  /** Program and arguments that collect an application's garbage within `keep` and print JSON (cli/gc.ts). */
  command(app: string): readonly [string, ...string[]];
}

/** What a look at one log came to. */
interface Unmet {
  readonly reason: string;
  /** When it is tried again, ms of `performance.now()`, and how long it waited last. */
  readonly retryAtMs: number;
  readonly waitMs: number;
}

export class KeepWatch {
  readonly #collector: Collector;
  readonly #retention: Retention;
  readonly #tell: (sentence: string) => void;
  readonly #unmet = new Map<string, Unmet>();
  readonly #timer: NodeJS.Timeout;
  #child: ChildProcess | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  /** Of removed blocks, since the start. */
  prunedBytes = 0;

  constructor(collector: Collector, retention: Retention, tell: (sentence: string) => void) {
    this.#collector = collector;
    this.#retention = retention;
    this.#tell = tell;
    this.#timer = setInterval(() => this.#look(), KEEP_LOOK_MS);
    this.#look();
  }

  /** Logs that are beyond what is wanted now, count. */
  get unmetLogs(): number {
    return this.#unmet.size;
  }

  /** A collection under way is ended: that is safe at any moment. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#child?.kill("SIGTERM");
    await this.#running;
  }

  #look(): void {
    this.#running ??= this.#lookAtAll()
      .catch((error: unknown) => this.#tell(`retention: ${(error as Error).message}`))
      .finally(() => {
        this.#running = undefined;
      });
  }

  async #lookAtAll(): Promise<void> {
    const beyond = await this.#collector.logs.beyond(this.#retention.keep);
    for (const app of [...this.#unmet.keys()]) if (!beyond.includes(app)) this.#unmet.delete(app);
    for (const app of beyond) {
      if (this.#closed) return;
      if ((this.#unmet.get(app)?.retryAtMs ?? 0) <= performance.now()) await this.#collect(app);
    }
  }

  async #collect(app: string): Promise<void> {
    const { bytes, reason } = await this.#run(app);
    if (this.#closed) return;
    this.prunedBytes += bytes;
    if (!(await this.#collector.logs.beyond(this.#retention.keep)).includes(app)) {
      this.#unmet.delete(app);
      return;
    }
    this.#put(app, reason ?? "what is left is in segments that a line may need");
  }

  /** Said once for each reason. */
  #put(app: string, reason: string): void {
    const before = this.#unmet.get(app);
    const waitMs = Math.min((before?.waitMs ?? KEEP_LOOK_MS / 2) * 2, KEEP_RETRY_MAX_MS);
    this.#unmet.set(app, { reason, waitMs, retryAtMs: performance.now() + waitMs });
    if (before?.reason === reason) return;
    this.#tell(`the log of ${app} stays beyond --keep-bytes or --keep-hours: ${reason}`);
  }

  #run(app: string): Promise<{ readonly bytes: number; readonly reason?: string }> {
    const [program, ...args] = this.#retention.command(app);
    return new Promise((resolve) => {
      const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
      this.#child = child;
      let [out, err] = ["", ""];
      child.stdout.on("data", (text: Buffer) => {
        out += text.toString();
      });
      child.stderr.on("data", (text: Buffer) => {
        err += text.toString();
      });
      child.on("spawn", () => setPriority(child.pid!, constants.priority.PRIORITY_BELOW_NORMAL));
      child.on("error", (error) => resolve({ bytes: 0, reason: error.message }));
      child.on("close", () => {
        this.#child = undefined;
        resolve(answerOf(out, err));
      });
    });
  }
}

function answerOf(out: string, err: string): { readonly bytes: number; readonly reason?: string } {
  try {
    const { logs } = JSON.parse(out) as { logs: { bytes: number; reason?: string }[] };
    return logs[0] ?? { bytes: 0 };
  } catch {
    return { bytes: 0, reason: err.trim().split("\n")[0] || "gc ended without an answer" };
  }
}
