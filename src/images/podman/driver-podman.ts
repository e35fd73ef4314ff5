/**
 * podman's own checkpoint of a container as a driver: its root's changes, addresses, labels, name and id come back with it.
 *
 * Nobody freezes around the runtime: it may use the freezer of cgroup v1, and CRIU's code, which must run inside the tasks, would hang.
 * CRIU's hooks (criu-for-runtime.ts) hold the container instead, at the dump until the record is durable, at the restore until its new
 * cgroup is registered.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cgroupOf } from "../../host/cgroups.ts";
import {
  answerOf,
  type Container,
  containerAt,
  inspectContainers,
  killContainer,
  removeContainer,
  unmountYards,
} from "../../host/containers.ts";
import { networkOf } from "../../host/open-connections.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { meaningOf } from "../criu/criu-words.ts";
import { dumpUser } from "../criu/dump-user.ts";
import { unblockKilled } from "../criu/killed-lock.ts";
import { isBelowAny } from "../data/tree-users.ts";
import {
  type CheckpointDriver,
  type DriverNotes,
  type DumpRequest,
  type HoldRequest,
  NotNow,
  type RestoreRequest,
} from "../driver.ts";
import { CriuForRuntime, dumpHook, type RuntimeTools, restoreHook } from "./criu-for-runtime.ts";
import { packExport, unpackExport } from "./export-archive.ts";

/** Both directions: live connections and locks come back, volumes are not podman's to put back. */
const COMMON = ["--tcp-established", "--file-locks", "--ignore-volumes"];
/** Longest wait for a podman that was told to give up, in ms. */
const GIVE_UP_MS = 10_000;
/** Of what podman or CRIU says, in an error. */
const TAIL_LINES = 4;

/** What a restore must know again. */
interface PodmanNotes {
  readonly container: string;
  readonly name: string;
  /** Of the image that it was made from. */
  readonly image: string;
  readonly imageName: string;
  readonly addresses: readonly string[];
  /** Folders and files of this machine that it may write, and that come back as they are then. */
  readonly unsaved: readonly string[];
}

export interface PodmanTools extends RuntimeTools {
  /** Of podman. */
  readonly version: string;
}

/** A container in CRIU's hands. */
interface Held {
  readonly tools: CriuForRuntime;
  readonly podman: PodmanRun;
  readonly archive: string;
  readonly notes: PodmanNotes;
  readonly pids: readonly number[];
}

export class PodmanDriver implements CheckpointDriver {
  readonly name = "podman";
  readonly images = true;
  readonly holdsConnections = true;
  readonly holdsPipes = false;
  readonly version: string;
  readonly #tools: PodmanTools;
  /** By the folder of the image, until it is let go. */
  readonly #held = new Map<string, Held>();

  constructor(tools: PodmanTools) {
    this.#tools = tools;
    this.version = tools.version;
  }

  look({ pids }: Pick<DumpRequest, "pids">): void {
    const [first] = pids;
    if (first === undefined) return;
    const container = containerOf(first);
    refuseShared(container, first);
    if (dumpUser(pids) !== undefined)
      throw cannot(
        container,
        "runs as another user than root, and images of other users' processes take CAP_SYS_RESOURCE, which is lacking here",
      );
  }

  async hold({ folder, pids, cgroupPath, limitMs, dataRoots = [] }: HoldRequest): Promise<void> {
    const container = containerOf(pids[0] ?? 0);
    const place = join(dirname(folder), `.podman-${basename(folder)}`);
    const tools = new CriuForRuntime(place, this.#tools, dumpHook(cgroupPath));
    const archive = join(place, "export.tar");
    const words = ["container", "checkpoint", "--leave-running", ...COMMON];
    const podman = new PodmanRun(
      [...words, "--compress", "none", "--export", archive, container.id],
      tools.environment,
    );
    const deadlineMs = performance.now() + limitMs;
    if (!(await tools.isThere(() => podman.ended, deadlineMs))) {
      const late = !podman.ended;
      await giveUp(tools, podman, pids);
      throw late ? tooLate(container, limitMs) : failed(container, podman, dumpLog(container));
    }
    this.#held.set(folder, { tools, podman, archive, notes: notesOf(container, dataRoots), pids });
  }

  async letGo(folder: string): Promise<void> {
    const held = this.#held.get(folder);
    this.#held.delete(folder);
    if (held !== undefined) await giveUp(held.tools, held.podman, held.pids);
  }

  async dump({ folder, limitMs }: DumpRequest): Promise<DriverNotes> {
    const held = this.#held.get(folder);
    if (held === undefined) throw new TypeError("dump comes after hold");
    const { tools, podman, archive, notes, pids } = held;
    tools.tell("go");
    const intime = await podman.within(limitMs);
    if (!intime) await giveUp(tools, podman, pids);
    const named = { name: notes.name, id: notes.container };
    if (!intime) throw tooLate(named, limitMs);
    if (podman.code !== 0) throw failed(named, podman, dumpLog(named));
    await unpackExport(archive, folder);
    await this.letGo(folder);
    return { ...notes };
  }

  obstacles(notes: DriverNotes, gone: ReadonlySet<number>): string[] {
    const mine = notes as unknown as PodmanNotes; // the manifest's checksum says that they are as we wrote them
    const others = inspectContainers();
    const needing = others.filter(({ needs, network }) =>
      [...needs, network.replace(/^container:/, "")].includes(mine.container),
    );
    return [
      ...needing.map(
        ({ name }) =>
          `the container ${name} uses namespaces of ${mine.name}, which can't be made anew below it: remove it`,
      ),
      ...others.flatMap((other) => containerObstacle(mine, other, gone)),
      ...imageObstacle(mine),
    ];
  }

  async clear(notes: DriverNotes): Promise<void> {
    const { container, name } = notes as unknown as PodmanNotes;
    const said = await removeContainer(container);
    if (said !== undefined)
      throw new RecoveryLineError(
        "RL_DRIVER",
        `podman: the dead container ${name} can't be removed to be restored: ${lastLines(said)}`,
        `podman rm --force ${container.slice(0, 12)}`,
      );
  }

  async restore({ folder, notes, limitMs, freezeCgroup, silence }: RestoreRequest): Promise<number> {
    const { container: id, name } = notes as unknown as PodmanNotes;
    if (freezeCgroup === undefined || silence === undefined)
      throw new TypeError("a container is restored standing still");
    const place = join(dirname(folder), `.podman-${basename(folder)}`);
    const tools = new CriuForRuntime(place, this.#tools, restoreHook(freezeCgroup, silence));
    const archive = join(place, "import.tar");
    try {
      await packExport(folder, archive);
      const words = ["--conmon", tools.conmon, "container", "restore", ...COMMON, "--import", archive];
      const podman = new PodmanRun(words, tools.environment);
      const intime = await podman.within(limitMs);
      if (!intime) await giveUp(tools, podman, []);
      const root = tools.rootPid;
      if (intime && podman.code === 0 && root !== undefined) return root;
      await killContainer(id);
      await unmountYards(id);
      throw intime ? failed({ name, id }, podman, restoreLog(id)) : tooLate({ name, id }, limitMs);
    } finally {
      await rm(place, { recursive: true, force: true });
    }
  }
}

/** Throws RL_NOT_SUPPORTED, RL_DRIVER. */
function containerOf(pid: number): Container {
  const id = containerAt(cgroupOf(pid) ?? "");
  const [container] = id === undefined ? [] : inspectContainers([id]);
  if (container === undefined)
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `podman: not supported here: process ${pid} runs in no container that podman knows of this user`,
      "Another user's (rootless) container is that user's; a removed one is gone: podman ps --all",
    );
  if (container.status !== "running")
    throw new RecoveryLineError(
      "RL_DRIVER",
      `podman: the container ${container.name} is ${container.status}, and only a running one can be checkpointed`,
      "podman ps --all tells more.",
    );
  return container;
}

/** What podman can't export, and where silencing its network would silence others. */
function refuseShared(container: Container, first: number): void {
  const { network, inPod, needs } = container;
  if (inPod || needs.length > 0)
    throw cannot(container, "shares namespaces with other containers, and podman can't export such a one");
  if (networkOf(first) === networkOf("self"))
    throw cannot(
      container,
      `has no network of its own (--network=${network}): its connections can't be held apart from others'`,
    );
}

function cannot({ name }: Pick<Container, "name">, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `podman: not supported here: the container ${name} ${why}`,
    "Take checkpoints with --driver none: they record cuts.",
  );
}

function notesOf(container: Container, dataRoots: readonly string[]): PodmanNotes {
  const { id, name, image, imageName, addresses, mounts } = container;
  const unsaved = mounts
    .filter(({ writable, source }) => writable && source.startsWith("/") && !isBelowAny(dataRoots, source))
    .map(({ source }) => source);
  return { container: id, name, image, imageName, addresses, unsaved };
}

function containerObstacle(mine: PodmanNotes, other: Container, gone: ReadonlySet<number>): string[] {
  if (other.id === mine.container)
    return other.pid === 0 || gone.has(other.pid)
      ? []
      : [`the container ${other.name} runs, and nobody records it: podman stop ${other.name}`];
  if (other.name === mine.name)
    return [
      `another container has the name ${mine.name} now (${other.id.slice(0, 12)}): rename or remove that one`,
    ];
  const address = other.pid === 0 ? undefined : mine.addresses.find((one) => other.addresses.includes(one));
  return address === undefined
    ? []
    : [`the container ${other.name} has its address ${address} now: stop that one`];
}

function imageObstacle({ image, imageName }: PodmanNotes): string[] {
  return imageExists(image)
    ? []
    : [`the image ${imageName} (${image.slice(0, 12)}) of the container is gone: pull or load it`];
}

function imageExists(id: string): boolean {
  return answerOf(["image", "exists", id]) !== undefined;
}

/** Nobody waits in a hook any more, and podman has ended. `pids`: what it was to image, and goes on. */
async function giveUp(tools: CriuForRuntime, podman: PodmanRun, pids: readonly number[]): Promise<void> {
  if (existsSync(tools.folder)) tools.tell("abort");
  await podman.within(GIVE_UP_MS);
  if (await podman.kill()) await unblockKilled(pids);
  tools.remove();
}

/** One podman, in a process group of its own with the runtime and CRIU. */
class PodmanRun {
  code: number | null | undefined;
  printed = "";
  readonly #child: ChildProcess;
  readonly #end: Promise<void>;

  constructor(args: readonly string[], env: NodeJS.ProcessEnv) {
    this.#child = spawn("podman", args, { env, stdio: ["ignore", "ignore", "pipe"], detached: true });
    this.#child.stderr!.on("data", (bytes: Buffer) => {
      this.printed = (this.printed + bytes.toString()).slice(-8192);
    });
    this.#end = new Promise((resolve) => {
      const done = (code: number | null): void => {
        this.code = code;
        this.#child.stderr!.destroy(); // what it started may hold it for years
        resolve();
      };
      this.#child.once("exit", done);
      this.#child.once("error", ({ message }) => {
        this.printed = message;
        done(null);
      });
    });
  }

  get ended(): boolean {
    return this.code !== undefined;
  }

  /** True if it has ended within that time. */
  async within(limitMs: number): Promise<boolean> {
    const timer = new AbortController();
    const late = sleep(limitMs, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([this.#end, late]);
    timer.abort();
    return this.ended;
  }

  /** False: it has ended by itself. */
  async kill(): Promise<boolean> {
    if (this.ended || this.#child.pid === undefined) return false;
    try {
      process.kill(-this.#child.pid, "SIGKILL");
    } catch {} // it has just ended
    await this.#end;
    return true;
  }
}

type Named = Pick<Container, "name" | "id">;

function tooLate({ name }: Named, limitMs: number): RecoveryLineError {
  return new RecoveryLineError(
    "RL_TIMEOUT",
    `podman: the container ${name} was not done within ${limitMs} ms, and podman was told to give up`,
    "Look at it before you go on: podman ps --all",
  );
}

function failed({ name, id }: Named, { code, printed }: PodmanRun, log: string): RecoveryLineError {
  const errors = readLog(log);
  const said = [printed, errors].filter((one) => one !== "").join("; CRIU: ");
  const now = inspectContainers([id])[0];
  const state =
    now === undefined
      ? " It is gone: somebody removed it."
      : now.pid === 0
        ? ` It is ${now.status} (exit code ${now.exitCode}).`
        : "";
  if (/In-flight connection/i.test(errors))
    return new NotNow(
      `podman: the container ${name} has a connection that waits to be accepted, and no image holds that`,
    );
  const known = meaningOf(errors);
  return new RecoveryLineError(
    "RL_DRIVER",
    `podman: it failed for the container ${name} (exit code ${code ?? "none"})${known === undefined ? "" : `: ${known.means}`}.${state}`,
    `${known?.advice ?? "`recovery-line doctor` tells what podman can do here."} podman said: ${lastLines(said)}`,
  );
}

function lastLines(text: string): string {
  return text.trim().split("\n").slice(-TAIL_LINES).join("; ");
}

/** Where podman keeps CRIU's words of the newest dump, and of the newest restore; "": nobody knows. */
function dumpLog({ id }: Named): string {
  return logOf(id, "dump.log");
}

function restoreLog(id: string): string {
  return logOf(id, "restore.log");
}

function logOf(id: string, file: string): string {
  const folder = answerOf(["container", "inspect", "--format", "{{.StaticDir}}", id]);
  return folder === undefined ? "" : join(folder, file);
}

/** The last errors of it. */
function readLog(path: string): string {
  if (path === "" || !existsSync(path)) return "";
  const errors = readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line.includes("Error"));
  return errors.slice(-TAIL_LINES).join("; ");
}
