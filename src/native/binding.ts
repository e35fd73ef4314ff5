/** The native addon, typed. Everything above it goes through `kernel-source.ts` and `kernel-support.ts`. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ErrorCode, RecoveryLineError } from "../model/errors.ts";
import type {
  CaptureCounters,
  CutEntry,
  HeldOutput,
  Release,
  UnheldOutput,
  UserfaultCounts,
  Verdict,
} from "../model/event-source.ts";

/** A tagged native handle; opaque. */
export type NativeHandle = { readonly __native: unique symbol };

/** A mapped memory ring; opaque. */
export type MemoryRingHandle = { readonly __memoryRing: unique symbol };

/** Tells when something came over a socket; opaque. */
export type WatchHandle = { readonly __watch: unique symbol };

/** The hook on system calls; opaque. */
export type UserfaultHandle = { readonly __userfault: unique symbol };

export interface NativeState {
  readonly fd: number;
  readonly ringBytes: number;
  /** 1: the programs were loaded and pinned by this very call. */
  readonly created: number;
  readonly consumer: number;
  readonly position: number;
  readonly fill: number;
}

export interface NativePart {
  readonly part: string;
  readonly variant: string;
  readonly inUse: number;
  readonly usable: number;
  readonly reason: string;
}

/** The addon as it is: throws Errors with a positive `errno`; `call` turns them into ours. */
export interface NativeAddon {
  /** `variant`: parts that are forced (native/loader/capture.h), "" = the best that runs here. */
  open(pinDir: string, ringBytes: number, cgroupLevel: number, variant: string): NativeHandle;
  /** The capture that an attach helper holds, at the other end of an inherited socket, which the handle owns from now on. */
  openHelped(socket: number): NativeHandle;
  attach(pinnedRing: string, ringBytes: number): NativeHandle;
  close(handle: NativeHandle): void;
  /** Throws where `open` would not know what it forces. */
  checkVariant(variant: string): void;
  unpin(pinDir: string): void;
  select(handle: NativeHandle, cgroupId: number, on: boolean, incarnation: number): void;
  /** `parent`: cgroup of its application; 0: the one above it, which must be at the level of all others. */
  selectAttached(handle: NativeHandle, cgroupId: number, incarnation: number, parent: number): void;
  counters(handle: NativeHandle): CaptureCounters;
  cut(handle: NativeHandle, cgroupId: number): { complete: number; pending: number; entries: CutEntry[] };
  /** Returns 1 where the ring had no room for all. */
  flush(handle: NativeHandle, cgroupIds: readonly number[]): number;
  verdicts(handle: NativeHandle): Verdict[];
  expectRestore(handle: NativeHandle, entries: readonly CutEntry[]): void;
  /** Output commit (native/loader/output.c); a handle that a helper stands behind can't: ENOTSUP. */
  holdOutput(handle: NativeHandle, cgroupId: number): void;
  heldCount(handle: NativeHandle): number;
  outputs(handle: NativeHandle): (Omit<HeldOutput, "free"> & { free: number })[];
  /** `free`: 1 or 0. None: all that wait try to send. */
  release(handle: NativeHandle, outputs: readonly (Omit<Release, "free"> & { free: number })[]): void;
  /** `kind`: enum unheld_kind. */
  takeUnheld(handle: NativeHandle): (Omit<UnheldOutput, "kind"> & { kind: number })[];
  probe(): { name: string; supported: number; reason: string }[];
  /** Tries every variant of every part of the capture; with a handle also which are in use. */
  parts(handle: NativeHandle | undefined): NativePart[];
  /** Fills `out`; `status` receives position, foreign slots, busy. Returns the number of records. */
  drain(handle: NativeHandle, out: Uint8Array, status: Float64Array): number;
  commit(handle: NativeHandle, position: number): void;
  rewind(handle: NativeHandle): void;
  state(handle: NativeHandle): NativeState;
  fill(handle: NativeHandle): number;
  onWake(handle: NativeHandle, callback: () => void): void;
  bootTime(): number;
  /** A periodic timer (timerfd) of another process is on from now, and has ticks to be read; the interval in ns. */
  setTimer(pid: number, fd: number, interval: bigint, ticks: bigint): void;
  lock(path: string): number;
  unlock(fd: number): void;
  /** A socket that memory rings come in by. Returns its descriptor, as `memoryAccept` does for a connection. */
  memoryListen(path: string): number;
  memoryAccept(listener: number): number | undefined;
  /** `callback` runs when something has come over a socket of the watch, new connections of a listener included. */
  memoryWatch(callback: () => void): WatchHandle;
  /** Until the socket is closed. */
  memoryWatchSocket(watch: WatchHandle, fd: number): void;
  memoryUnwatch(watch: WatchHandle): void;
  /** undefined: nothing is there; null: the other end has closed. */
  memoryReceive(fd: number): { text: string; rings: MemoryRingHandle[] } | undefined | null;
  /** Fills `out`, 64 bytes a record (sequence number, record); `position` receives what `memoryCommit` takes. */
  memoryDrain(ring: MemoryRingHandle, out: Uint8Array, position: Float64Array): number;
  memoryCommit(ring: MemoryRingHandle, position: number): void;
  memoryLost(ring: MemoryRingHandle): number;
  /** Share of the ring that is written and not yet drained, 0 … 1; beyond that the producer lies. */
  memoryFill(ring: MemoryRingHandle): number;
  memoryClose(ring: MemoryRingHandle): void;
  /** Loads the hook of native/loader/userfault.h; undefined: it records nobody. */
  userfaultOpen(capture: NativeHandle | undefined): UserfaultHandle;
  userfaultClose(handle: UserfaultHandle): void;
  userfaultCounts(handle: UserfaultHandle): UserfaultCounts;
  /** The same of the hook that the attach helper of a handle holds. */
  helpedUserfaultCounts(handle: NativeHandle): UserfaultCounts;
  /** Mean duration of getppid(2), ns. */
  timeSystemCall(count: number): number;
  /** Credentials of the other end of a connected unix socket, as the kernel noted them. */
  peer(fd: number): { pid: number; uid: number };
  /** From the system's user database; undefined: there is no such user. */
  user(name: string): { uid: number; gid: number } | undefined;
  /** A pipe of that size (F_SETPIPE_SZ) that holds the contents, both ends non-blocking. Throws ENOSPC where they have no room. */
  makePipe(size: number, contents: Buffer): [reading: number, writing: number];
  /** What of an open file's first `size` bytes is no hole: begin, end, begin, end, … */
  fileExtents(fd: number, size: number): number[];
  /** Times in ns since 1970. These calls take a path's bytes and follow no symbolic link at its end. */
  setFileTimes(path: Buffer, atime: bigint, mtime: bigint): void;
  /** A fifo, socket or device; `mode` with its type, `device` as stat tells it. */
  makeNode(path: Buffer, mode: number, device: number): void;
  fileAttributes(path: Buffer): [name: string, value: Buffer][];
  /** `undefined` removes it. */
  setFileAttribute(path: Buffer, name: string, value: Buffer | undefined): void;
  /** This process becomes another program; returns only by throwing. `environment`: NAME=value. */
  execute(path: string, words: readonly string[], environment: readonly string[]): never;
  /** Of the calling thread, over an execution, too; threads and processes that it starts have 0. One that has more priority keeps it. */
  setOwnNice(nice: number): void;
  /** A descriptor of a process (pidfd); undefined: it is gone, or no descriptor is left. */
  openProcess(pid: number): number | undefined;
  /** Of a process that its parent has waited for, what wait(2) told that. Undefined: not yet, or the kernel does not tell (before Linux 6.15). */
  waitStatus(processFd: number): number | undefined;
}

/** The folder that holds package.json: `src` and `dist` and `build/bench/src` stand at different depths below it. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "binding.gyp")) && folder !== dirname(folder)) folder = dirname(folder);
  return folder;
}

/**
 * A file of the compiled tree, for what must run by its path (threads, child processes), also where the caller runs from source.
 * `path` stands below `dist`.
 */
export function compiledFile(path: string): string {
  return join(packageRoot(), "dist", path);
}

let loaded: NativeAddon | undefined;

/** Loads the addon once. Throws RL_NOT_SUPPORTED where it was not built or does not load. */
export function native(): NativeAddon {
  if (loaded !== undefined) return loaded;
  try {
    const load = createRequire(import.meta.url)("node-gyp-build") as (root: string) => NativeAddon;
    loaded = load(packageRoot());
    return loaded;
  } catch (cause) {
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      "the native addon is not built for this machine, so nothing can be captured here",
      "Linux on x64 with a C compiler: run scripts/setup.sh. Importing, exporting and computing need no addon.",
      cause,
    );
  }
}

const EPERM = 1;
const ESRCH = 3;
const EACCES = 13;
const EBUSY = 16;
const EBADMSG = 74;
const EWOULDBLOCK = 11;
/** Pinned by another version, or for other cgroups. */
const ESTALE = 116;
/** The attach helper is gone, or answered nonsense (native/attach/remote.h); EPROTO: it refused what was asked. */
const HELPER = new Set([32, 71]);
const E2BIG = 7;
const ENOSPC = 28;
/** ENOSYS, ENOTSUP, ENODEV, EINVAL of the bpf call on old kernels arrive as these. */
const NOT_SUPPORTED = new Set([38, 95, 19, 524]);

function codeOf(errno: number): ErrorCode {
  if (errno === EPERM || errno === EACCES) return "RL_NO_RIGHTS";
  if (NOT_SUPPORTED.has(errno)) return "RL_NOT_SUPPORTED";
  if (errno === EBADMSG) return "RL_BAD_RECORD";
  if (errno === ESRCH) return "RL_UNKNOWN_PROCESS";
  if (HELPER.has(errno)) return "RL_ATTACH";
  if (errno === EWOULDBLOCK || errno === EBUSY) return "RL_LOCKED";
  if (errno === E2BIG || errno === ENOSPC) return "RL_LIMIT";
  return "RL_NOT_SUPPORTED";
}

const ADVICE: Partial<Record<ErrorCode, string>> = {
  RL_NO_RIGHTS: "Run as root, or with CAP_BPF and CAP_PERFMON and a writable bpffs.",
  RL_NOT_SUPPORTED:
    "`recovery-line doctor` lists each part of the capture with the variants that run on this kernel and its answers to the others.",
  RL_LIMIT: "A kernel map is full: fewer processes, or a larger bound.",
  RL_ATTACH:
    "What runs goes on being recorded into the kernel's ring. Start the collector again: it takes up where this one ended.",
};

const STALE =
  "Take it out of the kernel first: recovery-line collect --unpin (with the same --pin-dir). What it recorded and no collector has read is lost with it.";

/** Runs a native call; an Error that carries an errno becomes a `RecoveryLineError`, misuse stays a `TypeError`. */
export function call<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const errno = (error as { errno?: unknown }).errno;
    if (typeof errno !== "number") throw error;
    const code = codeOf(errno);
    const advice = errno === ESTALE ? STALE : (ADVICE[code] ?? "");
    throw new RecoveryLineError(code, `${what}: ${(error as Error).message}`, advice, error);
  }
}
