/** `recovery-line cut`: the greatest or the least consistent cut that contains given checkpoints. */
import type { Command } from "commander";
import type { CutAnswer, Wanted } from "../graph/consistent-cuts.ts";
import type { Evidence } from "../graph/evidence.ts";
import type { RollbackModel } from "../graph/rollback-model.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { LineEntry } from "../model/recovery-line.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence, rulesOf } from "./evidence-options.ts";
import { exitCodeOfOutcome } from "./exit-codes.ts";
import { failedNames, repeated } from "./failed-names.ts";
import { printable, table, write, writeJson } from "./print.ts";
import { sentenceOf } from "./sentences.ts";

interface CutFlags extends EvidenceFlags {
  readonly containing: readonly string[];
  readonly greatest?: boolean;
  readonly least?: boolean;
  readonly failed?: readonly string[];
}

/** Process, then checkpoint, `now` or position. */
const MEMBER = /^(.+)(?::(\d+|now)|@(\d+))$/s;
/** Links of a chain told in a refusal, count. */
const MAX_LINKS = 20;

const HELP = `
Members: P:3 is checkpoint 3 of process P (0: its initial state), P@41 the restore point at position 41, P:now the end
of its history. The least cut keeps as little as what the members have received allows. Exit code 4 where no
consistent cut contains them all, with the chain of messages that makes it so.

Example:
  recovery-line cut heat --containing p0:3,p1:5 --least`;

export function register(program: Command): void {
  evidenceCommand(
    program,
    "cut",
    "print the greatest or least consistent cut that contains given checkpoints",
  )
    .description(
      "Computes the greatest (default) or the least consistent cut that contains given restore points.",
    )
    .requiredOption(
      "--containing <members>",
      "P:CHECKPOINT, P@POSITION or P:now, separated by commas; repeatable",
      repeated,
    )
    .option("--greatest", "the greatest such cut (default)")
    .option("--least", "the least such cut")
    .option(
      "--failed <names>",
      "processes that failed: they can't stand at their ends; P,Q; repeatable",
      repeated,
    )
    .addHelpText("after", HELP)
    .action(cut);
}

async function cut(app: string | undefined, flags: CutFlags): Promise<void> {
  if (flags.greatest && flags.least)
    throw new RecoveryLineError("RL_USAGE", "--greatest and --least exclude each other", "Choose one.");
  const { rollbackModel } = await import("../graph/rollback-model.ts");
  const { processNumbers } = await import("../engine/compute.ts");
  const { application, evidence } = await loadEvidence(app, flags, true);
  const model = rollbackModel(evidence, rulesOf(flags));
  const wanted = await membersOf(model, flags.containing);
  const failed = processNumbers(evidence, failedNames(flags.failed, evidence.processes) ?? []);
  const line = await cutEntries(model, wanted, failed, flags.least ? "least" : "greatest");
  const outcome = evidence.gaps > 0 ? "tainted" : "clean";
  const which = flags.least ? "least" : "greatest";
  if (flags.json) await writeJson({ application, outcome, which, line });
  else await write(cutText(application, which, line));
  process.exitCode = exitCodeOfOutcome(outcome);
}

/** The cut as entries of a line. Throws RL_REFUSED with the chain where there is none. */
export async function cutEntries(
  model: RollbackModel,
  wanted: readonly Wanted[],
  failed: readonly number[],
  which: "greatest" | "least",
): Promise<LineEntry[]> {
  const { greatestCut, leastCut, volatilePlace } = await import("../graph/consistent-cuts.ts");
  const { lineEntry } = await import("../graph/line-entry.ts");
  const { NOTHING_UNDONE } = await import("../graph/propagate-rollback.ts");
  const answer = (which === "least" ? leastCut : greatestCut)(model, wanted, failed);
  if (!answer.feasible) throw refusal(answer);
  const { evidence } = model;
  return Array.from(answer.places, (place, process) =>
    lineEntry(evidence, process, place === volatilePlace(evidence, process) ? NOTHING_UNDONE : place + 1),
  );
}

function refusal({ chain }: Extract<CutAnswer, { feasible: false }>): RecoveryLineError {
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

/** Members as places. Throws RL_USAGE for what is no member or no restore point, RL_UNKNOWN_PROCESS. */
export async function membersOf(model: RollbackModel, options: readonly string[]): Promise<Wanted[]> {
  const { isPlace } = await import("../graph/consistent-cuts.ts");
  const { processNumbers } = await import("../engine/compute.ts");
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

function placeOf(evidence: Evidence, process: number, checkpoint: string): number | undefined {
  if (checkpoint === "now") return (evidence.length[process] as number) + 1;
  const { start, index, line } = evidence.segments;
  const own = index.subarray(start[process], start[process + 1]);
  const at = own.indexOf(Number(checkpoint));
  return at < 0 ? undefined : line[(start[process] as number) + at];
}

function wrong(member: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_USAGE",
    `--containing: ${JSON.stringify(member)} ${why}`,
    "See recovery-line cut --help.",
  );
}

export function cutText(application: string, which: string, line: readonly LineEntry[]): string {
  const rows = line.map(({ process, action, checkpoint, position }) => [
    printable(process),
    action === "continue" ? "end" : action,
    checkpoint === null ? "-" : String(checkpoint),
    String(position),
  ]);
  return `${printable(application)}: the ${which} consistent cut\n\n${table(["PROCESS", "PLACE", "CHECKPOINT", "POSITION"], rows)}`;
}
