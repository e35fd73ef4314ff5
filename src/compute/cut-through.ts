/** The greatest and the least consistent cut that contain places named as P:CHECKPOINT, P@POSITION or P:now. */

import type { GlobalCutAnswer, Wanted } from "../graph/questions/consistent-cuts.ts";
import type { RollbackModel } from "../graph/rollback/rollback-model.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import type { LineEntry } from "../model/recovery-line.ts";
import { sentenceOf } from "../model/witness-text.ts";

/** Process, then checkpoint, `now` or position. */
const MEMBER = /^(.+)(?::(\d+|now)|@(\d+))$/s;

/** Links of a chain told in a refusal, count. */
const MAX_LINKS = 20;

/** Members as places. Throws RL_USAGE for what is no member or no restore point, RL_UNKNOWN_PROCESS. */
export async function membersOf(model: RollbackModel, options: readonly string[]): Promise<Wanted[]> {
  const { isPlace } = await import("../graph/questions/consistent-cuts.ts");
  const { processNumbers } = await import("./compute.ts");
  const known = new Set(model.evidence.processes);
  // A name that holds commas wins over splitting at them, as with --failed.
  const members = options.flatMap((option) =>
    known.has(MEMBER.exec(option)?.[1] ?? "") ? [option] : option.split(","),
  );
  const wanted = members.map((member): Wanted => {
    const parts = MEMBER.exec(member);
    if (parts === null) throw wrong(member, "is not of the form P:CHECKPOINT, P@POSITION or P:now");
    const [, name = "", checkpoint, position] = parts;
    const [process = 0] = processNumbers(model.evidence, [name]);
    const place =
      position === undefined ? placeOf(model.evidence, process, checkpoint as string) : Number(position);
    if (place === undefined) throw wrong(member, "names a checkpoint that the history does not hold");
    if (position !== undefined && place > (model.evidence.length[process] as number))
      throw wrong(member, `lies behind the end, position ${model.evidence.length[process]}`);
    if (!isPlace(model, process, place))
      throw wrong(member, "is no restore point: unusable, not replayable, or behind missing events");
    return { process, place };
  });
  const twice = wanted.find(
    ({ process }, at) => wanted.findIndex((other) => other.process === process) !== at,
  );
  if (twice !== undefined) throw wrong(model.evidence.processes[twice.process] as string, "is named twice");
  return wanted;
}

export function placeOf(evidence: Evidence, process: number, checkpoint: string): number | undefined {
  if (checkpoint === "now") return (evidence.length[process] as number) + 1;
  const { start, index, line } = evidence.segments;
  const own = index.subarray(start[process], start[process + 1]);
  const at = own.indexOf(Number(checkpoint));
  return at < 0 ? undefined : line[(start[process] as number) + at];
}

export function wrong(member: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_USAGE",
    `--containing: ${JSON.stringify(member)} ${why}`,
    "See recovery-line cut --help.",
  );
}

/** The cut as entries of a line. Throws RL_REFUSED with the chain where there is none. */
export async function cutEntries(
  model: RollbackModel,
  wanted: readonly Wanted[],
  failed: readonly number[],
  which: "greatest" | "least",
): Promise<LineEntry[]> {
  const { greatestCut, leastCut, volatilePlace } = await import("../graph/questions/consistent-cuts.ts");
  const { lineEntry } = await import("../graph/rollback/line-entry.ts");
  const { NOTHING_UNDONE } = await import("../graph/rollback/propagate-rollback.ts");
  const answer = (which === "least" ? leastCut : greatestCut)(model, wanted, failed);
  if (!answer.feasible) throw refusal(answer);
  const { evidence } = model;
  return Array.from(answer.places, (place, process) =>
    lineEntry(evidence, process, place === volatilePlace(evidence, process) ? NOTHING_UNDONE : place + 1),
  );
}

export function refusal({ chain }: Extract<GlobalCutAnswer, { feasible: false }>): RecoveryLineError {
  const told = chain.slice(0, MAX_LINKS).map(sentenceOf).join(" ");
  const more = chain.length > MAX_LINKS ? ` ... ${chain.length - MAX_LINKS} more.` : "";
  const why =
    told === "" ? "A member stands at the end of a process that failed or lost events." : `${told}${more}`;
  return new RecoveryLineError(
    "RL_REFUSED",
    `no consistent cut contains all members. ${why}`,
    "Take an earlier checkpoint of the one that must undo, or a later one of the one it depends on.",
  );
}
