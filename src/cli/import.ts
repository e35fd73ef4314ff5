/** `recovery-line import`: events from outside into an application's log, all or nothing (interchange.md). */
import type { Command } from "commander";
import { Option } from "commander";
import type { ImportCounts, ImportedEvents } from "../import/import-events.ts";
import type { CheckpointSchedule } from "../import/insert-checkpoints.ts";
import { appDirectory, ownHome } from "../logs/home.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import { counted, printable } from "../model/printable.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { cantRead, inputName, readInput } from "./open-input.ts";

interface ImportFlags {
  readonly from: string;
  readonly log?: string;
  readonly format: "jsonl" | "shiviz" | "smpi";
  readonly pattern?: string;
  readonly checkpointEvery?: string;
  readonly checkpointRate?: string;
  readonly seed?: string;
  readonly json?: boolean;
}

const HELP = `
All or nothing: the whole input is checked, by itself and against what the log already holds, before a line of it is appended.
An error names file, line and field (exit code 2). Importing again appends; a file with checkpoints can't be imported twice into one log, as
their numbers must rise.

Formats:
  jsonl   events as JSON Lines (interchange.md); - is standard input
  shiviz  a log with vector clocks: each foreign increment becomes a message, with the same happened-before relation.
          Known layouts: '<host> {clock}' on a line of its own, and Akka's '... /<host>] {clock} text'. A log whose first
          line is the regular expression for it (as ShiViz and GoVector write it) is read by that, others by --pattern,
          which may go over several lines. What looks like a clock and fits none of these is an error (docs/shiviz.md).
  smpi    a directory with one time-independent SimGrid trace a rank; collectives become their point-to-point pattern

Traces of the last two hold no checkpoints; --checkpoint-every or --checkpoint-rate inserts some.

Examples:
  recovery-line import heat --from heat.jsonl
  recovery-line import chord --from chord.log --format shiviz --checkpoint-every 10
  recovery-line import raft --from raft.log --format shiviz --pattern '(?<event>.*)\\n(?<host>\\S*) (?<clock>{.*})'
  recovery-line import lu --from lu.trace/ --format smpi --checkpoint-rate 0.01 --seed 7`;

export function register(program: Command): void {
  program
    .command("import")
    .summary("append events from a file to a log")
    .description("Appends the events of a file to an application's log.")
    .argument("<app>", "application; its log is made if there is none")
    .requiredOption("--from <file>", "file or directory to read")
    .option("--log <dir>", `log directory ${LOG_DEFAULT}`)
    .addOption(
      new Option("--format <format>", "what the input is")
        .choices(["jsonl", "shiviz", "smpi"])
        .default("jsonl"),
    )
    .option(
      "--pattern <regex>",
      "shiviz: what an event looks like, with the groups (?<host>...) and (?<clock>...)",
    )
    .option("--checkpoint-every <n>", "insert a checkpoint after every N events of a process")
    .option("--checkpoint-rate <r>", "insert a checkpoint after each event by this chance, 0 < R <= 1")
    .option("--seed <s>", "seed of the chance (default: 1)")
    .option("--json", "print the counts as one JSON object")
    .addHelpText("after", HELP)
    .action(importApp);
}

async function importApp(app: string, flags: ImportFlags): Promise<void> {
  const home = ownHome(flags.log);
  const dir = appDirectory(home, app);
  const source = await sourceOf(flags, scheduleOf(flags));
  const { importEvents } = await import("../import/import-events.ts");
  const counts = await importEvents(dir, app, source).catch(async (error: unknown) => {
    throw await whoHolds(home, app, error);
  });
  if (flags.json) await writeJson({ application: app, ...counts, log: dir });
  else await write(report(app, dir, counts));
}

/** A log that the collector writes takes no other events. */
async function whoHolds(home: string, app: string, error: unknown): Promise<unknown> {
  if (!hasCode(error, "RL_LOCKED")) return error;
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  collector?.close();
  if (collector === undefined) return error;
  return new RecoveryLineError(
    "RL_LOCKED",
    `the log of ${app} is being written by the collector of ${home}`,
    "Import under another application's name or into another --log.",
    error,
  );
}

function report(app: string, dir: string, { events, types, processes, channels }: ImportCounts): string {
  const rows = Object.entries(types)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([type, count]) => [type, String(count)]);
  const log = `${counted(processes, "process", "processes")} and ${counted(channels, "channel")}`;
  return (
    `imported ${counted(events, "event")} into ${app}; the log in ${printable(dir)} now knows ${log}\n` +
    (rows.length === 0 ? "" : table(["TYPE", "EVENTS"], rows))
  );
}

async function sourceOf(
  flags: ImportFlags,
  schedule: CheckpointSchedule | undefined,
): Promise<ImportedEvents> {
  const { from, format } = flags;
  if (flags.pattern !== undefined && format !== "shiviz")
    throw usage("--pattern belongs to --format shiviz", "Leave it out.");
  if (format === "jsonl") {
    if (schedule !== undefined)
      throw usage(
        "checkpoints are inserted into traces, not into events that have their own",
        "Leave out --checkpoint-every and --checkpoint-rate, or name the --format of a trace.",
      );
    const { readEventBatches } = await import("../format/interchange.ts");
    return (check) => readEventBatches(readInput(from), inputName(from), check);
  }
  if (from === "-")
    throw usage(`--format ${format} can't be read from standard input`, "Name a file or directory.");
  const events = format === "shiviz" ? await shiviz(flags) : await smpi(from);
  return traceSource(events, from, schedule);
}

async function shiviz({ from, pattern }: ImportFlags): Promise<() => AsyncIterable<Event>> {
  const { readShivizTrace } = await import("../import/shiviz.ts");
  const { shivizPattern } = await import("../import/shiviz-layout.ts");
  try {
    const known = pattern === undefined ? undefined : shivizPattern(pattern);
    return () => readShivizTrace(() => readInput(from), from, known);
  } catch (error) {
    if (error instanceof SyntaxError) throw usage(`--pattern is no pattern: ${error.message}`, "");
    throw error;
  }
}

async function smpi(from: string): Promise<() => AsyncIterable<Event>> {
  const { readSmpiTrace } = await import("../import/smpi.ts");
  return () => readSmpiTrace(from);
}

/** Traces have no lines that messages could name by now: their importers have checked those. */
function traceSource(
  events: () => AsyncIterable<Event>,
  from: string,
  schedule: CheckpointSchedule | undefined,
): ImportedEvents {
  return async function* (check) {
    const { insertCheckpoints } = await import("../import/insert-checkpoints.ts");
    const all = schedule === undefined ? events() : insertCheckpoints(events(), schedule);
    let batch: Event[] = [];
    try {
      for await (const event of all) {
        check.add(event, { file: from, line: 0 });
        if (batch.push(event) < TRACE_BATCH_EVENTS) continue;
        yield batch;
        batch = [];
      }
    } catch (error) {
      throw (error as NodeJS.ErrnoException).syscall === undefined ? error : cantRead(from, error as Error);
    }
    if (batch.length > 0) yield batch;
  };
}

const TRACE_BATCH_EVENTS = 1024;

function scheduleOf(flags: ImportFlags): CheckpointSchedule | undefined {
  const { checkpointEvery, checkpointRate, seed } = flags;
  if (checkpointEvery !== undefined && checkpointRate !== undefined)
    throw usage("--checkpoint-every and --checkpoint-rate exclude each other", "Choose one.");
  if (seed !== undefined && checkpointRate === undefined)
    throw usage("--seed belongs to --checkpoint-rate", "Leave it out.");
  if (checkpointEvery !== undefined)
    return { every: numberFlag("--checkpoint-every", checkpointEvery, 1, Number.MAX_SAFE_INTEGER) };
  if (checkpointRate === undefined) return undefined;
  const rate = Number(checkpointRate);
  if (!(rate > 0 && rate <= 1) || checkpointRate.trim() === "")
    throw usage(
      `--checkpoint-rate must be a number above 0 and at most 1, is ${JSON.stringify(checkpointRate)}`,
      "",
    );
  return { rate, seed: seed === undefined ? 1 : numberFlag("--seed", seed, 0, 0xffff_ffff) };
}

function numberFlag(flag: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  throw usage(`${flag} must be an integer from ${least} to ${most}, is ${JSON.stringify(text)}`, "");
}

function usage(message: string, advice: string): RecoveryLineError {
  return new RecoveryLineError("RL_USAGE", message, advice);
}
