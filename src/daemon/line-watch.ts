/**
 * Computes the lines of all single failures again and again, for applications that somebody asks for; one thread for all of them, which they take in
 * turn.
 */
import { Serial } from "../host/serial.ts";
import { WorkerPool } from "../host/worker-pool.ts";
import { POLICY_LINE_SHARE } from "../model/limits.ts";
import { compiledFile } from "../native/binding.ts";
import { LineFacts } from "./line-facts.ts";
import type { DependentsAnswer, LineAnswer, LineTask } from "./line-worker.ts";

/** Time for processes to stand still and to be asked about again, ms. */
const QUIET_MS = 1_000;
/** Lines that are due wait for that no longer than so, ms. */
const MOST_QUIET_MS = 3_000;

interface Turn {
  /** What the application had done when it was computed last. */
  readonly mark: string;
  readonly dueMs: number;
}

type LinePool = Pick<WorkerPool<LineTask, LineAnswer | DependentsAnswer>, "run" | "close">;

export class LineWatch {
  readonly #home: string;
  readonly #now: () => number;
  readonly #newPool: () => LinePool;
  /** One at a time, and an application waits once for its lines: each gets its turn, however many there are. */
  readonly #serial = new Serial();
  readonly #turns = new Map<string, Turn>();
  /** What is under way, by application; one that was forgotten meanwhile is not the same any more. */
  readonly #asked = new Map<string, symbol>();
  #running = 0;
  /** Until then nothing is computed: whoever was told dependents holds processes still and asks again, ms. */
  #quietUntilMs = 0;
  #pool: LinePool | undefined;
  #closed = false;
  /** What the last one took, ms. */
  lastMs = 0;

  /** `newPool`: other than threads are for tests. */
  constructor(
    home: string,
    now: () => number,
    newPool: () => LinePool = () => new WorkerPool(1, compiledFile("daemon/line-worker.js")),
  ) {
    this.#home = home;
    this.#now = now;
    this.#newPool = newPool;
  }

  /**
   * Undefined where it is not due yet, nothing has happened since the last time (`mark` is the same), or it is under way. Throws RL_WORKER where
   * the log can't be read.
   */
  async due(app: string, mark: string, garbage: boolean, everyMs: number): Promise<LineFacts | undefined> {
    if (this.#asked.has(app) || this.#turns.get(app)?.mark === mark || !this.#isDue(app)) return undefined;
    const own = Symbol(app);
    this.#asked.set(app, own);
    const isAsked = (): boolean => this.#asked.get(app) === own;
    try {
      return await this.#inTurn(async () => {
        if (!isAsked() || !this.#isDue(app)) return undefined; // it was unplugged while it waited, or others hold processes still now
        const atMs = this.#now();
        const settle = (left: string): void => {
          const dueMs = this.#dueMs(atMs, everyMs);
          if (isAsked()) this.#turns.set(app, { mark: left, dueMs });
        };
        try {
          const answer = await this.#run(app, { garbage });
          settle(mark);
          return new LineFacts(answer as LineAnswer, atMs);
        } catch (error) {
          settle("");
          throw error;
        }
      });
    } finally {
      if (isAsked()) this.#asked.delete(app);
    }
  }

  #isDue(app: string): boolean {
    const [nowMs, dueMs] = [this.#now(), this.#turns.get(app)?.dueMs ?? 0];
    return nowMs >= dueMs && nowMs >= Math.min(this.#quietUntilMs, dueMs + MOST_QUIET_MS);
  }

  /**
   * `dependentsOf` (compute/dependents.ts) in the log as it is; undefined where it was not read yet, as no policy is plugged, or is too large to be
   * kept: whoever asks reads it then. Throws RL_WORKER where the log can't be read, or has no such process.
   */
  async dependents(app: string, processes: readonly string[]): Promise<DependentsAnswer> {
    if (!this.#turns.has(app)) return undefined;
    return this.#counted(async () => {
      if (this.#closed) return undefined;
      // Processes may stand still for it: behind what the thread is at, and no other application's line.
      const answer = (await this.#run(app, { dependentsOf: processes })) as DependentsAnswer;
      if (answer !== undefined) this.#quietUntilMs = this.#now() + QUIET_MS;
      return answer;
    });
  }

  /** Undefined where the collector ends before its turn comes. */
  #inTurn<T>(work: () => Promise<T>): Promise<T | undefined> {
    return this.#counted(() => this.#serial.run(() => (this.#closed ? undefined : work())));
  }

  async #counted<T>(work: () => Promise<T>): Promise<T> {
    this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      this.#endIfIdle();
    }
  }

  #run(app: string, ask: LineTask["ask"]): Promise<LineAnswer | DependentsAnswer> {
    const apps = [...new Set([...this.#turns.keys(), ...this.#asked.keys()])];
    this.#pool ??= this.#newPool();
    return this.#pool.run({ home: this.#home, app, ask, apps }, []);
  }

  forget(app: string): void {
    this.#turns.delete(app);
    this.#asked.delete(app);
    this.#endIfIdle();
  }

  /** The thread ends with the last application, and all that it remembers. */
  #endIfIdle(): void {
    if (this.#turns.size > 0 || this.#running > 0) return;
    const pool = this.#pool;
    this.#pool = undefined;
    void pool?.close();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#pool?.close();
  }

  #dueMs(atMs: number, everyMs: number): number {
    this.lastMs = this.#now() - atMs;
    return atMs + Math.max(everyMs, this.lastMs / POLICY_LINE_SHARE);
  }
}
