/** `recovery-line policy compare`: what policies would have done on a recorded log. */
import { availableParallelism } from "node:os";
import type { Command } from "commander";
import { appBlocks } from "../logs/app-logs.ts";
import { homesOf } from "../logs/home.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { DsmModel, InTransitPolicy } from "../model/recovery-line.ts";
import type { Compared, Comparison } from "../policy/compare.ts";
import type { CostModel } from "../policy/measures.ts";
import type { Recording } from "../policy/recording.ts";
import { EXIT } from "../terminal/exit-codes.ts";
import { write, writeJson } from "../terminal/print.ts";
import { dsmOption, inTransitOption } from "./evidence-options.ts";
import { repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { integerOption } from "./numbers.ts";
import { inputBaseName, inputName, readInput } from "./open-input.ts";
import { comparisonText } from "./policy-report.ts";

interface CompareFlags {
  readonly log?: readonly string[];
  readonly from?: string;
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
  readonly seeds: string;
  readonly instants: string;
  readonly workers?: string;
  readonly mtbf: string;
  readonly cost: string;
  readonly restartCost: string;
  readonly image: string;
  readonly eventTime: string;
  readonly tainted?: boolean;
  readonly json?: boolean;
}

const MAX_SEEDS = 1000;
const MAX_INSTANTS = 100_000;

const HELP = `
Without --from the first argument is the application. POLICY is a file or the name of a shipped policy, with settings behind a colon:
periodic:interval=30s. Recorded checkpoints are taken out, those of the policy put in; every single failure is computed at many instants.
Lines, useless checkpoints, depth and breadth hold for the recorded pattern; costs and times between failures are a model (--cost, --mtbf).

Examples:
  recovery-line policy compare shop periodic:interval=30s bounded-loss:bound=1min
  recovery-line policy compare --from events.jsonl periodic index-based hmnr fdas --seeds 5 --json`;

export function registerCompare(policy: Command): void {
  policy
    .command("compare")
    .argument("<names...>", "application (without --from), then policies")
    .option("--log <dir>", `log directory; repeat it for the logs of several nodes ${LOG_DEFAULT}`, repeated)
    .option("--from <file>", "take an events file (JSON Lines) instead of a log; - is standard input")
    .addOption(dsmOption())
    .addOption(inTransitOption())
    .option("--seeds <n>", "orders of concurrent events to draw", "3")
    .option("--instants <n>", "instants at which every process fails once", "100")
    .option("--workers <n>", "threads; 0: none (default: one a core)")
    .option("--mtbf <time>", "model: time between failures of one process", "1 d")
    .option("--cost <time>", "model: how long a checkpoint holds its process still", "100 ms")
    .option("--restart-cost <time>", "model: how long bringing an image back takes", "1 s")
    .option("--image <size>", "model: size of an image", "64 MiB")
    .option("--event-time <time>", "model: time an event takes where the log has no time stamps", "1 s")
    .option("--tainted", "compare what is left of a log with gaps")
    .option("--json", "print one JSON object")
    .description("Compares what policies would have done on a recorded log.")
    .addHelpText("after", HELP)
    .action(compare);
}

async function compare(names: string[], flags: CompareFlags): Promise<void> {
  const { comparePolicies } = await import("../policy/compare.ts");
  const [application, ...labels] = flags.from === undefined ? names : [inputBaseName(flags.from), ...names];
  if (labels.length === 0)
    throw new RecoveryLineError("RL_USAGE", "no policy to compare", "Name policies behind the application.");
  const policies = await Promise.all(labels.map(comparedPolicy));
  const cost = await costModel(flags);
  const recording = await readRecording(application as string, flags);
  const comparison = await comparePolicies(recording, policies, {
    seeds: integerOption("--seeds", flags.seeds, 1, MAX_SEEDS),
    instants: integerOption("--instants", flags.instants, 1, MAX_INSTANTS),
    workers:
      flags.workers === undefined
        ? availableParallelism()
        : integerOption("--workers", flags.workers, 0, 256),
    cost,
    rules: { dsm: flags.dsm, inTransit: flags.inTransit },
    tainted: flags.tainted === true,
  });
  await tell(application as string, recording, comparison, flags.json === true);
}

async function tell(
  application: string,
  { gaps }: Recording,
  comparison: Comparison,
  json: boolean,
): Promise<void> {
  const outcome = gaps > 0 ? "tainted" : "clean";
  if (json) await writeJson({ application, outcome, ...comparison });
  else await write(comparisonText(application, comparison));
  process.exitCode = gaps > 0 ? EXIT.tainted : EXIT.clean;
}

/** "periodic:interval=30s,…" */
export async function comparedPolicy(label: string): Promise<Compared> {
  const { loadPolicy } = await import("../policy/shipped.ts");
  const { parseSettings } = await import("../policy/settings.ts");
  const found = /^(.*?)(?::([A-Za-z]\w*=.*))?$/.exec(label);
  const { component } = loadPolicy(found?.[1] ?? label);
  const settings = found?.[2]?.split(",") ?? [];
  return { label, component, parameters: parseSettings(component, settings) };
}

async function costModel(flags: CompareFlags): Promise<CostModel> {
  const { constantOf } = await import("../policy/settings.ts");
  const { typeOf } = await import("../policy/types.ts");
  const positive = (option: string, text: string, type: "duration" | "size"): number => {
    const value = constantOf(text, typeOf(type), `${option} ${text}`);
    if (value > 0) return value;
    throw new RecoveryLineError("RL_USAGE", `${option} ${text}: more than 0 is expected`);
  };
  return {
    checkpoint: positive("--cost", flags.cost, "duration"),
    restart: positive("--restart-cost", flags.restartCost, "duration"),
    imageBytes: positive("--image", flags.image, "size"),
    mtbf: positive("--mtbf", flags.mtbf, "duration"),
    event: positive("--event-time", flags.eventTime, "duration"),
  };
}

async function readRecording(app: string, { from, log }: CompareFlags): Promise<Recording> {
  const { Recorder } = await import("../policy/recording.ts");
  const recorder = new Recorder();
  if (from !== undefined) {
    if (log !== undefined)
      throw new RecoveryLineError("RL_USAGE", "--from and --log exclude each other", "Choose one source.");
    const { readEventBatches } = await import("../format/interchange.ts");
    for await (const events of readEventBatches(readInput(from), inputName(from)))
      for (const event of events) recorder.addEvent(event);
    return recorder.build();
  }
  const { decodeBlock } = await import("../format/block.ts");
  for (const home of homesOf(log))
    for await (const bytes of appBlocks(home, app)) recorder.addColumns(decodeBlock(bytes).columns);
  return recorder.build();
}
