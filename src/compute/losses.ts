/** "What would be lost now": every single failure's line as a loss, counted in events, checkpoints and processes. */
import { restorableCheckpoints } from "../graph/questions/domino.ts";
import { FailureIndex } from "../graph/questions/failure-index.ts";
import { lineEntry } from "../graph/rollback/line-entry.ts";
import { type OutsideLosses, OutsideWorld } from "../graph/rollback/outside-world.ts";
import { NOTHING_UNDONE } from "../graph/rollback/propagate-rollback.ts";
import type { RollbackModel } from "../graph/rollback/rollback-model.ts";
import type { LineEntry, Outcome, OutsideRange } from "../model/recovery-line.ts";
import { processNumbers, withoutInitial } from "./compute.ts";

/** One process in a loss. */
export interface LostProcess extends LineEntry {
  /** Lines of its history that would be undone, count. */
  readonly events: number;
  /** Restorable checkpoints that would be undone, count. */
  readonly checkpoints: number;
}

/** What one failure set undoes; what is undone though nobody fails counts, too. */
export interface Loss {
  readonly failed: readonly string[];
  /** Processes rolled back, count. */
  readonly breadth: number;
  /** Greatest number of restore points that a process loses; 1 = it restarts from its newest checkpoint. */
  readonly depth: number;
  /** Processes thrown back to their start though they have checkpoints, count. */
  readonly unbounded: number;
  readonly events: number;
  readonly checkpoints: number;
  /** In order of name; only what the failure undoes beyond what is undone anyway. */
  readonly rolledBack: readonly LostProcess[];
  /** Those that would have to go back to before they were recorded (attach): there is no line. Absent: nobody. */
  readonly withoutInitial?: readonly string[];
  /** Of the outside world, what is undone anyway included. */
  readonly lostInputs: readonly OutsideRange[];
  readonly unsayable: readonly OutsideRange[];
}

interface Sum {
  breadth: number;
  depth: number;
  unbounded: number;
  events: number;
  checkpoints: number;
}

export class LossReport {
  readonly #model: RollbackModel;
  readonly #index: FailureIndex;
  readonly #outside: OutsideWorld;
  readonly #withoutInitial: ReadonlySet<string>;
  /** Of them, who would have to go back to before it was recorded though nobody fails: no failure has a line then. */
  readonly #impossibleAnyway: readonly string[];
  readonly #checkpointsAfter: (process: number, position: number) => number;
  readonly #anyway: Sum = { breadth: 0, depth: 0, unbounded: 0, events: 0, checkpoints: 0 };

  constructor(model: RollbackModel) {
    this.#model = model;
    this.#index = new FailureIndex(model);
    this.#outside = new OutsideWorld(model.evidence, model.rules.dsm);
    this.#checkpointsAfter = restorableCheckpoints(model.evidence);
    this.#withoutInitial = new Set(withoutInitial(model.evidence, model.evidence.length.slice().fill(0)));
    this.#index.anyway.forEach((undone, process) => {
      this.#count(this.#anyway, process, undone, 1);
    });
    this.#impossibleAnyway = this.names().filter(
      (name, process) => this.#index.anyway[process] === 1 && this.#withoutInitial.has(name),
    );
  }

  get outcome(): Outcome {
    return this.#model.evidence.gaps > 0 ? "tainted" : "clean";
  }

  get processes(): number {
    return this.#model.evidence.processes.length;
  }

  name(process: number): string {
    return this.#model.evidence.processes[process] as string;
  }

  names(): readonly string[] {
    return this.#model.evidence.processes;
  }

  /** Numbers of the named processes, of all without names. Throws RL_UNKNOWN_PROCESS. */
  numbersOf(failed: readonly string[] | undefined): Iterable<number> {
    return failed === undefined ? this.names().keys() : processNumbers(this.#model.evidence, failed);
  }

  /** What is undone though nobody fails. */
  anyway(): Loss {
    const rolledBack: LostProcess[] = [];
    this.#index.anyway.forEach((undone, process) => {
      if (undone !== NOTHING_UNDONE) rolledBack.push(this.#lost(process, undone));
    });
    return {
      failed: [],
      ...this.#anyway,
      rolledBack,
      ...this.#impossible(rolledBack),
      ...this.#outsideOf(new Map()),
    };
  }

  single(failed: number): Loss {
    const { process, undone } = this.#index.single(failed);
    const sum = { ...this.#anyway };
    const rolledBack = Array.from(process, (p, at) => this.#beyond(sum, p, undone[at] as number));
    const outside = this.#outsideOf(new Map(Array.from(process, (p, at) => [p, undone[at] as number])));
    return { failed: [this.name(failed)], ...sum, rolledBack, ...this.#impossible(rolledBack), ...outside };
  }

  /** All the named processes (or all there are) failing at once: the minimum of their vectors. */
  together(failed: readonly string[] | undefined): Loss {
    const undone = this.#index.of(this.numbersOf(failed));
    const sum = { ...this.#anyway };
    const rolledBack: LostProcess[] = [];
    undone.forEach((line, process) => {
      if (line !== this.#index.anyway[process]) rolledBack.push(this.#beyond(sum, process, line));
    });
    const outside = this.#outsideOf(new Map(undone.entries()));
    return {
      failed: failed ?? this.names(),
      ...sum,
      rolledBack,
      ...this.#impossible(rolledBack),
      ...outside,
    };
  }

  /** The whole line of one failure. */
  lineOf(failed: number): LineEntry[] {
    const undone = this.#index.of([failed]);
    return Array.from(undone, (line, process) => lineEntry(this.#model.evidence, process, line));
  }

  /** `undone`: first undone lines beyond what is undone anyway. */
  #outsideOf(undone: ReadonlyMap<number, number>): OutsideLosses {
    if (this.#outside.isEmpty) return { lostInputs: [], unsayable: [] };
    return this.#outside.lossesAt((process) => {
      const line = undone.get(process) ?? (this.#index.anyway[process] as number);
      return line === NOTHING_UNDONE ? Number.POSITIVE_INFINITY : line - 1;
    });
  }

  #beyond(sum: Sum, process: number, undone: number): LostProcess {
    this.#count(sum, process, this.#index.anyway[process] as number, -1);
    this.#count(sum, process, undone, 1);
    return this.#lost(process, undone);
  }

  #lost(process: number, undone: number): LostProcess {
    const entry = lineEntry(this.#model.evidence, process, undone);
    const events = (this.#model.evidence.length[process] as number) - entry.position;
    return { ...entry, events, checkpoints: this.#checkpointsAfter(process, entry.position) };
  }

  #impossible(rolledBack: readonly LostProcess[]): Pick<Loss, "withoutInitial"> {
    const found = new Set(this.#impossibleAnyway);
    for (const { process, position } of rolledBack)
      if (position === 0 && this.#withoutInitial.has(process)) found.add(process);
    return found.size === 0 ? {} : { withoutInitial: this.names().filter((name) => found.has(name)) };
  }

  /** Adds one process to a sum, or takes it out. A depth is never taken out: a later line replaces a less deep one. */
  #count(sum: Sum, process: number, undone: number, sign: 1 | -1): void {
    if (undone === NOTHING_UNDONE) return;
    const checkpoints = this.#checkpointsAfter(process, undone - 1);
    sum.breadth += sign;
    sum.events += sign * ((this.#model.evidence.length[process] as number) - (undone - 1));
    sum.checkpoints += sign * checkpoints;
    if (undone === 1 && checkpoints > 0) sum.unbounded += sign;
    if (sign === 1) sum.depth = Math.max(sum.depth, checkpoints + 1);
  }
}
