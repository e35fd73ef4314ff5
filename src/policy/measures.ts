/** What a policy is judged by: every single failure at many instants, computed by the engine. */
import { FailureIndex } from "../graph/questions/failure-index.ts";
import { obsoleteCheckpoints } from "../graph/questions/obsolete.ts";
import { uselessCheckpoints } from "../graph/questions/zigzag.ts";
import { NOTHING_UNDONE } from "../graph/rollback/propagate-rollback.ts";
import { type RollbackModel, type Rules, rollbackModel } from "../graph/rollback/rollback-model.ts";
import { MAX_COLLECT_STEPS } from "../model/limits.ts";
import type { ReplayEvidence } from "./replay-evidence.ts";

/** Costs that nobody measured: a model, and called so. Seconds and bytes. */
export interface CostModel {
  readonly checkpoint: number;
  readonly restart: number;
  readonly imageBytes: number;
  /** Mean time between failures of one process. */
  readonly mtbf: number;
  /** Time of an event without a time stamp. */
  readonly event: number;
}

export const METRICS = {
  basic: "checkpoints by their own schedule",
  forced: "checkpoints forced by others",
  useless: "checkpoints in no consistent cut",
  frozen: "share of time frozen (model)",
  lost: "work lost a failure, s",
  worst: "most work lost by one failure, s",
  unbounded: "share of failures back past all checkpoints",
  depth: "checkpoints undone",
  breadth: "processes rolled back",
  stored: "bytes stored (model)",
  recovery: "recovery time, s (model)",
  available: "availability (model)",
} as const;
export type Metric = keyof typeof METRICS;
export type Measures = Record<Metric, number>;

/** The process is not rolled back. */
export const CONTINUES = NOTHING_UNDONE;

/** One failure's cost, by the process that fails. */
export interface FailureCosts {
  readonly loss: Float64Array;
  readonly depth: Float64Array;
  readonly breadth: Float64Array;
}

export class Measurer {
  readonly #evidence: ReplayEvidence;
  readonly #rules: Rules;
  readonly #cost: CostModel;
  #failures = 0;
  #instants = 0;
  #lost = 0;
  #worst = 0;
  #unbounded = 0;
  #depth = 0;
  #breadth = 0;
  #recovery = 0;
  #stored = 0;
  /** Checkpoints that no future line needs, as of the newest instant, count. */
  garbage = 0;
  costs: FailureCosts;

  constructor(evidence: ReplayEvidence, processes: number, rules: Rules, cost: CostModel) {
    this.#evidence = evidence;
    this.#rules = rules;
    this.#cost = cost;
    this.costs = {
      loss: new Float64Array(processes),
      depth: new Float64Array(processes),
      breadth: new Float64Array(processes),
    };
  }

  /** One instant: each process fails by itself. Returns positions by failure, where somebody will look at them. */
  instant(clocks: Float64Array, logging: boolean, keep = false): Uint32Array[] {
    const evidence = this.#evidence.buildWindow(clocks);
    const model = rollbackModel(evidence, this.#rules);
    const index = new FailureIndex(model);
    const lines: Uint32Array[] = [];
    for (let failed = 0; failed < clocks.length; failed += 1) {
      const kept = this.#kept(index.of([failed]));
      this.#failure(failed, kept, clocks);
      if (keep) lines.push(kept);
    }
    this.#count(model, logging);
    const everybody = Array.from(clocks, (_, p) => p);
    this.#evidence.window.collapse([...this.#kept(index.of(everybody))]);
    return lines;
  }

  /** First undone lines of the window as positions of the whole history; CONTINUES where nothing is undone. */
  #kept(undone: Uint32Array): Uint32Array {
    const { window } = this.#evidence;
    return undone.map((line, p) => (line === NOTHING_UNDONE ? CONTINUES : window.position(p, line - 1)));
  }

  #count(model: RollbackModel, logging: boolean): void {
    const { obsolete } = obsoleteCheckpoints([model], { logging, maxSteps: MAX_COLLECT_STEPS });
    const { start } = model.evidence.segments;
    let retained = 0;
    for (let p = 0; p + 1 < start.length; p += 1)
      for (let segment = (start[p] as number) + 1; segment < (start[p + 1] as number); segment += 1) {
        const isStart = segment === (start[p] as number) + 1 && this.#evidence.window.startsAtStart(p);
        if (obsolete[segment] === 0 && !isStart) retained += 1;
      }
    this.garbage = this.#evidence.allCheckpoints() - retained;
    this.#stored += retained * this.#cost.imageBytes;
    this.#instants += 1;
  }

  #failure(failed: number, line: Uint32Array, clocks: Float64Array): void {
    let loss = 0;
    let depth = 0;
    let breadth = 0;
    let repeated = 0;
    let isUnbounded = false;
    line.forEach((kept, p) => {
      if (kept === CONTINUES) return;
      const all = this.#evidence.checkpoints(p);
      const left = this.#evidence.checkpointsAt(p, kept);
      const now = clocks[p] as number;
      breadth += 1;
      loss += now - this.#evidence.clockAt(p, kept);
      repeated = Math.max(repeated, now - this.#evidence.clockOfCheckpoint(p, left));
      depth = Math.max(depth, all - left);
      if (kept === 0 && all > 0) isUnbounded = true;
    });
    this.costs.loss[failed] = loss;
    this.costs.depth[failed] = depth;
    this.costs.breadth[failed] = breadth;
    this.#failures += 1;
    this.#lost += loss;
    this.#worst = Math.max(this.#worst, loss);
    this.#depth += depth;
    this.#breadth += breadth;
    this.#recovery += this.#cost.restart + repeated;
    if (isUnbounded) this.#unbounded += 1;
  }

  /** All of them, at the end. */
  measures(counts: { basic: number; forced: number; frozen: number }, clocks: Float64Array): Measures {
    const useless = uselessCheckpoints(rollbackModel(this.#evidence.build(clocks), this.#rules));
    const failures = Math.max(1, this.#failures);
    const time = clocks.reduce((sum, clock) => sum + clock, 0);
    const frozen = time === 0 ? 0 : Math.min(1, counts.frozen / time);
    const recovery = this.#recovery / failures;
    const mtbf = this.#cost.mtbf / Math.max(1, clocks.length);
    return {
      basic: counts.basic,
      forced: counts.forced,
      useless: useless.filter(({ why }) => why === "z-cycle").length,
      frozen,
      lost: this.#lost / failures,
      worst: this.#worst,
      unbounded: this.#unbounded / failures,
      depth: this.#depth / failures,
      breadth: this.#breadth / failures,
      stored: this.#stored / Math.max(1, this.#instants),
      recovery,
      available: (1 - frozen) * (mtbf / (mtbf + recovery)),
    };
  }
}
