/** podman with a store of its own: an image of redis and its libraries, without a registry. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { missing, until } from "./rig.ts";

const PORT = "6390";

/** Why containers can't be tried here; undefined where they can. */
export function withoutPodman(): string | undefined {
  if (missing !== undefined) return missing.reason;
  for (const [program, ...args] of [
    ["podman", "--version"],
    ["runc", "--version"],
    ["redis-server", "--version"],
  ] as const)
    try {
      execFileSync(program, args, { stdio: "ignore" });
    } catch {
      return `RL_NOT_SUPPORTED: ${program} is not installed`;
    }
  return undefined;
}

export class Podman {
  readonly folder = mkdtempSync(join(tmpdir(), "rl-podman-"));
  readonly server = pathOf("redis-server");
  readonly client = pathOf("redis-cli");

  constructor() {
    const leftByPodman = [
      [existsSync("/sys/class/net/cni-podman0"), "ip link delete cni-podman0"],
      [existsSync(join(cgroup2Root(), "libpod_parent")), `rmdir ${join(cgroup2Root(), "libpod_parent")}`],
    ] as const;
    const [storage, engine] = [join(this.folder, "storage.conf"), join(this.folder, "containers.conf")];
    writeFileSync(
      storage,
      `[storage]\ndriver = "vfs"\ngraphroot = "${this.folder}/store"\nrunroot = "${this.folder}/run"\n`,
    );
    writeFileSync(
      engine,
      `[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n`,
    );
    process.env["CONTAINERS_STORAGE_CONF"] = storage;
    process.env["CONTAINERS_CONF"] = engine;
    onTestFinished(() => {
      this.podman("rm", "--all", "--force", "--time", "0");
      delete process.env["CONTAINERS_STORAGE_CONF"];
      delete process.env["CONTAINERS_CONF"];
      spawnSync("rm", ["-rf", "--one-file-system", this.folder]); // a killed CRIU may have left mounts in it
      for (const [wasThere, command] of leftByPodman) if (!wasThere) spawnSync("sh", ["-c", command]);
    });
    this.#makeImage();
  }

  podman(...args: string[]): string {
    return execFileSync("podman", args, { stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 })
      .toString()
      .trim();
  }

  #makeImage(): void {
    const root = join(this.folder, "root");
    for (const program of [this.server, this.client]) {
      const libraries = execFileSync("ldd", [program])
        .toString()
        .match(/\/[^ ]+/g)!;
      for (const file of [program, ...libraries]) {
        mkdirSync(join(root, dirname(file)), { recursive: true });
        cpSync(file, join(root, file), { dereference: true });
      }
    }
    mkdirSync(join(root, "tmp"), { recursive: true });
    const tree = join(this.folder, "tree.tar");
    execFileSync("tar", ["-C", root, "-cf", tree, "."]);
    this.podman("import", tree, "redis-alone");
  }

  /** Starts a container of that name on podman's bridge. */
  start(name: string, ...command: string[]): void {
    this.podman("run", "--detach", "--name", name, "--network", "podman", "redis-alone", ...command);
  }

  /** Returns "address:port" of a redis in a container of that name. */
  async serve(name: string): Promise<string> {
    this.start(name, this.server, "--port", PORT, "--save", "", "--protected-mode", "no");
    await until("redis listens", () => this.podman("logs", name).includes("Ready to accept"));
    return `${this.inspect(name, "{{.NetworkSettings.IPAddress}}")}:${PORT}`;
  }

  inspect(name: string, format: string): string {
    return this.podman("container", "inspect", "--format", format, name);
  }
}

function pathOf(program: string): string {
  return execFileSync("sh", ["-c", `command -v ${program} || true`])
    .toString()
    .trim();
}
