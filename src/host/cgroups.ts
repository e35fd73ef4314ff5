/**
 * Process cgroups: `<cgroup2 root>/recovery-line/<app>/<process>`. Everything inside one is one process (unit of recovery).
 *
 * Only the interface files of cgroup v2 are used: `cgroup.procs`, `cgroup.events`, `cgroup.freeze`, `cgroup.kill`.
 */
import { mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";

const FOLDER = "recovery-line";
/** `recovery-line`, the application, the process. */
const LEVELS = 3;

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
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [before, after] = line.split(" - ");
    if (after === undefined || !after.startsWith("cgroup2 ")) continue;
    const [, , , root = "/", path = ""] = before!.split(" ");
    return { path: unescapeMount(path), depth: root.split("/").filter((part) => part !== "").length };
  }
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    "no cgroup2 file system is mounted here",
    "mount -t cgroup2 none /sys/fs/cgroup/unified (or boot with systemd, which does).",
  );
}

/** mountinfo writes space, tab, newline and backslash as octal. */
function unescapeMount(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Depth of process cgroups below the root of the hierarchy; what the capture is told. Throws RL_NOT_SUPPORTED. */
export function processCgroupLevel(): number {
  return cgroup2Mount().depth + LEVELS;
}

/** The file system's root. Throws RL_NOT_SUPPORTED. */
export function cgroup2Root(): string {
  return cgroup2Mount().path;
}

/** The folder of the cgroup that this process is in; undefined where it is not below the root that is seen here. */
export function ownCgroup(): string | undefined {
  const name = /^0::(\/.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1];
  if (name === undefined) return undefined;
  const path = join(cgroup2Root(), name);
  return statSync(path, { throwIfNoEntry: false }) === undefined ? undefined : path;
}

/** True if anything of the application is in its cgroups. */
export function applicationRuns(app: string): boolean {
  return new ProcessCgroup(app, "").populated;
}

export class ProcessCgroup {
  readonly path: string;

  constructor(app: string, process: string) {
    this.path = join(cgroup2Mount().path, FOLDER, app, process);
  }

  /** Makes it where it is missing. Throws RL_NO_RIGHTS, RL_NOT_SUPPORTED. */
  create(): void {
    const umask = process.umask(0o022); // a collector without rights looks into it
    try {
      mkdirSync(this.path, { recursive: true });
    } catch (cause) {
      throw cgroupError(`the cgroup ${this.path} cannot be made`, cause);
    } finally {
      process.umask(umask);
    }
  }

  /** The kernel's number of the cgroup; undefined where it does not exist. */
  get id(): number | undefined {
    return statSync(this.path, { throwIfNoEntry: false })?.ino;
  }

  /** Processes in it, without those of child cgroups. */
  pids(): number[] {
    const text = this.#read("cgroup.procs") ?? "";
    return text.split("\n").filter(Boolean).map(Number);
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

  /** SIGKILL for everything in it, frozen or not. */
  kill(): void {
    this.#write("cgroup.kill", "1");
  }

  /** Removes it, and the application's if that is empty then. True if it is gone; false while processes are in it. */
  remove(): boolean {
    try {
      rmdirSync(this.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") return false;
    }
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

  #write(file: string, text: string): void {
    try {
      writeFileSync(join(this.path, file), text, { flag: "r+" });
    } catch (cause) {
      throw cgroupError(`${join(this.path, file)} cannot be written`, cause);
    }
  }
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
