/** `recovery-line explain`: why one process is rolled back as far as it is, message by message; or why it is not. */
import type { Command } from "commander";
import type { Evidence } from "../graph/evidence.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { LineEntry, OutsideRange, RecoveryLine, WitnessLink } from "../model/recovery-line.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence } from "./evidence-options.ts";
import { exitCodeOfOutcome } from "./exit-codes.ts";
import { failedNames, repeated } from "./failed-names.ts";
import { type NotCaptured, notCapturedIn, notCapturedText } from "./not-captured.ts";
import { outsideText } from "./outside-report.ts";
import { counted, printable, write, writeJson } from "./print.ts";
import { chainText, sentenceOf } from "./sentences.ts";
import { countedAsFailed, unrecordedText, withUnrecorded } from "./unrecorded.ts";

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
  const { computeLine } = await import("../engine/compute.ts");
  const [app, name] = flags.from !== undefined && second === undefined ? [undefined, first] : [first, second];
  if (name === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      "no process to explain",
      "Write recovery-line explain APP PROCESS.",
    );
  const { application, evidence, unrecorded } = await loadEvidence(app, flags);
  const named = evidence.processes.length === 0 ? undefined : failedNames(flags.failed, evidence.processes);
  const failed = withUnrecorded(named, unrecorded);
  const unknown = countedAsFailed(named, unrecorded);
  const line = computeLine(evidence, {
    ...(failed === undefined ? {} : { failed }),
    dsm: flags.dsm,
    inTransit: flags.inTransit,
  });
  const answer: RecoveryLine = unknown.length > 0 ? { ...line, outcome: "tainted" } : line;
  await write(unrecordedText(unknown), process.stderr);
  const explained = explanation(evidence, answer, name);
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

export interface Explanation extends LineEntry {
  /** Lines of its history that are undone, count. */
  readonly undone: number;
  /** What it undoes of the outside world. */
  readonly lostInputs: readonly OutsideRange[];
  readonly unsayable: readonly OutsideRange[];
  /** What holds of the process, in sentences. */
  readonly summary: readonly string[];
  /** A shortest chain of messages from a failure to this process; empty for one that continues. */
  readonly because: readonly WitnessLink[];
  /** The chain in sentences. */
  readonly sentences: readonly string[];
}

/** Throws RL_UNKNOWN_PROCESS for a process that the evidence does not name. */
export function explanation(evidence: Evidence, answer: RecoveryLine, name: string): Explanation {
  const number = evidence.processes.indexOf(name);
  const entry = answer.line[number];
  if (entry === undefined)
    throw new RecoveryLineError(
      "RL_UNKNOWN_PROCESS",
      `no process ${JSON.stringify(name)} in the evidence`,
      "Name the process as it stands in the evidence; compute lists them all.",
    );
  const length = evidence.length[number] as number;
  const because = answer.witnesses.find(({ process }) => process === name)?.because ?? [];
  return {
    ...entry,
    undone: length - entry.position,
    lostInputs: answer.lostInputs.filter(({ process }) => process === name),
    unsayable: answer.unsayable.filter(({ process }) => process === name),
    summary: summaryOf(entry, length, because.length),
    because,
    sentences: because.map(sentenceOf),
  };
}

function summaryOf(entry: LineEntry, length: number, links: number): string[] {
  const who = printable(entry.process);
  if (entry.action === "continue")
    return [
      `${who} is not rolled back: it goes on from its end, position ${length}.`,
      "It did not fail, its end is certain, and everything it received was sent by what the others keep.",
    ];
  const from = {
    restore: `from checkpoint ${entry.checkpoint} (position ${entry.position})`,
    replay: `from checkpoint ${entry.checkpoint} and replays its message log up to position ${entry.position}`,
    initial: "from its initial state",
  }[entry.action];
  const cost = `it undoes ${counted(length - entry.position, "event")} of ${length}`;
  const steps =
    links === 1 ? "That has one reason:" : `A shortest chain that forces it has ${counted(links, "step")}:`;
  return [`${who} restarts ${from}: ${cost}.`, steps];
}

export function explanationText({ summary, because, ...outside }: Explanation): string {
  return summary.map((sentence) => `${sentence}\n`).join("") + chainText(because) + outsideText(outside);
}
