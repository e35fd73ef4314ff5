/**
 * What stands in the way of images, looked for before anything is touched: what CRIU would find out half way, when the processes that
 * are to come back are dead already. One sentence each: what, where, who, what to do.
 */

import { constants, lstatSync, type Stats, statSync } from "node:fs";
import type { BlockList } from "node:net";
import { basename } from "node:path";
import { buildIdOf } from "../host/build-id.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { isChangedInside, type OpenFile } from "../host/open-files.ts";
import { programName } from "../host/process-tree.ts";
import { localAddresses } from "../host/surroundings.ts";
import { type ImageParts, type ImagePath, imageParts } from "../images/criu/criu-files.ts";
import { OWN_MEMORY } from "../images/criu/own-memory.ts";
import { type MappedFile, strangerAt } from "../images/data/mapped-contents.ts";
import { shown } from "../images/data/tree-entry.ts";
import { isBelowAny } from "../images/data/tree-users.ts";
import type { CollectedProcess } from "../model/collector-answers.ts";
import { type Obstacle, Obstructed } from "./obstacle.ts";
import type { RestartPlan, Target } from "./plan.ts";
import { mappedOf } from "./restart-data.ts";
import { startObstacles } from "./start-obstacles.ts";
import {
  connectionObstacles,
  idObstacle,
  listenerObstacle,
  readOnlyCgroup,
  spaceObstacles,
  strangerIn,
} from "./system-obstacles.ts";

type Restored = Extract<Target, { action: "restore" }>;

/** What the restart itself sees to before anything comes back, for all that come back. */
interface Settled {
  /** Tasks that are dead then. */
  readonly gone: ReadonlySet<number>;
  /** `localAddresses`. */
  readonly here: BlockList;
  /** Folders that are put back. */
  readonly roots: readonly string[];
  /** Files that are cut back to what they were, or put back. */
  readonly cutBack: ReadonlySet<string>;
  /** Files that may hold something else than the image was taken with. */
  readonly accepted: ReadonlySet<string>;
}

/** `killed`: tasks that go before anything comes back; `accepted`: files whose contents may be others. */
export function obstaclesOf(
  { application, targets, transit }: RestartPlan,
  killed: readonly number[],
  accepted: readonly string[] = [],
): Obstacle[] {
  const images = withConnections(targets);
  const settled: Settled = {
    gone: new Set(killed),
    here: localAddresses(),
    roots: targets.flatMap(({ trees }) => trees.map(({ root }) => root)),
    cutBack: new Set([
      ...images.flatMap(writtenFiles).map(({ path }) => path),
      ...images.flatMap(mappedOf).map(({ path }) => shown(path)),
    ]),
    accepted: new Set(accepted),
  };
  const first = images.find(({ trees }) => trees.length > 0) ?? images[0];
  const starts = targets.flatMap((target) =>
    target.action === "initial"
      ? startObstacles(target.recipe, settled.roots).map((what) => ({ target, what }))
      : [],
  );
  const space = first === undefined ? [] : spaceObstacles(targets).map((what) => ({ target: first, what }));
  const ofImages = images.flatMap((target) => [
    ...[...unitObstacle(application, target.process), ...inTheWay(target, settled)].map((what) => ({
      target,
      what,
    })),
    ...transit.ends
      .filter(({ process }) => process === target.process && imageParts(target.image.files).ourNetwork)
      .flatMap((end) => connectionObstacles(end, settled))
      .map((what) => ({ target, what })),
  ]);
  return [...starts, ...ofImages, ...space].map(({ target, what }) => ({
    process: target.process,
    checkpoint: target.checkpoint,
    what,
  }));
}

function withConnections(targets: RestartPlan["targets"]): Restored[] {
  return targets
    .filter((target) => target.action === "restore")
    .filter(({ driver }) => driver.holdsConnections);
}

/** Where processes that are restored listen, in this network namespace. */
export function listeningPorts({ targets }: RestartPlan): number[] {
  return withConnections(targets)
    .map(({ image }) => imageParts(image.files))
    .flatMap(({ ourNetwork, listeners }) => (ourNetwork ? listeners : []))
    .map(({ port }) => port);
}

/** Whoever is in the cgroup of a process that has ended would be killed for it. Throws RL_REFUSED. */
export function refuseStrangers(known: readonly CollectedProcess[]): void {
  const found = known
    .filter(({ rings, cgroupId }) => !rings && cgroupId !== 0)
    .flatMap(({ app, process, cgroupId }) =>
      strangerIn(new ProcessCgroup(app, process), cgroupId).map((what) => ({ process, checkpoint: 0, what })),
    );
  if (found.length > 0) throw new Obstructed(found);
}

/** Throws RL_REFUSED where nothing could be frozen or brought into cgroups. */
export function refuseReadOnlyCgroups(app: string): void {
  const what = readOnlyCgroup(app);
  if (what !== undefined) throw new Obstructed([{ process: app, checkpoint: 0, what }]);
}

/** systemd would handle the death of what a restart kills: it removes the cgroup, or starts the program again beside what comes back. */
function unitObstacle(application: string, process: string): string[] {
  const { foreign, path } = new ProcessCgroup(application, process);
  const unit = basename(path);
  if (!foreign || !unit.endsWith(".service")) return [];
  return [
    `it is the unit ${unit} of systemd, which takes its death for the unit's failure and starts it again, or removes its cgroup: start the program with recovery-line run where it has to come back, or the unit itself anew, with systemctl restart ${unit}`,
  ];
}

function inTheWay(target: Restored, settled: Settled): string[] {
  const { process, checkpoint, image } = target;
  const parts = imageParts(image.files);
  const terminal = `checkpoint ${checkpoint} holds a terminal, and no image brings one back: start ${process} with run --detach`;
  return [
    ...(target.driver.obstacles?.(image.manifest.driver.notes, settled.gone) ?? []),
    ...(parts.terminal && parts.ourIds ? [terminal] : []), // else its runtime has the other end
    ...writtenFiles(target)
      .filter(({ path }) => !isBelowAny(settled.roots, path))
      .flatMap((file) => writtenObstacle(file, settled.accepted)),
    ...mappedOf(target).flatMap((file) => mappedObstacle(file, settled.gone)),
    ...pathObstacles(parts, { ...settled, roots: [...settled.roots, ...ownRoots(target)] }),
    ...(parts.ourNetwork ? parts.listeners.flatMap((one) => listenerObstacle(one, settled.gone)) : []),
    ...(parts.ourIds ? parts.ids.flatMap((id) => idObstacle(id, settled.gone)) : []),
  ];
}

function writtenFiles({ image }: Restored): readonly OpenFile[] {
  return (image.manifest.driver.notes["files"] ?? []) as readonly OpenFile[]; // the manifest's checksum says that they are as we wrote them
}

/** It comes back with a /dev/shm of its own. */
function ownRoots({ image }: Restored): string[] {
  return image.manifest.driver.notes["ownMemory"] === undefined ? [] : [OWN_MEMORY];
}

/** What was appended the restart cuts back. */
function writtenObstacle(file: OpenFile, accepted: ReadonlySet<string>): string[] {
  const { path, inode, device, sizeBytes } = file;
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined)
    return [`${path}, which it writes, is gone: put it back (it may have been renamed)`];
  if (stat.ino !== inode || stat.dev !== device)
    return [`${path}, which it writes, is another file now: put the old one back (it may have been renamed)`];
  if (stat.size >= sizeBytes && isChangedInside(file) && !accepted.has(path))
    return [
      `${path}, which it writes in place, holds something else than at the checkpoint: name its folder with --data from now on; --accept-files ${path} takes it as it is`,
    ];
  if (stat.size >= sizeBytes) return [];
  return [`${path}, which it writes, has ${stat.size} bytes and had ${sizeBytes}: put back what was cut off`];
}

/** It is put back under its name: whoever has it mapped would go on with another one. */
function mappedObstacle({ path, entry }: MappedFile, gone: ReadonlySet<number>): string[] {
  const stat = lstatOf(shown(path));
  if (stat !== undefined && !KEPT_KINDS[entry.kind]?.(stat))
    return [
      `${shown(path)}, which it has mapped or keeps for its session, is no ${entry.kind} any more: put it back`,
    ];
  const stranger = strangerAt(path, gone);
  if (stranger === undefined) return [];
  return [
    `${shown(path)}, which it has mapped, is mapped by process ${stranger} (${programName(stranger)}), too: end it`,
  ];
}

/** Of all it has open or mapped but what the restart sees to itself. */
function pathObstacles({ paths, ourMounts }: ImageParts, { roots, cutBack }: Settled): string[] {
  if (!ourMounts) return [];
  const seen = new Map(paths.map((one) => [one.path, one]));
  return [...seen.values()]
    .filter(({ path }) => path.startsWith("/") && !/^\/(proc|dev\/pts)\//.test(path))
    .filter(({ path }) => !isBelowAny(roots, path) && !cutBack.has(path))
    .flatMap(pathObstacle);
}

function pathObstacle({ path, mode, sizeBytes, buildId }: ImagePath): string[] {
  const stat = lstatOf(path);
  if (stat === undefined) return [`${path}, which it uses, is gone: put it back`];
  if (mode !== undefined && (stat.mode & constants.S_IFMT) !== (mode & constants.S_IFMT))
    return [
      `${path}, which it uses, is no ${KINDS.get(mode & constants.S_IFMT) ?? "such file"} any more: put it back`,
    ];
  if (sizeBytes === undefined || !stat.isFile()) return [];
  if (stat.size === sizeBytes && (buildId === "" || isBuildOf(path, buildId))) return [];
  if (stat.size === sizeBytes)
    return [
      `${path}, which it uses, is another build of the same size: put the old one back (it may have been upgraded)`,
    ];
  return [
    `${path}, which it uses, has ${stat.size} bytes and had ${sizeBytes}: put the old one back (a program or library may have been upgraded)`,
  ];
}

/** What is longer in the image was padded to whole words. */
function isBuildOf(path: string, buildId: string): boolean {
  const now = buildIdOf(path);
  return now === undefined || buildId.startsWith(now);
}

const KEPT_KINDS: Partial<Record<MappedFile["entry"]["kind"], (stat: Stats) => boolean>> = {
  file: (stat) => stat.isFile(),
  folder: (stat) => stat.isDirectory(),
  fifo: (stat) => stat.isFIFO(),
};

const KINDS = new Map([
  [constants.S_IFREG, "file"],
  [constants.S_IFDIR, "folder"],
  [constants.S_IFIFO, "fifo"],
  [constants.S_IFSOCK, "socket"],
  [constants.S_IFCHR, "device"],
  [constants.S_IFBLK, "device"],
]);

function lstatOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined; // something on its way is no folder any more
  }
}
