/** podman's own checkpoint of a container as a driver: its root's changes, addresses, labels, name and id come back with it. */
import { join } from "node:path";
import { answerOf } from "../../host/answer-of.ts";
import { type Container, removeContainer } from "../../host/containers.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import type { DriverNotes } from "../driver.ts";
import {
  type Begun,
  ContainerDriver,
  type ContainerNotes,
  lastLines,
  type Restoring,
} from "./container-driver.ts";
import { CriuForPodman, type PodmanTools } from "./criu-for-podman.ts";
import { EngineRun } from "./engine-run.ts";
import { packExport, unpackExport } from "./export-archive.ts";

/** Both directions: live connections and locks come back, volumes are not podman's to put back. */
const COMMON = ["--tcp-established", "--file-locks", "--ignore-volumes"];

export class PodmanDriver extends ContainerDriver {
  readonly name = "podman";
  readonly #tools: PodmanTools;

  constructor(tools: PodmanTools) {
    super(tools.version);
    this.#tools = tools;
  }

  protected override refusal(): undefined {
    return undefined;
  }

  protected override async beginDump(container: Container, place: string, hook: string): Promise<Begun> {
    const hooks = new CriuForPodman(place, this.#tools, hook);
    const words = ["container", "checkpoint", "--leave-running", ...COMMON];
    const args = [...words, "--compress", "none", "--export", exported(place), container.id];
    return { hooks, run: new EngineRun(this.name, args, hooks.environment) };
  }

  protected override async keep(_: Container, place: string, folder: string): Promise<DriverNotes> {
    await unpackExport(exported(place), folder);
    return {};
  }

  protected override ownObstacles(): string[] {
    return [];
  }

  async clear(notes: DriverNotes): Promise<void> {
    const { container, name } = notes as unknown as ContainerNotes;
    const said = await removeContainer(container);
    if (said !== undefined)
      throw new RecoveryLineError(
        "RL_DRIVER",
        `podman: the dead container ${name} can't be removed to be restored: ${lastLines(said)}`,
        `podman rm --force ${container.slice(0, 12)}`,
      );
  }

  protected override async beginRestore({ folder, place, hook, guard }: Restoring): Promise<Begun> {
    const hooks = new CriuForPodman(place, this.#tools, hook);
    const archive = join(place, "import.tar");
    await packExport(folder, archive);
    const words = ["--conmon", hooks.conmon, "container", "restore", ...COMMON, "--import", archive];
    return { hooks, run: new EngineRun(this.name, words, hooks.environment, guard) };
  }

  protected override logFile(id: string, of: "dump" | "restore"): string {
    const folder = answerOf(this.name, ["container", "inspect", "--format", "{{.StaticDir}}", id]);
    return folder === undefined ? "" : join(folder, `${of}.log`);
  }
}

function exported(place: string): string {
  return join(place, "export.tar");
}
