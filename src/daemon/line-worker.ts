/**
 * A thread that computes the lines of all single failures of an application from its log, as the collector's socket gives it, and who must take a
 * checkpoint with others: the collector's own thread only hands out new blocks meanwhile.
 */

import { CollectorClient } from "../client/client.ts";
import { dependentsOf } from "../compute/dependents.ts";
import { GrowingEvidence } from "../compute/growing-evidence.ts";
import { LossReport } from "../compute/losses.ts";
import { planCollection, rulesToKeep } from "../gc/gc.ts";
import { rollbackModel } from "../graph/rollback/rollback-model.ts";
import { type Evidence, RECEIVER, SENDER } from "../model/evidence-layout.ts";
import { MAX_KEPT_ENTRIES } from "../model/limits.ts";
import type { FailureFacts } from "./line-facts.ts";

export interface LineTask {
  readonly home: string;
  readonly app: string;
  /** `garbage`: also how many checkpoints no line needs any more. `dependentsOf`: of these processes. */
  readonly ask: { readonly garbage: boolean } | { readonly dependentsOf: readonly string[] };
  /** Applications that are asked about: what was read of others is forgotten. */
  readonly apps: readonly string[];
}

export interface LineAnswer {
  readonly failures: readonly (readonly [string, FailureFacts])[];
  /** In effect, count. */
  readonly checkpoints: number;
  readonly garbage: number;
}

/** Null: nobody can be left out; undefined: all of the log would have to be read for it. */
export type DependentsAnswer = readonly string[] | null | undefined;

const known = new Map<string, GrowingEvidence>();

/** Throws what reading the log throws, and `dependentsOf`. */
export default async function lines({
  home,
  app,
  ask,
  apps,
}: LineTask): Promise<LineAnswer | DependentsAnswer> {
  for (const other of known.keys()) if (!apps.includes(other)) known.delete(other);
  const growing = known.get(app) ?? new GrowingEvidence(MAX_KEPT_ENTRIES);
  known.set(app, growing);
  if (!("garbage" in ask) && !growing.isKept) return undefined;
  const client = new CollectorClient(home);
  try {
    const evidence = await growing.ofApp(client, app);
    return "garbage" in ask
      ? answerOf(evidence, ask.garbage)
      : (dependentsOf(evidence, ask.dependentsOf) ?? null);
  } finally {
    client.close();
  }
}

/** For tests: of evidence from anywhere. */
export function answerOf(evidence: Evidence, garbage: boolean): LineAnswer {
  const report = new LossReport(rollbackModel(evidence, { dsm: "sequential", inTransit: "any" }));
  const peers = peersOf(evidence);
  const failures = evidence.processes.map((name, failed) => {
    const { rolledBack, depth } = report.single(failed);
    const back = rolledBack.map(({ process, checkpoint }) => [process, checkpoint ?? 0] as const);
    return [
      name,
      { depth: Math.max(0, depth - 1), breadth: back.length, back, peers: peers[failed] ?? [] },
    ] as const;
  });
  return {
    failures,
    checkpoints: evidence.segments.line.length - evidence.processes.length,
    garbage: garbage ? planCollection(evidence, rulesToKeep(evidence)).obsolete.length : 0,
  };
}

/** By process: whom it has received from. */
function peersOf({ processes, channels, processAt, outside }: Evidence): string[][] {
  const found = processes.map(() => new Set<string>());
  for (let channel = 0; channel < channels.length; channel += 1) {
    if (outside[channel] !== -1) continue;
    const [sender, receiver] = [processAt[2 * channel + SENDER]!, processAt[2 * channel + RECEIVER]!];
    if (sender >= 0 && receiver >= 0 && sender !== receiver) found[receiver]!.add(processes[sender]!);
  }
  return found.map((names) => [...names]);
}
