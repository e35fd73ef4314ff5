/**
 * Memory rings → the logs of their applications.
 *
 * Rings give their room back before a commit, so that a crash of this collector loses events; the runtime notices the broken
 * connection and stops. All its processes have failed then, and what a failed process did after its last checkpoint counts for
 * nothing: the state "rings" names those whose ends are unknown (app-log.ts), and whoever opens the log next declares them.
 * A runtime that starts again begins from its initial state: a `rollback` to 0 stands in the log.
 */
import { join } from "node:path";
import type { MemoryBatch, MemoryRings } from "../capture/memory-rings.ts";
import { EventColumns } from "../format/event-columns.ts";
import { Pause } from "../host/pause.ts";
import { EventLog } from "../log/event-log.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { COMMIT_INTERVAL_MS } from "../model/limits.ts";

/** One application while its runtimes are connected. */
class MemoryApp {
  readonly log: EventLog;
  readonly #columns = new Map<string, EventColumns>();
  readonly #connected = new Set<string>();

  constructor(log: EventLog) {
    this.log = log;
    for (const name of (log.getState("rings") ?? []) as readonly string[])
      this.#columnsOf(name).push({ type: "gap", process: name });
  }

  take({ entities, events, ended }: MemoryBatch): void {
    for (const name of entities) this.#begin(name);
    let columns: EventColumns | undefined;
    for (const event of events) {
      if (columns?.process !== event.process) columns = this.#columns.get(event.process);
      columns?.push(event);
    }
    if (ended) for (const name of entities) this.#connected.delete(name);
    if (ended) this.#putConnected();
  }

  #begin(name: string): void {
    if (this.#connected.has(name)) return;
    this.#connected.add(name);
    this.#putConnected();
    const columns = this.#columnsOf(name);
    if (columns.count > 0 || this.log.heads().has(name))
      columns.push({ type: "rollback", process: name, checkpoint: 0 });
  }

  #columnsOf(name: string): EventColumns {
    const columns = this.#columns.get(name) ?? new EventColumns(name);
    this.#columns.set(name, columns);
    return columns;
  }

  #putConnected(): void {
    this.log.putState("rings", [...this.#connected]);
  }

  /** On return what was taken is durable. */
  async commit(): Promise<void> {
    for (const columns of this.#columns.values()) {
      if (columns.count === 0) continue;
      await this.log.append(columns);
      columns.clear();
    }
    await this.log.commit();
  }
}

/** Counts since the call. */
export interface MemoryCounts {
  events: number;
  ended: number;
}

/**
 * Collects until `done(counts)` after a poll. An application's log is `<home>/<application>`; it is open while one of its runtimes is
 * connected. One that can't be opened or written turns its runtimes away (`rings.takeRefusals`), and they stop; the others go on.
 */
export async function collectMemory(
  rings: MemoryRings,
  home: string,
  done: (counts: MemoryCounts) => boolean,
): Promise<MemoryCounts> {
  const collection = new MemoryCollection(rings, home);
  const pause = new Pause();
  rings.onCall(() => pause.end());
  try {
    while (!done(collection.counts)) {
      await collection.cycle();
      await pause.wait(collection.waitMs);
    }
    await collection.cycle();
    return collection.counts;
  } finally {
    rings.onCall(() => undefined);
    await collection.close();
  }
}

class MemoryCollection {
  readonly counts: MemoryCounts = { events: 0, ended: 0 };
  readonly #rings: MemoryRings;
  readonly #home: string;
  readonly #apps = new Map<string, MemoryApp>();
  #committedMs = performance.now();
  #uncommitted = false;

  constructor(rings: MemoryRings, home: string) {
    this.#rings = rings;
    this.#home = home;
  }

  /** Until the next cycle, ms: what was read is durable within COMMIT_INTERVAL_MS. */
  get waitMs(): number {
    const { nextPollMs } = this.#rings;
    return this.#uncommitted
      ? Math.min(nextPollMs, this.#committedMs + COMMIT_INTERVAL_MS - performance.now())
      : nextPollMs;
  }

  /** One poll, and what is due after it. */
  async cycle(): Promise<void> {
    for (const batch of this.#rings.poll()) await this.#take(batch);
    const now = performance.now();
    const due = now - this.#committedMs >= COMMIT_INTERVAL_MS;
    if (due) {
      this.#committedMs = now;
      this.#uncommitted = false;
    }
    for (const [name, app] of [...this.#apps]) {
      const last = !this.#rings.isConnected(name);
      if (due || last) await this.#guard(name, () => app.commit());
      if (last) await this.#close(name);
    }
  }

  /** Commits and closes what is open. */
  async close(): Promise<void> {
    for (const [name, app] of [...this.#apps]) {
      await this.#guard(name, () => app.commit());
      await this.#close(name);
    }
  }

  async #take(batch: MemoryBatch): Promise<void> {
    const { application, events, ended } = batch;
    this.#uncommitted = true;
    if (ended) this.counts.ended += 1;
    const app =
      this.#apps.get(application) ?? (await this.#guard(application, () => this.#open(application)));
    if (app === undefined) return;
    app.take(batch);
    this.counts.events += events.length;
  }

  async #open(application: string): Promise<MemoryApp> {
    const app = new MemoryApp(
      await EventLog.open(join(this.#home, application), { create: true, application }),
    );
    this.#apps.set(application, app);
    return app;
  }

  async #close(name: string): Promise<void> {
    const app = this.#apps.get(name);
    this.#apps.delete(name);
    await app?.log.close();
  }

  /** Work on one application's log; where it fails, its runtimes go. */
  async #guard<T>(application: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof RecoveryLineError)) throw error;
      this.#rings.turnAway(application, error);
      await this.#close(application);
      return undefined;
    }
  }
}
