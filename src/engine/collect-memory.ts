/**
 * Memory rings → the logs of their applications.
 *
 * Rings give their room back before a commit, so that a crash of this collector loses events; the runtime notices the broken
 * connection and stops. All its processes have failed then, and what a failed process did after its last checkpoint counts for
 * nothing. A runtime that starts again begins from its initial state: a `rollback` to 0 stands in the log.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { EventColumns } from "../format/event-columns.ts";
import { EventLog } from "../log/event-log.ts";
import { COMMIT_INTERVAL_MS, MAX_POLL_MS, MIN_POLL_MS } from "../model/limits.ts";
import type { MemoryBatch, MemoryRings } from "../ring/memory-rings.ts";

/** One application while its runtimes are connected. */
class MemoryApp {
  readonly log: EventLog;
  readonly #columns = new Map<string, EventColumns>();

  constructor(log: EventLog) {
    this.log = log;
  }

  take({ entities, events }: MemoryBatch): void {
    for (const name of entities) this.#begin(name);
    for (const event of events) this.#columns.get(event.process)?.push(event);
  }

  #begin(name: string): void {
    if (this.#columns.has(name)) return;
    const columns = new EventColumns(name);
    this.#columns.set(name, columns);
    if (this.log.heads().has(name)) columns.push({ type: "rollback", process: name, checkpoint: 0 });
  }

  /** On return what was taken is durable. */
  async commit(): Promise<void> {
    for (const [name, columns] of this.#columns) {
      if (columns.count === 0) continue;
      this.#columns.set(name, new EventColumns(name));
      await this.log.append(columns);
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
 * Collects until `done(counts)` after a poll. Each application's log is `<home>/<application>`, open as long as this runs.
 * Throws what opening and writing a log throws; then everything since its last commit is lost, and the runtimes stop.
 */
export async function collectMemory(
  rings: MemoryRings,
  home: string,
  done: (counts: MemoryCounts) => boolean,
): Promise<MemoryCounts> {
  const apps = new Map<string, MemoryApp>();
  const counts: MemoryCounts = { events: 0, ended: 0 };
  let waitMs = MIN_POLL_MS;
  let committedMs = Date.now();
  try {
    while (!done(counts)) {
      const batches = rings.poll();
      for (const batch of batches) await take(apps, home, batch, counts);
      if (Date.now() - committedMs >= COMMIT_INTERVAL_MS) {
        for (const app of apps.values()) await app.commit();
        committedMs = Date.now();
      }
      waitMs = batches.length > 0 ? MIN_POLL_MS : Math.min(waitMs * 2, MAX_POLL_MS);
      await sleep(waitMs);
    }
    for (const app of apps.values()) await app.commit();
  } finally {
    for (const app of apps.values()) await app.log.close();
  }
  return counts;
}

async function take(
  apps: Map<string, MemoryApp>,
  home: string,
  batch: MemoryBatch,
  counts: MemoryCounts,
): Promise<void> {
  const { application, events, ended } = batch;
  let app = apps.get(application);
  if (app === undefined) {
    app = new MemoryApp(await EventLog.open(join(home, application), { create: true, application }));
    apps.set(application, app);
  }
  app.take(batch);
  counts.events += events.length;
  if (ended) counts.ended += 1;
}
