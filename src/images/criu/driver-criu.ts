/**
 * CRIU as a driver: a process tree with threads, files and live TCP connections, dumped while its cgroup stands still.
 *
 * Same instant: the cgroup is frozen before the cut is read. With `--freeze-cgroup` CRIU takes hold of every task, thaws the
 * cgroup while it holds them (its own code must run inside them), and freezes it again before it lets go. Without that
 * option a dump of a frozen cgroup hangs; killing CRIU in the middle kills the program.
 * Not possible (facts.md): unix streams and pipes to programs outside, SysV shared memory, held userfaultfd.
 */

import type { ChildProcess } from "node:child_process";
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { cgroup2Root, ownCgroup } from "../../host/cgroups.ts";
import { type DueTimer, dueTimers, setAgain } from "../../host/due-timers.ts";
import { type OpenFile, rollBackFiles, withContents, writtenFiles } from "../../host/open-files.ts";
import { childOutside, idInUse, inVfork, sessionOf } from "../../host/process-tree.ts";
import { spawn } from "../../host/spawn.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { type MappedFile, refuseForeignMappers, saveMapped } from "../data/mapped-contents.ts";
import { sessionFiles } from "../data/session-files.ts";
import { refuseHostSegments, type SharedFile, sharedFiles } from "../data/shared-maps.ts";
import { shown } from "../data/tree-entry.ts";
import { isBelowAny } from "../data/tree-users.ts";
import {
  type CheckpointDriver,
  type DriverCheck,
  type DriverNotes,
  type DumpRequest,
  NotNow,
  type RestoreRequest,
} from "../driver.ts";
import { criuArguments, criuOptions } from "./criu-options.ts";
import { refuseWhatCriuRefuses } from "./criu-refusals.ts";
import { meaningOf } from "./criu-words.ts";
import type { CriuCommand } from "./driver-criu-find.ts";
import { asUser, dumpUser, type User } from "./dump-user.ts";
import { type ImagePlaces, placeObstacles, placesOf } from "./image-places.ts";
import { mayStayBlocked, unblockFailed } from "./killed-lock.ts";
import { amongMounts, OWN_MEMORY, ownMemory, saveOwnMemory, withOwnMemory } from "./own-memory.ts";
import { removedFiles, withoutLeftNames } from "./removed-files.ts";

/** Both directions: live connections are kept and cut off from the network in the meantime. */
const NETWORK = ["--tcp-established", "--network-lock", "nftables"];
/** What CRIU prints into its log: errors, warnings. */
const VERBOSITY = "-v2";
const DUMP_LOG = "dump.log";
const CHECK_LIMIT_MS = 20_000;
/** Longest wait for the old process ids to become free, in ms. */
const IDS_LIMIT_MS = 10_000;
/** Behind standard streams and the guard. */
const FIRST_PIPE = 4;
/** Of CRIU's log, in an error. */
const TAIL_LINES = 6;

/** What a restore must know again. */
interface CriuNotes {
  /** The tree's root leads no session of its own. */
  readonly shellJob: boolean;
  readonly files: readonly OpenFile[];
  /** Absent in images of older versions. */
  readonly timers?: readonly DueTimer[];
  /** Absent in images of older versions. */
  readonly mapped?: readonly MappedFile[];
  /** As `run --criu-options` has them; absent in images of older versions. */
  readonly options?: readonly string[];
  /** It was taken as the program's own user, and does not say in which cgroup it was. Absent: it was not. */
  readonly asUser?: true;
  /** Checksum of what its own /dev/shm held; absent: it has none. */
  readonly ownMemory?: string;
  /** Absent in images of older versions. */
  readonly places?: ImagePlaces;
  /** Names of removed files that it has open; absent: none, or an older version's image. */
  readonly removed?: readonly string[];
}

interface Run {
  readonly what: string;
  readonly args: readonly string[];
  /** File of CRIU's log, for the error. */
  readonly log: string;
  readonly limitMs: number;
  readonly guard?: Writable | number;
  /** Whom CRIU runs as; absent: as we are. */
  readonly user?: User;
  /** Descriptors that it inherits, from FIRST_PIPE on. */
  readonly pipes?: readonly number[];
  /** The cgroup it runs in; absent: ours. */
  readonly cgroupPath?: string;
  /** A task whose mounts it sees; absent: ours. */
  readonly mountsOf?: number | undefined;
}

export class CriuDriver implements CheckpointDriver {
  readonly name = "criu";
  readonly images = true;
  readonly holdsConnections = true;
  readonly holdsPipes = true;
  readonly version: string;
  readonly #criu: CriuCommand;

  constructor(criu: CriuCommand) {
    this.#criu = criu;
    this.version = criu.version;
  }

  async check(): Promise<DriverCheck> {
    const folder = mkdtempSync(join(tmpdir(), "recovery-line-criu-"));
    try {
      const log = join(folder, "check.log");
      await this.#run({ what: "criu check", args: ["check", "-o", log], log, limitMs: CHECK_LIMIT_MS });
      return { works: true, reason: `CRIU ${this.version} says that this kernel has what it needs.` };
    } catch (error) {
      return { works: false, reason: (error as Error).message };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  look({ pids, dataRoots = [], options = [] }: Pick<DumpRequest, "pids" | "dataRoots" | "options">): void {
    refuseWhatCriuRefuses(pids, criuOptions(options));
    ownSharedFiles(pids, dataRoots);
    dumpUser(pids);
  }

  async dump(request: DumpRequest): Promise<DriverNotes> {
    const { folder, rootPid, pids, limitMs, guard, dataRoots = [], options = [] } = request;
    const shared = ownSharedFiles(pids, dataRoots);
    refuseChildrenOutside(pids);
    waitForVfork(pids);
    const memory = ownMemory(pids);
    const { kept, held } = keptFiles(pids, savedRoots(dataRoots, memory), shared);
    const outside = writtenFiles(pids).filter(({ path }) => !isBelowAny(held, path));
    const files = withContents(outside); // they stand still like the process
    const mapped = saveMapped(kept, folder);
    const memorySha256 = memory === undefined ? undefined : await saveOwnMemory(memory, folder);
    const timers = dueTimers(pids);
    const shellJob = sessionOf(rootPid) !== rootPid;
    const log = join(folder, DUMP_LOG);
    const args = dumpArguments(request, shellJob);
    const user = dumpUser(pids);
    const blocked = mayStayBlocked(pids);
    const removed = removedFiles(pids);
    const run = { what: `dump of process ${rootPid}`, args, log, limitMs, guard, mountsOf: memory };
    try {
      if (user === undefined) await this.#run(run);
      else
        await this.#run({ ...run, user, args: [...args, "--unprivileged"] }).finally(() => takeOver(folder));
    } catch (error) {
      await unblockFailed(blocked);
      throw error;
    }
    const places = placesOf(rootPid, folder, (path) => isBelowAny(held, path));
    const parts = {
      ...{ shellJob, files, timers, mapped, options, places },
      ...(removed.length === 0 ? {} : { removed }),
    };
    const notes = memorySha256 === undefined ? parts : { ...parts, ownMemory: memorySha256 };
    return (user === undefined ? notes : { ...notes, asUser: true }) satisfies CriuNotes;
  }

  obstacles(notes: DriverNotes): string[] {
    const { places } = notes as unknown as CriuNotes;
    return places === undefined ? [] : placeObstacles(places);
  }

  restore(request: RestoreRequest): Promise<number> {
    const notes = request.notes as unknown as CriuNotes; // the manifest's checksum says that they are as we wrote them
    const { ownMemory, removed = [] } = notes;
    if (ownMemory === undefined) return withoutLeftNames(removed, () => this.#restore(request, notes));
    const ours = removed.filter((name) => !isBelowAny([OWN_MEMORY], name));
    return withoutLeftNames(ours, () =>
      withOwnMemory(request.folder, ownMemory, (pid) => this.#restore(request, notes, pid)),
    );
  }

  async #restore(request: RestoreRequest, notes: CriuNotes, mountsOf?: number): Promise<number> {
    const { folder, limitMs, sibling, dataRoots = [] } = request;
    await idsFree(folder, Math.min(limitMs, IDS_LIMIT_MS));
    if (request.rollBackFiles === true)
      rollBackFiles(notes.files.filter(({ path }) => !isBelowAny(dataRoots, path)));
    const work = mkdtempSync(join(tmpdir(), "recovery-line-criu-"));
    try {
      const [log, pidFile] = [join(work, "restore.log"), join(work, "pid")];
      const args = ["restore", "-D", folder, "-W", work, "-o", log, VERBOSITY, "--restore-detached"];
      args.push("--pidfile", pidFile, "--file-locks", ...NETWORK);
      if (notes.shellJob) args.push("--shell-job");
      args.push(...criuArguments(criuOptions(notes.options ?? [])));
      if (sibling === true) args.push("--restore-sibling");
      const { guard, freezeCgroup, pipes = new Map<number, number>() } = request;
      // A descriptor's number in CRIU is its place in the list of those that it inherits.
      [...pipes.keys()].forEach((inode, at) => {
        args.push("--inherit-fd", `fd[${FIRST_PIPE + at}]:pipe:[${inode}]`);
      });
      const entered = notes.asUser === true ? freezeCgroup : undefined;
      if (freezeCgroup !== undefined)
        args.push("--action-script", freezer(work, freezeCgroup, entered !== undefined));
      const run = {
        what: `restore from ${folder}`,
        args,
        log,
        limitMs,
        mountsOf,
        pipes: [...pipes.values()],
      };
      const place = entered === undefined ? {} : { cgroupPath: entered };
      await this.#run({ ...run, ...place, ...(guard === undefined ? {} : { guard }) });
      setAgain(notes.timers ?? []);
      return Number(readFileSync(pidFile, "utf8"));
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }

  async #run({
    what,
    args,
    log,
    limitMs,
    guard,
    user,
    cgroupPath,
    mountsOf,
    pipes = [],
  }: Run): Promise<void> {
    const { command, prefix } = this.#criu;
    const as = user === undefined ? [] : asUser(user);
    const words = [...inCgroup(cgroupPath), ...amongMounts(mountsOf), ...as, command, ...prefix, ...args];
    const child = spawn(words[0]!, words.slice(1), {
      stdio: ["ignore", "ignore", "pipe", guard ?? "ignore", ...pipes],
      detached: true, // signals of a terminal would kill it, and the program with it
    });
    const { code, signal, printed, late } = await ended(child, limitMs);
    if (late)
      throw new RecoveryLineError(
        "RL_TIMEOUT",
        `criu: ${what} took longer than ${limitMs} ms and was killed`,
        `The program may be damaged by it: look at it before you go on.${tail(log, printed)}`,
      );
    if (code === 0) return;
    const said = tail(log, printed);
    if (/In-flight connection/i.test(said))
      throw new NotNow(`criu: ${what} failed: a connection waits to be accepted, and no image holds that`);
    if (/cg: (controller \S+ not found|Unable to create the cgroup .*busy)/i.test(said))
      throw new NotNow(`criu: ${what} failed: a hierarchy of cgroups was being mounted or unmounted`);
    const known = meaningOf(said);
    throw new RecoveryLineError(
      "RL_DRIVER",
      `criu: ${what} failed (${signal ?? `exit code ${code}`})${known === undefined ? "" : `: ${known.means}`}`,
      `${known?.advice ?? "`recovery-line doctor` tells what CRIU can do here."}${said}`,
    );
  }
}

/** What has to be saved beside CRIU's image, which would be restored into wrong memory without. Throws RL_DRIVER, RL_REFUSED where it can't be. */
function ownSharedFiles(pids: readonly number[], dataRoots: readonly string[]): SharedFile[] {
  refuseHostSegments(pids);
  const saved = savedRoots(dataRoots, ownMemory(pids));
  const files = sharedFiles(pids).filter(({ path }) => !isBelowAny(saved, shown(path)));
  refuseForeignMappers(files, pids);
  return files;
}

/** Folders whose files are saved by themselves. */
function savedRoots(dataRoots: readonly string[], memory: number | undefined): readonly string[] {
  return memory === undefined ? dataRoots : [...dataRoots, OWN_MEMORY];
}

/** Files that are copied into the image beside CRIU's own, and all whose contents come back with it: paths, as the process names them. */
function keptFiles(pids: readonly number[], roots: readonly string[], shared: readonly SharedFile[]) {
  const session = sessionFiles(pids)
    .filter((path) => !isBelowAny(roots, shown(path)) && !shared.some((one) => one.path === path))
    .map((path) => ({ path }));
  const kept = [...shared, ...session];
  return { kept, held: [...roots, ...kept.map(({ path }) => shown(path))] };
}

function dumpArguments(
  { folder, rootPid, cgroupPath, limitMs, options = [] }: DumpRequest,
  shellJob: boolean,
): string[] {
  return [
    ...["dump", "-t", String(rootPid), "-D", folder, "-o", DUMP_LOG, VERBOSITY, "--leave-running"],
    ...["--freeze-cgroup", cgroupPath, "--file-locks", ...NETWORK],
    ...(shellJob ? ["--shell-job"] : []),
    ...criuArguments(criuOptions(options)),
    ...["--timeout", String(Math.ceil(limitMs / 1000))],
  ];
}

/** What CRIU wrote as another user is ours from now on. */
function takeOver(folder: string): void {
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  for (const path of [folder, ...readdirSync(folder).map((name) => join(folder, name))])
    chownSync(path, uid, gid);
}

/** CRIU takes whole trees, and what stands in another cgroup does not stand still: it would fail half way, with words of its own. */
function refuseChildrenOutside(pids: readonly number[]): void {
  const child = childOutside(pids);
  if (child === undefined) return;
  throw new RecoveryLineError(
    "RL_DRIVER",
    `criu: process ${child} was started by the process and is recorded under another name, or not at all: an image holds a whole tree`,
    "Record the whole tree under one name (for MPI: mpirun with its ranks).",
  );
}

function waitForVfork(pids: readonly number[]): void {
  const pid = inVfork(pids);
  if (pid !== undefined)
    throw new NotNow(
      `criu: process ${pid} is in the midst of starting a program (vfork), and no image holds that`,
    );
}

/**
 * CRIU gives back the old process and thread ids, which the kernel frees only when a dead process has been waited for.
 * Throws RL_DRIVER where one is still taken after `limitMs`.
 */
async function idsFree(folder: string, limitMs: number): Promise<void> {
  const ids = readdirSync(folder).flatMap((name) => {
    const id = /^core-(\d+)\.img$/.exec(name)?.[1];
    return id === undefined ? [] : [Number(id)];
  });
  const deadlineMs = performance.now() + limitMs;
  for (;;) {
    const taken = idInUse(ids);
    if (taken === undefined) return;
    if (performance.now() > deadlineMs)
      throw new RecoveryLineError(
        "RL_DRIVER",
        `criu: process id ${taken} is in use, and the image needs it`,
        "End what uses it (the process itself, if it still runs), or restore after a reboot.",
      );
    await sleep(10);
  }
}

/** What goes before a command's words, so that it and all it makes are in the cgroup from the beginning. */
function inCgroup(path: string | undefined): string[] {
  if (path === undefined) return [];
  return ["/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"', join(path, "cgroup.procs")];
}

/**
 * A script for CRIU's last step before it lets go of the tree: every task stands in its hands then, which counts as frozen, and
 * stands still when it lets go. `leaves`: CRIU runs in the cgroup (an image that was taken as the program's own user does not say where its
 * tasks were, and their sockets count as of the cgroup that they are made in), and goes out of it first, with the script.
 */
function freezer(work: string, cgroupPath: string, leaves: boolean): string {
  const script = join(work, "freeze.sh");
  const file = (...names: string[]): string => `'${join(...names).replaceAll("'", `'\\''`)}'`;
  const out = file(ownCgroup() ?? cgroup2Root(), "cgroup.procs");
  const leave = leaves ? `echo $PPID >${out} && echo 0 >${out} && ` : "";
  const freeze = `echo 1 >${file(cgroupPath, "cgroup.freeze")}`;
  const text = `#!/bin/sh\ncase "$CRTOOLS_SCRIPT_ACTION" in\npre-resume) ${leave}${freeze};;\nesac\n`;
  writeFileSync(script, text, { mode: 0o700 });
  return script;
}

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly printed: string;
  readonly late: boolean;
}

/** Waits for the end of the program, not for its pipe: what it restored may hold that for years. */
function ended(child: ChildProcess, limitMs: number): Promise<Ended> {
  return new Promise((resolve, reject) => {
    let printed = "";
    let late = false;
    child.stderr!.on("data", (bytes: Buffer) => {
      printed = (printed + bytes.toString()).slice(-4096);
    });
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, limitMs);
    child.once("error", (error) => {
      clearTimeout(timer);
      reject(new RecoveryLineError("RL_DRIVER", `criu does not start: ${error.message}`, "", error));
    });
    child.once("exit", (code, signal) => {
      clearTimeout(timer);
      child.stderr!.destroy();
      resolve({ code, signal, printed, late });
    });
  });
}

/** The last errors of the log, as CRIU words them; where it holds none, what was printed. */
function tail(log: string, printed: string): string {
  const text = existsSync(log) ? readFileSync(log, "utf8") : "";
  const errors = text.split("\n").filter((line) => line.includes("Error") && !line.includes("RLIMIT_NOFILE"));
  const lines = errors.length > 0 ? errors : printed.split("\n").filter((line) => line !== "");
  return lines.length === 0 ? "" : ` CRIU said: ${lines.slice(-TAIL_LINES).join("; ")}`;
}
