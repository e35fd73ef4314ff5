/** The greatest and the least consistent cut that contain places named as P:CHECKPOINT, P@POSITION or P:now. */

import type { GlobalCutAnswer, Wanted } from "../graph/questions/consistent-cuts.ts";
import type { RollbackModel } from "../graph/rollback/rollback-model.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { type Evidence, USABLE } from "../model/evidence-layout.ts";
import type { LineEntry } from "../model/recovery-line.ts";
import { sentenceOf } from "../model/witness-text.ts";

/** Process, then checkpoint, `now` or position. */
const MEMBER = /^(.+)(?::(\d+|now)|@(\d+))$/s;

/** Links of a chain told in a refusal, count. */
const MAX_LINKS = 20;

/** Members as places. Throws RL_USAGE for what is no member or no restore point, RL_UNKNOWN_PROCESS, RL_REFUSED where events are missing. */
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
    const named =
      position === undefined ? placeOf(model.evidence, process, checkpoint as string) : Number(position);
    if (named === undefined) throw wrong(member, "names a checkpoint that the history does not hold");
    const length = model.evidence.length[process] as number;
    if (position !== undefined && named > length)
      throw wrong(member, `lies behind the end, position ${length}`);
    // A position that is the end, and no restore point besides, can mean the end alone.
    const isEnd = position !== undefined && named === length && !isPlace(model, process, named);
    const place = isEnd ? length + 1 : named;
    if (!isPlace(model, process, place)) throw noPlace(model, member, process, place);
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

/** A wrong question, unless it is the evidence that lacks what would make it a place. */
function noPlace(model: RollbackModel, member: string, process: number, place: number): RecoveryLineError {
  const { evidence, points } = model;
  if (place === 0) return missing(member, "is a moment before its process was recorded (attach)");
  const { start, line, flags } = evidence.segments;
  const length = evidence.length[process] as number;
  const [first, stop] = [start[process] as number, start[process + 1] as number];
  const at = first + line.subarray(first, stop).indexOf(place);
  const isUsable = at >= first && ((flags[at] as number) & USABLE) !== 0;
  if (isUsable || place > length || place <= (points.stable[process] as number))
    return missing(
      member,
      "lies behind missing events of its process, which no checkpoint with a cut has healed",
    );
  return wrong(member, "is no restore point: unusable, or not replayable");
}

function missing(member: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `no consistent cut is known to contain ${JSON.stringify(member)}: it ${why}`,
    "Take a restore point that the evidence proves: before the gap, or at or behind a later checkpoint with a cut.",
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
  const { evidence } = model;
  if (!answer.feasible)
    throw refusal(answer, new Set(wanted.map(({ process }) => evidence.processes[process])));
  return Array.from(answer.places, (place, process) =>
    lineEntry(evidence, process, place === volatilePlace(evidence, process) ? NOTHING_UNDONE : place + 1),
  );
}

function refusal(
  { chain }: Extract<GlobalCutAnswer, { feasible: false }>,
  members: ReadonlySet<string | undefined>,
): RecoveryLineError {
  const told = chain.slice(0, MAX_LINKS).map(sentenceOf).join(" ");
  const more = chain.length > MAX_LINKS ? ` ... ${chain.length - MAX_LINKS} more.` : "";
  const why =
    told === "" ? "A member stands at the end of a process that failed or lost events." : `${told}${more}`;
  const hit = chain.at(-1)?.process;
  if (hit !== undefined && !members.has(hit))
    return new RecoveryLineError(
      "RL_REFUSED",
      `no consistent cut contains all members: ${hit} would have to go back to a moment before it was recorded (attach). ${why}`,
      "It can stand at its first checkpoint that nothing undoes: recovery-line checkpoint APP --coordinated.",
    );
  return new RecoveryLineError(
    "RL_REFUSED",
    `no consistent cut contains all members. ${why}`,
    "Take an earlier checkpoint of the one that must undo, or a later one of the one it depends on.",
  );
}
