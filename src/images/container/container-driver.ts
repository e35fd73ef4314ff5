/**
 * A container engine's own checkpoint as a driver: what podman (driver-podman.ts) and docker (driver-docker.ts) have in common.
 *
 * Nobody freezes around the runtime: it may use the freezer of cgroup v1, and CRIU's code, which must run inside the tasks, would hang.
 * CRIU's hooks (criu-hooks.ts) hold the container instead, at the dump until the record is durable, at the restore until its new
 * cgroup is registered.
 */
import { existsSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { answerOf } from "../../host/answer-of.ts";
import { cgroupOf } from "../../host/cgroups.ts";
import {
  type Container,
  containerAt,
  type Engine,
  inspectContainers,
  killContainer,
  unmountYards,
} from "../../host/containers.ts";
import { findProgram } from "../../host/find-program.ts";
import { networkOf } from "../../host/open-connections.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import { meaningOf } from "../criu/criu-words.ts";
import { dumpUser, mayImageOthers } from "../criu/dump-user.ts";
import { type MayBeBlocked, mayStayBlocked, unblockFailed } from "../criu/killed-lock.ts";
import { isBelowAny } from "../data/tree-users.ts";
import {
  type CheckpointDriver,
  type DriverNotes,
  type DumpRequest,
  type HoldRequest,
  NotNow,
  type RestoreRequest,
} from "../driver.ts";
import { type CriuHooks, dumpHook, restoreHook } from "./criu-hooks.ts";
import type { EngineRun } from "./engine-run.ts";

/** Longest wait for an engine that was told to give up, in ms. */
const GIVE_UP_MS = 10_000;
/** Of what the engine or CRIU says, in an error. */
const TAIL_LINES = 4;

/** What a restore must know again. */
export interface ContainerNotes {
  readonly container: string;
  readonly name: string;
  /** Of the image that it was made from. */
  readonly image: string;
  readonly imageName: string;
  readonly addresses: readonly string[];
  /** Folders and files of this machine that it may write, and that come back as they are then. */
  readonly unsaved: readonly string[];
}

/** The engine works, and CRIU below it. */
export interface Begun {
  readonly hooks: CriuHooks;
  readonly run: EngineRun;
  /** CRIU has read what it is told, or will never do so: nothing of that is left for others. `isBack`: a restore has ended well. */
  settled?(isBack: boolean): Promise<void>;
}

/** A container in CRIU's hands. */
interface Held extends Begun {
  readonly place: string;
  readonly container: Container;
  readonly notes: ContainerNotes;
  readonly blocked: MayBeBlocked;
}

/** `place`: a folder of its own, which is made. `guard`: held until the engine has ended, so that whoever takes a cut off restart up waits for it. */
export interface Restoring {
  readonly folder: string;
  readonly notes: DriverNotes;
  readonly place: string;
  readonly hook: string;
  readonly limitMs: number;
  readonly guard: number | undefined;
}

export abstract class ContainerDriver implements CheckpointDriver {
  abstract readonly name: Engine;
  readonly version: string;
  readonly images = true;
  readonly holdsConnections = true;
  readonly holdsPipes = false;
  /** By the folder of the image, until it is let go. */
  readonly #held = new Map<string, Held>();

  constructor(version: string) {
    this.version = version;
  }

  /** Why this engine can take no image of it; undefined: it can. */
  protected abstract refusal(container: Container): string | undefined;
  /** `place`: a folder of its own, which is made. */
  protected abstract beginDump(
    container: Container,
    place: string,
    hook: string,
    limitMs: number,
  ): Promise<Begun>;
  /** What the engine has made goes into `folder`; the container stands still. Returns what it must know again beside the common notes. */
  protected abstract keep(container: Container, place: string, folder: string): Promise<DriverNotes>;
  protected abstract beginRestore(restoring: Restoring): Promise<Begun>;
  /** What stands in the way though no other container does. */
  protected abstract ownObstacles(notes: ContainerNotes, mine: Container | undefined): string[];
  /** File with CRIU's words of the newest dump, or restore; "": nobody knows. */
  protected abstract logFile(id: string, of: "dump" | "restore", printed: string): string;
  abstract clear(notes: DriverNotes): Promise<void>;

  look({ pids }: Pick<DumpRequest, "pids">): void {
    const [first] = pids;
    if (first === undefined) return;
    const container = this.#containerOf(first);
    const { network, inPod, needs } = container;
    if (inPod || needs.length > 0)
      throw this.#cannot(
        container,
        `shares namespaces with other containers, and ${this.name} can't export such a one`,
      );
    if (networkOf(first) === networkOf("self"))
      throw this.#cannot(
        container,
        `has no network of its own (--network=${network}): its connections can't be held apart from others'`,
      );
    if (dumpUser(pids) !== undefined)
      throw this.#cannot(
        container,
        "runs as another user than root, and images of other users' processes take CAP_SYS_RESOURCE, which is lacking here",
      );
    const why = this.refusal(container);
    if (why !== undefined) throw this.#cannot(container, why);
  }

  async hold({ folder, pids, cgroupPath, limitMs, dataRoots = [] }: HoldRequest): Promise<void> {
    const container = this.#containerOf(pids[0] ?? 0);
    const place = this.#placeOf(folder);
    const deadlineMs = performance.now() + limitMs;
    const blocked = mayStayBlocked(pids);
    const begun = await this.beginDump(container, place, dumpHook(cgroupPath), limitMs);
    const { hooks, run } = begun;
    const isThere = await hooks.isThere(() => run.ended, deadlineMs);
    try {
      await begun.settled?.(false);
    } catch (error) {
      await giveUp(begun, blocked);
      throw error;
    }
    if (!isThere) {
      const late = !run.ended;
      await giveUp(begun, blocked);
      throw late ? this.#tooLate(container, limitMs) : this.#failed(container, run, "dump");
    }
    this.#held.set(folder, { ...begun, place, container, notes: notesOf(container, dataRoots), blocked });
  }

  async letGo(folder: string): Promise<void> {
    const held = this.#held.get(folder);
    this.#held.delete(folder);
    if (held !== undefined) await giveUp(held, held.blocked);
  }

  async dump({ folder, limitMs }: DumpRequest): Promise<DriverNotes> {
    const held = this.#held.get(folder);
    if (held === undefined) throw new TypeError("dump comes after hold");
    const { hooks, run, place, container, notes, blocked } = held;
    hooks.tell("go");
    const intime = await run.within(limitMs);
    if (!intime) {
      await giveUp(held, blocked);
      throw this.#tooLate(container, limitMs);
    }
    if (run.code !== 0) throw this.#failed(container, run, "dump");
    const own = await this.keep(container, place, folder);
    await this.letGo(folder);
    return { ...notes, ...own };
  }

  obstacles(notes: DriverNotes, gone: ReadonlySet<number>): string[] {
    const mine = notes as unknown as ContainerNotes; // the manifest's checksum says that they are as we wrote them
    const all = inspectContainers(this.name);
    const needing = all.filter(({ needs, network }) =>
      [...needs, network.replace(/^container:/, "")].includes(mine.container),
    );
    return [
      ...needing.map(
        ({ name }) =>
          `the container ${name} uses namespaces of ${mine.name}, which can't be made anew below it: remove it`,
      ),
      ...all.flatMap((other) => this.#obstacle(mine, other, gone)),
      ...(answerOf(this.name, ["image", "inspect", "--format", "{{.Id}}", mine.image]) === undefined
        ? [`the image ${mine.imageName} (${shortId(mine.image)}) of the container is gone: pull or load it`]
        : []),
      ...this.ownObstacles(
        mine,
        all.find(({ id }) => id === mine.container),
      ),
    ];
  }

  async restore(request: RestoreRequest): Promise<number> {
    const { folder, notes, limitMs, freezeCgroup, silence, guard } = request;
    const { container: id, name } = notes as unknown as ContainerNotes;
    if (freezeCgroup === undefined || silence === undefined)
      throw new TypeError("a container is restored standing still");
    const place = this.#placeOf(folder);
    try {
      const hook = restoreHook(freezeCgroup, silence);
      const begun = await this.beginRestore({ folder, notes, place, hook, limitMs, guard });
      const { hooks, run } = begun;
      const intime = await run.within(limitMs);
      const root = hooks.rootPid;
      const isBack = intime && run.code === 0 && root !== undefined;
      if (!intime) await giveUp(begun);
      if (!isBack) {
        await killContainer({ engine: this.name, id });
        await unmountYards(id);
      }
      await begun.settled?.(isBack);
      if (isBack) return root;
      const named = { name, id };
      throw intime ? this.#failed(named, run, "restore") : this.#tooLate(named, limitMs);
    } finally {
      await rm(place, { recursive: true, force: true });
    }
  }

  #placeOf(folder: string): string {
    return join(dirname(folder), `.${this.name}-${basename(folder)}`);
  }

  /** Throws RL_NOT_SUPPORTED, RL_DRIVER. */
  #containerOf(pid: number): Container {
    const place = containerAt(cgroupOf(pid) ?? "");
    const [container] = place?.engine === this.name ? inspectContainers(this.name, [place.id]) : [];
    if (container === undefined)
      throw new RecoveryLineError(
        "RL_NOT_SUPPORTED",
        `${this.name}: not supported here: process ${pid} runs in no container that ${this.name} knows of this user`,
        `Another user's (rootless) container is that user's; a removed one is gone: ${this.name} ps --all`,
      );
    if (container.status !== "running")
      throw new RecoveryLineError(
        "RL_DRIVER",
        `${this.name}: the container ${container.name} is ${container.status}, and only a running one can be checkpointed`,
        `${this.name} ps --all tells more.`,
      );
    return container;
  }

  #cannot({ name }: NamedContainer, why: string): RecoveryLineError {
    return new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `${this.name}: not supported here: the container ${name} ${why}`,
      "Take checkpoints with --driver none: they record cuts.",
    );
  }

  #obstacle(mine: ContainerNotes, other: Container, gone: ReadonlySet<number>): string[] {
    if (other.id === mine.container)
      return other.pid === 0 || gone.has(other.pid)
        ? []
        : [`the container ${other.name} runs, and nobody records it: ${this.name} stop ${other.name}`];
    if (other.name === mine.name)
      return [
        `another container has the name ${mine.name} now (${shortId(other.id)}): rename or remove that one`,
      ];
    const address = other.pid === 0 ? undefined : mine.addresses.find((one) => other.addresses.includes(one));
    return address === undefined
      ? []
      : [`the container ${other.name} has its address ${address} now: stop that one`];
  }

  #tooLate({ name }: NamedContainer, limitMs: number): RecoveryLineError {
    return new RecoveryLineError(
      "RL_TIMEOUT",
      `${this.name}: the container ${name} was not done within ${limitMs} ms, and ${this.name} was told to give up`,
      `Look at it before you go on: ${this.name} ps --all`,
    );
  }

  #failed(
    { name, id }: NamedContainer,
    { code, printed }: EngineRun,
    of: "dump" | "restore",
  ): RecoveryLineError {
    const errors = readLog(this.logFile(id, of, printed));
    const said = [printed, errors].filter((one) => one !== "").join("; CRIU: ");
    const now = inspectContainers(this.name, [id])[0];
    const state =
      now === undefined
        ? " It is gone: somebody removed it."
        : now.pid === 0
          ? ` It is ${now.status} (exit code ${now.exitCode}).`
          : "";
    if (/In-flight connection/i.test(errors))
      return new NotNow(
        `${this.name}: the container ${name} has a connection that waits to be accepted, and no image holds that`,
      );
    const known = meaningOf(errors);
    return new RecoveryLineError(
      "RL_DRIVER",
      `${this.name}: it failed for the container ${name} (exit code ${code ?? "none"})${known === undefined ? "" : `: ${known.means}`}.${state}`,
      `${known?.advice ?? `\`recovery-line doctor\` tells what ${this.name} can do here.`} ${this.name} said: ${lastLines(said)}`,
    );
  }
}

type NamedContainer = Pick<Container, "name" | "id">;

/** As people see it. */
function shortId(id: string): string {
  return id.replace(/^sha256:/, "").slice(0, 12);
}

function notesOf(container: Container, dataRoots: readonly string[]): ContainerNotes {
  const { id, name, image, imageName, addresses, mounts } = container;
  const unsaved = mounts
    .filter(({ writable, source }) => writable && source.startsWith("/") && !isBelowAny(dataRoots, source))
    .map(({ source }) => source);
  return { container: id, name, image, imageName, addresses, unsaved };
}

/** Nobody waits in a hook any more, and the engine has ended. `blocked`: by what it was to image, which goes on or is dead. */
async function giveUp({ hooks, run }: Begun, blocked?: MayBeBlocked): Promise<void> {
  if (existsSync(hooks.folder)) hooks.tell("abort");
  const ended = await run.within(GIVE_UP_MS);
  const criu = ended ? undefined : hooks.criuPid;
  if (criu !== undefined) await killed(criu);
  const isWell = !(await run.kill()) && run.code === 0;
  if (!isWell && blocked !== undefined) await unblockFailed(blocked);
  hooks.remove();
}

/** An engine's daemon may have started it: killing the command that asked does not end it. */
async function killed(pid: number): Promise<void> {
  try {
    process.kill(pid, "SIGKILL");
    for (const untilMs = performance.now() + GIVE_UP_MS; performance.now() < untilMs; await sleep(20))
      process.kill(pid, 0);
  } catch {} // it is gone
}

/** What an engine's driver can't do here though it works; "": nothing. */
export function rootAlone(): string {
  return mayImageOthers() ? "" : "; CAP_SYS_RESOURCE is lacking: only containers whose processes run as root";
}

/** Of an engine that does not even tell its version. */
export function whyNoEngine(name: string): string {
  if (findProgram(name, process.env["PATH"] ?? "", "/").program === undefined)
    return `${name} is not installed`;
  return `${name} does not answer user ${process.geteuid!()}: \`${name} --version\` tells why`;
}

export function lastLines(text: string): string {
  return text.trim().split("\n").slice(-TAIL_LINES).join("; ");
}

/** The last errors of it. */
function readLog(path: string): string {
  if (path === "" || !existsSync(path)) return "";
  const errors = readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line.includes("Error"));
  return errors.slice(-TAIL_LINES).join("; ");
}
