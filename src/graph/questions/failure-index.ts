/**
 * The lines of all single failures, and from them the line of any failure set: RL(F) is the component-wise minimum of RL({i}), i in F
 * (theory.md, "More that follows"), because marks that start from several roots are the union of the marks from each.
 *
 * Vectors are sparse (what the failure undoes beyond what is undone anyway), computed when asked for and kept while they fit: a million
 * processes never cost a million squared.
 */
import { MAX_FAILURE_INDEX_ENTRIES } from "../../model/limits.ts";
import { type RollbackModel, undoneBy, volatileFrom } from "../rollback/rollback-model.ts";
import { RollbackProbe } from "../rollback/rollback-probe.ts";

/** What one failure undoes beyond `FailureIndex.anyway`: processes in rising order and their first undone lines. */
export interface SingleFailure {
  readonly process: Uint32Array;
  readonly undone: Uint32Array;
}

export class FailureIndex {
  readonly #model: RollbackModel;
  readonly #probe: RollbackProbe;
  readonly #kept = new Map<number, SingleFailure>();
  #entries = 0;
  /** What is undone though nobody failed: gaps at ends, bytes nobody sent. NOTHING_UNDONE = continues. */
  readonly anyway: Uint32Array;

  constructor(model: RollbackModel) {
    this.#model = model;
    this.anyway = undoneBy(model, []);
    this.#probe = new RollbackProbe(model.graph, this.anyway);
  }

  /** RL({failed}), in the time its rollback takes; again at once while it is kept. */
  single(failed: number): SingleFailure {
    const known = this.#kept.get(failed);
    if (known !== undefined) return known;
    const process = this.#probe.from(failed, volatileFrom(this.#model, failed)).slice().sort();
    const found = { process, undone: process.map((p) => this.#probe.undone[p] as number) };
    if (this.#entries + process.length <= MAX_FAILURE_INDEX_ENTRIES) {
      this.#entries += process.length;
      this.#kept.set(failed, found);
    }
    return found;
  }

  /** RL(failed): first undone line per process, NOTHING_UNDONE = continues. O(failures × processes). */
  of(failed: Iterable<number>): Uint32Array {
    const least = this.anyway.slice();
    for (const one of failed) {
      const { process, undone } = this.single(one);
      process.forEach((p, at) => {
        least[p] = Math.min(least[p] as number, undone[at] as number);
      });
    }
    return least;
  }
}
