/** podman with a store of one test's own, whose images are made without a registry. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { missing } from "./rig.ts";

/** Why no container can be recorded here, or not with these programs; undefined where it can. */
export function podmanAbsent(...programs: string[]): string | undefined {
  if (missing !== undefined) return missing.reason;
  const absent = ["podman", "runc", ...programs].find(
    (program) => spawnSync(program, ["--version"], { stdio: "ignore" }).status !== 0,
  );
  return absent === undefined ? undefined : `RL_NOT_SUPPORTED: ${absent} is not installed`;
}

/** podman's bridge makes such, and leaves them behind. */
function hasTable(name: string): boolean {
  return spawnSync("nft", ["list", "table", "ip", name], { stdio: "ignore" }).status === 0;
}

export class PodmanStore {
  readonly folder = mkdtempSync(join(tmpdir(), "rl-podman-"));
  readonly #env: NodeJS.ProcessEnv;

  constructor() {
    const [storage, engine] = [join(this.folder, "storage.conf"), join(this.folder, "containers.conf")];
    writeFileSync(
      storage,
      `[storage]\ndriver = "vfs"\ngraphroot = "${this.folder}/store"\nrunroot = "${this.folder}/run"\n`,
    );
    writeFileSync(
      engine,
      `[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n[containers]\nlog_driver = "k8s-file"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n`,
    );
    this.#env = { ...process.env, CONTAINERS_STORAGE_CONF: storage, CONTAINERS_CONF: engine };
    const parent = join(cgroup2Root(), "libpod_parent");
    const leftByPodman = [
      [existsSync("/sys/class/net/cni-podman0"), ["ip", "link", "delete", "cni-podman0"]],
      [existsSync(parent), ["find", parent, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]], // of pods, too
      ...["nat", "filter"].map(
        (table) => [hasTable(table), ["nft", "delete", "table", "ip", table]] as const,
      ),
    ] as const;
    onTestFinished(() => {
      this.podman("pod", "rm", "--all", "--force", "--time", "0");
      this.podman("rm", "--all", "--force", "--time", "0");
      spawnSync("rm", ["-rf", "--one-file-system", this.folder]); // a killed CRIU may have left mounts in it
      for (const [wasThere, [command, ...args]] of leftByPodman) if (!wasThere) spawnSync(command, args);
    });
  }

  /** Commands of ours in that environment ask this store, too, until the test ends. */
  useFor(env: NodeJS.ProcessEnv): void {
    const names = ["CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF"];
    for (const name of names) env[name] = this.#env[name];
    onTestFinished(() => {
      for (const name of names) delete env[name];
    });
  }

  podman(...args: string[]): string {
    const { stdout, stderr, status } = spawnSync("podman", args, {
      timeout: 60_000,
      env: this.#env,
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`podman ${args.join(" ")}: ${stderr}`);
    return stdout.trim();
  }

  /** Of its first process; 0: it does not run. */
  pidOf(container: string): number {
    return Number(this.podman("container", "inspect", "--format", "{{.State.Pid}}", container));
  }

  /** In the background, in an image of `makeImage`, on the host's network. */
  runHostProgram(name: string, ...command: string[]): void {
    const options = ["--detach", "--name", name, "--network=host", "--volume", "/usr:/usr:ro"];
    this.podman("run", ...options, "host-programs", ...command);
  }

  /** An image that has nothing but a place for the host's /usr, and these files: whatever runs in it is the host's. */
  makeImage(name = "host-programs", files: Readonly<Record<string, string>> = {}): void {
    const root = join(this.folder, "root");
    for (const folder of ["usr", "proc", "sys", "dev", "tmp", "run", "etc", "var"])
      mkdirSync(join(root, folder), { recursive: true });
    for (const folder of ["bin", "sbin", "lib", "lib64"]) symlinkSync(`usr/${folder}`, join(root, folder));
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    this.importTree(root, name);
  }

  protected importTree(root: string, image: string): void {
    const tree = join(this.folder, "tree.tar");
    execFileSync("tar", ["-C", root, "-cf", tree, "."]);
    this.podman("import", tree, image);
  }
}
