/**
 * Process cgroups: `<cgroup2 root>/recovery-line/<app>/<process>`. Everything inside one is one process (unit of recovery).
 *
 * That of a process which was attached where it runs lies elsewhere: a symbolic link below /run names it, until the machine goes down, as the
 * cgroup itself. Nothing of ours removes or makes such a one.
 *
 * Only the interface files of cgroup v2 are used: `cgroup.procs`, `cgroup.events`, `cgroup.freeze`, `cgroup.kill`.
 */

import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";
import { mountsOf } from "./mounts.ts";

const FOLDER = "recovery-line";
/** `recovery-line`, the application, the process. */
const LEVELS = 3;
/** Links `<app>/<process>` to cgroups that lie elsewhere. */
const ELSEWHERE = "/run/recovery-line-cgroups";

interface Cgroup2Mount {
  readonly path: string;
  /** Depth of the mounted cgroup in its hierarchy: 0, or more where a container shows only a part. */
  readonly depth: number;
}

let mount: Cgroup2Mount | undefined;

/** Found once: it is asked for with every look at a process. Throws RL_NOT_SUPPORTED where there is none. */
function cgroup2Mount(): Cgroup2Mount {
  mount ??= findCgroup2();
  return mount;
}

/** From /proc/self/mountinfo. */
function findCgroup2(): Cgroup2Mount {
  const found = mountsOf("self").find(({ type }) => type === "cgroup2");
  if (found !== undefined)
    return { path: found.point, depth: found.root.split("/").filter((part) => part !== "").length };
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    "no cgroup2 file system is mounted here",
    "mount -t cgroup2 none /sys/fs/cgroup/unified (or boot with systemd, which does).",
  );
}

/** Depth of process cgroups below the root of the hierarchy; what the capture is told. Throws RL_NOT_SUPPORTED. */
export function processCgroupLevel(): number {
  return cgroup2Mount().depth + LEVELS;
}

/** The file system's root. Throws RL_NOT_SUPPORTED. */
export function cgroup2Root(): string {
  return cgroup2Mount().path;
}

/** Where an application's processes are, but for those that were attached elsewhere. */
export function applicationCgroup(app: string): string {
  return join(cgroup2Root(), FOLDER, app);
}

/** Name of the cgroup that a process is in, in the hierarchy of version 2; undefined where it is gone. */
export function cgroupOf(pid: number | "self"): string | undefined {
  try {
    return /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[1];
  } catch {
    return undefined;
  }
}

/** The folder of the cgroup that this process is in; undefined where it is not below the root that is seen here. */
export function ownCgroup(): string | undefined {
  const name = cgroupOf("self");
  if (name === undefined) return undefined;
  const path = join(cgroup2Root(), name);
  return statSync(path, { throwIfNoEntry: false }) === undefined ? undefined : path;
}

/** True if anything of the application is in its cgroups. */
export function applicationRuns(app: string): boolean {
  return (
    new ProcessCgroup(app, "").populated ||
    attachedTo(app).some(({ process }) => new ProcessCgroup(app, process).populated)
  );
}

/**
 * Processor time of all that the application's cgroups have ever run, microseconds: while it stays the same, none of its processes has done
 * anything. Undefined: the kernel does not tell, or some of its cgroups lie elsewhere.
 */
export function processorTime(app: string): number | undefined {
  if (attachedTo(app).length > 0) return undefined;
  try {
    const stat = readFileSync(join(applicationCgroup(app), "cpu.stat"), "utf8");
    const used = /^usage_usec (\d+)$/m.exec(stat)?.[1];
    return used === undefined ? undefined : Number(used);
  } catch {
    return undefined;
  }
}

export interface CgroupElsewhere {
  readonly app: string;
  readonly process: string;
  readonly path: string;
}

/** Cgroups elsewhere that are processes, of one application or of all. */
export function attachedTo(app?: string): CgroupElsewhere[] {
  return (app === undefined ? namesIn(ELSEWHERE) : [app]).flatMap((of) =>
    namesIn(join(ELSEWHERE, of)).flatMap((process) => {
      if (process.startsWith(".")) return [];
      const path = elsewhere(of, process);
      return path === undefined ? [] : [{ app: of, process, path }];
    }),
  );
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function elsewhere(app: string, process: string): string | undefined {
  try {
    return readlinkSync(join(ELSEWHERE, app, process));
  } catch {
    return undefined;
  }
}

/** From now on the process is what runs in the cgroup with this path. Its place among ours is kept free. Returns the application's cgroup id. */
export function attachCgroup(app: string, process: string, path: string): number {
  const place = new ProcessCgroup(app, process);
  place.create();
  mkdirSync(join(ELSEWHERE, app), { recursive: true, mode: 0o755 });
  symlinkSync(path, join(ELSEWHERE, app, process));
  return statSync(dirname(place.path)).ino;
}

/** What whoever attaches locks, so that nobody else does so at that instant, for this or another collector. Throws RL_NO_RIGHTS. */
export function attachLockPath(): string {
  try {
    mkdirSync(ELSEWHERE, { recursive: true, mode: 0o755 });
  } catch (cause) {
    throw cgroupError(`the folder ${ELSEWHERE} cannot be made`, cause);
  }
  return ELSEWHERE;
}

/** The cgroup that a process which is now in ours came from; names of processes begin with no dot. */
export function noteOrigin(app: string, process: string, name: string): void {
  mkdirSync(join(ELSEWHERE, app), { recursive: true, mode: 0o755 });
  const link = join(ELSEWHERE, app, `.${process}`);
  rmSync(link, { force: true });
  symlinkSync(name === "" ? "/" : name, link);
}

/** "": nobody knows. */
export function cameFrom(app: string, process: string): string {
  return elsewhere(app, `.${process}`) ?? "";
}

export function detachCgroup(app: string, process: string): void {
  forget(app, process);
  new ProcessCgroup(app, process).remove();
}

function forget(app: string, link: string): void {
  rmSync(join(ELSEWHERE, app, link), { force: true });
  try {
    rmdirSync(join(ELSEWHERE, app));
  } catch {} // others of the application are there
}

export class ProcessCgroup {
  readonly path: string;
  /** Its own among ours, also where it lies elsewhere; that one is only a name then, which is kept free. */
  readonly place: string;
  /** It was there before the process was attached. */
  readonly foreign: boolean;
  readonly #app: string;
  readonly #process: string;

  constructor(app: string, process: string) {
    this.#app = app;
    this.#process = process;
    const other = elsewhere(app, process);
    this.foreign = other !== undefined;
    this.place = join(applicationCgroup(app), process);
    this.path = other ?? this.place;
  }

  /** As it stands in /proc/PID/cgroup of whoever is in it. */
  get name(): string {
    return this.path.slice(cgroup2Root().length);
  }

  /** Makes its place where that is missing; what lies elsewhere is its owner's to make. Throws RL_NO_RIGHTS, RL_NOT_SUPPORTED. */
  create(): void {
    const umask = process.umask(0o022); // a collector without rights looks into it
    try {
      mkdirSync(this.place, { recursive: true });
    } catch (cause) {
      throw cgroupError(`the cgroup ${this.place} cannot be made`, cause);
    } finally {
      process.umask(umask);
    }
  }

  /** The kernel's number of the cgroup; undefined where it does not exist. */
  get id(): number | undefined {
    return statSync(this.path, { throwIfNoEntry: false })?.ino;
  }

  /** True if somebody can hold it (`holdCgroup`), whether anything is in it or not. */
  get hasPlace(): boolean {
    return statSync(this.place, { throwIfNoEntry: false }) !== undefined;
  }

  /** Processes in it; those of child cgroups too where it is not of ours, and may have some of its own. */
  pids(): number[] {
    return this.foreign ? pidsBelow(this.path) : numbersOf(this.#read("cgroup.procs") ?? "");
  }

  /** True if a live process is in it or below it; false where it does not exist. */
  get populated(): boolean {
    return this.#event("populated");
  }

  /** True once every process in it stands still. */
  get frozen(): boolean {
    return this.#event("frozen");
  }

  /** True from the moment freezing was asked for. */
  get freezing(): boolean {
    return this.#read("cgroup.freeze")?.trim() === "1";
  }

  /** Asks to freeze or thaw; `frozen` tells when it is done. Throws RL_NO_RIGHTS, RL_NOT_SUPPORTED. */
  setFreeze(on: boolean): void {
    this.#write("cgroup.freeze", on ? "1" : "0");
  }

  /** `setFreeze(false)`, or nothing where it is gone: whoever waited for its processes may remove it at any moment. */
  thaw(): void {
    this.#writeIfThere("cgroup.freeze", "0");
  }

  /** SIGKILL for everything in it, frozen or not; nothing where it is gone, as for `thaw`. */
  kill(): void {
    this.#writeIfThere("cgroup.kill", "1");
  }

  /** Removes it, and the application's if that is empty then. True if it is gone, or not ours; false while processes are in it. */
  remove(): boolean {
    if (this.foreign) return true;
    try {
      rmdirSync(this.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") return false;
    }
    forget(this.#app, `.${this.#process}`);
    try {
      rmdirSync(dirname(this.path));
    } catch {} // other processes of the application are there
    return true;
  }

  #event(name: string): boolean {
    return this.#read("cgroup.events")?.split("\n").includes(`${name} 1`) ?? false;
  }

  #read(file: string): string | undefined {
    try {
      return readFileSync(join(this.path, file), "utf8");
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ENODEV") return undefined;
      throw cgroupError(`${join(this.path, file)} cannot be read`, error);
    }
  }

  #writeIfThere(file: string, text: string): void {
    try {
      this.#write(file, text);
    } catch (error) {
      const { code } = (error as Error).cause as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "ENODEV") throw error;
    }
  }

  #write(file: string, text: string): void {
    try {
      writeFileSync(join(this.path, file), text, { flag: "r+" });
    } catch (cause) {
      throw cgroupError(`${join(this.path, file)} cannot be written`, cause);
    }
  }
}

function numbersOf(text: string): number[] {
  return text.split("\n").filter(Boolean).map(Number);
}

function pidsBelow(path: string): number[] {
  let inside: number[] = [];
  let children: string[] = [];
  try {
    children = readdirSync(path, { withFileTypes: true })
      .filter((one) => one.isDirectory())
      .map(({ name }) => name);
    inside = numbersOf(readFileSync(join(path, "cgroup.procs"), "utf8"));
  } catch {} // gone, or threaded
  return [...inside, ...children.flatMap((name) => pidsBelow(join(path, name)))];
}

function cgroupError(what: string, cause: unknown): RecoveryLineError {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "EACCES" || code === "EPERM" || code === "EROFS")
    return new RecoveryLineError(
      "RL_NO_RIGHTS",
      `${what}: ${message}`,
      "Run as root, or be given the cgroup recovery-line.",
      cause,
    );
  return new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `${what}: ${message}`,
    "Process cgroups need cgroup v2 of Linux 5.14 or newer, writable.",
    cause,
  );
}
