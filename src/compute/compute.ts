/** Evidence in, recovery line out, checked by a verifier that shares no code with the engine. */

import { inTransitRanges } from "../graph/rollback/in-transit.ts";
import { lineEntry } from "../graph/rollback/line-entry.ts";
import { OutsideWorld } from "../graph/rollback/outside-world.ts";
import {
  keptPositions,
  type RollbackModel,
  rollbackModel,
  undoneBy,
} from "../graph/rollback/rollback-model.ts";
import { proofOf, witnesses } from "../graph/rollback/witness.ts";
import { verifyLine } from "../graph/verify/verify-line.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { type Evidence, NO_INITIAL } from "../model/evidence-layout.ts";
import type { DsmModel, InTransitPolicy, RecoveryLine, Witness } from "../model/recovery-line.ts";

export interface ComputeOptions {
  /** Names of the failed processes; absent: everybody failed. */
  readonly failed?: readonly string[];
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
  /** Output commit: position per process whose output was already released and can't be undone. */
  readonly released?: ReadonlyMap<string, number>;
}

/**
 * The latest line that the evidence proves safe.
 *
 * Throws `RL_UNKNOWN_PROCESS` for a failed or released process the evidence does not name, `RL_REFUSED` without any process, where
 * released output would have to be undone, or where a process would have to go back to an initial state that it does not have, `RL_REJECTED` where the verifier disagrees (a bug: nothing is printed).
 */
export function computeLine(evidence: Evidence, options: ComputeOptions): RecoveryLine {
  if (evidence.processes.length === 0)
    throw new RecoveryLineError(
      "RL_REFUSED",
      "the evidence names no process: there is nothing to compute a line for",
      "Check that the application ran under recovery-line, or that the events file is not empty.",
    );
  const failed = options.failed ?? evidence.processes;
  const numbers = processNumbers(evidence, failed);
  const model = rollbackModel(evidence, { dsm: options.dsm, inTransit: options.inTransit });
  return answer(model, failed, numbers, options);
}

/** Names → numbers, without repeats. Throws `RL_UNKNOWN_PROCESS`. */
export function processNumbers(evidence: Evidence, names: Iterable<string>): number[] {
  const numberOf = new Map(evidence.processes.map((name, number) => [name, number]));
  const numbers = new Set<number>();
  for (const name of names) {
    const number = numberOf.get(name);
    if (number === undefined) throw unknownProcess(name, evidence.processes);
    numbers.add(number);
  }
  return [...numbers].sort((a, b) => a - b);
}

function unknownProcess(name: string, known: readonly string[]): RecoveryLineError {
  const shown = known.slice(0, 20).join(", ");
  const more = known.length > 20 ? `, … (${known.length} in all)` : "";
  return new RecoveryLineError(
    "RL_UNKNOWN_PROCESS",
    `no process "${name}" in the evidence; known: ${shown}${more}`,
    "Name processes as they stand in the evidence.",
  );
}

function answer(
  model: RollbackModel,
  failed: readonly string[],
  numbers: readonly number[],
  options: ComputeOptions,
): RecoveryLine {
  const { evidence } = model;
  const undone = undoneBy(model, numbers);
  const kept = keptPositions(evidence, undone);
  refuseReleased(evidence, kept, options.released);
  const proof = proofOf(model, numbers, undone);
  const because = witnesses(evidence.processes, proof);
  refuseWithoutInitial(evidence, kept, because);
  const line: RecoveryLine = {
    outcome: evidence.gaps > 0 ? "tainted" : "clean",
    line: evidence.processes.map((_, process) => lineEntry(evidence, process, undone[process] as number)),
    inTransit: inTransitRanges(evidence, model.matches, kept),
    witnesses: because,
    ...new OutsideWorld(evidence, options.dsm).lossesAt((process) => kept[process] as number),
    evidence: { gaps: evidence.gaps, lost: evidence.lost, healed: evidence.healed },
  };
  verifyLine(evidence, { failed, dsm: options.dsm, inTransit: options.inTransit }, line, proof);
  return line;
}

/** Output commit (theory.md): a lower bound on the line; where it is infeasible there is no line to print. */
function refuseReleased(
  evidence: Evidence,
  kept: Uint32Array,
  released: ReadonlyMap<string, number> | undefined,
): void {
  for (const [name, position] of released ?? []) {
    const [process] = processNumbers(evidence, [name]);
    const most = kept[process as number] as number;
    if (most < position)
      throw new RecoveryLineError(
        "RL_REFUSED",
        `process "${name}" released output up to position ${position}, but no consistent line keeps more than ${most}`,
        "The output can't be undone by a rollback: a message log, or a checkpoint before each output, prevents this.",
      );
  }
}

/**
 * A process that was attached has no initial state. The latest consistent line is the greatest of all, so where it throws such a one to its
 * start, every consistent line does, and none can be had.
 */
function refuseWithoutInitial(evidence: Evidence, kept: Uint32Array, because: readonly Witness[]): void {
  const names = withoutInitial(evidence, kept);
  if (names.length === 0) return;
  const each = names.map((name) => {
    const from = because.find(({ process }) => process === name)?.because.at(-1)?.from;
    return from === undefined ? name : `${name} (because of ${from})`;
  });
  throw new RecoveryLineError(
    "RL_REFUSED",
    `there is no recovery line: ${each.join(", ")} would have to go back to a moment before it was recorded (attach), and no checkpoint holds that state`,
    "It can from its first checkpoint on that nothing undoes: recovery-line checkpoint APP --coordinated. Or name as --failed who really failed.",
  );
}

/** Names of those that the positions throw to an initial state which they don't have. */
export function withoutInitial(evidence: Evidence, kept: ArrayLike<number>): string[] {
  const { start, flags } = evidence.segments;
  return evidence.processes.filter((_, process) => {
    const initial = flags[start[process] as number] as number;
    return (initial & NO_INITIAL) !== 0 && kept[process] === 0;
  });
}
