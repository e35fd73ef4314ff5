/**
 * Memory rings into the logs of their applications where nothing can be captured: `ring-taker.ts` without the collector. A log is open
 * while one of its runtimes is connected.
 */
import { join } from "node:path";
import type { MemoryBatch, MemoryRings } from "../capture/memory-rings.ts";
import { bootId } from "../host/boot-id.ts";
import { Serial } from "../host/serial.ts";
import { openEventLog } from "../log/append-log.ts";
import { COMMIT_INTERVAL_MS } from "../model/limits.ts";
import { AppLog } from "./app-log.ts";
import { type RingSink, RingTaker } from "./ring-taker.ts";
import { takeRingBatch } from "./take-rings.ts";

/** Counts since the call. */
export interface MemoryCounts {
  events: number;
  ended: number;
}

/**
 * Collects until `done(counts)` after a turn, which comes at once where `stop` says so. An application's log is `<home>/<application>`. One that
 * can't be opened or written turns its runtimes away (`rings.takeRefusals`), and they stop; the others go on.
 */
export async function collectMemory(
  rings: MemoryRings,
  home: string,
  done: (counts: MemoryCounts) => boolean,
  stop?: AbortSignal,
): Promise<MemoryCounts> {
  const logs = new RingLogs(home);
  const taker = new RingTaker(rings, logs);
  const hurry = (): void => taker.hurry();
  stop?.addEventListener("abort", hurry);
  try {
    await taker.run(() => done(logs.counts));
    return logs.counts;
  } finally {
    stop?.removeEventListener("abort", hurry);
    await logs.close();
  }
}

class RingLogs implements RingSink {
  readonly counts: MemoryCounts = { events: 0, ended: 0 };
  readonly #home: string;
  readonly #bootId = bootId();
  readonly #apps = new Map<string, AppLog>();
  /** One piece of work at a time: a batch, or the commit that is due. */
  readonly #work = new Serial();
  #commitTimer: NodeJS.Timeout | undefined;

  constructor(home: string) {
    this.#home = home;
  }

  takeRings(batch: MemoryBatch): Promise<void> {
    if (batch.ended) this.counts.ended += 1;
    return this.#work.run(async () => {
      const app = this.#apps.get(batch.application) ?? (await this.#open(batch.application));
      try {
        await this.#take(app, batch);
      } catch (error) {
        await this.#close(app);
        throw error;
      }
      this.counts.events += batch.events.length;
    });
  }

  async #open(name: string): Promise<AppLog> {
    const app = new AppLog(name, join(this.#home, name), openEventLog, this.#bootId);
    await app.open(true);
    this.#apps.set(name, app);
    return app;
  }

  async #take(app: AppLog, batch: MemoryBatch): Promise<void> {
    if (app.broken !== undefined) throw app.broken;
    try {
      takeRingBatch(app, batch);
    } catch (error) {
      app.endRings();
      throw error;
    }
    if (!batch.ended) this.#commitSoon();
    else if (app.rings.size > 0) await app.commit();
    else await this.#close(app);
  }

  /** What was read is durable within COMMIT_INTERVAL_MS. A log that can't be written is broken: its next batch finds that. */
  #commitSoon(): void {
    this.#commitTimer ??= setTimeout(() => {
      this.#commitTimer = undefined;
      void this.#work.run(async () => {
        for (const app of this.#apps.values()) if (app.dirty) await app.commit().catch(() => undefined);
      });
    }, COMMIT_INTERVAL_MS);
  }

  /** Commits what can be, and closes. Throws RL_LOG_WRITE where it can't. */
  async #close(app: AppLog): Promise<void> {
    this.#apps.delete(app.name);
    try {
      if (app.broken === undefined) await app.commit();
    } finally {
      await app.close();
    }
  }

  /** Commits and closes what is open. A log that can't be written says whose ends are unknown. */
  async close(): Promise<void> {
    clearTimeout(this.#commitTimer);
    await this.#work.run(async () => {
      for (const app of [...this.#apps.values()]) await this.#close(app).catch(() => undefined);
    });
  }
}
