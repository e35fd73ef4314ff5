/** `recovery-line policy trial`: policies on a real run with kills, what was predicted beside what was seen. */
import { accessSync, constants } from "node:fs";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import type { Command } from "commander";
import { seeded } from "../demo/seeded.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { printable, printableSentence } from "../model/printable.ts";
import { mean, type Trial, type TrialRow } from "../terminal/policy-trial.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import { integerOption } from "./numbers.ts";
import { comparedPolicy } from "./policy-compare.ts";

interface TrialFlags {
  readonly seconds: string;
  readonly kills: string;
  readonly seed: string;
  readonly json?: boolean;
}

const MAX_SECONDS = 86_400;
const MAX_KILLS = 10_000;
const MAX_SEED = 2 ** 32 - 1;

const HELP = `
SCRIPT starts the application and ends: an executable file that calls

  $RECOVERY_LINE run "$RECOVERY_LINE_APP" <process> --detach -- <command...>

for each of its processes; RECOVERY_LINE_FOLDER is a folder for its files, RECOVERY_LINE_HOME the log directory. It is called once without a policy, for
the recording that the prediction is made from, and once for each policy. In each of those runs processes are killed at moments that --seed draws;
each is brought back by \`restart --failed P --fall-back\`, from images of CRIU. Costs in the prediction are those that the runs measured.

Example:
  recovery-line policy trial ./start-shop.sh periodic:interval=5s coordinated:interval=5s bounded-loss:bound=20s`;

export function registerTrial(policy: Command): void {
  policy
    .command("trial")
    .argument("<script>", "starts the application")
    .argument("<policies...>", "policies, as in compare")
    .option("--seconds <n>", "how long each of them decides", "30")
    .option("--kills <n>", "processes killed meanwhile", "3")
    .option("--seed <n>", "draws moments and victims", "1")
    .option("--json", "print one JSON object")
    .description(
      "Runs an application under each policy, with kills: what was predicted beside what was seen.",
    )
    .addHelpText("after", HELP)
    .action(trial);
}

async function trial(script: string, labels: string[], flags: TrialFlags): Promise<void> {
  const { runTrial } = await import("../terminal/policy-trial.ts");
  const file = executable(script);
  const policies = await Promise.all(labels.map(comparedPolicy));
  const seed = integerOption("--seed", flags.seed, 0, MAX_SEED);
  await refuseWhatCannotRun(policies.flatMap(({ component }) => component.refused.live));
  const options = {
    script: file,
    seconds: integerOption("--seconds", flags.seconds, 1, MAX_SECONDS),
    kills: integerOption("--kills", flags.kills, 0, MAX_KILLS),
    random: seeded(seed),
    onProgress: (sentence: string) => write(`${printableSentence(sentence)}\n`, process.stderr),
  };
  const made = await runTrial(policies, options, availableParallelism());
  if (flags.json === true) await writeJson({ outcome: "clean", seed, ...made });
  else await write(trialText(made, seed));
}

function executable(script: string): string {
  const file = resolve(script);
  try {
    accessSync(file, constants.X_OK);
    return file;
  } catch (error) {
    throw new RecoveryLineError(
      "RL_USAGE",
      `${script} can't be started: ${(error as Error).message}`,
      "",
      error,
    );
  }
}

async function refuseWhatCannotRun(words: readonly string[]): Promise<void> {
  const { captureTrouble } = await import("../demo/demo-recorded.ts");
  const { chooseDriver } = await import("../checkpoint/driver-choice.ts");
  if (words.length > 0)
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `not supported here: unmodified programs do not have ${words.join(", ")}`,
    );
  const trouble = captureTrouble();
  if (trouble !== undefined) throw new RecoveryLineError("RL_NOT_SUPPORTED", trouble);
  await chooseDriver("criu", "/");
}

/** What is compared: its name, its three cells of a policy (predicted twice, seen), and their digits. */
const METRICS: readonly (readonly [
  string,
  (row: TrialRow, recorded: number) => readonly number[],
  number,
])[] = [
  ["checkpoints of a process a minute", checkpointRates, 1],
  [
    "share of time frozen, %",
    ({ predicted, observed }) => [
      100 * predicted.frozen.frozen.mean,
      100 * predicted.pushed.frozen.mean,
      (100 * observed.frozenSeconds) / (observed.processes * observed.seconds),
    ],
    2,
  ],
  [
    "work lost a failure, s",
    ({ predicted, observed }) => [
      predicted.frozen.lost.mean,
      predicted.pushed.lost.mean,
      mean(observed.kills.map(({ lost }) => lost)),
    ],
    1,
  ],
  [
    "most work lost by one failure, s",
    ({ predicted, observed }) => [
      predicted.frozen.worst.mean,
      predicted.pushed.worst.mean,
      Math.max(0, ...observed.kills.map(({ lost }) => lost)),
    ],
    1,
  ],
  [
    "processes rolled back",
    ({ predicted, observed }) => [
      predicted.frozen.breadth.mean,
      predicted.pushed.breadth.mean,
      mean(observed.kills.map(({ breadth }) => breadth)),
    ],
    2,
  ],
];

export function trialText({ rows, recorded, cost }: Trial, seed: number): string {
  const cells = METRICS.flatMap(([name, of, digits]) =>
    rows.map((row, at) => [
      at === 0 ? name : "",
      printable(row.label),
      ...of(row, recorded).map((value) => value.toFixed(digits)),
    ]),
  );
  const kills = rows.map(({ observed }) => observed.kills.length).reduce((sum, count) => sum + count, 0);
  return (
    `${table(["METRIC", "POLICY", "PREDICTED, FROZEN PATTERN", "PREDICTED, DELAYS PUSHED ALONG", "SEEN"], cells)}\n` +
    `Seed ${seed}, ${kills} kills, each brought back. Predicted from ${recorded} s without a policy, a checkpoint holding its process still for ` +
    `${(1000 * cost.checkpoint).toFixed(0)} ms as measured. Seen: few failures, one order of events, restarts within the time.\n`
  );
}

function checkpointRates({ predicted, observed }: TrialRow, recorded: number): readonly number[] {
  const { processes, seconds, checkpoints } = observed;
  const minutes = (recorded / 60) * processes;
  const of = ({ basic, forced }: TrialRow["predicted"]["frozen"]): number =>
    (basic.mean + forced.mean) / minutes;
  return [of(predicted.frozen), of(predicted.pushed), checkpoints / ((seconds / 60) * processes)];
}
