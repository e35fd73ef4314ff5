/** `recovery-line checkpoint`: checkpoints of running processes. */
import { type Command, Option } from "commander";
import type { CheckpointOptions, CheckpointResult, CheckpointTarget } from "../checkpoint/checkpoint.ts";
import type { DriverName } from "../checkpoint/driver-choice.ts";
import { checkedAppName, ownHome } from "../logs/home.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { DRIVER_LIMIT_MS } from "../model/limits.ts";
import { printable, printableSentence } from "../model/printable.ts";
import { EXIT, outsideTrouble } from "../terminal/exit-codes.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import {
  dependentsToo,
  type FailedCheckpoint,
  findTargets,
  firstThen,
  notWhileRestarting,
  tiedToo,
  withContainerDrivers,
} from "./checkpoint-targets.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { notCapturedText } from "./not-captured.ts";
import { integerOption } from "./numbers.ts";

interface CheckpointFlags {
  readonly log?: string;
  readonly driver: DriverName | "hook";
  readonly hooks?: string;
  readonly coordinated?: boolean;
  readonly dependents?: boolean;
  readonly within?: number;
  readonly limit: number;
  readonly json?: boolean;
  /** With driver none: the programs can't bring their own state back either. */
  readonly cutsOnly?: boolean;
}

const MAX_LIMIT_S = 86_400;
/** Files named for one process, count; --json names all. */
const MAX_FILES = 8;

const HELP = `
Each process stands still while its cut vector is read, its image is written and the record is durable; then it goes
on. Without names: every running process of the application, one after another; with --coordinated all at one time, or none.
One that can't be checkpointed does not stop those after it: it is reported, and the exit code is 1 (--json: "failed").

The folders that run --data or \`data\` named are saved with the image; more than --data-limit bytes to copy of them while the
process stands still, or somebody else who writes there: refused (exit code 4).

Drivers: criu   an image of the process tree, its memory, files and TCP connections
         podman podman's own checkpoint of an attached container, its root's changes, addresses and log included. Volumes are not
                in it: name their folders with recovery-line data
         docker docker's own (its daemon with --experimental, and a criu in its search path), what the container has changed of
                its files and its log included; volumes as for podman
         hook   the program's own commands, from --hooks FILE: {"db": {"checkpoint": "...", "restore": "exec ..."}}. Both find a
                folder in $RECOVERY_LINE_IMAGE. Taken at a moment without open connections, the others standing still
         none   only the cut: for programs that bring their own state back. No image can be restored from it: a process that
                has older images comes back by those alone then, with restart --back-further
         auto   the engine for its containers, criu for all others, where a working one is found (scripts/get-criu.sh
                fetches one), else the cut alone, recorded as not usable: it restores certainty after a gap, but no
                process goes back to it

Examples:
  recovery-line checkpoint shop
  recovery-line checkpoint shop db --driver none`;

export function register(program: Command): void {
  program
    .command("checkpoint")
    .summary("checkpoint running processes")
    .description("Freezes processes, reads their cut vectors, stores their images, and logs the checkpoints.")
    .argument("<app>", "application")
    .argument("[process...]", "processes (default: every running one)")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .addOption(
      new Option("--driver <name>", "what takes the image")
        .choices(["auto", "criu", "podman", "docker", "hook", "none"])
        .default("auto"),
    )
    .option("--hooks <file>", "driver hook: JSON file with the commands of each process")
    .option("--coordinated", "freeze all of them, then checkpoint all of them, then let all go on")
    .option(
      "--dependents",
      "as --coordinated, of the named processes and all that must be in the set for theirs to be on a line",
    )
    .option(
      "--within <ms>",
      "with one of these two: all go on after so many milliseconds; what is not done then is not recorded",
      (text: string) => integerOption("--within", text, 1, MAX_LIMIT_S * 1000),
    )
    .option(
      "--limit <seconds>",
      "longest time for one image",
      (text: string) => integerOption("--limit", text, 1, MAX_LIMIT_S),
      DRIVER_LIMIT_MS / 1000,
    )
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP)
    .action(checkpoint);
}

export async function checkpoint(app: string, names: string[], flags: CheckpointFlags): Promise<void> {
  checkedAppName(app);
  const { requireCollector } = await import("../client/client.ts");
  const { chooseDriver } = await import("../checkpoint/driver-choice.ts");
  const { isEngine } = await import("../host/containers.ts");
  const home = ownHome(flags.log);
  wrongTogether(names, flags);
  const log = await requireCollector(home);
  await notWhileRestarting(home, app);
  // Takes as long as the log is: who runs is looked for afterwards.
  const dependents = flags.dependents === true ? await dependentsToo(app, names, log, home) : undefined;
  const { targets: found, ended } = await findTargets(app, names, log);
  if (flags.driver === "hook") {
    const running = (await findTargets(app, [], log)).targets;
    await takeByHook(app, found, running, ended, { home, log }, flags);
    log.close();
    return;
  }
  const { targets, fallback: ofContainers } = await withContainerDrivers(found, flags.driver, home);
  const { driver, fallback } = await chooseDriver(isEngine(flags.driver) ? "auto" : flags.driver, home);
  if (ofContainers !== undefined)
    await write(
      `recovery-line: only cuts of containers are recorded, not usable to restore: ${printableSentence(ofContainers)}\n`,
      process.stderr,
    );
  if (fallback !== undefined)
    await write(
      `recovery-line: only cuts are recorded, not usable to restore: ${printableSentence(fallback)}\n`,
      process.stderr,
    );
  const tied = tiedToo(app, log, home);
  const options = {
    home,
    log,
    driver,
    usable: fallback === undefined && flags.cutsOnly !== true,
    limitMs: flags.limit * 1000,
    more: dependents === undefined ? tied : firstThen(dependents, tied),
  };
  const withoutCut = await take(app, targets, ended, options, flags);
  if (withoutCut.size > 0) {
    const known = (await log.processes()).filter((one) => one.app === app && withoutCut.has(one.process));
    await write(notCapturedText(known), process.stderr);
  }
  log.close();
}

function wrongTogether(names: readonly string[], { coordinated, dependents, within }: CheckpointFlags): void {
  if (dependents === true && (coordinated === true || names.length === 0))
    throw new RecoveryLineError(
      "RL_USAGE",
      "--dependents needs names of processes and excludes --coordinated",
    );
  if (within !== undefined && coordinated !== true && dependents !== true)
    throw new RecoveryLineError("RL_USAGE", "--within needs --coordinated or --dependents");
}

/** One after another; every other running process of the application stands still meanwhile. */
async function takeByHook(
  app: string,
  targets: readonly CheckpointTarget[],
  running: readonly CheckpointTarget[],
  ended: readonly FailedCheckpoint[],
  place: Pick<CheckpointOptions, "home" | "log">,
  flags: CheckpointFlags,
): Promise<void> {
  const { checkpointByHook, readHooks } = await import("../checkpoint/hook-checkpoint.ts");
  if (flags.hooks === undefined || flags.coordinated || flags.dependents)
    throw new RecoveryLineError(
      "RL_USAGE",
      "--driver hook needs --hooks FILE and excludes --coordinated and --dependents",
    );
  const hooks = readHooks(flags.hooks);
  for (const { process } of targets)
    if (!hooks.has(process))
      throw new RecoveryLineError("RL_USAGE", `${flags.hooks} has no commands for ${process}`);
  const options = { ...place, usable: true, limitMs: flags.limit * 1000 };
  const outcome = await eachOf(targets, ended, async (target) => {
    const peers = running.filter(({ process }) => process !== target.process).map(({ cgroup }) => cgroup);
    return [await checkpointByHook(target, hooks.get(target.process)!, peers, options)];
  });
  await tell(app, "hook", outcome, flags);
}

/** Each tells what became of it. Returns the processes whose checkpoints carry no cut. */
async function take(
  app: string,
  targets: readonly CheckpointTarget[],
  ended: readonly FailedCheckpoint[],
  options: CheckpointOptions,
  flags: CheckpointFlags,
): Promise<ReadonlySet<string>> {
  const { checkpointAtSomeMoment } = await import("../checkpoint/checkpoint.ts");
  const deadline = flags.within === undefined ? {} : { deadlineMs: performance.now() + flags.within };
  const together = (some: readonly CheckpointTarget[]): Promise<CheckpointResult[]> =>
    checkpointAtSomeMoment(some, { ...options, ...deadline });
  const outcome: Outcome =
    flags.coordinated || flags.dependents
      ? { taken: await together(allOf(targets, ended)), failed: [] }
      : await eachOf(targets, ended, (target) => together([target]));
  const names = new Set(targets.map(({ own }) => (own ?? options).driver.name));
  await tell(app, [...names].join(", "), outcome, flags);
  if (options.driver.images) await tellTerminals(targets);
  await tellFilesInPlace(outcome.taken);
  await tellOlderImages(options.home, outcome.taken, targets);
  return new Set(outcome.taken.filter(({ cut }) => !cut).map(({ process }) => process));
}

/** What they hold is not in the image: a restart is refused where it has changed. */
async function tellFilesInPlace(taken: readonly CheckpointResult[]): Promise<void> {
  for (const { process, inPlace } of taken) {
    if (inPlace.length === 0) continue;
    const more = inPlace.length > MAX_FILES ? ` and ${inPlace.length - MAX_FILES} more` : "";
    const names = inPlace.slice(0, MAX_FILES).map(printableSentence).join(", ");
    await write(
      `recovery-line: ${printable(process)} may write in place what no image holds: ${names}${more}; name the folder with --data DIR (run, data)\n`,
      globalThis.process.stderr,
    );
  }
}

/** A line stands at the newest checkpoint, and no program of ours brings that one back. */
async function tellOlderImages(
  home: string,
  taken: readonly CheckpointResult[],
  [first]: readonly CheckpointTarget[],
): Promise<void> {
  const { imagesFolder, newestManifest } = await import("../images/image-store.ts");
  for (const { process, checkpoint, usable, image } of taken) {
    if (first === undefined || !usable || image !== undefined) continue;
    const older = await newestManifest(imagesFolder(home, first.app, process));
    if (older === undefined) continue;
    await write(
      `recovery-line: checkpoint ${checkpoint} of ${printable(process)} has no image, and unlike checkpoint ${older.facts.checkpoint} it can't be restarted from: restart refuses it, and goes back to the older image with --back-further\n`,
      globalThis.process.stderr,
    );
  }
}

/** Nothing is wrong with the program, so it is said and not refused. */
async function tellTerminals(targets: readonly CheckpointTarget[]): Promise<void> {
  const { terminalOf } = await import("../host/terminals.ts");
  for (const { process, cgroup } of targets) {
    const terminal = terminalOf(cgroup.pids());
    if (terminal !== undefined)
      await write(
        `recovery-line: ${printable(process)} has the terminal ${terminal} open, and no image of it can be restored: start it with run --detach\n`,
        globalThis.process.stderr,
      );
  }
}

interface Outcome {
  readonly taken: readonly CheckpointResult[];
  readonly failed: readonly FailedCheckpoint[];
}

/** Each is tried, whatever became of those before it. With only one its failure is thrown; what is no trouble of a process always is. */
async function eachOf(
  targets: readonly CheckpointTarget[],
  ended: readonly FailedCheckpoint[],
  takeOne: (target: CheckpointTarget) => Promise<readonly CheckpointResult[]>,
): Promise<Outcome> {
  const taken: CheckpointResult[] = [];
  const failed = [...ended];
  for (const target of targets) {
    if (taken.some(({ process }) => process === target.process)) continue; // with one that it is tied to
    try {
      taken.push(...(await takeOne(target)));
    } catch (thrown) {
      const error = outsideTrouble(thrown);
      if (targets.length + ended.length === 1 || !(error instanceof RecoveryLineError)) throw error;
      const { code, message, advice } = error;
      failed.push({ process: target.process, code, message, advice });
    }
  }
  return { taken, failed };
}

/** What was taken goes to standard output, what was not is said as errors are. */
async function tell(
  app: string,
  driver: string,
  { taken, failed }: Outcome,
  flags: CheckpointFlags,
): Promise<void> {
  if (flags.json) await writeJson({ application: app, driver, checkpoints: taken, failed });
  else {
    if (taken.length > 0) await write(resultTable(taken));
    for (const { process, message, advice } of failed)
      await write(
        `recovery-line: no checkpoint of ${printable(process)}: ${printableSentence(`${message}. ${advice}`.trim())}\n`,
        globalThis.process.stderr,
      );
  }
  if (failed.length > 0) process.exitCode = EXIT.other;
}

/** At one time all or none. */
function allOf(
  targets: readonly CheckpointTarget[],
  [first]: readonly FailedCheckpoint[],
): readonly CheckpointTarget[] {
  if (first === undefined) return targets;
  throw new RecoveryLineError("RL_UNKNOWN_PROCESS", first.message, first.advice);
}

function resultTable(results: readonly CheckpointResult[]): string {
  const rows = results.map((one) => [
    printable(one.process),
    String(one.checkpoint),
    one.cut ? `${one.connections} connections` : `none (${one.uncaptured.join(", ")})`,
    one.image === undefined
      ? one.usable
        ? "-"
        : "none, not usable"
      : `${(one.imageBytes / 1e6).toFixed(1)} MB`,
    one.data.length === 0 ? "-" : `${(dataBytes(one) / 1e6).toFixed(1)} MB`,
    `${one.frozenMs.toFixed(1)} ms`,
  ]);
  return table(["process", "checkpoint", "cut", "image", "data", "stood still"], rows);
}

function dataBytes({ data }: CheckpointResult): number {
  return data.reduce((sum, one) => sum + one.dataBytes, 0);
}
