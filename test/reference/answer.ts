/** The part of an answer that is decided by the contracts alone: everything but the choice of witnesses. */
import type { DsmModel, InTransitPolicy, LineEntry, RecoveryLine } from "../../src/model/recovery-line.ts";
import type { History } from "./history.ts";
import { basePosition, isVolatileEnd, usableCheckpoint } from "./restore-points.ts";

export type Answer = Omit<RecoveryLine, "witnesses">;

export interface Options {
  /** Absent: the whole application restarts. */
  readonly failed?: readonly string[];
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
}

/** The options in every combination but the failed set. */
export const POLICIES: readonly Omit<Options, "failed">[] = [
  { dsm: "sequential", inTransit: "any" },
  { dsm: "sequential", inTransit: "logged" },
  { dsm: "transfers", inTransit: "any" },
  { dsm: "transfers", inTransit: "logged" },
];

export function isFailed(options: Options, process: string): boolean {
  return options.failed === undefined || options.failed.includes(process);
}

/** docs/semantics.md, 9. */
export function lineEntry(process: string, history: History, position: number, failed: boolean): LineEntry {
  if (!failed && isVolatileEnd(history, position))
    return { process, checkpoint: null, position, action: "continue" };
  if (position === 0) return { process, checkpoint: 0, position, action: "initial" };
  const checkpoint = usableCheckpoint(history, position);
  if (checkpoint !== undefined)
    return { process, checkpoint: checkpoint.checkpoint, position, action: "restore" };
  const base = usableCheckpoint(history, basePosition(history, position));
  return { process, checkpoint: base?.checkpoint ?? 0, position, action: "replay" };
}

/** docs/semantics.md, 8: a gap is healed by a later checkpoint with a cut in the same effective history. */
export function evidenceOf(histories: Iterable<History>): Pick<Answer, "outcome" | "evidence"> {
  let [gaps, healed, lost] = [0, 0, 0];
  for (const history of histories)
    history.forEach((event, at) => {
      if (event.type !== "gap") return;
      lost += event.lost ?? 0;
      const later = history.slice(at);
      if (later.some((line) => line.type === "checkpoint" && line.cut !== undefined)) healed++;
      else gaps++;
    });
  return { outcome: gaps > 0 ? "tainted" : "clean", evidence: { gaps, lost, healed } };
}

/** One text per answer: equal answers, equal texts. */
export function canonical(answer: Answer): string {
  const { outcome, line, inTransit, lostInputs, unsayable, evidence } = answer;
  return JSON.stringify([
    outcome,
    line.map((e) => [e.process, e.checkpoint, e.position, e.action]),
    inTransit.map((r) => [r.channel, r.from, r.to, r.begin, r.end]),
    lostInputs.map((r) => [r.channel, r.process, r.begin, r.end]),
    unsayable.map((r) => [r.channel, r.process, r.begin, r.end]),
    [evidence.gaps, evidence.lost, evidence.healed],
  ]);
}
