/** `recovery-line cut`: the greatest or the least consistent cut that contains given checkpoints. */
import type { Command } from "commander";
import { RecoveryLineError } from "../model/errors.ts";
import { printable } from "../model/printable.ts";
import type { LineEntry } from "../model/recovery-line.ts";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence, rulesOf } from "./evidence-options.ts";
import { failedNames, repeated } from "./failed-names.ts";

interface CutFlags extends EvidenceFlags {
  readonly containing: readonly string[];
  readonly greatest?: boolean;
  readonly least?: boolean;
  readonly failed?: readonly string[];
}

const HELP = `
Members: P:3 is checkpoint 3 of process P (0: its initial state), P@41 the restore point at position 41, P:now the end
of its history, as P@41 is where 41 is its last position and no restore point. The least cut keeps as little as what the
members have received allows. Exit code 4 where no consistent cut contains them all, with the chain of messages that
makes it so, and where events are missing without which a member is no restore point.

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
  const { consistentCut } = await import("../index.ts");
  const { application, evidence } = await loadEvidence(app, flags, true);
  const failed = failedNames(flags.failed, evidence.processes) ?? [];
  const outcome = evidence.gaps > 0 ? "tainted" : "clean";
  const which = flags.least ? "least" : "greatest";
  const line = await consistentCut(evidence, flags.containing, { ...rulesOf(flags), failed, which });
  if (flags.json) await writeJson({ application, outcome, which, line });
  else await write(cutText(application, which, line));
  process.exitCode = exitCodeOfOutcome(outcome);
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
