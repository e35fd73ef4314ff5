/** Who must take a checkpoint together with some processes, so that theirs are on a line (Koo & Toueg 1987). */
import { leastCut, volatilePlace } from "../graph/questions/consistent-cuts.ts";
import { rollbackModel } from "../graph/rollback/rollback-model.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { processNumbers } from "./compute.ts";

/**
 * They, and everyone who must keep more than its newest restore point where they keep all: the members of the least consistent cut at their ends
 * that stand at their own ends. Undefined where there is no such cut (events are missing): then nobody can be left out. Throws RL_UNKNOWN_PROCESS.
 */
export function dependentsOf(evidence: Evidence, names: readonly string[]): string[] | undefined {
  const model = rollbackModel(evidence, { dsm: "sequential", inTransit: "any" });
  const wanted = [...processNumbers(evidence, names)].map((process) => ({
    process,
    place: volatilePlace(evidence, process),
  }));
  const cut = leastCut(model, wanted);
  if (!cut.feasible) return undefined;
  return evidence.processes.filter((_, process) => cut.places[process] === volatilePlace(evidence, process));
}
