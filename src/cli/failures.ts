/** `recovery-line failures`: what each single failure would roll back now, and what several together would. */
import type { Command } from "commander";
import type { Loss, LossReport } from "../index.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { counted, printable } from "../model/printable.ts";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { bytesOf, outsideText } from "../terminal/outside-report.ts";
import { table, write } from "../terminal/print.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence, rulesOf } from "./evidence-options.ts";
import { failedNames, repeated } from "./failed-names.ts";
import { type NotCaptured, notCapturedIn, notCapturedText } from "./not-captured.ts";
import { type KnownPeers, peersIn, withPeers } from "./peer-names.ts";

interface FailuresFlags extends EvidenceFlags {
  readonly failed?: readonly string[];
}

/** Rows printed for people; the worst ones. --json prints all. */
const MAX_ROWS = 50;
/** Processes up to which the whole matrix is printed. */
const MAX_MATRIX = 12;

const HELP = `
A checkpoint or event is lost if it lies behind the place where its process would go on. Depth counts how many restore
points the worst process loses (1: it restarts from its newest). Past all checkpoints are processes that have some and
go back to their start all the same; one without any goes there, too, and is not among them. What is undone though
nobody fails (events are missing) is named once, and counted in every row. "no line": a process would have to go back
to before it was recorded (attach); exit code 4 where that is so whoever fails.

Example:
  recovery-line failures heat --failed p0,p1`;

export function register(program: Command): void {
  evidenceCommand(program, "failures", "print what each single failure would roll back now")
    .description(
      "Computes the recovery line of every single failure, and of the failure of several processes together.",
    )
    .option("--failed <names>", "only these processes, and all of them together; P,Q; repeatable", repeated)
    .addHelpText("after", HELP)
    .action(failures);
}

async function failures(app: string | undefined, flags: FailuresFlags): Promise<void> {
  const { lossReport } = await import("../index.ts");
  const { application, evidence } = await loadEvidence(app, flags, true);
  if (evidence.processes.length === 0)
    throw new RecoveryLineError(
      "RL_REFUSED",
      "the evidence names no process: there is nothing that could fail",
    );
  const failed = failedNames(flags.failed, evidence.processes);
  const report = lossReport(evidence, rulesOf(flags));
  refuseWithoutLine(report, failed);
  const tainted = report.outcome === "tainted" && flags.from === undefined && app !== undefined;
  const notCaptured = tainted ? await notCapturedIn(flags.log, app) : [];
  const isLog = flags.from === undefined && app !== undefined;
  const peers: KnownPeers = isLog ? await peersIn(flags.log, app) : new Map();
  if (flags.json) await writeReport(application, report, failed, notCaptured, peers);
  else
    await write(
      failuresReport(application, report, failed, peers) +
        (notCaptured.length > 0 ? `\n${notCapturedText(notCaptured)}` : ""),
    );
  process.exitCode = exitCodeOfOutcome(report.outcome);
}

/** No failure that was asked for has a line: nothing to print. */
function refuseWithoutLine(report: LossReport, failed: readonly string[] | undefined): void {
  for (const process of report.numbersOf(failed))
    if (report.single(process).withoutInitial === undefined) return;
  const names = report.together(failed).withoutInitial?.join(", ");
  throw new RecoveryLineError(
    "RL_REFUSED",
    `there is no recovery line, whoever fails: ${names} would have to go back to a moment before it was recorded (attach), and no checkpoint holds that state`,
    "It can from its first checkpoint on that nothing undoes: recovery-line checkpoint APP --coordinated.",
  );
}

function withNames(loss: Loss, peers: KnownPeers): Loss {
  return withPeers(loss, loss.rolledBack, peers);
}

/** Piece by piece: a million failures need no million rows in memory. */
async function writeReport(
  application: string,
  report: LossReport,
  failed: readonly string[] | undefined,
  notCaptured: readonly NotCaptured[],
  peers: KnownPeers,
): Promise<void> {
  const head = {
    application,
    outcome: report.outcome,
    processes: report.processes,
    anyway: report.anyway(),
    ...(notCaptured.length > 0 ? { notCaptured } : {}),
  };
  await write(`${JSON.stringify(head, null, 2).slice(0, -2)},\n  "failures": [`);
  let separator = "\n";
  for (const process of report.numbersOf(failed)) {
    await write(`${separator}    ${JSON.stringify(withNames(report.single(process), peers))}`);
    separator = ",\n";
  }
  await write(`\n  ],\n  "together": ${JSON.stringify(withNames(report.together(failed), peers))}\n}\n`);
}

/** The human answer. */
export function failuresReport(
  application: string,
  report: LossReport,
  failed: readonly string[] | undefined,
  peers: KnownPeers = new Map(),
): string {
  const worst = worstOf(report, failed);
  const together = withNames(report.together(failed), peers);
  const who = failed === undefined ? "all together" : `${failed.map(printable).join(", ")} together`;
  const talks = [together, ...worst.rows].some((loss) => loss.lostInputs.length + loss.unsayable.length > 0);
  const rows = [
    ...worst.rows.map((loss) => row(printable(loss.failed[0] as string), loss, report, talks)),
    row(who, together, report, talks),
  ];
  const head = ["FAILS", "ROLLED BACK", "EVENTS LOST", "CHECKPOINTS LOST", "DEPTH", "PAST ALL CHECKPOINTS"];
  if (talks) head.push("INPUT BYTES LOST", "OUTPUT BYTES UNSAYABLE");
  const hidden = worst.count - worst.rows.length;
  return [
    `${printable(application)}: what a failure would cost now (${report.outcome})\n`,
    anywayText(report),
    table(head, rows),
    ...[...worst.rows, together].map((loss, at) =>
      impossibleText(at < worst.rows.length ? printable(loss.failed[0] as string) : who, loss),
    ),
    hidden > 0 ? `... and ${hidden} more failures that cost less; --json prints all\n` : "",
    report.processes <= MAX_MATRIX ? matrix(report, failed) : "",
    talks && outsideText(together) !== "" ? `Of the outside world, ${who}:\n${outsideText(together)}` : "",
  ]
    .filter((part) => part !== "")
    .join("\n");
}

function row(name: string, loss: Loss, report: LossReport, talks: boolean): string[] {
  const { breadth, events, checkpoints, depth, unbounded, withoutInitial } = loss;
  if (withoutInitial !== undefined) return [name, "no line", ...Array(talks ? 6 : 4).fill("-")];
  return [
    name,
    `${breadth} of ${report.processes}`,
    String(events),
    String(checkpoints),
    String(depth),
    String(unbounded),
    ...(talks ? [String(bytesOf(loss.lostInputs)), String(bytesOf(loss.unsayable))] : []),
  ];
}

function impossibleText(who: string, { withoutInitial = [] }: Loss): string {
  if (withoutInitial.length === 0) return "";
  return `No line for ${who}: ${withoutInitial.map(printable).join(", ")} would have to go back to before it was recorded (attach)\n`;
}

function anywayText(report: LossReport): string {
  const { breadth, rolledBack } = report.anyway();
  if (breadth === 0) return "";
  const names = rolledBack.slice(0, MAX_MATRIX).map(({ process }) => printable(process));
  const more = breadth > names.length ? ", ..." : "";
  return `Though nobody fails, ${counted(breadth, "process", "processes")} can't go on from the end: ${names.join(", ")}${more}\n`;
}

/** The costliest rows: those without a line, then by events lost, in the order of processes where equal. */
function worstOf(report: LossReport, failed: readonly string[] | undefined): { rows: Loss[]; count: number } {
  const rows: Loss[] = [];
  let count = 0;
  for (const process of report.numbersOf(failed)) {
    count += 1;
    const loss = { ...report.single(process), rolledBack: [] };
    if (rows.length === MAX_ROWS && cost(loss) <= cost(rows[MAX_ROWS - 1] as Loss)) continue;
    let at = rows.length;
    while (at > 0 && cost(rows[at - 1] as Loss) < cost(loss)) at -= 1;
    rows.splice(at, 0, loss);
    rows.length = Math.min(rows.length, MAX_ROWS);
  }
  return { rows, count };
}

function cost({ withoutInitial, events }: Loss): number {
  return withoutInitial === undefined ? events : Number.POSITIVE_INFINITY;
}

/** Where every process would go on, a row for each failure: "-" at its end, c3 a checkpoint, c3@41 replayed up to 41, "?" nowhere. */
function matrix(report: LossReport, failed: readonly string[] | undefined): string {
  const rows = [...report.numbersOf(failed)].map((process) => {
    const { withoutInitial = [] } = report.single(process);
    const places = report.lineOf(process).map((entry) => {
      const { action, checkpoint, position } = entry;
      if (action === "continue") return "-";
      if (withoutInitial.includes(entry.process)) return "?";
      return action === "replay" ? `c${checkpoint}@${position}` : `c${checkpoint}`;
    });
    return [printable(report.name(process)), ...places];
  });
  return table(["FAILS", ...report.names().map(printable)], rows);
}
