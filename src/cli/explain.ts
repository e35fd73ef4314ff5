/** `recovery-line explain`: why one process is rolled back as far as it is, message by message; or why it is not. */
import type { Command } from "commander";
import type { Explanation } from "../index.ts";
import { countedAsFailed, unrecordedText } from "../logs/unrecorded.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { chainText } from "../model/witness-text.ts";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { outsideText } from "../terminal/outside-report.ts";
import { write, writeJson } from "../terminal/print.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence, rulesOf } from "./evidence-options.ts";
import { failedNames, repeated } from "./failed-names.ts";
import { type NotCaptured, notCapturedIn, notCapturedText } from "./not-captured.ts";
import { named as withNames } from "./peer-names.ts";

interface ExplainFlags extends EvidenceFlags {
  readonly failed?: readonly string[];
}

const HELP = `
Without --failed everybody failed, as with compute. The answer rests on a line that the verifier has checked.
With --from the only argument is the process.

Examples:
  recovery-line explain heat p1 --failed p0
  recovery-line explain p1 --from events.jsonl --failed p0`;

export function register(program: Command): void {
  evidenceCommand(program, "explain", "tell why a process is rolled back, message by message")
    .description("Explains in sentences why a process goes on from where the recovery line says.")
    .argument("[process]", "the process to explain")
    .option("--failed <names>", "processes that failed, P,Q; repeatable (default: all of them)", repeated)
    .addHelpText("after", HELP)
    .action(explain);
}

async function explain(
  first: string | undefined,
  second: string | undefined,
  flags: ExplainFlags,
): Promise<void> {
  const { explain: explainProcess, recoveryLine } = await import("../index.ts");
  const [app, name] = flags.from !== undefined && second === undefined ? [undefined, first] : [first, second];
  if (name === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      "no process to explain",
      "Write recovery-line explain APP PROCESS.",
    );
  const { application, evidence, unrecorded } = await loadEvidence(app, flags);
  const named = evidence.processes.length === 0 ? undefined : failedNames(flags.failed, evidence.processes);
  const unknown = countedAsFailed(named, unrecorded);
  const answer = recoveryLine(evidence, {
    ...(named === undefined ? {} : { failed: named }),
    ...rulesOf(flags),
    unrecorded,
  });
  await write(unrecordedText(unknown), process.stderr);
  const explained = await withNames(explainProcess(evidence, answer, name), answer.line, app, flags);
  const reasons = await reasonsOf(app, flags, explained);
  if (flags.json)
    await writeJson({ application, outcome: answer.outcome, ...explained, notCaptured: reasons });
  else await write(`${explanationText(explained)}${notCapturedText(reasons)}`);
  process.exitCode = exitCodeOfOutcome(answer.outcome);
}

/** Of the processes whose gaps the chain rests on: why the kernel could not follow them. */
async function reasonsOf(
  app: string | undefined,
  { from, log }: ExplainFlags,
  { because }: Explanation,
): Promise<NotCaptured[]> {
  const gaps = new Set(because.filter(({ rule }) => rule === "gap").map(({ process }) => process));
  if (app === undefined || from !== undefined || gaps.size === 0) return [];
  return (await notCapturedIn(log, app)).filter(({ process }) => gaps.has(process));
}

export function explanationText({ summary, because, ...outside }: Explanation): string {
  return summary.map((sentence) => `${sentence}\n`).join("") + chainText(because) + outsideText(outside);
}
