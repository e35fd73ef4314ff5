/** `recovery-line zcycles`: checkpoints that no consistent line can ever hold, each with the path that makes it so. */
import type { Command } from "commander";
import type { UselessReport } from "../index.ts";
import { counted, printable } from "../model/printable.ts";
import { chainText } from "../model/witness-text.ts";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { write, writeJson } from "../terminal/print.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence, rulesOf } from "./evidence-options.ts";

/** Checkpoints printed for people, count; --json prints all. */
const MAX_SHOWN = 200;
const HELP = `
A checkpoint is useless if undoing what follows it undoes what precedes it (a Z-cycle): no failure can ever restart from
it. "uncertain" ones are in no line only because of missing events or of bytes that nobody sent as far as the evidence goes.
Checkpoints that are no restore points are not judged: unusable ones, and those behind missing events of their process.

Examples:
  recovery-line zcycles heat
  recovery-line zcycles --from events.jsonl --json`;

export function register(program: Command): void {
  evidenceCommand(program, "zcycles", "print the useless checkpoints")
    .description("Finds checkpoints that are in no consistent line.")
    .addHelpText("after", HELP)
    .action(zcycles);
}

async function zcycles(app: string | undefined, flags: EvidenceFlags): Promise<void> {
  const { uselessCheckpoints } = await import("../index.ts");
  const { application, evidence } = await loadEvidence(app, flags);
  const outcome = evidence.gaps > 0 ? "tainted" : "clean";
  const report = await uselessCheckpoints(evidence, rulesOf(flags));
  if (flags.json)
    await writeJson({
      application,
      outcome,
      checkpoints: report.judged,
      notJudged: report.notJudged,
      useless: report.useless,
    });
  else await write(zcyclesText(application, report));
  process.exitCode = exitCodeOfOutcome(outcome);
}

export function zcyclesText(application: string, { judged, notJudged, useless }: UselessReport): string {
  const head =
    `${printable(application)}: ${useless.length} of ${counted(judged, "checkpoint")} useless\n` +
    notJudgedText(notJudged);
  const shown = useless.slice(0, MAX_SHOWN).map(({ process, checkpoint, position, why, path }) => {
    const name = `${printable(process)}: checkpoint ${checkpoint} (position ${position})`;
    const reason =
      why === "z-cycle" ? "is on a Z-cycle: a restart from it undoes what follows, then" : "is uncertain, as";
    return `\n${name} ${reason}\n${chainText(path ?? [])}`;
  });
  const hidden = useless.length - shown.length;
  return head + shown.join("") + (hidden > 0 ? `\n... and ${hidden} more; --json prints all\n` : "");
}

function notJudgedText({ unusable, missingEvents }: UselessReport["notJudged"]): string {
  const parts = [
    unusable > 0 ? `${unusable} can't be restored` : "",
    missingEvents > 0 ? `${missingEvents} behind missing events` : "",
  ].filter((part) => part !== "");
  return parts.length === 0 ? "" : `Not judged: ${parts.join(", ")}\n`;
}
