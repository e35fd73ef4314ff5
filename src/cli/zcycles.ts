/** `recovery-line zcycles`: checkpoints that no consistent line can ever hold, each with the path that makes it so. */
import type { Command } from "commander";
import type { RollbackModel } from "../graph/rollback-model.ts";
import type { UselessCheckpoint } from "../graph/zigzag.ts";
import type { WitnessLink } from "../model/recovery-line.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence, rulesOf } from "./evidence-options.ts";
import { exitCodeOfOutcome } from "./exit-codes.ts";
import { counted, printable, write, writeJson } from "./print.ts";
import { chainText } from "./sentences.ts";

/** Checkpoints printed for people, count; --json prints all. */
const MAX_SHOWN = 200;
/** Checkpoints whose path is searched, count: each costs what its rollback costs. */
const MAX_PATHS = 1000;

const HELP = `
A checkpoint is useless if undoing what follows it undoes what precedes it (a Z-cycle): no failure can ever restart from
it. "uncertain" ones are in no line only because of missing events or of bytes that nobody sent as far as the evidence goes.

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
  const { rollbackModel } = await import("../graph/rollback-model.ts");
  const { application, evidence } = await loadEvidence(app, flags);
  const outcome = evidence.gaps > 0 ? "tainted" : "clean";
  const report = await uselessReport(rollbackModel(evidence, rulesOf(flags)));
  if (flags.json)
    await writeJson({ application, outcome, checkpoints: report.judged, useless: report.useless });
  else await write(zcyclesText(application, report));
  process.exitCode = exitCodeOfOutcome(outcome);
}

interface Useless {
  readonly process: string;
  readonly checkpoint: number;
  readonly position: number;
  readonly why: UselessCheckpoint["why"];
  /** From what follows the checkpoint to what precedes it; absent where nobody looked (there are very many). */
  readonly path?: readonly WitnessLink[];
}

export interface UselessReport {
  /** Checkpoints of all processes, count. */
  readonly judged: number;
  readonly useless: readonly Useless[];
}

export async function uselessReport(model: RollbackModel): Promise<UselessReport> {
  const { uselessCheckpoints } = await import("../graph/zigzag.ts");
  const { shortestChain, startsAnyway } = await import("../graph/chain.ts");
  const { evidence } = model;
  const anyway = startsAnyway(model);
  const useless = uselessCheckpoints(model).map(({ process, segment, position, why }, at): Useless => {
    const from = why === "z-cycle" ? [{ process, line: position + 1 }] : anyway;
    const hits = (p: number, undone: number): boolean => p === process && undone <= position;
    const path = at < MAX_PATHS ? shortestChain(model, from, hits) : undefined;
    return {
      process: evidence.processes[process] as string,
      checkpoint: evidence.segments.index[segment] as number,
      position,
      why,
      ...(path === undefined ? {} : { path }),
    };
  });
  return { judged: evidence.segments.line.length - evidence.processes.length, useless };
}

export function zcyclesText(application: string, { judged, useless }: UselessReport): string {
  const head = `${printable(application)}: ${useless.length} of ${counted(judged, "checkpoint")} useless\n`;
  const shown = useless.slice(0, MAX_SHOWN).map(({ process, checkpoint, position, why, path }) => {
    const name = `${printable(process)}: checkpoint ${checkpoint} (position ${position})`;
    const reason =
      why === "z-cycle" ? "is on a Z-cycle: a restart from it undoes what follows, then" : "is uncertain, as";
    return `\n${name} ${reason}\n${chainText(path ?? [])}`;
  });
  const hidden = useless.length - shown.length;
  return head + shown.join("") + (hidden > 0 ? `\n... and ${hidden} more; --json prints all\n` : "");
}
