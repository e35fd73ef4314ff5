/** Containers of podman and docker: which one runs in a cgroup, and what its engine tells and does when it is asked. */
import { execFile } from "node:child_process";
import { rmdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import type { ProcessEnd } from "../model/stored-process.ts";
import { answerOf } from "./answer-of.ts";
import { type Mount, mountsOf } from "./mounts.ts";

const run = promisify(execFile);
const LIMIT_MS = 20_000;
/** For what is asked again and again, in ms. */
const LOOK_LIMIT_MS = 3_000;
/** As far back as the end of a removed container is looked for. */
const EVENTS_SINCE = "1h";
const MAX_ANSWER_BYTES = 2 ** 26;
/** Of all containers: any that goes between list and look spoils one. */
const LIST_TRIES = 5;

export type Engine = "podman" | "docker";

export function isEngine(name: string): name is Engine {
  return name === "podman" || name === "docker";
}

export interface ContainerId {
  readonly engine: Engine;
  readonly id: string;
}

/** The container whose own cgroup this is, at a path or under a name. */
export function containerAt(cgroup: string): ContainerId | undefined {
  const podman = /\/libpod-([0-9a-f]{64})(?:\.scope)?(?:\/container)?$/.exec(cgroup)?.[1];
  if (podman !== undefined) return { engine: "podman", id: podman };
  const docker = /\/docker[/-]([0-9a-f]{64})(?:\.scope)?$/.exec(cgroup)?.[1];
  return docker === undefined ? undefined : { engine: "docker", id: docker };
}

export interface ContainerMount {
  /** On this machine. */
  readonly source: string;
  readonly destination: string;
  readonly writable: boolean;
}

/** What of `podman container inspect`, or docker's, matters here. */
export interface Container {
  readonly id: string;
  readonly name: string;
  /** Its first process; 0: it does not run. */
  readonly pid: number;
  /** "running", "exited", … */
  readonly status: string;
  readonly exitCode: number;
  /** Id and name of the image that it was made from. */
  readonly image: string;
  readonly imageName: string;
  /** "runc", "crun". */
  readonly runtime: string;
  /** "bridge", "host", "none", "container:ID". */
  readonly network: string;
  /** In a pod. */
  readonly inPod: boolean;
  /** Ids of containers that it takes namespaces from. */
  readonly needs: readonly string[];
  readonly mounts: readonly ContainerMount[];
  readonly addresses: readonly string[];
  /** docker removes it when it has ended. */
  readonly removesItself?: boolean;
  /** Folder of this machine that holds what it has changed of its image's files, where docker's storage has one (overlay2). */
  readonly changes?: string;
  /** File that docker keeps its output in, where it does. */
  readonly log?: string;
  /** Folder in which docker looks for its checkpoints. */
  readonly checkpoints?: string;
}

/** Of those containers, all without names; none where the engine does not know one of them, or is not there. */
export function inspectContainers(engine: Engine, names?: readonly string[]): Container[] {
  if (names !== undefined) return inspected(engine, names) ?? [];
  for (let tries = LIST_TRIES; tries > 0; tries -= 1) {
    const listed = answerOf(engine, ["ps", "--all", "--quiet", "--no-trunc"]) ?? "";
    const all = inspected(engine, listed.split("\n").filter(Boolean));
    if (all !== undefined) return all; // else one of them has gone meanwhile
  }
  return [];
}

/** Undefined: the engine does not know one of them. */
function inspected(engine: Engine, names: readonly string[]): Container[] | undefined {
  if (names.length === 0) return [];
  const answer = answerOf(engine, ["container", "inspect", ...names]);
  if (answer === undefined) return undefined;
  try {
    return (JSON.parse(answer) as readonly Answered[]).map(containerOf);
  } catch {
    return []; // no answer of an engine that we know
  }
}

/** As podman prints it; what only one of both has is optional. */
interface Answered {
  readonly Id: string;
  readonly Name: string;
  readonly State: { readonly Pid: number; readonly Status: string; readonly ExitCode: number };
  readonly Image: string;
  readonly ImageName?: string;
  readonly OCIRuntime?: string;
  readonly Config?: { readonly Image?: string };
  readonly GraphDriver?: { readonly Data?: { readonly UpperDir?: string } | null };
  readonly LogPath?: string;
  readonly ResolvConfPath?: string;
  readonly Pod?: string;
  readonly Dependencies?: readonly string[] | null;
  readonly Mounts?: readonly {
    readonly Source?: string;
    readonly Destination: string;
    readonly RW?: boolean;
  }[];
  readonly HostConfig: {
    readonly NetworkMode: string;
    readonly IpcMode?: string;
    readonly PidMode?: string;
    readonly Runtime?: string;
    readonly AutoRemove?: boolean;
    readonly LogConfig?: { readonly Type?: string };
  };
  readonly NetworkSettings?: {
    readonly Networks?: Readonly<Record<string, { readonly IPAddress?: string }>> | null;
  };
}

function containerOf(answered: Answered): Container {
  const { State, Mounts = [], NetworkSettings, HostConfig, Config } = answered;
  return {
    id: answered.Id,
    name: answered.Name.replace(/^\//, ""),
    pid: State.Pid,
    status: State.Status,
    exitCode: State.ExitCode,
    image: answered.Image,
    imageName: answered.ImageName ?? Config?.Image ?? answered.Image,
    runtime: answered.OCIRuntime ?? HostConfig.Runtime ?? "",
    network: HostConfig.NetworkMode,
    inPod: (answered.Pod ?? "") !== "",
    needs: answered.Dependencies ?? sharedBy(HostConfig),
    mounts: Mounts.map(({ Source = "", Destination, RW = false }) => ({
      source: Source,
      destination: Destination,
      writable: RW,
    })),
    addresses: Object.values(NetworkSettings?.Networks ?? {}).flatMap(({ IPAddress = "" }) =>
      IPAddress === "" ? [] : [IPAddress],
    ),
    ...dockersOwn(answered),
  };
}

/** docker names a container that another one takes a namespace from in the namespace's mode. */
function sharedBy({ NetworkMode, IpcMode = "", PidMode = "" }: Answered["HostConfig"]): string[] {
  return [NetworkMode, IpcMode, PidMode].flatMap((mode) => /^container:(.+)$/.exec(mode)?.[1] ?? []);
}

function dockersOwn({ OCIRuntime, GraphDriver, HostConfig, ...answered }: Answered): Partial<Container> {
  if (OCIRuntime !== undefined) return {};
  const { LogPath = "", ResolvConfPath = "" } = answered;
  const changes = GraphDriver?.Data?.UpperDir;
  return {
    removesItself: HostConfig.AutoRemove === true,
    ...(changes === undefined ? {} : { changes }),
    ...(LogPath !== "" && HostConfig.LogConfig?.Type === "json-file" ? { log: LogPath } : {}),
    ...(ResolvConfPath === "" ? {} : { checkpoints: join(dirname(ResolvConfPath), "checkpoints") }),
  };
}

/** Its first process; 0: it does not run; undefined: podman knows no container of that name or id. */
export async function containerPid(name: string): Promise<number | undefined> {
  const said = await told("podman", ["container", "inspect", "--format", "{{.State.Pid}}", name]);
  return said === undefined ? undefined : Number(said);
}

/** How a container ended, as its engine has recorded it, also where it is removed by now; undefined: it runs still, or nothing is on record. */
export async function containerEnd({ engine, id }: ContainerId): Promise<ProcessEnd | undefined> {
  const said =
    (await told(engine, ["container", "inspect", "--format", "{{.State.Pid}} {{.State.ExitCode}}", id])) ??
    (await recordedEnd(engine, id));
  const [, code] = /^0 (\d{1,3})$/.exec(said ?? "") ?? [];
  return code === undefined ? undefined : { code: Number(code) };
}

/** The newest of its ends, in the same form. */
async function recordedEnd(engine: Engine, id: string): Promise<string | undefined> {
  const [event, code, now] =
    engine === "podman"
      ? ["died", "{{.ContainerExitCode}}", ["--stream=false"]]
      : ["die", "{{.Actor.Attributes.exitCode}}", ["--until", "0s"]];
  const of = ["--filter", `container=${id}`, "--filter", `event=${event}`, "--format", code];
  const ends = await told(engine, ["events", ...now, "--since", EVENTS_SINCE, ...of]);
  const newest = ends?.split("\n").at(-1);
  return newest === undefined || newest === "" ? undefined : `0 ${newest}`;
}

/** What it prints; undefined where it is not there, fails, or does not answer soon: whoever asks looks again. */
async function told(engine: Engine, args: readonly string[]): Promise<string | undefined> {
  try {
    return (await run(engine, args, { timeout: LOOK_LIMIT_MS, maxBuffer: MAX_ANSWER_BYTES })).stdout.trim();
  } catch {
    return undefined;
  }
}

/** Its processes die and the engine knows why, so that no restart policy of it brings it back. True if that says that it is done. */
export async function killContainer({ engine, id }: ContainerId): Promise<boolean> {
  return (await asked(engine, ["kill", "--signal", "KILL", id])) === undefined;
}

/** A container that is dead is podman's no longer; volumes stay. Returns what stands in the way. */
export async function removeContainer(id: string): Promise<string | undefined> {
  await unmountYards(id);
  return asked("podman", ["rm", "--force", "--ignore", "--time", "0", id]);
}

/**
 * Where CRIU had this machine's cgroups mounted, in the container's folder, when it was killed at its restore: whoever removed that folder
 * would walk into them.
 */
export async function unmountYards(id: string): Promise<void> {
  for (const yard of yardsOf(id, mountsOf("self"))) {
    await run("umount", ["--recursive", "--lazy", yard], { timeout: LIMIT_MS });
    rmdirSync(yard);
  }
}

/** Mount points of CRIU's own in the folder of that container. */
export function yardsOf(id: string, mounts: readonly Mount[]): string[] {
  const yards = mounts.flatMap(({ point }) => /^(.*\/\.criu\.cgyard\.[^/]+)(?:\/|$)/.exec(point)?.[1] ?? []);
  return [...new Set(yards)].filter((yard) => yard.includes(`/${id}/`));
}

/** Undefined: done; else what the engine says. */
async function asked(engine: Engine, args: readonly string[]): Promise<string | undefined> {
  try {
    await run(engine, args, { timeout: LIMIT_MS });
    return undefined;
  } catch (error) {
    const { stderr = "", message } = error as Error & { readonly stderr?: string };
    return stderr.trim() || message;
  }
}
