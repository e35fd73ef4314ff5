/** `recovery-line compute`: the latest line that the evidence proves safe (interchange.md). */
import { type Command, Option } from "commander";
import type { PageVersions } from "../graph/evidence/page-versions.ts";
import { type AppEvidence, evidenceOfLogs, homesOf } from "../logs/app-evidence.ts";
import { closeLogs, openAppLogs } from "../logs/app-logs.ts";
import { nodeList } from "../logs/app-nodes.ts";
import { appDirectory } from "../logs/home.ts";
import { countedAsFailed, withUnrecorded } from "../logs/unrecorded.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { MAX_WORKERS } from "../model/limits.ts";
import { printable } from "../model/printable.ts";
import type { DsmModel, InTransitPolicy, RecoveryLine } from "../model/recovery-line.ts";
import type { PlacedPayload } from "../payload/payload-places.ts";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { lineReport } from "../terminal/line-report.ts";
import { write, writeJson } from "../terminal/print.ts";
import { endedIn, type Life, withEnds } from "../terminal/process-life.ts";
import { Progress } from "../terminal/progress.ts";
import { inTransitOption } from "./evidence-options.ts";
import { failedNames, repeated } from "./failed-names.ts";
import { notCapturedIn, notCapturedText } from "./not-captured.ts";
import { inputBaseName, inputName, readInput } from "./open-input.ts";

interface ComputeFlags {
  readonly log?: readonly string[];
  readonly failed?: readonly string[];
  readonly dsm: DsmModel | "exact";
  readonly inTransit: InTransitPolicy;
  readonly from?: string;
  readonly json?: boolean;
  readonly diagram?: boolean;
  readonly assumeLost?: boolean;
  readonly nodes?: readonly string[];
  readonly fromEvents?: boolean;
  readonly workers?: number;
}

const HELP = `
Without --failed the whole application restarts. Positions count the lines of a process that are not undone.

Exit codes: 0 clean, 3 tainted (events are missing; a safe line was printed), 2 wrong use or bad input,
4 refused (no safe answer exists), 5 the log is corrupt, 1 anything else.

Examples:
  recovery-line compute heat --failed p0,p1
  recovery-line compute --from events.jsonl --in-transit logged --json
  recovery-line compute sor --dsm exact --failed h2
  recovery-line export heat | recovery-line compute --from - --diagram`;

export function register(program: Command): void {
  program
    .command("compute")
    .summary("print the recovery line of an application")
    .description("Computes the latest consistent recovery line, with the evidence for it.")
    .argument("[app]", "application; may be left out with --from")
    .option("--log <dir>", "log directory; repeat it for the logs of several nodes", repeated)
    .option("--failed <names>", "processes that failed, P,Q; repeatable (default: all of them)", repeated)
    .addOption(
      new Option(
        "--dsm <model>",
        "how page traffic counts: every copy and invalidate; only copies; or copies by who wrote the version, where that is known",
      )
        .choices(["sequential", "transfers", "exact"])
        .default("sequential"),
    )
    .addOption(inTransitOption())
    .option("--from <file>", "compute from an events file (JSON Lines), without a log; - is standard input")
    .option(
      "--nodes <names>",
      "nodes whose logs must be there, A,B, besides those that the logs name",
      repeated,
    )
    .option(
      "--assume-lost",
      "go on although a node's log or the application in a log directory is missing (tainted)",
    )
    .option("--from-events", "read all events, also where the cuts of checkpoints would do")
    .option(
      "--workers <n>",
      "threads that read events; 0 = none (default: one a core, at most 4)",
      workerCount,
    )
    .option("--diagram", "draw an ASCII space-time diagram, too")
    .option("--json", "print one JSON object (interchange.md)")
    .addHelpText("after", HELP)
    .action(compute);
}

async function compute(app: string | undefined, flags: ComputeFlags): Promise<void> {
  const { dominoOf } = await import("../graph/questions/domino.ts");
  const { line, evidence, failed, missing, missingNodes, unrecorded } = await solve(app, flags);
  const answer: RecoveryLine =
    missing.length + missingNodes.length + unrecorded.length > 0 ? { ...line, outcome: "tainted" } : line;
  const { dsm } = flags;
  const diagram = flags.diagram && dsm !== "exact" ? await draw(evidence, answer, failed, dsm) : undefined;
  const domino = dominoOf(evidence, answer.line);
  const payloads = await payloadsOf(evidence, answer, app, flags);
  const application = app ?? inputBaseName(flags.from ?? "");
  const ended = await endedOf(app, flags);
  const tainted = answer.outcome === "tainted" && flags.from === undefined && app !== undefined;
  const notCaptured = tainted ? await notCapturedIn(flags.log, app) : [];
  if (flags.json)
    await writeJson({
      application,
      ...answer,
      line: withEnds(answer.line, ended),
      domino,
      payloads,
      ...(missing.length > 0 ? { missingLogs: missing } : {}),
      ...(missingNodes.length > 0 ? { missingNodes } : {}),
      ...(unrecorded.length > 0 ? { unrecorded } : {}),
      ...(notCaptured.length > 0 ? { notCaptured } : {}),
      ...(diagram === undefined ? {} : { diagram }),
    });
  else
    await write(
      lineReport(application, answer, { domino, payloads, missing, missingNodes, unrecorded, ended }) +
        (notCaptured.length > 0 ? `\n${notCapturedText(notCaptured)}` : "") +
        (diagram === undefined ? "" : `\n${diagram}`),
    );
  process.exitCode = exitCodeOfOutcome(answer.outcome);
}

/** Where nobody is said to have failed, all did, and nothing is said to continue. */
async function endedOf(app: string | undefined, { from, log }: ComputeFlags): Promise<Map<string, Life>> {
  return from === undefined && app !== undefined ? endedIn(homesOf(log), app) : new Map();
}

/** An events file has no payload logs beside it. */
async function payloadsOf(
  evidence: Evidence,
  answer: RecoveryLine,
  app: string | undefined,
  { from, log }: ComputeFlags,
): Promise<PlacedPayload[]> {
  const { placePayloads } = await import("../payload/payload-places.ts");
  const homes = from === undefined && app !== undefined ? homesOf(log) : [];
  return placePayloads(
    evidence,
    answer,
    homes.map((home) => appDirectory(home, app as string)),
  );
}

/** `unrecorded`: only those that the caller does not call failed. */
interface Solved extends AppEvidence {
  readonly line: RecoveryLine;
  readonly failed: readonly string[] | undefined;
}

/** From a file, or for a diagram, which shows every message: all events in this thread. Else as `computeApp` sees fit. */
async function solve(app: string | undefined, flags: ComputeFlags): Promise<Solved> {
  const { dsm, inTransit } = flags;
  if (dsm === "exact") return solveExactly(app, flags);
  if (flags.from !== undefined || flags.diagram || app === undefined) {
    const { computeLine } = await import("../compute/compute.ts");
    const { evidence, unrecorded, ...absent } = await evidenceFor(app, flags);
    // Without any process it is the engine's part to refuse.
    const named = evidence.processes.length === 0 ? undefined : failedNames(flags.failed, evidence.processes);
    const failed = withUnrecorded(named, unrecorded);
    const line = computeLine(evidence, { dsm, inTransit, ...(failed === undefined ? {} : { failed }) });
    return { line, evidence, failed, ...absent, unrecorded: countedAsFailed(named, unrecorded) };
  }
  const { computeApp } = await import("../compute/compute-app.ts");
  const nodes = nodeList(flags.nodes ?? []);
  const { logs, unrecorded, ...absent } = await openAppLogs(homesOf(flags.log), app, flags.assumeLost, nodes);
  const progress = new Progress(`reading ${printable(app)}`);
  let named: readonly string[] | undefined;
  try {
    const { line, evidence } = await computeApp(logs, {
      failed: (processes) => {
        named = failedNames(flags.failed, processes);
        return withUnrecorded(named, unrecorded);
      },
      dsm,
      inTransit,
      progress: (bytes) => progress.bytes(bytes),
      ...(flags.fromEvents === undefined ? {} : { fromEvents: flags.fromEvents }),
      ...(flags.workers === undefined ? {} : { workers: flags.workers }),
    });
    return {
      line,
      evidence,
      failed: undefined,
      ...absent,
      unrecorded: countedAsFailed(named, unrecorded),
    };
  } finally {
    progress.end();
    await closeLogs(logs);
  }
}

/** By page versions: all events in this thread, too. */
async function solveExactly(app: string | undefined, flags: ComputeFlags): Promise<Solved> {
  const [policy, diagram] = [flags.inTransit === "logged", flags.diagram === true];
  if (policy || diagram)
    throw new RecoveryLineError(
      "RL_USAGE",
      `--dsm exact does not go with ${policy ? "--in-transit logged" : "--diagram"}`,
      policy
        ? "Message logs hold no pages: take --dsm transfers or --dsm sequential."
        : "The diagram draws messages, not who wrote a page: take --dsm transfers.",
    );
  const { PageVersions } = await import("../graph/evidence/page-versions.ts");
  const { computeExactLine } = await import("../compute/compute-exact.ts");
  const versions = new PageVersions();
  const { evidence, unrecorded, ...absent } = await evidenceFor(app, flags, versions);
  const named = evidence.processes.length === 0 ? undefined : failedNames(flags.failed, evidence.processes);
  const failed = withUnrecorded(named, unrecorded);
  const line = computeExactLine(evidence, versions, failed === undefined ? {} : { failed });
  return { line, evidence, failed, ...absent, unrecorded: countedAsFailed(named, unrecorded) };
}

function workerCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count <= MAX_WORKERS) return count;
  throw new RecoveryLineError("RL_USAGE", `--workers takes a number from 0 to ${MAX_WORKERS}, not ${text}`);
}

async function evidenceFor(
  app: string | undefined,
  flags: ComputeFlags,
  versions?: PageVersions,
): Promise<AppEvidence> {
  if (flags.from !== undefined) {
    if (flags.log !== undefined)
      throw new RecoveryLineError("RL_USAGE", "--from and --log exclude each other", "Choose one source.");
    return {
      evidence: await evidenceOfFile(flags.from, versions),
      missing: [],
      missingNodes: [],
      unrecorded: [],
    };
  }
  if (app !== undefined)
    return evidenceOfLogs(
      homesOf(flags.log),
      app,
      flags.assumeLost,
      nodeList(flags.nodes ?? []),
      false,
      versions,
    );
  throw new RecoveryLineError(
    "RL_USAGE",
    "no application and no events file",
    "Write recovery-line compute APP, or recovery-line compute --from FILE.",
  );
}

async function evidenceOfFile(file: string, versions?: PageVersions): Promise<Evidence> {
  const { readEventBatches } = await import("../format/interchange.ts");
  const { readEventEvidence } = await import("../logs/read-evidence.ts");
  return readEventEvidence(readEventBatches(readInput(file), inputName(file)), versions);
}

async function draw(
  evidence: Evidence,
  answer: RecoveryLine,
  failed: readonly string[] | undefined,
  dsm: DsmModel,
): Promise<string> {
  const { spaceTimeDiagram } = await import("../diagram/space-time-diagram.ts");
  return spaceTimeDiagram(evidence, answer, { failed, dsm, show: printable });
}
