/** The lines of all single failures, as facts are made from them. */
import type { LineAnswer } from "./line-worker.ts";

/** What one process's failure would do. */
export interface FailureFacts {
  /** Its checkpoints that would be undone, count; 0: it restarts from its newest. */
  readonly depth: number;
  /** Processes that would go back, count. */
  readonly breadth: number;
  /** Who goes back to which checkpoint; 0 = initial state. */
  readonly back: readonly (readonly [string, number])[];
  /** Whom it has received from. */
  readonly peers: readonly string[];
}

export class LineFacts {
  /** When it was asked for: what came later is not in it. */
  readonly atMs: number;
  readonly checkpoints: number;
  readonly garbage: number;
  readonly #failures: ReadonlyMap<string, FailureFacts>;

  constructor(answer: LineAnswer, atMs: number) {
    this.atMs = atMs;
    this.checkpoints = answer.checkpoints;
    this.garbage = answer.garbage;
    this.#failures = new Map(answer.failures);
  }

  of(process: string): FailureFacts | undefined {
    return this.#failures.get(process);
  }
}
