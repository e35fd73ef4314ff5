/**
 * docker's own checkpoint of a container as a driver (`docker checkpoint create`, `docker start --checkpoint`). It holds memory and
 * connections. What the container has changed of its image's files lies in a folder of docker's storage (overlay2), and its output in a
 * file: both are saved while it stands still, and put back before it is started, while it is dead.
 *
 * CRIU is started by docker's runtime: what it is told stands in runc.conf meanwhile (runc-conf.ts), and names a script of this container
 * that stays (`/run/recovery-line-criu`), since whoever else read the file calls it, too: it hands on to the hooks while we are there.
 */
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { cp, mkdir, readdir, rename, rm, stat, truncate } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Container, inspectContainers } from "../../host/containers.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import type { DriverNotes } from "../driver.ts";
import { type Begun, ContainerDriver, type ContainerNotes, type Restoring } from "./container-driver.ts";
import { CriuHooks, quoted, writeScript } from "./criu-hooks.ts";
import { EngineRun } from "./engine-run.ts";
import { tar } from "./export-archive.ts";
import { placeRuncConf } from "./runc-conf.ts";

/** What docker calls our checkpoint. */
const NAME = "recovery-line";
/** In the folder of an image, beside CRIU's files. */
const OWN = "container";
const CHANGES = join(OWN, "changes.tar");
const SCRIPTS = "/run/recovery-line-criu";
/** Longest wait for docker to know that a container is dead, in ms. */
const DEATH_LIMIT_MS = 10_000;
const LOOK_MS = 50;
/** The container stands still: what it has printed is in its log once that has not grown for so long, in ms. */
const STEADY_MS = 150;
const DEAD = new Set(["created", "dead", "exited"]);

interface DockerNotes extends ContainerNotes {
  /** Absent: docker keeps none in a file. */
  readonly log?: LogPlace;
}

interface LogPlace {
  readonly inode: number;
  readonly bytes: number;
}

export class DockerDriver extends ContainerDriver {
  readonly name = "docker";

  protected override refusal({ changes, checkpoints, removesItself }: Container): string | undefined {
    if (removesItself)
      return "was started with --rm: docker removes it as soon as it is dead, and starts only what it has";
    return changes === undefined || checkpoints === undefined
      ? "is in a storage of docker's without a folder of its changes (overlay2 has one): they could not be put back"
      : undefined;
  }

  protected override async beginDump(
    { id }: Container,
    place: string,
    hook: string,
    limitMs: number,
  ): Promise<Begun> {
    const words = ["checkpoint", "create", "--leave-running", "--checkpoint-dir", join(place, "made")];
    return begin(id, { place, hook, limitMs, guard: undefined }, [...words, id, NAME]);
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
    return log === undefined ? {} : { log: await steadyEnd(log) };
  }

  protected override ownObstacles({ name }: ContainerNotes, mine: Container | undefined): string[] {
    if (mine === undefined)
      return [`the container ${name} was removed, and docker starts only what it has: there is no way back`];
    if (mine.removesItself) return [`the container ${name} would be removed by docker as soon as it is dead`];
    return mine.pid === 0 && !DEAD.has(mine.status)
      ? [`docker is about to start the container ${name} again (${mine.status}): docker stop ${name}`]
      : [];
  }

  async clear(notes: DriverNotes): Promise<void> {
    const { container, name } = notes as unknown as ContainerNotes;
    const deadlineMs = performance.now() + DEATH_LIMIT_MS;
    for (;;) {
      const [mine] = inspectContainers(this.name, [container]);
      if (mine === undefined || DEAD.has(mine.status)) return;
      if (performance.now() > deadlineMs)
        throw new RecoveryLineError(
          "RL_DRIVER",
          `docker: the container ${name} is dead, and docker says that it is ${mine.status}`,
          `docker stop ${name}`,
        );
      await sleep(LOOK_MS);
    }
  }

  protected override async beginRestore(restoring: Restoring): Promise<Begun> {
    const { folder } = restoring;
    const { container: id, name, log } = restoring.notes as unknown as DockerNotes;
    const [mine] = inspectContainers(this.name, [id]);
    if (mine?.changes === undefined || mine.checkpoints === undefined)
      throw new RecoveryLineError("RL_DRIVER", `docker: the container ${name} was removed meanwhile`);
    const images = join(mine.checkpoints, NAME);
    const files = new ChangedFiles(mine.changes);
    const clean = (): Promise<void> => rm(images, { recursive: true, force: true });
    try {
      await clean();
      await mkdir(images, { recursive: true, mode: 0o700 });
      for (const entry of await readdir(folder))
        if (entry !== OWN) await cp(join(folder, entry), join(images, entry));
      await files.exchange(join(folder, CHANGES));
      const cut = async (): Promise<void> => {
        if (mine.log !== undefined && log !== undefined) await cutBack(mine.log, log);
      };
      const begun = await begin(id, restoring, ["start", "--checkpoint", NAME, id], cut);
      const settled = async (isBack: boolean): Promise<void> => {
        await begun.settled?.(isBack);
        await clean();
        await files.settle(isBack);
      };
      return { ...begun, settled };
    } catch (error) {
      await clean();
      await files.settle(false);
      throw error;
    }
  }

  protected override logFile(_: string, of: "dump" | "restore", printed: string): string {
    return of === "dump" ? (/ path= ?(\/\S+\/criu-dump\.log)/.exec(printed)?.[1] ?? "") : "";
  }
}

/**
 * The folder of what a dead container has changed. The one from the image is built aside; the other one stands beside it until the container
 * is back, and takes its place again where it isn't.
 */
class ChangedFiles {
  readonly #path: string;
  readonly #before: string;

  constructor(path: string) {
    this.#path = path;
    this.#before = `${path}.before-recovery-line`;
  }

  /** What a restart that was killed left aside is what was there before this one, too. */
  async exchange(archive: string): Promise<void> {
    const next = `${this.#path}.of-recovery-line`;
    await this.settle(false);
    await rm(next, { recursive: true, force: true });
    await mkdir(next);
    await tar(["-xf", archive, ...ALL_OF_A_FILE, "-C", next]);
    renameSync(this.#path, this.#before);
    renameSync(next, this.#path);
  }

  async settle(isBack: boolean): Promise<void> {
    if (!existsSync(this.#before)) return;
    if (!isBack) {
      await rm(this.#path, { recursive: true, force: true });
      renameSync(this.#before, this.#path);
    } else await rm(this.#before, { recursive: true, force: true });
  }
}

const ALL_OF_A_FILE = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse"];

/** `last`: what is done before docker is told, once nothing has to be waited for. */
async function begin(
  id: string,
  { place, hook, limitMs, guard }: Pick<Restoring, "place" | "hook" | "limitMs" | "guard">,
  args: readonly string[],
  last?: () => Promise<void>,
): Promise<Begun> {
  const hooks = new CriuHooks(place, hook);
  const conf = [
    "tcp-established",
    "file-locks",
    "network-lock nftables",
    `action-script ${lasting(id, hooks)}`,
  ];
  const takeAway = await placeRuncConf(conf, limitMs);
  try {
    await last?.();
  } catch (error) {
    takeAway();
    throw error;
  }
  return { hooks, run: new EngineRun("docker", args, process.env, guard), settled: async () => takeAway() };
}

/** Others' CRIUs that have read its name call it as well. Ours of which nobody is there any more brings nothing back. */
function lasting(id: string, { script }: CriuHooks): string {
  const path = join(SCRIPTS, id);
  mkdirSync(SCRIPTS, { recursive: true, mode: 0o700 });
  writeScript(
    path,
    `case "$(cat "/proc/$CRTOOLS_INIT_PID/cgroup" 2>/dev/null)" in *${id}*);; *) exit 0;; esac
if [ -d /proc/${process.pid} ] && [ -x ${quoted(script)} ]; then exec ${quoted(script)}; fi
case "$CRTOOLS_SCRIPT_ACTION" in post-restore|pre-resume) exit 1;; esac
exit 0
`,
  );
  return path;
}

/** Below `root`. Throws RL_DRIVER. */
async function folderWith(name: string, root: string): Promise<string> {
  const found = (await readdir(root, { recursive: true })).find((path) => path.endsWith(`/${name}`));
  if (found === undefined)
    throw new RecoveryLineError("RL_DRIVER", `docker: its checkpoint holds no ${name}: CRIU took no image`);
  return join(root, dirname(found));
}

async function steadyEnd(path: string): Promise<LogPlace> {
  for (let before = await stat(path); ; ) {
    await sleep(STEADY_MS);
    const now = await stat(path);
    if (now.ino === before.ino && now.size === before.size) return { inode: now.ino, bytes: now.size };
    before = now;
  }
}

/** One that was rotated since then stays. */
async function cutBack(path: string, { inode, bytes }: LogPlace): Promise<void> {
  const now = await stat(path);
  if (now.ino === inode && now.size > bytes) await truncate(path, bytes);
}
