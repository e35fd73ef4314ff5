/** Logs that are read, sealed and pruned while they grow. */

import type { CommittedLog } from "../log/event-log.ts";
import type { Keep } from "../log/keep.ts";
import type { Pruned } from "../model/collector-answers.ts";
import type { AppLog } from "./app-log.ts";
import type { CollectPump } from "./collect-pump.ts";
import type { Drain } from "./drain.ts";
import type { OpenApps } from "./open-apps.ts";
import type { Shared } from "./shared.ts";
import type { Turns } from "./turns.ts";

export class CollectedLogs {
  readonly #turns: Turns;
  readonly #pump: CollectPump;
  readonly #apps: OpenApps;
  readonly #drain: Drain;

  constructor({ turns, pump, apps, drain }: Shared) {
    this.#turns = turns;
    this.#pump = pump;
    this.#apps = apps;
    this.#drain = drain;
  }

  /** Committed blocks behind chain number `since`, in chain order, once it is drained: a consistent prefix of the log, also while it grows. */
  async *readBlocks(appName: string, since = 0): AsyncGenerator<Uint8Array> {
    const app = await this.#turns.run(() => this.#drained(appName));
    yield* app.readBlocks(since);
  }

  /** What the application's log holds once it is drained, for readers that take single blocks (`block`). */
  async committed(appName: string): Promise<CommittedLog> {
    return (await this.#turns.run(() => this.#drained(appName))).committed();
  }

  /** The application with all that its processes did; a log that can't be written now has what it has. */
  async #drained(appName: string): Promise<AppLog> {
    const app = await this.#apps.open(appName, false);
    if (app.hasLive && app.broken === undefined) await this.#drain.into([app]);
    return app;
  }

  /** Committed blocks behind chain number `since`, in chain order, as they are: nothing is drained. */
  async *committedBlocks(appName: string, since: number): AsyncGenerator<Uint8Array> {
    yield* (await this.#turns.run(() => this.#apps.open(appName, false))).readBlocks(since);
  }

  /** A committed block by its number. Throws `TypeError` for a number that the log does not hold. */
  async block(appName: string, chain: number): Promise<Uint8Array> {
    return (await this.#turns.run(() => this.#apps.open(appName, false))).block(chain);
  }

  /** Seals the segments that hold everything drained so far: from then on they may be copied. */
  rotate(appName: string): Promise<void> {
    return this.#turns.run(async () => {
      await this.#drain.into([await this.#apps.open(appName, false)]);
      await (await this.#apps.open(appName, false)).rotate();
    });
  }

  /**
   * Removes whole segments of the log whose content no line of any future needs (log/plan-prune.ts); collection goes on meanwhile. `oldest`
   * must come from the evidence of all nodes' logs. With `keep` no more goes than that wants gone. Throws RL_UNKNOWN_APP, RL_LOG_WRITE, and
   * what reading throws.
   */
  async prune(appName: string, oldest: ReadonlyMap<string, number>, keep?: Keep): Promise<Pruned> {
    const app = await this.#turns.run(() => this.#apps.open(appName, false));
    const { base, ...plan } = await app.planPrune(oldest, keep);
    if (base === undefined) return { bytes: 0, ...plan };
    // What was planned stays true while the log grows, also for a log that was opened anew.
    const removal = await this.#turns.run(async () => (await this.#apps.open(appName, false)).prune(base));
    await removal.removed;
    return { bytes: removal.bytes };
  }

  /**
   * Applications whose open log is larger or older than is to be kept; seals what is so old that it should go in time. Throws what looking
   * at its files throws, and RL_LOG_WRITE.
   */
  async beyond(keep: Keep): Promise<string[]> {
    const found: string[] = [];
    for (const app of [...this.#pump.apps.values()]) {
      if (await app.isSealDue(keep)) await this.rotate(app.name);
      if (await app.isBeyond(keep)) found.push(app.name);
    }
    return found;
  }
}
