/** `recovery-line compute`: the latest line that the evidence proves safe (interchange.md). */
import { type Command, Option } from "commander";
import type { AppEvidence, LogOptions, PageVersions, PlacedPayload } from "../index.ts";
import { nodeList } from "../logs/app-nodes.ts";
import { homesOf } from "../logs/home.ts";
import { countedAsFailed } from "../logs/unrecorded.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { MAX_WORKERS } from "../model/limits.ts";
import { printable } from "../model/printable.ts";
import type { DsmModel, InTransitPolicy, RecoveryLine } from "../model/recovery-line.ts";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { lineReport } from "../terminal/line-report.ts";
import { write, writeJson } from "../terminal/print.ts";
import { endedIn, type Life, withEnds } from "../terminal/process-life.ts";
import { Progress } from "../terminal/progress.ts";
import { inTransitOption } from "./evidence-options.ts";
import { failedNames, repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { notCapturedIn, notCapturedText } from "./not-captured.ts";
import { inputBaseName, inputName, readInput } from "./open-input.ts";
import { named } from "./peer-names.ts";

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
    .option("--log <dir>", `log directory; repeat it for the logs of several nodes ${LOG_DEFAULT}`, repeated)
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
  const { domino: dominoOf } = await import("../index.ts");
  const application = app ?? inputBaseName(flags.from ?? "");
  const { line, evidence, failed, missing, missingNodes, unrecorded } = await solve(app, flags);
  const answer = await named(line, line.line, app, flags);
  const diagram = flags.diagram ? await draw(evidence, answer, failed, flags) : undefined;
  const domino = dominoOf(evidence, answer);
  const { payloads, ended, notCaptured } = await besideTheLog(app, flags, evidence, answer);
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

interface Beside {
  readonly payloads: readonly PlacedPayload[];
  /** Where nobody is said to have failed, all did, and nothing is said to continue. */
  readonly ended: ReadonlyMap<string, Life>;
  readonly notCaptured: Awaited<ReturnType<typeof notCapturedIn>>;
}

/** What the line does not say: where bytes are kept, how processes ended, why they can't be followed. A file has no such things beside it. */
async function besideTheLog(
  app: string | undefined,
  { from, log }: ComputeFlags,
  evidence: Evidence,
  answer: RecoveryLine,
): Promise<Beside> {
  const { payloadPlaces } = await import("../index.ts");
  const inFile = from !== undefined || app === undefined;
  return {
    payloads: await payloadPlaces(evidence, answer, app ?? "", { log: inFile ? [] : homesOf(log) }),
    ended: inFile ? new Map() : await endedIn(homesOf(log), app),
    notCaptured: answer.outcome === "tainted" && !inFile ? await notCapturedIn(log, app) : [],
  };
}

/** `unrecorded`: only those that the caller does not call failed. */
interface Solved extends AppEvidence {
  readonly line: RecoveryLine;
  readonly failed: readonly string[] | undefined;
}

/** From a file, by page versions, or for a diagram, which shows every message: all events in this thread. Else as `computeLog` sees fit. */
async function solve(app: string | undefined, flags: ComputeFlags): Promise<Solved> {
  if (flags.dsm === "exact" || flags.from !== undefined || flags.diagram || app === undefined)
    return solveFromEvents(app, flags);
  const { computeLog } = await import("../index.ts");
  const progress = new Progress(`reading ${printable(app)}`);
  try {
    const answer = await computeLog(app, {
      ...logOptions(flags),
      failed: (processes) => failedNames(flags.failed, processes),
      dsm: flags.dsm,
      inTransit: flags.inTransit,
      progress: (bytes) => progress.bytes(bytes),
      ...(flags.fromEvents === undefined ? {} : { fromEvents: flags.fromEvents }),
      ...(flags.workers === undefined ? {} : { workers: flags.workers }),
    });
    return { ...answer, failed: undefined };
  } finally {
    progress.end();
  }
}

async function solveFromEvents(app: string | undefined, flags: ComputeFlags): Promise<Solved> {
  const { exactLine, PageVersions, recoveryLine } = await import("../index.ts");
  const { dsm, inTransit } = flags;
  const versions = dsm === "exact" ? new PageVersions() : undefined;
  if (versions !== undefined) refuseBesideExact(flags);
  const { evidence, unrecorded, ...absent } = await evidenceFor(app, flags, versions);
  // Without any process it is the engine's part to refuse.
  const named = evidence.processes.length === 0 ? undefined : failedNames(flags.failed, evidence.processes);
  const failures = { ...(named === undefined ? {} : { failed: named }), unrecorded };
  const found =
    dsm === "exact"
      ? exactLine(evidence, versions!, failures)
      : recoveryLine(evidence, { dsm, inTransit, ...failures });
  const whole = absent.missing.length + absent.missingNodes.length === 0;
  const unnamed = countedAsFailed(named, unrecorded);
  return {
    line: whole ? found : { ...found, outcome: "tainted" },
    evidence,
    failed: named === undefined ? undefined : [...named, ...unnamed],
    ...absent,
    unrecorded: unnamed,
  };
}

function refuseBesideExact({ inTransit, diagram }: ComputeFlags): void {
  if (inTransit === "logged")
    throw new RecoveryLineError(
      "RL_USAGE",
      "--dsm exact does not go with --in-transit logged",
      "Message logs hold no pages: take --dsm transfers or --dsm sequential.",
    );
  if (diagram)
    throw new RecoveryLineError(
      "RL_USAGE",
      "--dsm exact does not go with --diagram",
      "The diagram draws messages, not who wrote a page: take --dsm transfers.",
    );
}

function workerCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count <= MAX_WORKERS) return count;
  throw new RecoveryLineError("RL_USAGE", `--workers takes a number from 0 to ${MAX_WORKERS}, not ${text}`);
}

function logOptions({ log, assumeLost = false, nodes = [] }: ComputeFlags): LogOptions {
  return { log: homesOf(log), assumeLost, nodes: nodeList(nodes) };
}

/** A file does not say whose logs it holds: no node can be missed in it. */
function refuseNodesOfFile({ assumeLost, nodes }: ComputeFlags): void {
  const option = nodes !== undefined ? "--nodes" : assumeLost ? "--assume-lost" : undefined;
  if (option === undefined) return;
  throw new RecoveryLineError(
    "RL_USAGE",
    `--from and ${option} exclude each other: an events file does not say which nodes it is of`,
    "Leave the option out, or name an application and its logs.",
  );
}

async function evidenceFor(
  app: string | undefined,
  flags: ComputeFlags,
  versions: PageVersions | undefined,
): Promise<AppEvidence> {
  const { readEvents, readLog } = await import("../index.ts");
  const { from, log } = flags;
  if (from !== undefined) {
    if (log !== undefined)
      throw new RecoveryLineError("RL_USAGE", "--from and --log exclude each other", "Choose one source.");
    refuseNodesOfFile(flags);
    const evidence = await readEvents(readInput(from), inputName(from), versions);
    return { evidence, missing: [], missingNodes: [], unrecorded: [] };
  }
  if (app !== undefined)
    return readLog(app, {
      ...logOptions(flags),
      unrecorded: "named",
      ...(versions === undefined ? {} : { versions }),
    });
  throw new RecoveryLineError(
    "RL_USAGE",
    "no application and no events file",
    "Write recovery-line compute APP, or recovery-line compute --from FILE.",
  );
}

async function draw(
  evidence: Evidence,
  answer: RecoveryLine,
  failed: readonly string[] | undefined,
  { dsm }: ComputeFlags,
): Promise<string | undefined> {
  if (dsm === "exact") return undefined;
  const { diagram } = await import("../index.ts");
  return diagram(evidence, answer, { dsm, ...(failed === undefined ? {} : { failed }) });
}
