/**
 * What processes have open or mapped, and which of it two of them use together: pure, from the kernel's texts.
 *
 * A thing is what the kernel calls one: device and inode of a file, a memory file or a pipe, the number of an eventfd or of a queue. It is
 * a channel between two processes where one may write into it and the other may read from it. So two writers of one log file make none,
 * nor do readers of one library, nor a pipe whose other end nobody recorded has: that is the outside world.
 */
import type { UnseenChannel, UnseenReason } from "../model/unseen-channel.ts";

export type ThingKind = "memory" | "file" | "pipe" | "eventfd" | "queue";

/** One task's use of one thing. */
export interface Use {
  readonly pid: number;
  /** Equal for one thing, different for two. */
  readonly key: string;
  readonly kind: ThingKind;
  /** For people. */
  readonly name: string;
  readonly reads: boolean;
  readonly writes: boolean;
  /** True: it is in its memory; what it does there moves no position and calls nobody. */
  readonly mapped: boolean;
  /** A pipe that keeps each write apart (O_DIRECT). Absent: a stream of bytes, or no pipe. */
  readonly packets?: true;
}

/** All that one process has. */
export interface Holder {
  readonly process: string;
  readonly uses: readonly Use[];
}

// ---- texts of /proc

export interface SharedMapping {
  /** Name of its link in /proc/PID/map_files. */
  readonly range: string;
  readonly writable: boolean;
  /** Device and inode, as `fileKey` writes them. */
  readonly key: string;
  readonly inode: string;
  readonly path: string;
}

/** Shared mappings of /proc/PID/maps that have a path: neither private ones nor those of sockets and anonymous inodes. */
export function sharedMappings(maps: string): SharedMapping[] {
  const found: SharedMapping[] = [];
  const lines = /^([0-9a-f]+)-([0-9a-f]+) .(.).s \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(\/.*)$/gm;
  for (const [, from, to, write, major, minor, inode, path] of maps.matchAll(lines))
    found.push({
      range: `${unpadded(from!)}-${unpadded(to!)}`,
      writable: write === "w",
      key: fileKey(Number.parseInt(major!, 16), Number.parseInt(minor!, 16), inode!),
      inode: inode!,
      path: path!,
    });
  return found;
}

/** `maps` pads addresses to eight digits, `map_files` does not. */
function unpadded(address: string): string {
  return address.replace(/^0+(?=.)/, "");
}

export function fileKey(major: number, minor: number, inode: bigint | string): string {
  return `${major}:${minor}:${inode}`;
}

/** The same of `stat`, whose one number holds both parts of the device (gnu_dev_major and gnu_dev_minor of the C library). */
export function statKey(device: bigint, inode: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  return fileKey(Number(major), Number(minor & 0xffffffffn), inode);
}

export interface Access {
  readonly reads: boolean;
  readonly writes: boolean;
  /** Number of an eventfd, the same in all processes. */
  readonly eventfd?: number;
  /** Each write stays apart (O_DIRECT, of a pipe). */
  readonly packets?: true;
}

const ACCESS_MODE = 0o3;
const O_PATH = 0o10000000;
/** As x86 numbers it, and as Arm does. */
const O_DIRECT = process.arch === "arm64" || process.arch === "arm" ? 0o200000 : 0o40000;

/** Of /proc/PID/fdinfo/N. */
export function accessOf(fdinfo: string): Access {
  const flags = Number.parseInt(/^flags:\s*(\d+)/m.exec(fdinfo)?.[1] ?? "0", 8);
  const eventfd = /^eventfd-id:\s*(\d+)/m.exec(fdinfo)?.[1];
  const mode = (flags & O_PATH) === 0 ? flags & ACCESS_MODE : ACCESS_MODE;
  return {
    reads: mode === 0 || mode === 2,
    writes: mode === 1 || mode === 2,
    ...(eventfd === undefined ? {} : { eventfd: Number(eventfd) }),
    ...((flags & O_DIRECT) === 0 ? {} : { packets: true }),
  };
}

/** Standard output and error are only written, whatever they were opened for. */
export function isOutputOnly(descriptor: number): boolean {
  return descriptor === 1 || descriptor === 2;
}

/** Memory that has the form of a file; the kernel adds " (deleted)" where it has no name, or has it no more. */
export function isMemory(path: string): boolean {
  return /^\/(?:memfd:|SYSV|dev\/shm\/|dev\/hugepages\/|dev\/zero \(deleted\)$)/.test(path);
}

/** Of a System V segment the inode is its number, which each namespace of them gives out by itself. */
export function systemVKey(path: string, inode: string, namespace: string): string | undefined {
  return /^\/SYSV[0-9a-f]{8}\b/.test(path) ? `sysv-memory:${namespace}:${inode}` : undefined;
}

export interface SystemVQueue {
  readonly id: string;
  readonly lastSender: number;
  readonly lastReceiver: number;
}

/** Of /proc/sysvipc/msg: nobody has a queue open, but the kernel knows who used it last. */
export function systemVQueues(text: string): SystemVQueue[] {
  const rows = text.split("\n").map((line) => line.trim().split(/\s+/));
  return rows.flatMap(([, id, , , , sender, receiver]) =>
    id !== undefined && /^\d+$/.test(id)
      ? [{ id, lastSender: Number(sender), lastReceiver: Number(receiver) }]
      : [],
  );
}

/** As uses of `pids`, whose texts these are. */
export function queueUses(queues: readonly SystemVQueue[], pids: readonly number[]): Use[] {
  const own = new Set(pids);
  return queues.flatMap(({ id, lastSender, lastReceiver }) => {
    const thing = { key: `sysv-queue:${id}`, kind: "queue", name: `System V queue ${id}` } as const;
    const [writes, reads] = [own.has(lastSender), own.has(lastReceiver)];
    if (!writes && !reads) return [];
    return [{ ...thing, pid: writes ? lastSender : lastReceiver, reads, writes, mapped: false }];
  });
}

// ---- the decision

/** For each process and thing that it uses with another one: once, with the first such other. */
export function unseenChannels(holders: readonly Holder[]): UnseenChannel[] {
  const things = new Map<string, Part[]>();
  for (const { process, uses } of holders)
    for (const part of partsOf(process, uses)) {
      const parts = things.get(part.use.key);
      if (parts === undefined) things.set(part.use.key, [part]);
      else parts.push(part);
    }
  return [...things.values()].flatMap(channelsOf);
}

/** What one process does with one thing, by all its tasks and descriptors. */
interface Part {
  readonly process: string;
  readonly use: Use;
}

function partsOf(process: string, uses: readonly Use[]): Part[] {
  const merged = new Map<string, Use>();
  for (const use of uses) {
    const known = merged.get(use.key);
    merged.set(use.key, known === undefined ? use : both(known, use));
  }
  return [...merged.values()].map((use) => ({ process, use }));
}

function both(one: Use, other: Use): Use {
  return {
    ...one,
    reads: one.reads || other.reads,
    writes: one.writes || other.writes,
    mapped: one.mapped || other.mapped,
    ...(one.packets || other.packets ? { packets: true } : {}),
  };
}

/** Pipes of these channels whose bytes could be put into a new one: without a name, and streams. By their names, "pipe:[7]". */
export function plainPipes(holders: readonly Holder[], channels: readonly UnseenChannel[]): Set<string> {
  const plain = channels.filter(({ reason, what }) => reason === "pipe" && what.startsWith("pipe:["));
  const pipes = new Set(plain.map(({ what }) => what));
  for (const { uses } of holders) for (const { name, packets } of uses) if (packets) pipes.delete(name);
  return pipes;
}

function channelsOf(parts: readonly Part[]): UnseenChannel[] {
  if (parts.length < 2) return [];
  return parts.flatMap((part) => {
    const other = parts.find((one) => one !== part && exchange(one.use, part.use));
    if (other === undefined) return [];
    const { process, use } = part;
    const peer = { other: other.process, otherPid: other.use.pid };
    return [{ process, pid: use.pid, reason: reasonOf(use, other.use), what: use.name, ...peer }];
  });
}

function exchange(one: Use, other: Use): boolean {
  return (one.writes && other.reads) || (one.reads && other.writes);
}

function reasonOf({ kind, mapped }: Use, other: Use): UnseenReason {
  if (kind === "file") return mapped && other.mapped ? "shared-memory" : "shared-file";
  if (kind === "memory") return "shared-memory";
  return kind === "queue" ? "message-queue" : kind;
}
