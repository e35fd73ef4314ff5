/**
 * A restart, step by step: freeze → plan → build data aside → journal → kill → move data in → block → restore (held still) → register and
 * log the rollbacks → remove what data was overwritten → unblock → reset connections to the outside → thaw.
 *
 * Before the journal nothing is touched. From then on there is only forward: whatever ends this program, the next call finds the
 * journal, kills what has come back and not run yet, and does it again; the line is the same, since nothing new was done in between.
 * Processes that come back run their first instruction after all of them are there and their rollbacks are durable.
 */

import { link, mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { startTrees } from "../checkpoint/process-data.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { containerAt, killContainer } from "../host/containers.ts";
import { cgroupId, holdCgroup, holdEmpty, standsStill, whileFrozen } from "../host/freeze.ts";
import { isFullDisk } from "../host/full-disk.ts";
import { networkOf, networksOf, openConnections } from "../host/open-connections.ts";
import { blockForRestart, type ConnectionAddresses, silence, unblockRestart } from "../host/port-block.ts";
import { startTicksOf, treeRoots } from "../host/process-tree.ts";
import { letGoUntilReady, startOrder } from "../host/readiness.ts";
import { connectionsGone, endConnections, endsConnections, resetConnections } from "../host/time-wait.ts";
import { lockedBy } from "../host/wait-for-lock.ts";
import { unblock } from "../images/criu/killed-lock.ts";
import {
  keepReplaced as keepMapped,
  putMapped,
  type ReplacedFile,
  stageMapped,
  takeMappedBack,
} from "../images/data/mapped-contents.ts";
import type { CheckpointDriver, DriverCheck } from "../images/driver.ts";
import { HookDriver } from "../images/hook/driver-hook.ts";
import { lockCollection } from "../log/log-lock.ts";
import { assert } from "../model/assert.ts";
import type { CollectedProcess, CutAnswer, Registration } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import type { CutEntry } from "../model/event-source.ts";
import { DRIVER_LIMIT_MS } from "../model/limits.ts";
import type { PayloadStore } from "../model/payload-store.ts";
import type { ProcessData, StartRecipe } from "../model/stored-process.ts";
import { native } from "../native/binding.ts";
import { type Obstacle, Obstructed } from "./obstacle.ts";
import { type PlanOptions, type PlanSource, planRestart, type RestartPlan, type Target } from "./plan.ts";
import { listeningPorts, obstaclesOf, refuseReadOnlyCgroups, refuseStrangers } from "./preflight.ts";
import {
  checkData,
  type DataTarget,
  endExchange,
  type JournalTree,
  mappedOf,
  moveIn,
  stageData,
  takeBack,
} from "./restart-data.ts";
import {
  type RestartJournal,
  type RestartPhase,
  readJournal,
  removeJournal,
  restartFolder,
  writeJournal,
} from "./restart-journal.ts";
import { refuseApart, SharedPipes } from "./shared-pipes.ts";

/** What a restart needs of the collector. */
export interface RestartLog {
  /** Looks what processes of the application use together now; in the log on return. */
  unseen(app: string): Promise<unknown>;
  processes(): Promise<readonly CollectedProcess[]>;
  cut(app: string, process: string): Promise<CutAnswer>;
  drain(): Promise<void>;
  unregister(app: string, process: string): Promise<void>;
  register(registration: Registration & { readonly mode: "resume" }): Promise<unknown>;
  expectRestore(entries: readonly CutEntry[]): Promise<void>;
  append(app: string, event: Event): Promise<unknown>;
  startRecipe(app: string, process: string): Promise<StartRecipe | undefined>;
  data(app: string, process: string): Promise<ProcessData | undefined>;
}

export interface RestartRequest extends Omit<PlanOptions, "failed"> {
  readonly home: string;
  readonly app: string;
  /** All processes of the application. */
  readonly processes: readonly string[];
  /** Who has failed; asked while all stand still, as one may die of another's death before. */
  readonly whoFailed: () => Promise<readonly string[]>;
  /** Their incarnations, and the journal, as they were read when the restart was decided on. */
  readonly lives: ReadonlyMap<string, number>;
  readonly journal: RestartJournal | undefined;
  readonly log: RestartLog;
  /** Those that restore images here, besides the hooks' own. */
  readonly drivers: readonly CheckpointDriver[];
  readonly compute: PlanSource["compute"];
  readonly checkpoint: PlanSource["checkpoint"];
  /** Undefined: no payloads are kept. */
  readonly payload: PayloadStore | undefined;
  /** Starts a command from scratch in its cgroup, registered `fresh`, and leaves it standing still before its first instruction. */
  readonly startHeld: (process: string, recipe: StartRecipe) => Promise<void>;
  /** Told once, when the plan stands and before anything is touched. */
  readonly onPlan: (plan: RestartPlan) => Promise<void>;
  readonly limitMs?: number;
  /** What is overwritten in directory trees, and of mapped files, stays aside. */
  readonly keepReplaced?: boolean;
  /** Files that may hold something else than at the checkpoint. */
  readonly acceptFiles?: readonly string[];
  /** Where something stands in the way of an image, go back to an older line that does without it. */
  readonly backFurther?: boolean;
}

export interface RestartResult {
  readonly plan: RestartPlan;
  /** Folders with what was overwritten (`keepReplaced`). */
  readonly kept: readonly string[];
  /** Processes with a readiness rule that did not become ready. */
  readonly notReady: readonly string[];
  /** How long what, in ms: standing still and planning, killing, restoring, recording; all. */
  readonly phasesMs: Readonly<Record<"plan" | "kill" | "data" | "restore" | "record" | "total", number>>;
}

/** Longest wait for killed processes, in ms. */
const KILL_LIMIT_MS = 10_000;
/** Longest wait for a driver whose caller died, in ms; then for its end once its work is killed. */
const DRIVER_END_MS = 10_000;
/** Longest wait for the collector to remove an empty cgroup that is wanted again, in ms. */
const REMOVAL_LIMIT_MS = 500;
/** Longest wait for a gc, which reads the whole log, or for another restart, in ms. */
const COLLECTION_WAIT_MS = 60_000;
/** Longest wait for checkpoints that others are taking, in ms. */
const CHECKPOINT_WAIT_MS = 15_000;
/** Longest wait for obstacles to pass by themselves, everything standing still, in ms. */
const PASSING_LIMIT_MS = 300;
const FILES = "files";

/** The plan alone; everything stands still while it is made and goes on then. Throws like `restart`. */
export async function dryRestart(request: RestartRequest): Promise<RestartPlan> {
  const checks = await beforeFreezing(request);
  return whileAllStand(request, () => makePlan(request, checks));
}

/** Whoever ends before all stand still is left out. */
async function whileAllStand<T>(request: RestartRequest, work: () => Promise<T>): Promise<T> {
  for (let left = request.processes.length; ; left -= 1) {
    let stand = false;
    const begin = (): Promise<T> => {
      stand = true;
      return work();
    };
    try {
      return await whileFrozen(liveCgroups(request), begin, [], CHECKPOINT_WAIT_MS);
    } catch (error) {
      if (stand || left === 0 || !hasCode(error, "RL_UNKNOWN_PROCESS")) throw error;
    }
  }
}

/** What drivers say of themselves; who has nothing to try is not there. */
type Checks = ReadonlyMap<CheckpointDriver, DriverCheck>;

/** What is looked for while all run: it takes a moment, or has to be known before anything is frozen. */
async function beforeFreezing({ app, log, drivers }: RestartRequest): Promise<Checks> {
  refuseReadOnlyCgroups(app);
  refuseStrangers((await log.processes()).filter((one) => one.app === app));
  const checks = new Map<CheckpointDriver, DriverCheck>();
  for (const driver of drivers) {
    const check = await driver.check?.();
    if (check !== undefined) checks.set(driver, check);
  }
  return checks;
}

/**
 * Throws what planning throws, with everything as it was. After that: RL_DRIVER, RL_TIMEOUT and others leave what was to come back
 * dead and the journal in place: the next call takes it up.
 */
export function restart(request: RestartRequest): Promise<RestartResult> {
  return alone(request, request.journal, async () => {
    await refuseOtherLives(request);
    const began = performance.now();
    const clock = new Clock();
    const checks = await beforeFreezing(request);
    const begin = async (): Promise<Begun> => {
      await refuseOtherLives(request); // again: a start that was waited for may have been of one
      const made = await clock.time("plan", () => makePlan(request, checks));
      if (endedBy(made).length > 0 && !(await endsConnections())) throw noBreaking(made);
      await request.onPlan(made);
      const begun = await makeReady(request, made, clock);
      try {
        await clock.time("kill", () => killTied(request, made));
      } catch (error) {
        throw halfDone(error, request.app, namesOf(made));
      }
      return begun;
    };
    await checkpointsEnd(request);
    const begun = await whileAllStand(request, begin);
    const { plan, trees, mapped } = begun;
    await bringBack(request, begun, clock);
    const { kept, notReady } = await letGo(request, {
      processes: namesInOrder(plan),
      ready: readyRules(plan),
      trees,
      mapped,
      resets: resetsOf(plan),
      keepReplaced: request.keepReplaced === true,
    });
    return { plan, kept, notReady, phasesMs: { ...clock.phasesMs, total: performance.now() - began } };
  });
}

type Place = Pick<RestartRequest, "home" | "app">;

/**
 * Nobody else restarts the application, or removes its images, while `work` runs. `journal`: as the caller has read it. Throws RL_LOCKED,
 * also where it is another one by now: what it named may have come back, and run.
 */
async function alone<T>(
  { home, app }: Place,
  journal: RestartJournal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const unlock = await lockCollection(join(home, app), COLLECTION_WAIT_MS);
  try {
    if (!isDeepStrictEqual(await interrupted(home, app), journal)) throw cameBetween(app);
    return await work();
  } finally {
    unlock();
  }
}

/** Who was to go back may have come back since, and would be killed again. Throws RL_LOCKED. */
async function refuseOtherLives({ app, log, lives }: RestartRequest): Promise<void> {
  for (const { app: of, process, incarnation } of await log.processes())
    if (of === app && lives.has(process) && lives.get(process) !== incarnation) throw cameBetween(app);
}

function cameBetween(app: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_LOCKED",
    `another restart of ${app}, or a start of its processes, has just begun or ended`,
    "Nothing was killed or restored by this call. Look at recovery-line status, then call again where that is still needed.",
  );
}

/** Of the dead, too: what died while it was checkpointed is held until its image is stored, and could not be restored before. */
async function checkpointsEnd({ app, processes }: RestartRequest): Promise<void> {
  const deadlineMs = performance.now() + CHECKPOINT_WAIT_MS;
  for (const cgroup of processes.map((name) => new ProcessCgroup(app, name))) {
    if (cgroup.populated || !cgroup.hasPlace) continue;
    try {
      native().unlock(await lockedBy(deadlineMs, () => holdCgroup(cgroup)));
    } catch (error) {
      if (!hasCode(error, "RL_UNKNOWN_PROCESS")) throw error;
    }
  }
}

/** All that needs room, up to the journal. What fails leaves nothing of it; a journal that is taken up stays. */
async function makeReady(request: RestartRequest, plan: RestartPlan, clock: Clock): Promise<Begun> {
  const folder = restartFolder(request.home, request.app);
  try {
    await inRoom(`copies of its images in ${folder}`, () => prepareImages(request, plan));
    const begun = await inRoom("what is put back", () => clock.time("data", () => stage(request, plan)));
    try {
      await inRoom(`its journal in ${folder}`, () => note(request, begun, "killing"));
    } catch (error) {
      await takeBack(begun.trees);
      throw error;
    }
    return begun;
  } catch (error) {
    const isTakenUp = (await readJournal(folder)) !== undefined;
    await rm(isTakenUp ? join(folder, FILES) : folder, { recursive: true, force: true });
    throw error;
  }
}

async function inRoom<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (!isFullDisk(error)) throw error;
    throw new RecoveryLineError(
      "RL_REFUSED",
      `the disk has no room for ${what}${path === undefined ? "" : `: ${path}`} (${code})`,
      "Nothing was killed or restored by this call. Make room, then call again.",
      error,
    );
  }
}

/** What a restart that was cut off has begun; undefined where there is nothing. */
export function interrupted(home: string, app: string): Promise<RestartJournal | undefined> {
  return readJournal(restartFolder(home, app));
}

interface TakenUp extends LetGo {
  /** The journal, for `restart`. Undefined: all was there already and has been let go now. */
  readonly left: RestartJournal | undefined;
}

/**
 * Takes up a restart that was cut off. Where that was not all, what had come back and had not run is dead, and the directory trees are as
 * they were before: call `restart` with the journal's processes as the failed ones.
 */
export function takeUp(
  request: Pick<RestartRequest, "home" | "app" | "log">,
  journal: RestartJournal,
): Promise<TakenUp> {
  return alone(request, journal, () => takeUpAlone(request, journal));
}

async function takeUpAlone(
  { home, app, log }: Pick<RestartRequest, "home" | "app" | "log">,
  journal: RestartJournal,
): Promise<TakenUp> {
  if (journal.phase === "thawing") return { left: undefined, ...(await letGo({ home, app }, journal)) };
  await undo({ app, log }, journal.processes);
  await takeBack(journal.trees ?? []);
  takeMappedBack(journal.mapped ?? [], restartFolder(home, app));
  // Once, and never again: what was kept aside for it makes room for that of the next try.
  const { goesTo: _, sent: __, ...rest } = journal;
  const left: RestartJournal = { ...rest, phase: "killing", trees: [], mapped: [] };
  await writeJournal(restartFolder(home, app), left);
  return { left, kept: [], notReady: [] };
}

/** `resumed`: all was there and recorded. `untouched`: as before it, but dead. `undone`: dead, and back at the line. */
export type Abandoned = "resumed" | "untouched" | "undone";

/**
 * Ends a restart that was cut off without going on with it: what had come back and had not run is dead, and whoever was killed has failed.
 * Before the first rollback is logged the directory trees are as they were before; from then on each process gets all of it: its
 * rollback, its payloads cut back, and the new trees. Once all is there and recorded, it is let go instead. Throws RL_LOCKED where the
 * restart is at work, or has ended meanwhile.
 */
export function abandon(
  request: Pick<RestartRequest, "home" | "app" | "log" | "payload">,
  journal: RestartJournal,
): Promise<Abandoned> {
  return alone(request, journal, async () => {
    if (journal.phase === "recording" && journal.goesTo !== undefined) {
      await rollBackDead(request, journal);
      return "undone";
    }
    const { left } = await takeUpAlone(request, journal);
    if (left !== undefined) await removeJournal(restartFolder(request.home, request.app));
    return left === undefined ? "resumed" : "untouched";
  });
}

/** A rollback that is in the log already is there twice then, which undoes nothing more. */
async function rollBackDead(
  { home, app, log, payload }: Pick<RestartRequest, "home" | "app" | "log" | "payload">,
  { processes, goesTo = [], sent = [], trees = [], mapped = [], keepReplaced = false }: RestartJournal,
): Promise<void> {
  await undo({ app, log }, processes);
  for (const { process, checkpoint } of goesTo)
    await log.append(app, { type: "rollback", process, checkpoint });
  for (const { channel, from } of sent) await payload?.cutBack(channel, from);
  await endReplacing({ home, app }, { trees, mapped, keepReplaced });
  await removeJournal(restartFolder(home, app));
}

class Clock {
  readonly phasesMs = { plan: 0, kill: 0, data: 0, restore: 0, record: 0 };

  async time<T>(phase: keyof Clock["phasesMs"], work: () => Promise<T>): Promise<T> {
    const from = performance.now();
    try {
      return await work();
    } finally {
      this.phasesMs[phase] += performance.now() - from;
    }
  }
}

function namesOf({ targets }: RestartPlan): string[] {
  return targets.map(({ process }) => process);
}

/** As they are let go. */
function namesInOrder(plan: RestartPlan): string[] {
  const rules = readyRules(plan);
  const waiting = namesOf(plan).map((process) => {
    const ready = rules[process];
    return ready === undefined ? { process } : { process, ready };
  });
  const order = new Set(startOrder(waiting, plan.connects).map(({ process }) => process));
  assert(order.size === waiting.length, "each process that comes back is let go once");
  return [...order];
}

/** What comes back from an image is ready as it was. */
function readyRules({ targets }: RestartPlan): Record<string, string> {
  const rules = targets.flatMap((target) =>
    target.action === "initial" && target.recipe.ready !== undefined
      ? [[target.process, target.recipe.ready] as const]
      : [],
  );
  return Object.fromEntries(rules);
}

function dataTargets({ targets }: RestartPlan): DataTarget[] {
  return targets.flatMap(({ process, trees }) => trees.map((tree) => ({ process, tree })));
}

function liveCgroups({ app, processes }: RestartRequest): ProcessCgroup[] {
  return processes.map((name) => new ProcessCgroup(app, name)).filter((cgroup) => cgroup.populated);
}

async function makePlan(request: RestartRequest, checks: Checks): Promise<RestartPlan> {
  const { home, app, processes, log, compute, checkpoint, payload } = request;
  await log.unseen(app); // who shares memory with one that goes back must not go on
  await log.drain();
  const failed = await request.whoFailed();
  const live = processes.filter((name) => new ProcessCgroup(app, name).populated);
  const known = (await log.processes()).filter((one) => one.app === app);
  const unseen = new Map(known.map(({ process, unseen }) => [process, unseen]));
  const cuts = await Promise.all(live.map((name) => log.cut(app, name)));
  const running = new Map(live.map((name, at) => [name, cuts[at]!.details]));
  const data = await knownData(request);
  const source: PlanSource = {
    home,
    app,
    compute,
    checkpoint,
    running,
    startRecipe: (process) => log.startRecipe(app, process),
    data,
    startTrees: (process) => startTrees(home, app, process, data.get(process)),
    unseen: (process) => unseen.get(process),
    takesOwnCheckpoints: (process) => known.every((one) => one.process !== process || one.cgroupId === 0),
    driverOf: (name) => [...request.drivers, new HookDriver()].find((one) => one.name === name),
    ...(payload === undefined ? {} : { payload }),
  };
  const { plan, killed } = await planWithoutObstacles(source, { ...request, failed });
  refuseBroken(plan, checks);
  checkData(dataTargets(plan), data, killed);
  refuseApart(plan.targets);
  return plan;
}

/** No older line does without it. */
function refuseBroken({ targets }: RestartPlan, checks: Checks): void {
  for (const target of targets) {
    if (target.action !== "restore") continue;
    const check = checks.get(target.driver);
    if (check === undefined || check.works) continue;
    const why = `can't bring images back here: ${check.reason}: \`recovery-line doctor\` tells what it lacks`;
    throw new Obstructed([{ ...target, what: `${target.driver.name} ${why}` }]);
  }
}

/** What has just died may hold an id or an address for a moment. */
async function lasting(look: () => Obstacle[]): Promise<Obstacle[]> {
  const deadlineMs = performance.now() + PASSING_LIMIT_MS;
  for (;;) {
    const found = look();
    if (found.length === 0 || performance.now() > deadlineMs) return found;
    await sleep(50);
  }
}

type Standing = RestartRequest & PlanOptions;

interface PlanOfDead {
  readonly plan: RestartPlan;
  /** Tasks that go before anything comes back. */
  readonly killed: readonly number[];
}

/** Each round passes over at least one checkpoint more. */
async function planWithoutObstacles(source: PlanSource, request: Standing): Promise<PlanOfDead> {
  const obstructed = [...(request.obstructed ?? [])];
  for (;;) {
    try {
      return await unobstructed(source, { ...request, obstructed });
    } catch (error) {
      if (!(error instanceof Obstructed) || request.backFurther !== true || error.found.some(isOfStart))
        throw error;
      const seen = new Set<string>();
      for (const { process, checkpoint } of error.found)
        if (!seen.has(process) && seen.add(process)) obstructed.push({ process, checkpoint });
    }
  }
}

async function unobstructed(source: PlanSource, request: Standing): Promise<PlanOfDead> {
  const plan = await planRestart(source, request);
  const killed = namesOf(plan).flatMap((name) => new ProcessCgroup(request.app, name).pids());
  const found = await lasting(() => obstaclesOf(plan, killed, request.acceptFiles));
  if (found.length > 0) throw new Obstructed(found);
  return { plan, killed };
}

/** There is nothing further back. */
function isOfStart({ checkpoint }: Obstacle): boolean {
  return checkpoint === 0;
}

async function knownData({ app, processes, log }: RestartRequest): Promise<Map<string, ProcessData>> {
  const known = new Map<string, ProcessData>();
  for (const process of processes) {
    const data = await log.data(app, process);
    if (data !== undefined) known.set(process, data);
  }
  return known;
}

function resetsOf({ transit }: RestartPlan): ConnectionAddresses[] {
  return transit.resets.map(({ socket: { local, remote } }) => ({ local, remote }));
}

/** Processes with connections that have to be ended. */
function endedBy({ breaking, transit }: RestartPlan): string[] {
  return [...new Set([...breaking, ...transit.resets].map(({ process }) => process))];
}

/**
 * Survivors may keep connections to the dead only until they move again: what they write then would be taken, and be nowhere. Whoever is
 * outside and has not closed its end yet would hold the address for a minute, and what it sends then would be taken for the image's.
 */
async function killTied(request: RestartRequest, plan: RestartPlan): Promise<void> {
  const names = namesOf(plan);
  const pids =
    plan.breaking.length === 0 ? [] : names.flatMap((name) => new ProcessCgroup(request.app, name).pids());
  const theirs = openConnections(pids);
  await killAll(request, names);
  if (plan.breaking.length > 0)
    await endConnections([...theirs, ...plan.transit.broken.map(({ socket }) => socket)]);
  await resetConnections(resetsOf(plan));
}

function noBreaking(plan: RestartPlan): RecoveryLineError {
  return new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `connections of ${endedBy(plan).join(", ")} have to be ended, and there is no ss for it`,
    "Nothing was killed or restored. Install it (Debian: iproute2).",
  );
}

/** Copies of the images with the connections as they must be; the stored ones stay as they are. Links, where nothing differs. */
async function prepareImages(
  { home, app }: RestartRequest,
  { targets, transit }: RestartPlan,
): Promise<void> {
  await rm(join(restartFolder(home, app), FILES), { recursive: true, force: true });
  for (const target of targets) {
    if (target.action !== "restore" || !target.driver.holdsConnections) continue;
    const folder = imageFolder(home, app, target.process);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const edited = new Map(
      transit.ends
        .filter(({ process, image }) => process === target.process && image !== undefined)
        .map(({ socket, image }) => [socket.file, image!]),
    );
    for (const { path } of target.image.manifest.files) {
      await mkdir(dirname(join(folder, path)), { recursive: true, mode: 0o700 });
      const bytes = edited.get(path);
      if (bytes === undefined) await link(join(target.image.files, path), join(folder, path));
      else await writeFile(join(folder, path), bytes, { mode: 0o600 });
    }
  }
}

function imageFolder(home: string, app: string, process: string): string {
  return join(restartFolder(home, app), FILES, process);
}

/** What goes back, and the directory trees and files that are put back for it. */
interface Begun {
  readonly plan: RestartPlan;
  readonly trees: readonly JournalTree[];
  readonly mapped: readonly ReplacedFile[];
}

/** All that can be made ready with nothing touched. */
async function stage({ home, app }: RestartRequest, plan: RestartPlan): Promise<Begun> {
  const mapped = stageMapped(plan.targets.flatMap(mappedOf), restartFolder(home, app));
  return { plan, trees: await stageData(home, app, dataTargets(plan)), mapped };
}

/** Nothing of what goes back runs. */
async function putBack({ home, app }: RestartRequest, { plan, trees }: Begun): Promise<void> {
  await moveIn(trees);
  for (const target of plan.targets) putMapped(mappedOf(target), imageFolder(home, app, target.process));
}

function note(request: RestartRequest, { plan, trees, mapped }: Begun, phase: RestartPhase): Promise<void> {
  const { home, app, keepSurvivors, fallBack, keepReplaced = false } = request;
  const { acceptFiles = [], obstructed = [] } = request;
  return writeJournal(restartFolder(home, app), {
    format: 1,
    application: app,
    phase,
    processes: namesInOrder(plan),
    ready: readyRules(plan),
    keepSurvivors,
    fallBack,
    keepReplaced,
    acceptFiles,
    obstructed,
    goesTo: plan.targets.map(({ process, checkpoint }) => ({ process, checkpoint })),
    sent: plan.transit.ends.map(({ entry }) => ({ channel: entry.sends, from: entry.sent })),
    trees,
    resets: resetsOf(plan),
    mapped,
  });
}

/** Dead, thawed (nobody is left to run), and all they did is in the log. */
async function killAll(
  { app, log }: Pick<RestartRequest, "app" | "log">,
  names: readonly string[],
): Promise<void> {
  const cgroups = names.map((name) => new ProcessCgroup(app, name));
  for (const cgroup of cgroups) if (cgroup.populated) await killAt(cgroup);
  const deadlineMs = performance.now() + KILL_LIMIT_MS;
  for (const cgroup of cgroups) {
    while (cgroup.populated) {
      if (performance.now() > deadlineMs)
        throw new RecoveryLineError("RL_TIMEOUT", `${cgroup.path} is not empty though it was killed`);
      await sleep(5);
    }
    if (cgroup.freezing && !cgroup.foreign) cgroup.thaw(); // another's goes with whoever made it
  }
  for (const name of names) await log.unregister(app, name);
}

/** A container's runtime does it, so that it doesn't start it again by itself. */
async function killAt(cgroup: ProcessCgroup): Promise<void> {
  const container = cgroup.foreign ? containerAt(cgroup.path) : undefined;
  if (container !== undefined && (await killContainer(container))) return;
  if (cgroup.populated) cgroup.kill();
}

/**
 * What came back dies. Unblocked first: connections that can't tell each other that they end stay for a minute, and no other can take
 * their addresses.
 */
async function undo(request: Pick<RestartRequest, "app" | "log">, names: readonly string[]): Promise<void> {
  await driversEnded(request.app, names);
  try {
    await unblockRestart(request.app, ownNetworks(request.app, names));
  } finally {
    await killAll(request, names);
  }
}

/**
 * A driver outlives a restart that is killed, and what it has not yet brought into the cgroup would escape. Throws RL_LOCKED where one
 * does not end though what it works on is killed.
 */
async function driversEnded(app: string, names: readonly string[]): Promise<void> {
  for (const cgroup of names.map((name) => new ProcessCgroup(app, name))) {
    const fromMs = performance.now();
    let killedMs: number | undefined;
    while (cgroup.hasPlace) {
      try {
        native().unlock(holdCgroup(cgroup));
        break;
      } catch (error) {
        if (hasCode(error, "RL_UNKNOWN_PROCESS")) break; // the collector has just removed it: nothing is in it
        const late = performance.now() > (killedMs ?? fromMs) + DRIVER_END_MS;
        if (!hasCode(error, "RL_LOCKED") || (late && killedMs !== undefined)) throw error;
        if (late) {
          if (cgroup.populated) cgroup.kill(); // its engine would wait for the one that is at work
          killedMs = performance.now();
        }
        await sleep(20);
      }
    }
  }
}

/** One process of each network namespace that came back with processes. */
function ownNetworks(app: string, names: readonly string[]): number[] {
  const attached = names.map((name) => new ProcessCgroup(app, name)).filter(({ foreign }) => foreign);
  const ours = networkOf("self");
  return networksOf(attached.flatMap((cgroup) => cgroup.pids())).filter((pid) => networkOf(pid) !== ours);
}

/** On failure nothing that came back has run; it is dead on return, and the journal stays. */
async function bringBack(request: RestartRequest, begun: Begun, clock: Clock): Promise<void> {
  const { app, log } = request;
  const { plan } = begun;
  try {
    await note(request, begun, "restoring");
    await clock.time("data", () => putBack(request, begun));
    const sockets = plan.transit.ends.map(({ socket }) => socket);
    await unblock({ connections: sockets, networks: [undefined] });
    const listening = listeningPorts(plan);
    await connectionsGone(sockets, listening);
    await log.drain();
    await blockForRestart(app, sockets, listening);
    await log.expectRestore(plan.transit.ends.map(({ announcement }) => announcement));
    await clock.time("restore", () => restoreAll(request, begun));
    await note(request, begun, "recording");
    await clock.time("record", async () => {
      for (const target of plan.targets) await recordOne(request, target);
      for (const target of plan.targets)
        if (target.action === "restore" && target.driver.holdsConnections)
          await settleConnections(request, plan, target.process);
      for (const { entry } of plan.transit.ends) await request.payload?.cutBack(entry.sends, entry.sent);
      await log.unseen(app); // those that talk through a pipe are tied again before they run
    });
    await note(request, begun, "thawing");
  } catch (error) {
    await undo(request, namesOf(plan)).catch(() => undefined); // the first failure is what is told
    throw halfDone(error, request.app, namesOf(plan));
  }
}

/** Something was touched: the error tells what state that leaves, and is no refusal. */
function halfDone(error: unknown, app: string, names: readonly string[]): unknown {
  if (!(error instanceof RecoveryLineError)) return error;
  const code = error.code === "RL_REFUSED" || error.code === "RL_LOCKED" ? "RL_DRIVER" : error.code;
  const state = `${names.join(", ")} of ${app} ${names.length === 1 ? "is" : "are"} dead, all others go on.`;
  const ways = `Remove what stood in the way and call recovery-line restart ${app} again; or do without that image: restart ${app} --back-further; or give it up: recovery-line restart ${app} --abandon`;
  return new RecoveryLineError(code, error.message, `${error.advice} ${state} ${ways}`.trim(), error);
}

/** The collector, which holds a cgroup for a moment while it removes an empty one, may be at it. Throws RL_LOCKED where something runs in it. */
async function makeAndHold(cgroup: ProcessCgroup): Promise<number> {
  const fromMs = performance.now();
  for (;;) {
    try {
      return holdEmpty(cgroup);
    } catch (error) {
      const passing = hasCode(error, "RL_UNKNOWN_PROCESS") || hasCode(error, "RL_LOCKED");
      if (!passing || performance.now() > fromMs + REMOVAL_LIMIT_MS) throw error;
      await sleep(10);
    }
  }
}

type RestoreTarget = Extract<Target, { action: "restore" }>;

async function restoreAll(request: RestartRequest, begun: Begun): Promise<void> {
  const pipes = new SharedPipes(begun.plan.targets);
  try {
    for (const target of begun.plan.targets)
      if (target.action === "restore") await restoreOrNote(request, begun, target, pipes);
  } finally {
    pipes.close();
  }
}

/** A failure is noted: with `backFurther` the next call does without that image. */
async function restoreOrNote(
  request: RestartRequest,
  begun: Begun,
  target: RestoreTarget,
  pipes: SharedPipes,
): Promise<void> {
  try {
    await restoreOne(request, target, pipes);
  } catch (error) {
    const { process, checkpoint } = target;
    const obstructed = [...(request.obstructed ?? []), { process, checkpoint }];
    await note({ ...request, obstructed }, begun, "restoring");
    throw error;
  }
}

async function restoreOne(request: RestartRequest, target: RestoreTarget, pipes: SharedPipes): Promise<void> {
  const { home, app, limitMs = DRIVER_LIMIT_MS } = request;
  const { image, driver } = target;
  const cgroup = new ProcessCgroup(app, target.process);
  await driver.clear?.(image.manifest.driver.notes);
  const guard = await makeAndHold(cgroup);
  const root = await driver
    .restore({
      // What nobody edits is read in its place: a hook's command may read long after the restart has ended, and copies are gone.
      folder: driver.holdsConnections ? imageFolder(home, app, target.process) : image.files,
      notes: image.manifest.driver.notes,
      limitMs,
      rollBackFiles: true,
      dataRoots: target.trees.map(({ root: place }) => place),
      freezeCgroup: cgroup.path,
      silence: silence(app),
      guard,
      pipes: pipes.of(target),
    })
    .finally(() => native().unlock(guard));
  await standsStill(cgroup, performance.now() + KILL_LIMIT_MS);
  if (cgroup.pids().includes(root)) return;
  if (cgroup.foreign) await killAt(cgroup);
  else for (const pid of image.manifest.pids) killIfThere(pid); // CRIU has just made them, and they run
  throw new RecoveryLineError(
    "RL_DRIVER",
    `${target.process} came back outside its cgroup ${cgroup.path}`,
    "It can't be recorded there. Was the image taken under another cgroup root?",
  );
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {} // it has ended
}

/** The rollback is the first line of the new life: the process has not moved yet. */
async function recordOne(request: RestartRequest, target: Target): Promise<void> {
  const { app, log } = request;
  const { process, checkpoint } = target;
  if (target.action === "initial") return request.startHeld(process, target.recipe);
  const { connections, uncaptured, cutComplete } = target.image.manifest;
  const cgroup = new ProcessCgroup(app, process);
  const [pid, ...others] = cgroup.foreign ? [] : treeRoots(cgroup.pids());
  const startTicks = pid === undefined || others.length > 0 ? undefined : startTicksOf(pid);
  await log.register({
    app,
    process,
    mode: "resume",
    cgroupId: cgroupId(cgroup),
    ...(startTicks === undefined ? {} : { task: { pid: pid!, startTicks } }),
    past: {
      connections: connections.map(entryOf),
      uncaptured: cutComplete ? uncaptured : [...new Set([...uncaptured, "old-connection"])],
    },
  });
  await log.append(app, { type: "rollback", process, checkpoint });
}

/**
 * While it stands still: what waits in queues inside it was sent before it is received, also under the names that its AF_UNIX sockets bear
 * now; and each TCP connection is the one that was announced. Throws RL_DRIVER where one is not: the log would take it for a stranger.
 */
async function settleConnections(
  { app, log }: RestartRequest,
  { transit }: RestartPlan,
  process: string,
): Promise<void> {
  const { details } = await log.cut(app, process);
  const borne = new Set(details.map(({ sends }) => sends));
  for (const { process: owner, entry, socket } of transit.ends) {
    if (owner !== process || borne.has(entry.sends)) continue;
    const { local, remote } = socket;
    throw new RecoveryLineError(
      "RL_DRIVER",
      `the connection of ${process} from ${local.address}:${local.port} to ${remote.address}:${remote.port} came back, but not as ${entry.sends}`,
      "Whatever it carried from now on would belong to nobody. Please report this with the kernel's version.",
    );
  }
}

/** Its names are derived again. An image of an older version says nothing of what was told and seen. */
function entryOf({ flags, live, local, remote, sent, received, ...rest }: CutEntry): CutEntry {
  const { told = 0, seen = received, unacknowledged, queued } = rest as Partial<CutEntry>;
  return {
    flags,
    live,
    told,
    local,
    remote,
    sent,
    received,
    seen,
    unacknowledged: unacknowledged ?? 0,
    queued: queued ?? 0,
  };
}

interface LetGo {
  /** Folders with what was overwritten. */
  readonly kept: readonly string[];
  readonly notReady: readonly string[];
}

/** Removes what was overwritten, or returns where it is kept; the journal's end removes what is left of mapped files. */
async function endReplacing(
  { home, app }: Place,
  { trees, mapped, keepReplaced }: Required<Pick<RestartJournal, "trees" | "mapped" | "keepReplaced">>,
): Promise<string[]> {
  const kept = await endExchange(trees, keepReplaced);
  const files = keepReplaced ? keepMapped(mapped, restartFolder(home, app), join(home, app)) : undefined;
  return files === undefined ? kept : [...kept, files];
}

/**
 * What was overwritten goes first, while nothing runs on what has taken its place. Connections next: they may speak while their processes
 * stand still, and then nobody waits for them. Those to the outside are over: only now a reset gets through.
 */
async function letGo(
  { home, app }: Place,
  {
    processes,
    ready = {},
    trees = [],
    mapped = [],
    resets = [],
    keepReplaced = false,
  }: Pick<RestartJournal, "processes" | "ready" | "trees" | "mapped" | "resets" | "keepReplaced">,
): Promise<LetGo> {
  const kept = await endReplacing({ home, app }, { trees, mapped, keepReplaced });
  const networks = ownNetworks(app, processes);
  await unblockRestart(app, networks);
  await resetConnections(resets, networks);
  const notReady: string[] = [];
  for (const process of processes) {
    const rule = ready[process];
    const cgroup = new ProcessCgroup(app, process);
    const isReady = await letGoUntilReady({
      process,
      cgroup,
      ...(rule === undefined ? {} : { ready: rule }),
    });
    if (!isReady) notReady.push(process);
  }
  await removeJournal(restartFolder(home, app));
  return { kept, notReady };
}
