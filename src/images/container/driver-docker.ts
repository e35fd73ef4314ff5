/**
 * docker's own checkpoint of a container as a driver (`docker checkpoint create`, `docker start --checkpoint`). It holds memory and
 * connections. What the container has changed of its image's files lies in a folder of docker's storage (overlay2), and its output in a
 * file: both are saved while it stands still, and put back before it is started, while it is dead.
 */
import { cp, mkdir, readdir, rename, rm, stat, truncate } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Container, inspectContainers } from "../../host/containers.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import type { DriverNotes } from "../driver.ts";
import { type Begun, ContainerDriver, type ContainerNotes } from "./container-driver.ts";
import { CriuHooks } from "./criu-hooks.ts";
import { EngineRun } from "./engine-run.ts";
import { tar } from "./export-archive.ts";
import { placeRuncConf } from "./runc-conf.ts";

/** What docker calls our checkpoint. */
const NAME = "recovery-line";
/** In the folder of an image, beside CRIU's files. */
const OWN = "container";
const CHANGES = join(OWN, "changes.tar");
/** Longest wait for another use of runc.conf, in ms. */
const CONF_LIMIT_MS = 60_000;
/** Longest wait for docker to know that a container is dead, in ms. */
const DEATH_LIMIT_MS = 10_000;
const LOOK_MS = 50;
/** The container stands still: what it has printed is in its log once that has not grown for so long, in ms. */
const STEADY_MS = 150;

interface DockerNotes extends ContainerNotes {
  /** Bytes of its log; absent: docker keeps none in a file. */
  readonly logged?: number;
}

export class DockerDriver extends ContainerDriver {
  readonly name = "docker";

  protected override refusal({ changes, checkpoints }: Container): string | undefined {
    return changes === undefined || checkpoints === undefined
      ? "is in a storage of docker's without a folder of its changes (overlay2 has one): they could not be put back"
      : undefined;
  }

  protected override async beginDump(container: Container, place: string, hook: string): Promise<Begun> {
    const words = ["checkpoint", "create", "--leave-running", "--checkpoint-dir", join(place, "made")];
    return begin(container.id, place, hook, [...words, container.id, NAME]);
  }

  protected override async keep(
    { changes, log }: Container,
    place: string,
    folder: string,
  ): Promise<DriverNotes> {
    const images = await folderWith("inventory.img", join(place, "made"));
    for (const name of await readdir(images)) await rename(join(images, name), join(folder, name));
    await mkdir(join(folder, OWN), { mode: 0o700 });
    await tar(["-cf", join(folder, CHANGES), ...ALL_OF_A_FILE, "-C", changes!, "."]);
    return log === undefined ? {} : { logged: await steadySize(log) };
  }

  protected override ownObstacles({ name }: ContainerNotes, mine: Container | undefined): string[] {
    return mine === undefined
      ? [
          `the container ${name} was removed, and docker starts only what it has: --back-further does not help`,
        ]
      : [];
  }

  async clear(notes: DriverNotes): Promise<void> {
    const { container, name } = notes as unknown as ContainerNotes;
    const deadlineMs = performance.now() + DEATH_LIMIT_MS;
    while ((inspectContainers(this.name, [container])[0]?.pid ?? 0) !== 0) {
      if (performance.now() > deadlineMs)
        throw new RecoveryLineError(
          "RL_DRIVER",
          `docker: the container ${name} is dead, and docker says that it runs`,
          `docker kill ${name}`,
        );
      await sleep(LOOK_MS);
    }
  }

  protected override async beginRestore(
    folder: string,
    notes: DriverNotes,
    place: string,
    hook: string,
  ): Promise<Begun> {
    const { container: id, name, logged } = notes as unknown as DockerNotes;
    const [mine] = inspectContainers(this.name, [id]);
    if (mine?.changes === undefined || mine.checkpoints === undefined)
      throw new RecoveryLineError("RL_DRIVER", `docker: the container ${name} was removed meanwhile`);
    for (const entry of await readdir(mine.changes))
      await rm(join(mine.changes, entry), { recursive: true, force: true });
    await tar(["-xf", join(folder, CHANGES), ...ALL_OF_A_FILE, "-C", mine.changes]);
    if (mine.log !== undefined && logged !== undefined) await truncate(mine.log, logged);
    const images = join(mine.checkpoints, NAME);
    await rm(images, { recursive: true, force: true });
    await mkdir(images, { recursive: true, mode: 0o700 });
    for (const entry of await readdir(folder))
      if (entry !== OWN) await cp(join(folder, entry), join(images, entry));
    const begun = await begin(id, place, hook, ["start", "--checkpoint", NAME, id]);
    const settled = async (): Promise<void> => {
      await begun.settled?.();
      await rm(images, { recursive: true, force: true });
    };
    return { ...begun, settled };
  }

  /** The runtime's folder goes with it: docker's own words name the reason. */
  protected override logFile(): string {
    return "";
  }
}

const ALL_OF_A_FILE = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse"];

async function begin(id: string, place: string, hook: string, args: readonly string[]): Promise<Begun> {
  // Whoever else has runc call CRIU meanwhile is none of ours.
  const hooks = new CriuHooks(
    place,
    hook,
    `case "$(cat "/proc/$CRTOOLS_INIT_PID/cgroup" 2>/dev/null)" in *${id}*);; *) exit 0;; esac\n`,
  );
  const conf = ["tcp-established", "file-locks", "network-lock nftables", `action-script ${hooks.script}`];
  const takeAway = await placeRuncConf(conf, CONF_LIMIT_MS);
  return { hooks, run: new EngineRun("docker", args), settled: async () => takeAway() };
}

/** Below `root`. Throws RL_DRIVER. */
async function folderWith(name: string, root: string): Promise<string> {
  const found = (await readdir(root, { recursive: true })).find((path) => path.endsWith(`/${name}`));
  if (found === undefined)
    throw new RecoveryLineError("RL_DRIVER", `docker: its checkpoint holds no ${name}: CRIU took no image`);
  return join(root, dirname(found));
}

/** Bytes. */
async function steadySize(path: string): Promise<number> {
  const sizeOf = async (): Promise<number> => (await stat(path)).size;
  for (let size = await sizeOf(); ; ) {
    await sleep(STEADY_MS);
    const now = await sizeOf();
    if (now === size) return size;
    size = now;
  }
}
