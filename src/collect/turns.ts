/** The collector's work: one piece at a time, none once it has failed or was closed. */

import { Serial } from "../host/serial.ts";

export class Turns {
  readonly #serial = new Serial();
  #ended = false;
  #fatal: unknown;

  /** Nothing begins any more. */
  get ended(): boolean {
    return this.#ended;
  }

  get failed(): boolean {
    return this.#fatal !== undefined;
  }

  /** What waits and what comes is refused. */
  end(): void {
    this.#ended = true;
  }

  /** The same, with the reason. */
  fail(error: unknown): void {
    this.#ended = true;
    this.#fatal = error;
  }

  /** Rejects with what `fail` was told, or a `TypeError` once it has ended, and as the work does. */
  run<T>(work: () => Promise<T>): Promise<T> {
    return this.#serial.run(() => {
      if (this.#fatal !== undefined) throw this.#fatal;
      if (this.#ended) throw new TypeError("the collector is closed");
      return work();
    });
  }

  /** Also when it has ended; the work looks for itself. */
  always<T>(work: () => Promise<T>): Promise<T> {
    return this.#serial.run(work);
  }
}
