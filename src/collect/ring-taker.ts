/**
 * Memory rings of instrumented runtimes (capture/memory-rings.ts) → whoever holds the logs: the collector, which records others through
 * the kernel into the same logs, or `collect-memory.ts`, where nothing can be captured.
 *
 * Rings give their room back before what was in them is on disk. So when this process dies, what was taken last is lost, and the
 * runtimes stop, as they see their connection break; the log then says whose ends are unknown (`AppLog.rings`), and whoever opens it
 * next declares them. A runtime that is started again hands new rings over and begins anew.
 */

import type { MemoryBatch, MemoryRings } from "../capture/memory-rings.ts";
import { Pause } from "../host/pause.ts";
import { RecoveryLineError } from "../model/errors.ts";

export interface RingSink {
  /**
   * What a runtime did, with the next group commit; at once where it has ended. Its first batch begins its history: what the log held of
   * its entities is undone. After a throw (RL_USAGE, RL_CONTRADICTION, RL_LOG_WRITE, what opening a log throws) all runtimes of the
   * application must be turned away: what they did since stands in the log as a gap.
   */
  takeRings(batch: MemoryBatch): Promise<void>;
}

export class RingTaker {
  readonly #rings: MemoryRings;
  readonly #sink: RingSink;
  readonly #pause = new Pause();

  constructor(rings: MemoryRings, sink: RingSink) {
    this.#rings = rings;
    this.#sink = sink;
  }

  /** Takes until `done` says so after a turn, and once more what is there then. */
  async run(done: () => boolean): Promise<void> {
    this.#rings.onCall(() => this.hurry());
    try {
      for (await this.#turn(); !done(); await this.#turn()) await this.#pause.wait(this.#rings.nextPollMs);
      await this.#turn();
      done();
    } finally {
      this.#rings.onCall(() => undefined);
    }
  }

  /** The next turn is now. */
  hurry(): void {
    this.#pause.end();
  }

  async #turn(): Promise<void> {
    const gone = new Set<string>();
    for (const batch of this.#rings.poll()) {
      const { application } = batch;
      if (gone.has(application)) continue;
      try {
        await this.#sink.takeRings(batch);
      } catch (error) {
        if (!(error instanceof RecoveryLineError)) throw error;
        gone.add(application);
        this.#rings.turnAway(application, error);
      }
    }
  }
}
