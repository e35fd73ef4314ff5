/** `recovery-line restart`: from the line back to running processes. */
import { closeSync, openSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import type { CollectedLog, CollectorClient } from "../client/client.ts";
import type { CheckpointDriver } from "../images/driver.ts";
import { appDirectory, checkedAppName, ownHome } from "../logs/home.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { DRIVER_LIMIT_MS } from "../model/limits.ts";
import { printable } from "../model/printable.ts";
import type { StartRecipe } from "../model/stored-process.ts";
import type { CheckpointName, RestartPlan } from "../restart/plan.ts";
import type { RestartRequest, RestartResult } from "../restart/restart.ts";
import type { RestartJournal } from "../restart/restart-journal.ts";
import { EXIT } from "../terminal/exit-codes.ts";
import { outliveReaders } from "../terminal/outlive-readers.ts";
import { write, writeJson } from "../terminal/print.ts";
import { endedIn, type Life, whereText } from "../terminal/process-life.ts";
import { failedNames, repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import type { NotBack } from "./not-back.ts";
import { integerOption } from "./numbers.ts";

interface RestartFlags {
  readonly log?: string;
  readonly failed?: readonly string[];
  readonly dryRun?: boolean;
  readonly keepSurvivors?: boolean;
  readonly fallBack?: boolean;
  readonly backFurther?: boolean;
  readonly keepReplaced?: boolean;
  readonly abandon?: boolean;
  readonly acceptFiles?: readonly string[];
  readonly limit: number;
  readonly json?: boolean;
}

const MAX_LIMIT_S = 86_400;
/** How long what came back is watched, in ms. */
const WATCH_MS = 1000;

const HELP = `
Everything stands still while the line is computed and verified and every byte in transit is looked for. What can't come back
exactly is refused then (exit code 4), and nothing has been touched. Else the processes of the plan are killed, brought back from
their images, put on record as rolled back, and let go together. A survivor that shares a connection with one of them comes back, too.
Once the plan is made, Ctrl-C changes nothing: the restart ends by itself. If this command itself is killed, call it again: it takes
up what it finds begun. With --abandon it gives that up: whoever was killed stays dead and has failed, data folders are as they were before,
and a new restart or run --fresh is free to begin.

What stands in the way of the images (files that are gone, replaced or shorter, other libraries, ports and process ids that somebody
has taken, terminals; images that are damaged or gone, and checkpoints of --driver none, which have none) is looked for before anything
is killed, by --dry-run as well, and named: exit code 4. With --back-further the line is computed without those images, and without those
at which a restart that is taken up has failed.

The folders that run --data or \`data\` named are put back as they were at the checkpoint. What they held is kept beside them until all
processes are back, with --keep-replaced for longer. While the restart is not done nothing can be started on them.

Those that start from their commands start in the order in which they connect to each other, as far as run --ready says when each is
ready. Whoever ends within a second, and not with exit code 0, is reported as not back, with its exit status and last lines of output; the
exit code is 1 then.

Bytes in transit are taken from the images' socket queues (coordinated checkpoints hold all of them), then from the payload log.

Examples:
  recovery-line restart shop --dry-run
  recovery-line restart shop --failed db
  recovery-line restart shop --fall-back`;

export function register(program: Command): void {
  program
    .command("restart")
    .summary("bring failed processes back along the recovery line")
    .description(
      "Computes the line, kills what must go back, restores it from its images, and goes on recording.",
    )
    .argument("<app>", "application")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option(
      "--failed <names>",
      "processes that failed, P,Q; repeatable (default: those that have ended, except with exit code 0)",
      repeated,
    )
    .option("--dry-run", "print the plan and change nothing")
    .option("--keep-survivors", "survivors go on although their connections to processes that go back break")
    .option(
      "--fall-back",
      "where bytes in transit are nowhere, or images are of a connection that was being closed, go back further, to a line without that",
    )
    .option(
      "--back-further",
      "where something stands in the way of an image, go back to an older line without it",
    )
    .option("--abandon", "give up a restart that was cut off or failed half way")
    .option(
      "--accept-files <path>",
      "this file may hold something else than at the checkpoint; repeatable",
      repeated,
    )
    .option(
      "--keep-replaced",
      "keep what is overwritten in the processes' data folders and in files that they have mapped",
    )
    .option(
      "--limit <seconds>",
      "longest time to restore one image",
      (text: string) => integerOption("--limit", text, 1, MAX_LIMIT_S),
      DRIVER_LIMIT_MS / 1000,
    )
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP)
    .action(run);
}

async function run(app: string, flags: RestartFlags): Promise<void> {
  checkedAppName(app);
  const { requireCollector } = await import("../client/client.ts");
  const home = ownHome(flags.log);
  const collector = await requireCollector(home);
  try {
    await restartApp(app, home, collector, flags);
  } finally {
    collector.close();
  }
}

async function restartApp(
  app: string,
  home: string,
  collector: CollectorClient,
  flags: RestartFlags,
): Promise<void> {
  const { interrupted, takeUp } = await import("../restart/restart.ts");
  const { keptText } = await import("./restart-report.ts");
  await collector.blocks(app, Number.MAX_SAFE_INTEGER).next(); // opens the application's log; RL_UNKNOWN_APP
  const all = (await collector.processes()).filter((one) => one.app === app);
  const lives = new Map(all.map(({ process, incarnation }) => [process, incarnation]));
  const journal = await interrupted(home, app);
  if (flags.abandon) return abandonRestart(app, home, collector, journal, flags);
  const { requireNodes } = await import("../logs/app-nodes.ts");
  requireNodes(app, [{ name: home, node: (await collector.ping()).node }]);
  if (journal === undefined) return work(app, home, collector, flags, lives);
  if (flags.dryRun) throw begun(app);
  const told = flags.json ? process.stderr : process.stdout;
  await write(`A restart of ${printable(app)} was cut off (${journal.phase}); it is taken up.\n`, told);
  goOnThroughSignals();
  const { left, kept, notReady } = await takeUp({ home, app, log: collector }, journal);
  if (left !== undefined) {
    const { keepSurvivors, fallBack, keepReplaced, acceptFiles = [] } = left;
    const asBefore = {
      ...flags,
      keepSurvivors: flags.keepSurvivors === true || keepSurvivors,
      fallBack: flags.fallBack === true || fallBack,
      keepReplaced: flags.keepReplaced === true || keepReplaced === true,
      acceptFiles: [...(flags.acceptFiles ?? []), ...acceptFiles],
    };
    return work(app, home, collector, asBefore, lives, left);
  }
  const notBack = await watched(collector, app, journal.processes, notReady);
  if (flags.json) await writeJson({ application: app, resumed: journal.processes, kept, notReady, notBack });
  else await write(`All its processes were there already; they go on now.\n${keptText(kept)}`);
}

/** Whoever ended at once is told, and the restart was none. */
async function watched(
  collector: CollectorClient,
  app: string,
  names: readonly string[],
  notReady: readonly string[],
): Promise<readonly NotBack[]> {
  const { endedAtOnce, notBackText, notReadyText } = await import("./not-back.ts");
  const notBack = await endedAtOnce(collector, app, names, WATCH_MS);
  await write(notBackText(notBack) + notReadyText(notReady), process.stderr);
  if (notBack.length + notReady.length > 0) process.exitCode = EXIT.other;
  return notBack;
}

async function abandonRestart(
  app: string,
  home: string,
  collector: CollectorClient,
  journal: RestartJournal | undefined,
  flags: RestartFlags,
): Promise<void> {
  const { abandon } = await import("../restart/restart.ts");
  if (journal === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      `no restart of ${app} is unfinished: there is nothing to abandon`,
    );
  goOnThroughSignals();
  const { withPayloadLog } = await import("../payload/payload-log.ts");
  const what = await withPayloadLog(appDirectory(home, app), (payload) =>
    abandon({ home, app, log: collector, payload }, journal),
  );
  const { processes } = journal;
  const [abandoned, resumed] = what === "resumed" ? [[], processes] : [processes, []];
  if (flags.json) return writeJson({ application: app, abandoned, resumed, undone: what === "undone" });
  const state =
    what === "undone"
      ? "What they had done since the line is undone on record, and their data is as it was there.\n"
      : "";
  await write(
    what === "resumed"
      ? "All its processes were there already; they go on now.\n"
      : `The restart of ${printable(app)} is given up. Dead, and failed: ${processes.map(printable).join(", ")}\n${state}`,
  );
}

function begun(app: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_LOCKED",
    `a restart of ${app} has been cut off half way`,
    "Call restart without --dry-run: it takes up what was begun.",
  );
}

/** What has left its cgroup lives: a copy of it from an image or from its start would do everything a second time. */
function refuseSecondCopies(app: string, ended: ReadonlyMap<string, Life>): void {
  for (const [process, life] of ended)
    if (life.state === "left")
      throw new RecoveryLineError(
        "RL_REFUSED",
        `${process} of ${app} goes on outside of its cgroup, where nobody records it: ${whereText(life)}`,
        "Nothing was killed or restored: a second copy would run beside the first. End it, then call again.",
      );
}

/** Who has failed: as told, or whoever has nothing running any more and has not finished. */
function chosen(
  app: string,
  known: readonly string[],
  ended: ReadonlyMap<string, Life>,
  flags: RestartFlags,
): string[] {
  const named = failedNames(flags.failed, known);
  if (named !== undefined) return named;
  const failed = known.filter((name) => ended.has(name) && ended.get(name)?.state !== "finished");
  if (failed.length > 0) return failed;
  throw new RecoveryLineError(
    "RL_USAGE",
    ended.size > 0
      ? `every process of ${app} is running or has finished: nothing has failed`
      : `every process of ${app} is running: nothing has failed`,
    "Name what is to go back: --failed P,Q.",
  );
}

async function work(
  app: string,
  home: string,
  collector: CollectorClient,
  flags: RestartFlags,
  lives: ReadonlyMap<string, number>,
  journal?: RestartJournal,
): Promise<void> {
  const { dryRestart, restart } = await import("../restart/restart.ts");
  const { planJson, planReport } = await import("./restart-report.ts");
  const { withPayloadLog } = await import("../payload/payload-log.ts");
  const processes = [...lives.keys()];
  let ended: ReadonlyMap<string, Life> = new Map();
  const whoFailed = async (): Promise<readonly string[]> => {
    ended = await endedIn([home], app);
    if (journal !== undefined) return journal.processes;
    refuseSecondCopies(app, ended);
    return chosen(app, processes, ended, flags);
  };
  await whoFailed(); // where that is refused, nobody has to stand still for it
  const onPlan = async (plan: RestartPlan): Promise<void> => {
    if (!flags.dryRun) goOnThroughSignals();
    if (!flags.json) await write(planReport(plan, ended));
  };
  const parts = await partsOf(app, home, collector, processes);
  const obstructed = (flags.backFurther ? journal?.obstructed : undefined) ?? [];
  const known = { lives, journal, whoFailed, obstructed };
  await withPayloadLog(appDirectory(home, app), async (payload) => {
    const request = { ...parts, ...wishesOf(flags), ...known, payload, onPlan };
    if (!flags.dryRun) {
      const result = await restart(request);
      return tellResult(collector, request, ended, result, flags);
    }
    const plan = await dryRestart(request);
    await onPlan(plan);
    if (flags.json) await writeJson({ ...planJson(plan, ended), dryRun: true });
  });
}

/** What a restart of the application acts on and by. */
async function partsOf(app: string, home: string, collector: CollectorClient, processes: readonly string[]) {
  const { findCheckpoint } = await import("../checkpoint/find-checkpoint.ts");
  const log = { cuts: () => collector.log(app), blocks: () => collector.blocks(app) };
  return {
    home,
    app,
    processes,
    drivers: await restorers(home, app),
    log: collector,
    checkpoint: (name, index) => findCheckpoint(log, name, index),
    compute: await computation(app, collector, processes),
    startHeld: (name, recipe) => startHeld(collector, app, name, recipe),
  } satisfies Partial<RestartRequest>;
}

function wishesOf(flags: RestartFlags) {
  return {
    keepSurvivors: flags.keepSurvivors === true,
    fallBack: flags.fallBack === true,
    backFurther: flags.backFurther === true,
    keepReplaced: flags.keepReplaced === true,
    acceptFiles: (flags.acceptFiles ?? []).map((path) => resolve(path)),
    limitMs: flags.limit * 1000,
  } satisfies Partial<RestartRequest>;
}

async function tellResult(
  collector: CollectorClient,
  { app, acceptFiles }: Pick<RestartRequest, "app" | "acceptFiles">,
  ended: ReadonlyMap<string, Life>,
  result: RestartResult,
  flags: RestartFlags,
): Promise<void> {
  const { planJson, resultReport } = await import("./restart-report.ts");
  const { plan, kept, notReady, phasesMs } = result;
  const back = plan.targets.map((target) => target.process);
  const notBack = await watched(collector, app, back, notReady);
  if (!flags.json) return write(`\n${resultReport(result)}`);
  const told = { kept, acceptedFiles: acceptFiles, notReady, notBack, phasesMs };
  await writeJson({ ...planJson(plan, ended), dryRun: false, ...told });
}

/** CRIU, and the engine of each process that is a container, where it can: one that goes on needs none. Throws RL_NOT_SUPPORTED where the one that is needed is not there. */
async function restorers(home: string, app: string): Promise<CheckpointDriver[]> {
  const { chooseContainerDriver, chooseDriver } = await import("../checkpoint/driver-choice.ts");
  const { attachedTo } = await import("../host/cgroups.ts");
  const { containerAt } = await import("../host/containers.ts");
  const { driver } = await chooseDriver("criu", home);
  const engines = new Set(attachedTo(app).flatMap(({ path }) => containerAt(path)?.engine ?? []));
  const drivers = [driver];
  for (const engine of engines) {
    const choice = await chooseContainerDriver(engine, "auto", home);
    if (choice.fallback === undefined) drivers.push(choice.driver);
  }
  return drivers;
}

/** Half done, the processes would be dead or held still with their connections blocked, and nobody told. The limit on images bounds it. */
function goOnThroughSignals(): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    if (!process.listeners(signal).includes(sayItGoesOn)) process.on(signal, sayItGoesOn);
  outliveReaders(); // that they are gone, or a disk full, is no reason to end half done either
}

function sayItGoesOn(): void {
  process.stderr.write(
    "recovery-line: the restart is under way and ends by itself; half done it would leave nothing running\n",
  );
}

/** As `compute` does, unless that knows too little or too much. All events are read once, as long as none is added. */
async function computation(
  app: string,
  collector: CollectorClient,
  processes: readonly string[],
): Promise<RestartRequest["compute"]> {
  const { computeApp } = await import("../compute/compute-app.ts");
  const { computeLine } = await import("../compute/compute.ts");
  const { evidenceWith, lineWithout } = await import("../restart/line-without.ts");
  const { withPeers } = await import("./peer-names.ts");
  const rules = { dsm: "sequential", inTransit: "any" } as const;
  const blocks = () => collector.blocks(app);
  const knowsAll = (evidence: Evidence): boolean =>
    processes.every((name) => evidence.processes.includes(name));
  let read: { readonly evidence: Evidence; readonly lastChain: number } | undefined;
  return async (failed, unusable) => {
    const { line, evidence } =
      unusable.length === 0 ? await unhindered(failed) : await hindered(failed, unusable);
    return { line: withPeers(line, line.line, await collector.peerNames(app)), evidence };
  };

  async function unhindered(failed: readonly string[]) {
    const cuts = await collector.log(app);
    if (read?.lastChain === cuts.lastChain)
      return { line: computeLine(read.evidence, { ...rules, failed }), evidence: read.evidence };
    const answer = await answered(cuts, failed, false);
    return answer !== undefined && knowsAll(answer.evidence) ? answer : hindered(failed, []);
  }

  async function hindered(failed: readonly string[], unusable: readonly CheckpointName[]) {
    const cuts = await collector.log(app);
    if (read?.lastChain !== cuts.lastChain) await answered(cuts, failed, true);
    if (read?.lastChain !== cuts.lastChain)
      read = { evidence: await evidenceWith(blocks(), processes), lastChain: cuts.lastChain };
    return lineWithout(read.evidence, failed, unusable);
  }

  /** What is read of all events is kept. */
  async function answered(cuts: CollectedLog, failed: readonly string[], fromEvents: boolean) {
    const log = { name: app, cuts, blocks, close: async () => undefined };
    const found = (names: readonly string[]): string[] => failed.filter((name) => names.includes(name));
    const answer = await computeApp([log], { ...rules, failed: found, fromEvents }).catch(orNoProcess);
    if (answer !== undefined && answer.from !== "cuts" && knowsAll(answer.evidence))
      read = { evidence: answer.evidence, lastChain: cuts.lastChain };
    return answer;
  }
}

/** A log without any process says nothing; with another reason to refuse, the next computation refuses as well. */
function orNoProcess(error: unknown): undefined {
  if (!hasCode(error, "RL_REFUSED")) throw error;
}

/** Its output goes on in the same file, cut back to what it was before the command ran. */
async function startHeld(
  collector: CollectorClient,
  app: string,
  name: string,
  recipe: StartRecipe,
): Promise<void> {
  const { startProcess } = await import("../client/start-process.ts");
  const output = recipe.output === undefined ? undefined : await reopen(recipe.output);
  const [first, ...rest] = recipe.command as [string, ...string[]];
  const { child } = await startProcess(collector, {
    app,
    process: name,
    command: [first, ...rest],
    mode: "fresh",
    stdio: ["ignore", output ?? "ignore", output ?? "ignore"],
    detached: true,
    unwatched: true,
    recipe,
    hold: true,
  });
  child.unref();
  if (output !== undefined) closeSync(output);
}

/** A file that was replaced or cut meanwhile is somebody else's business: then the output is only appended. */
async function reopen(file: NonNullable<StartRecipe["output"]>): Promise<number> {
  const { rollBackFiles } = await import("../host/open-files.ts");
  try {
    rollBackFiles([file]);
  } catch {}
  return openSync(file.path, "a");
}
