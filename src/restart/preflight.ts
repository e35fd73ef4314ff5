/**
 * What stands in the way of images, looked for before anything is touched: what CRIU would find out half way, when the processes that
 * are to come back are dead already. One sentence each: what, where, who, what to do.
 */
import { constants, lstatSync, type Stats, statSync } from "node:fs";
import { RecoveryLineError } from "../model/errors.ts";
import { type ImageListener, type ImageParts, type ImagePath, imageParts } from "./criu-files.ts";
import { shown } from "./data-tree/tree-entry.ts";
import { isBelowAny } from "./data-tree/tree-users.ts";
import { mappedOf, strangerAt } from "./mapped-contents.ts";
import { listenersHere } from "./open-connections.ts";
import { isChangedInside, type OpenFile } from "./open-files.ts";
import type { RestartPlan, Target } from "./plan.ts";
import { holderOf, programName } from "./process-tree.ts";

type Restored = Extract<Target, { action: "restore" }>;

/** Obstacles that are named, count. */
const MAX_NAMED = 8;

/** What the restart itself sees to before anything comes back, for all that come back. */
interface Settled {
  /** Tasks that are dead then. */
  readonly gone: ReadonlySet<number>;
  /** Folders that are put back. */
  readonly roots: readonly string[];
  /** Files that are cut back to what they were, or put back. */
  readonly cutBack: ReadonlySet<string>;
  /** Files that may hold something else than the image was taken with. */
  readonly accepted: ReadonlySet<string>;
}

/** `killed`: tasks that go before anything comes back; `accepted`: files whose contents may be others. Throws RL_REFUSED, naming all that stands in the way, nothing touched. */
export function refuseObstacles(
  { targets }: RestartPlan,
  killed: readonly number[],
  accepted: readonly string[] = [],
): void {
  const images = targets.filter((target) => target.action === "restore").filter(isCrius);
  const settled: Settled = {
    gone: new Set(killed),
    roots: targets.flatMap(({ trees }) => trees.map(({ root }) => root)),
    cutBack: new Set([
      ...images.flatMap(writtenFiles).map(({ path }) => path),
      ...images.flatMap(mappedOf).map(({ path }) => shown(path)),
    ]),
    accepted: new Set(accepted),
  };
  const found = images.flatMap((target) =>
    obstaclesOf(target, settled).map((what) => `${target.process}: ${what}`),
  );
  if (found.length === 0) return;
  const more = found.length > MAX_NAMED ? `; and ${found.length - MAX_NAMED} more` : "";
  throw new RecoveryLineError(
    "RL_REFUSED",
    `what stands in the way of the restart: ${found.slice(0, MAX_NAMED).join("; ")}${more}`,
    "Nothing was killed or restored. Remove it, then call again; or go back to another checkpoint.",
  );
}

function isCrius({ image }: Restored): boolean {
  return image.manifest.driver.name === "criu";
}

function obstaclesOf(target: Restored, settled: Settled): string[] {
  const { process, checkpoint, image } = target;
  const parts = imageParts(image.files);
  const terminal = `checkpoint ${checkpoint} holds a terminal, and no image brings one back: start ${process} with run --detach`;
  return [
    ...(parts.terminal ? [terminal] : []),
    ...writtenFiles(target)
      .filter(({ path }) => !isBelowAny(settled.roots, path))
      .flatMap((file) => writtenObstacle(file, settled.accepted)),
    ...mappedOf(target).flatMap(({ path }) => mappedObstacle(path, settled.gone)),
    ...pathObstacles(parts, settled),
    ...(parts.ourNetwork ? parts.listeners.flatMap((one) => listenerObstacle(one, settled.gone)) : []),
    ...parts.ids.flatMap((id) => idObstacle(id, settled.gone)),
  ];
}

function writtenFiles({ image }: Restored): readonly OpenFile[] {
  return (image.manifest.driver.notes["files"] ?? []) as readonly OpenFile[]; // the manifest's checksum says that they are as we wrote them
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
function mappedObstacle(path: string, gone: ReadonlySet<number>): string[] {
  const stat = lstatOf(shown(path));
  if (stat !== undefined && !stat.isFile())
    return [`${shown(path)}, which it has mapped, is no file any more: put it back`];
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

function pathObstacle({ path, mode, sizeBytes }: ImagePath): string[] {
  const stat = lstatOf(path);
  if (stat === undefined) return [`${path}, which it uses, is gone: put it back`];
  if (mode !== undefined && (stat.mode & constants.S_IFMT) !== (mode & constants.S_IFMT))
    return [
      `${path}, which it uses, is no ${KINDS.get(mode & constants.S_IFMT) ?? "such file"} any more: put it back`,
    ];
  if (sizeBytes === undefined || !stat.isFile() || stat.size === sizeBytes) return [];
  return [
    `${path}, which it uses, has ${stat.size} bytes and had ${sizeBytes}: put the old one back (a program or library may have been upgraded)`,
  ];
}

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

function listenerObstacle(listener: ImageListener, gone: ReadonlySet<number>): string[] {
  if (listener.shared) return [];
  const stranger = listenersHere().find(
    ({ address, v6, port, pid }) =>
      port === listener.port && clash(listener, { address, v6 }) && (pid === undefined || !gone.has(pid)),
  );
  if (stranger === undefined) return [];
  const { pid } = stranger;
  const who =
    pid === undefined
      ? "somebody in another network namespace or without a process"
      : `process ${pid} (${programName(pid)})`;
  return [`port ${listener.port} is taken by ${who}: end it`];
}

type Place = Pick<ImageListener, "address" | "v6">;

const ANY = new Set(["0.0.0.0", "0:0:0:0:0:0:0:0"]);

/** One of both takes every address, or both take the same one. */
function clash(one: Place, other: Place): boolean {
  if (one.address === other.address) return true;
  const both = one.v6 === other.v6;
  return (ANY.has(one.address) && (both || one.v6)) || (ANY.has(other.address) && (both || other.v6));
}

/** The driver waits for those that have ended and were not waited for. */
function idObstacle(id: number, gone: ReadonlySet<number>): string[] {
  const holder = holderOf(id);
  if (holder === undefined || gone.has(holder)) return [];
  return [
    `process id ${id} is in use by process ${holder} (${programName(holder)}), and the image needs it: end it`,
  ];
}
