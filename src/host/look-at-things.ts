/** What processes have open and mapped now, read from /proc for shared-things.ts. */
import { type BigIntStats, readdirSync, readFileSync, readlinkSync, statfsSync, statSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import type { CollectedProcess } from "../model/collector-answers.ts";
import type { FoundChannel } from "../model/unseen-channel.ts";
import { cgroupOf, ProcessCgroup } from "./cgroups.ts";
import {
  type Access,
  accessOf,
  type Holder,
  isMemory,
  isOutputOnly,
  plainPipes,
  queueUses,
  type SharedMapping,
  sharedMappings,
  statKey,
  systemVKey,
  systemVQueues,
  type Use,
  unseenChannels,
} from "./shared-things.ts";

export interface Looked {
  readonly holders: readonly Holder[];
  /** True: there are tasks that this user may not look at. */
  readonly hidden: boolean;
}

const MQUEUE = 0x19800202;
/** Of proc, sysfs, cgroup 1 and 2, debugfs, tracefs, configfs: what stands there is the kernel's, and no file. */
const KERNEL_FILES = new Set([0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0x62656570]);

/** What live processes of one application use together now, and whether all could be looked at. `placeOf`: where a task is (tests). */
export async function channelsAmong(
  app: string,
  processes: readonly Pick<CollectedProcess, "process" | "incarnation">[],
  placeOf: (pid: number) => string | undefined = cgroupOf,
): Promise<{ channels: FoundChannel[]; hidden: boolean }> {
  if (processes.length < 2) return { channels: [], hidden: false };
  const cgroups = processes.map(({ process }) => new ProcessCgroup(app, process));
  const { holders, hidden } = await lookAt(
    processes.map(({ process }, at) => ({ process, pids: cgroups[at]!.pids() })),
  );
  const found = unseenChannels(holders);
  const own = await heldByNobodyElse(
    plainPipes(holders, found),
    cgroups.map(({ name }) => `${name}/`),
    placeOf,
  );
  const incarnations = new Map(processes.map(({ process, incarnation }) => [process, incarnation]));
  const channels = found.map((one) => ({
    ...one,
    ...(own.has(one.what) ? { tied: true as const } : {}),
    incarnation: incarnations.get(one.process)!,
  }));
  return { channels, hidden };
}

/**
 * Which of the pipes no process outside of the cgroups of these names has open; none of them where there are processes that we may not look
 * at. Each process is asked where it is: those inside fork while they are looked at. A child stands in /proc for a moment before it is in its
 * parent's cgroup (until then in the root): who was found outside is asked again at the end.
 */
async function heldByNobodyElse(
  pipes: ReadonlySet<string>,
  inside: readonly string[],
  placeOf: (pid: number) => string | undefined,
): Promise<ReadonlySet<string>> {
  const own = new Set(pipes);
  if (own.size === 0) return own;
  const isInside = (cgroup: string): boolean => inside.some((name) => `${cgroup}/`.includes(name));
  const found: { pid: number; pipe: string }[] = [];
  for (const pid of namesIn("/proc") ?? []) {
    if (!/^\d+$/.test(pid)) continue;
    if (isInside(placeOf(Number(pid)) ?? "")) continue;
    const descriptors = namesIn(`/proc/${pid}/fd`);
    if (descriptors === undefined && textOf(`/proc/${pid}/stat`) !== undefined) return new Set();
    for (const number of descriptors ?? []) {
      const pipe = linkOf(`/proc/${pid}/fd/${number}`) ?? "";
      if (pipes.has(pipe)) found.push({ pid: Number(pid), pipe });
    }
    await setImmediate();
  }
  for (const { pid, pipe } of found) {
    const cgroup = placeOf(pid);
    if (cgroup !== undefined && !isInside(cgroup)) own.delete(pipe);
  }
  return own;
}

/** With many descriptors it takes long: others get their turn after each task. */
export async function lookAt(
  processes: readonly { process: string; pids: readonly number[] }[],
): Promise<Looked> {
  const look = new Look();
  const queues = systemVQueues(textOf("/proc/sysvipc/msg") ?? "");
  const holders: Holder[] = [];
  for (const { process, pids } of processes) {
    const uses = queueUses(queues, pids);
    for (const pid of pids) {
      uses.push(...look.uses(pid));
      await setImmediate();
    }
    holders.push({ process, uses });
  }
  return { holders, hidden: look.hidden };
}

class Look {
  hidden = false;
  /** Types of file systems by device. */
  readonly #types = new Map<bigint, number>();

  uses(pid: number): Use[] {
    const maps = textOf(`/proc/${pid}/maps`);
    const descriptors = namesIn(`/proc/${pid}/fd`);
    if (maps === undefined || descriptors === undefined) {
      if (textOf(`/proc/${pid}/stat`) !== undefined) this.hidden = true;
      return [];
    }
    const mapped = sharedMappings(maps).flatMap((mapping) => this.#mapped(pid, mapping));
    return [...mapped, ...descriptors.flatMap((number) => this.#opened(pid, number))];
  }

  #mapped(pid: number, mapping: SharedMapping): Use[] {
    const { path, inode, writable } = mapping;
    const place = `/proc/${pid}/map_files/${mapping.range}`;
    const stat = statOf(place);
    if (stat === undefined ? isDevice(path) : !stat.isFile() || this.#isKernels(stat, place)) return [];
    const segment = systemVKey(path, inode, linkOf(`/proc/${pid}/ns/ipc`) ?? "");
    // Devices of some file systems (btrfs, overlay) have other numbers in `maps` than for `stat`, which descriptors are compared by.
    const key = segment ?? (stat === undefined ? mapping.key : statKey(stat.dev, stat.ino));
    const kind = isMemory(path) ? "memory" : "file";
    return [{ pid, key, kind, name: nameOf(path, inode), reads: true, writes: writable, mapped: true }];
  }

  #opened(pid: number, descriptor: string): Use[] {
    const place = `/proc/${pid}/fd/${descriptor}`;
    const link = linkOf(place);
    if (link === undefined || !/^\/(?!dev\/(?:null|pts\/))|^pipe:|^anon_inode:\[eventfd\]$/.test(link))
      return [];
    const fdinfo = textOf(`/proc/${pid}/fdinfo/${descriptor}`);
    if (fdinfo === undefined) return []; // closed meanwhile
    const access = accessOf(fdinfo);
    if (access.eventfd !== undefined) return [eventfd(pid, access, access.eventfd)];
    return this.#file(pid, place, link, access, isOutputOnly(Number(descriptor)));
  }

  #file(
    pid: number,
    place: string,
    link: string,
    { reads, writes, packets }: Access,
    output: boolean,
  ): Use[] {
    const stat = statOf(place);
    if (stat === undefined || (!stat.isFile() && !stat.isFIFO())) return [];
    const thing = { pid, key: statKey(stat.dev, stat.ino), writes, mapped: false };
    if (stat.isFIFO())
      return [{ ...thing, kind: "pipe", name: link, reads, ...(packets ? { packets: true } : {}) }];
    if (this.#typeOf(stat, place) === MQUEUE)
      return [{ ...thing, kind: "queue", name: `POSIX queue ${link}`, reads }];
    if (this.#isKernels(stat, place)) return [];
    if (isMemory(link)) return [{ ...thing, kind: "memory", name: nameOf(link, `${stat.ino}`), reads }];
    // A file without contents is a lock, or says nothing yet.
    return stat.size === 0n
      ? []
      : [{ ...thing, kind: "file", name: nameOf(link, `${stat.ino}`), reads: reads && !output }];
  }

  #isKernels(stat: BigIntStats, place: string): boolean {
    return KERNEL_FILES.has(this.#typeOf(stat, place));
  }

  #typeOf({ dev }: BigIntStats, place: string): number {
    const known = this.#types.get(dev);
    if (known !== undefined) return known;
    const type = typeOf(place);
    this.#types.set(dev, type);
    return type;
  }
}

function eventfd(pid: number, { reads, writes }: Access, number: number): Use {
  const name = `eventfd ${number}`;
  return { pid, key: `eventfd:${number}`, kind: "eventfd", name, reads, writes, mapped: false };
}

/** What has no name any more is told apart by its number. */
function nameOf(path: string, inode: string): string {
  return path.endsWith(" (deleted)") ? `${path}, inode ${inode}` : path;
}

/** Without the right to look at what is mapped: by its name. */
function isDevice(path: string): boolean {
  return path.startsWith("/dev/") && !isMemory(path);
}

function namesIn(folder: string): string[] | undefined {
  return unlessGone(() => readdirSync(folder));
}

function textOf(file: string): string | undefined {
  return unlessGone(() => readFileSync(file, "latin1"));
}

function linkOf(path: string): string | undefined {
  return unlessGone(() => readlinkSync(path));
}

function statOf(path: string): BigIntStats | undefined {
  return unlessGone(() => statSync(path, { bigint: true }));
}

function typeOf(path: string): number {
  return unlessGone(() => statfsSync(path).type) ?? 0;
}

/** A task may end, a descriptor be closed at any moment, and some of them nobody may look at. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
