/** Everything that depends on the evidence and the rules but not on who failed: built once, asked for many failure sets. */

import { assert } from "../../model/assert.ts";
import type { Evidence } from "../../model/evidence-layout.ts";
import type { DsmModel, InTransitPolicy } from "../../model/recovery-line.ts";
import { type BaseMarks, dependencies } from "../evidence/dependencies.ts";
import { buildDependencyGraph, type DependencyGraph } from "../evidence/dependency-graph.ts";
import { type Matches, matchRanges } from "../evidence/match-ranges.ts";
import { pointAtOrBefore, type RestorePoints, restorePoints } from "../evidence/restore-points.ts";
import { checkpointedTogether, restrictToCommon } from "./checkpointed-together.ts";
import { NOTHING_UNDONE, propagateRollback, type StartMarks } from "./propagate-rollback.ts";

export interface Rules {
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
  /** Groups of processes (numbers) whose equal checkpoints are one checkpoint: one process tree, shared memory. */
  readonly together?: readonly (readonly number[])[];
}

export interface RollbackModel {
  readonly evidence: Evidence;
  readonly rules: Rules;
  readonly points: RestorePoints;
  readonly matches: Matches;
  readonly graph: DependencyGraph;
  readonly base: BaseMarks;
}

export function rollbackModel(evidence: Evidence, rules: Rules): RollbackModel {
  const groups = rules.together ?? [];
  const all = restorePoints(evidence);
  const points = groups.length === 0 ? all : restrictToCommon(evidence, all, groups);
  const matches = matchRanges(evidence, rules.dsm);
  const { list, base } = dependencies(evidence, points, matches, rules.inTransit);
  checkpointedTogether(evidence, points, groups, list);
  const graph = buildDependencyGraph(list, evidence.processes.length);
  return { evidence, rules, points, matches, graph, base };
}

/** First line of the volatile interval: what a failure of the process undoes at least. */
export function volatileFrom(model: RollbackModel, process: number): number {
  return pointAtOrBefore(model.points, process, model.evidence.length[process] as number) + 1;
}

/** What is undone before any message is followed: by the failures, by ends that a gap made uncertain, by what nobody sent. */
export function startMarks(model: RollbackModel, failed: readonly number[]): StartMarks {
  const process = [...failed];
  const openGap = model.points.openGap;
  for (let i = 0; i < openGap.length; i += 1) if (openGap[i] !== 0) process.push(i);
  const line = process.map((p) => volatileFrom(model, p));
  for (const p of model.base.process.view()) process.push(p);
  for (const l of model.base.line.view()) line.push(l);
  return { process, line };
}

/** The recovery line of a failure set: first undone line per process, NOTHING_UNDONE = continues. */
export function undoneBy(model: RollbackModel, failed: readonly number[]): Uint32Array {
  return propagateRollback(model.graph, startMarks(model, failed));
}

/** Position per process that a result of `undoneBy` keeps. */
export function keptPositions(evidence: Evidence, undone: Uint32Array): Uint32Array {
  return undone.map((line, process) => {
    const length = evidence.length[process] as number;
    if (line === NOTHING_UNDONE) return length;
    assert(line >= 1 && line <= length + 1, "what is undone begins within the history");
    return line - 1;
  });
}
