/**
 * Memory rings of instrumented runtimes, taken by the collector itself at `<home>/rings.sock` (0600; peers of root and its own user).
 *
 * Rings give their room back before what was in them is on disk. So when this process dies, what was taken last is lost, and the
 * runtimes stop, as they see their connection break; the log then says whose ends are unknown (`AppLog.rings`), and whoever opens it
 * next declares them. A runtime that is started again hands new rings over and begins anew.
 */

import { type MemoryRings, openMemoryRings } from "../capture/memory-rings.ts";
import type { Collector } from "../collect/collect.ts";
import { Pause } from "../host/pause.ts";
import { RecoveryLineError } from "../model/errors.ts";

export class RingTaker {
  readonly #collector: Collector;
  readonly #rings: MemoryRings;
  readonly #onTrouble: (sentence: string) => void;
  readonly #pause = new Pause();
  readonly #running: Promise<void>;
  #stopping = false;

  private constructor(collector: Collector, rings: MemoryRings, onTrouble: (sentence: string) => void) {
    this.#collector = collector;
    this.#rings = rings;
    this.#onTrouble = onTrouble;
    this.#running = this.#run().catch((error: unknown) =>
      onTrouble(`memory rings are taken no longer: ${(error as Error).message}`),
    );
  }

  /** Undefined, and a word to `onTrouble`, where somebody else (`collect-rings`) takes the rings of this home. */
  static start(
    collector: Collector,
    home: string,
    onTrouble: (sentence: string) => void,
  ): RingTaker | undefined {
    try {
      return new RingTaker(collector, openMemoryRings(home), onTrouble);
    } catch (error) {
      if (!(error instanceof RecoveryLineError)) throw error;
      onTrouble(`no memory rings are taken: ${error.message}`);
      return undefined;
    }
  }

  async #run(): Promise<void> {
    this.#rings.onCall(() => this.#pause.end());
    while (!this.#stopping) {
      await this.#cycle();
      await this.#pause.wait(this.#rings.nextPollMs);
    }
  }

  async #cycle(): Promise<void> {
    const gone = new Set<string>();
    for (const batch of this.#rings.poll()) {
      const { application } = batch;
      if (gone.has(application)) continue;
      try {
        await this.#collector.takeRings(batch);
      } catch (error) {
        if (!(error instanceof RecoveryLineError)) throw error;
        gone.add(application);
        this.#rings.turnAway(application, error);
      }
    }
    for (const { pid, error } of this.#rings.takeRefusals())
      this.#onTrouble(`process ${pid} with memory rings is turned away: ${error.message}`);
  }

  /** Takes what is there, then lets the runtimes go: they stop. Their ends stay unknown. */
  async close(): Promise<void> {
    this.#stopping = true;
    this.#pause.end();
    await this.#running;
    try {
      await this.#cycle();
    } finally {
      this.#rings.close();
    }
  }
}
