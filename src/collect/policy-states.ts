/** What the logs keep for the policies that are plugged, and the numbers that those ask for. */

import type { CollectPump } from "./collect-pump.ts";
import type { OpenApps } from "./open-apps.ts";
import type { ProcessCounts } from "./process-buffer.ts";
import type { Shared } from "./shared.ts";
import type { Turns } from "./turns.ts";

export class PolicyStates {
  readonly #turns: Turns;
  readonly #pump: CollectPump;
  readonly #apps: OpenApps;

  constructor({ turns, pump, apps }: Shared) {
    this.#turns = turns;
    this.#pump = pump;
    this.#apps = apps;
  }

  /** What is plugged and what it remembers, as whoever plugged it wrote it. Throws RL_UNKNOWN_APP, and what opening a log throws. */
  of(appName: string): Promise<{ readonly record: unknown; readonly memory: unknown }> {
    return this.#turns.run(async () => {
      const { policy, policyMemory } = await this.#apps.open(appName, false);
      return { record: policy, memory: policyMemory };
    });
  }

  /** Durable on return, with all that was read before; after a throw (RL_LOG_WRITE) it may or may not be. */
  keep(appName: string, record: unknown, memory: unknown): Promise<void> {
    return this.#turns.run(async () => {
      const app = await this.#apps.open(appName, false);
      app.policy = record;
      app.policyMemory = memory;
      await this.#apps.commit(app);
    });
  }

  /** Durable with the next commit of an open log, whatever that is for. */
  remember(appName: string, memory: unknown): void {
    const app = this.#pump.apps.get(appName);
    if (app !== undefined) app.policyMemory = memory;
  }

  /** What the processes of an open log have done, in numbers; ranges count from the first call on. */
  counts(appName: string): readonly ProcessCounts[] {
    const app = this.#pump.apps.get(appName);
    if (app === undefined) return [];
    app.counting = true;
    return [...app.processes.values()].map(({ counts }) => counts);
  }
}
