/** Ports, process ids, addresses and room on the disk: what of the system stands in the way of images. One sentence each. */
import { accessSync, constants, existsSync, readFileSync, statfsSync, statSync } from "node:fs";
import type { BlockList } from "node:net";
import { dirname } from "node:path";
import { applicationCgroup, type ProcessCgroup } from "../host/cgroups.ts";
import {
  asV4,
  holderOfConnection,
  isAnyAddress,
  listenersHere,
  portsOfBothFamilies,
} from "../host/open-connections.ts";
import { holderOf, programName, waiterFor } from "../host/process-tree.ts";
import type { ImageListener } from "../images/criu/criu-files.ts";
import { bytesIn } from "../images/data/save-tree.ts";
import type { RestartPlan, Target } from "./plan.ts";

/** `gone` everywhere: tasks that are dead before anything comes back. */
export function listenerObstacle(listener: ImageListener, gone: ReadonlySet<number>): string[] {
  if (listener.shared) return [];
  const there = listenersHere().filter(
    ({ port, pid }) => port === listener.port && (pid === undefined || !gone.has(pid)),
  );
  if (there.length === 0) return [];
  const v6Only = portsOfBothFamilies()?.has(listener.port) === false;
  const stranger = there.find(({ address, v6 }) => clash(listener, { address, v6, v6Only }));
  if (stranger === undefined) return [];
  const { pid } = stranger;
  const who =
    pid === undefined
      ? "somebody in another network namespace or without a process"
      : `process ${pid} (${programName(pid)})`;
  return [`port ${listener.port} is taken by ${who}: end it`];
}

/** `cgroupId`: of the cgroup that the process had. A new one of that name is somebody else's. */
export function strangerIn(cgroup: ProcessCgroup, cgroupId: number): string[] {
  if (cgroup.id === cgroupId || !cgroup.populated) return [];
  const [pid] = cgroup.pids();
  const who = pid === undefined ? "somebody" : `process ${pid} (${programName(pid)})`;
  return [
    `${who} is in its cgroup ${cgroup.path}, and was not started by recovery-line run: move it to another one, or end it`,
  ];
}

/** As on a machine, or in a container, that shows them only. */
export function readOnlyCgroup(app: string): string | undefined {
  const folder = nearestFolder(applicationCgroup(app));
  try {
    accessSync(folder, constants.W_OK);
    return undefined;
  } catch (error) {
    return `the cgroup ${folder} can't be written (${(error as NodeJS.ErrnoException).code}), and nothing can be brought back into it: mount it writable`;
  }
}

type Place = Pick<ImageListener, "address" | "v6" | "v6Only">;

/** It stands still while this is asked, and can wait for its children only later. */
function isRecorded(pid: number): boolean {
  return textOf(`/proc/${pid}/cgroup`).includes("/recovery-line/");
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it has ended
  }
}

/** Its own old sockets are gone by then; what no process holds the restart waits for. `here`: `localAddresses`. */
export function connectionObstacles(
  { process, socket }: RestartPlan["transit"]["ends"][number],
  { gone, here }: { readonly gone: ReadonlySet<number>; readonly here: BlockList },
): string[] {
  const { local, remote } = socket;
  const name = `the connection from ${local.address}:${local.port} to ${remote.address}:${remote.port}`;
  const own = asV4(local);
  if (!here.check(own.address, own.v6 ? "ipv6" : "ipv4"))
    return [
      `${name} of ${process} needs the address ${local.address}, which no interface here has: give it to one`,
    ];
  const pid = holderOfConnection(socket)?.pid;
  if (pid === undefined || gone.has(pid)) return [];
  return [`${name} is held by process ${pid} (${programName(pid)}): end it`];
}

/** Data is built beside what it takes the place of, where the file system can't share blocks. */
export function spaceObstacles(targets: readonly Target[]): string[] {
  const wanted = new Map<number, { readonly root: string; bytes: number; free: number }>();
  for (const target of targets)
    for (const { root, sizeBytes } of treeSizes(target)) {
      const place = nearestFolder(root);
      const { type, bavail, bsize } = statfsSync(place);
      if (SHARES_BLOCKS.has(type)) continue;
      const { dev } = statSync(place);
      const disk = wanted.get(dev) ?? { root, bytes: 0, free: bavail * bsize };
      wanted.set(dev, { ...disk, bytes: disk.bytes + sizeBytes });
    }
  return [...wanted.values()]
    .filter(({ bytes, free }) => bytes > free)
    .map(
      ({ root, bytes, free }) =>
        `the disk of ${root} has ${free} bytes free, and ${bytes} are put back beside what is there: make room`,
    );
}

/** btrfs, xfs. */
const SHARES_BLOCKS = new Set([0x9123683e, 0x58465342]);

function treeSizes({ trees }: Target): { root: string; sizeBytes: number }[] {
  return trees.map(({ root, entries }) => ({
    root,
    sizeBytes: entries.reduce((sum, { content }) => sum + (content === undefined ? 0 : bytesIn(content)), 0),
  }));
}

function nearestFolder(path: string): string {
  return existsSync(path) ? path : nearestFolder(dirname(path));
}

/** One of both takes every address, or both take the same one. */
function clash(one: Place, other: Place): boolean {
  if (one.address === other.address) return true;
  return takesAllOf(one, other.v6) || takesAllOf(other, one.v6);
}

function takesAllOf({ address, v6, v6Only }: Place, family6: boolean): boolean {
  return isAnyAddress(address) && (v6 === family6 || (v6 && !v6Only));
}

/** The driver waits for those that have ended and are about to be waited for: by init, or once their parent is killed. */
export function idObstacle(id: number, gone: ReadonlySet<number>): string[] {
  const parent = waiterFor(id);
  if (parent !== undefined && parent > 1 && !gone.has(parent) && !isRecorded(parent))
    return [
      `process id ${id} is that of a process which has ended, and process ${parent} (${programName(parent)}), its parent, does not wait for it: end that one`,
    ];
  const holder = holderOf(id);
  if (holder === undefined || gone.has(holder)) return [];
  return [
    `process id ${id} is in use by process ${holder} (${programName(holder)}), and the image needs it: end it`,
  ];
}
