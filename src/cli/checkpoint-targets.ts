/** Which processes a checkpoint is taken of: the running ones of an application, those named, those who must be in their set. */
import type { CheckpointOptions, CheckpointTarget } from "../checkpoint/checkpoint.ts";
import type { DriverChoice, DriverName } from "../checkpoint/driver-choice.ts";
import type { CollectorClient } from "../client/client.ts";
import type { ProcessInfo } from "../client/protocol.ts";
import type { GrowingEvidence } from "../compute/growing-evidence.ts";
import type { Engine } from "../host/containers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { printableSentence } from "../model/printable.ts";

export interface FailedCheckpoint {
  readonly process: string;
  readonly code: string;
  readonly message: string;
  readonly advice: string;
}

export interface Found {
  readonly targets: readonly CheckpointTarget[];
  /** Named, and not running. */
  readonly ended: readonly FailedCheckpoint[];
}

/** Those that can be checkpointed, each with the driver that fits it. Throws as `findTargets` does. */
export async function drivenTargets(
  app: string,
  names: readonly string[],
  log: CollectorClient,
  home: string,
): Promise<readonly CheckpointTarget[]> {
  const { targets } = await findTargets(app, names, log);
  return (await withContainerDrivers(targets, "auto", home)).targets;
}

/**
 * A container's image is for its engine to take. Where that can't, `auto` is content with its cut; `fallback` says why. Throws
 * RL_NOT_SUPPORTED where an engine was asked for and can't, RL_USAGE where one is no container of it.
 */
export async function withContainerDrivers(
  targets: readonly CheckpointTarget[],
  name: DriverName,
  home: string,
): Promise<{ readonly targets: readonly CheckpointTarget[]; readonly fallback?: string }> {
  const { containerAt, isEngine } = await import("../host/containers.ts");
  const engineOf = ({ cgroup }: CheckpointTarget): Engine | undefined =>
    cgroup.foreign ? containerAt(cgroup.path)?.engine : undefined;
  const other = isEngine(name) ? targets.find((target) => engineOf(target) !== name) : undefined;
  if (other !== undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      `${other.process} is no container of ${name}`,
      "Name containers alone, or leave --driver out: each then gets what fits it.",
    );
  if (name !== "auto" && !isEngine(name)) return { targets };
  const { chooseContainerDriver } = await import("../checkpoint/driver-choice.ts");
  const choices = new Map<Engine, DriverChoice>();
  for (const engine of new Set(targets.flatMap((target) => engineOf(target) ?? [])))
    choices.set(engine, await chooseContainerDriver(engine, name, home));
  const reasons = [...choices.values()].flatMap(({ fallback }) => fallback ?? []);
  return {
    targets: targets.map((target) => {
      const engine = engineOf(target);
      if (engine === undefined) return target;
      const { driver, fallback } = choices.get(engine)!;
      return { ...target, own: { driver, usable: fallback === undefined } };
    }),
    ...(reasons.length === 0 ? {} : { fallback: reasons.join(" ") }),
  };
}

/** Throws RL_UNKNOWN_PROCESS where nothing is left to checkpoint, or for a name that nobody knows. */
export async function findTargets(
  app: string,
  names: readonly string[],
  log: CollectorClient,
): Promise<Found> {
  const known = await log.processes();
  const { ProcessCgroup } = await import("../host/cgroups.ts");
  // The collector hears of an end a moment later than the kernel says so here.
  const ofApp = known
    .filter((one) => one.app === app)
    .map((one) => ({ ...one, live: one.live && new ProcessCgroup(app, one.process).populated }));
  const live = ofApp.filter((one) => one.live);
  if (ofApp.length === 0)
    throw new RecoveryLineError(
      "RL_UNKNOWN_APP",
      `the collector records no application "${app}"`,
      "Start its processes with `recovery-line run`.",
    );
  const named = [...new Set(names)].map((name) => namedOne(app, name, ofApp));
  const ended = named.filter((one) => one.live !== true).map((one) => notRunning(app, one));
  const chosen = names.length === 0 ? live : named.filter((one) => one.live);
  if (chosen.length === 0)
    throw new RecoveryLineError(
      "RL_UNKNOWN_PROCESS",
      ended.length === 1 ? ended[0]!.message : `no process of ${app} is running`,
      ended.length === 1
        ? ended[0]!.advice
        : `Bring them back with recovery-line restart ${app}, or start them with recovery-line run.`,
    );
  const targets = await Promise.all(
    chosen.map(async ({ process, incarnation, data }) => {
      const options = (await log.startRecipe(app, process))?.criuOptions;
      return {
        app,
        process,
        incarnation,
        cgroup: new ProcessCgroup(app, process),
        ...(data === undefined ? {} : { data }),
        ...(options === undefined ? {} : { driverOptions: options }),
      };
    }),
  );
  return { targets, ended };
}

function namedOne(app: string, name: string, known: readonly ProcessInfo[]): ProcessInfo {
  const found = known.find((one) => one.process === name);
  if (found !== undefined) return found;
  throw new RecoveryLineError(
    "RL_UNKNOWN_PROCESS",
    `${app} has no process ${JSON.stringify(name)}`,
    `Known: ${printableSentence(known.map((one) => one.process).join(", "))}.`,
  );
}

function notRunning(app: string, { process, rings }: ProcessInfo): FailedCheckpoint {
  return {
    process,
    code: "RL_UNKNOWN_PROCESS",
    message: rings
      ? `process ${process} of ${app} takes its own checkpoints: its runtime tells of them through memory rings`
      : `process ${process} of ${app} has ended`,
    advice: `Bring it back with recovery-line restart ${app}, or name others.`,
  };
}

/**
 * Whoever must be in the set besides those that stand still: what they did until then is in the log when it is read. All that is in it now is read
 * before anybody stands still, by the collector where it does so for a policy; `growing`: what of it was read already.
 */
export async function dependentsToo(
  app: string,
  names: readonly string[],
  log: CollectorClient,
  home: string,
  growing?: GrowingEvidence,
): Promise<NonNullable<CheckpointOptions["more"]>> {
  const { GrowingEvidence } = await import("../compute/growing-evidence.ts");
  const { dependentsOf } = await import("../compute/dependents.ts");
  const own = growing ?? new GrowingEvidence();
  const isPrimed = (): boolean => growing !== undefined || own.isKept;
  const asked = async (): Promise<readonly string[] | undefined> => {
    const told = isPrimed() ? undefined : await log.dependents(app, names).catch(() => undefined);
    if (told !== undefined) return told ?? undefined;
    return dependentsOf(await own.ofApp(log, app), names);
  };
  await asked();
  return async (standing) => {
    const inSet = await asked();
    const running = await drivenTargets(app, [], log, home);
    const stand = new Set(standing.map(({ process }) => process));
    return running.filter(({ process }) => !stand.has(process) && (inSet?.includes(process) ?? true));
  };
}

/** Whoever goes back together with those that stand still, and has to stand still with them. */
export function tiedToo(
  app: string,
  log: CollectorClient,
  home: string,
): NonNullable<CheckpointOptions["more"]> {
  return async (standing) => {
    const stand = new Set(standing.map(({ process }) => process));
    const found = await log.unseen(app);
    const tied = found.filter((one) => one.tied === true && stand.has(one.process) && !stand.has(one.other));
    if (tied.length === 0) return [];
    const names = tied.map(({ other }) => other);
    return drivenTargets(app, names, log, home);
  };
}

/** One asks only once the other has nobody more. */
export function firstThen(
  ...asked: readonly NonNullable<CheckpointOptions["more"]>[]
): NonNullable<CheckpointOptions["more"]> {
  return async (standing) => {
    for (const one of asked) {
      const more = await one(standing);
      if (more.length > 0) return more;
    }
    return [];
  };
}

export async function notWhileRestarting(home: string, app: string): Promise<void> {
  const { interrupted } = await import("../restart/restart.ts");
  if ((await interrupted(home, app)) === undefined) return;
  throw new RecoveryLineError(
    "RL_LOCKED",
    `a restart of ${app} is unfinished: its processes stand still or are dead`,
    `Wait for it; if none runs, it was cut off: recovery-line restart ${app}`,
  );
}
