/** A docker daemon of one test's own, with an image of redis and its libraries; its runtime finds the CRIU that is tested here. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { quoted, writeScript } from "../../src/images/container/criu-hooks.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { makeRedisTree, pathOf } from "./podman.ts";
import { missing, until } from "./rig.ts";

const SUBNET = "172.31.77";
const NETWORK = "rl-test";
const SCRIPTS = "/run/recovery-line-criu";

/** Why containers of docker can't be tried here; undefined where they can. */
export function withoutDocker(): string | undefined {
  if (missing !== undefined) return missing.reason;
  const absent = ["dockerd", "docker", "runc", "redis-server"].find((program) => pathOf(program) === "");
  return absent === undefined ? undefined : `RL_NOT_SUPPORTED: ${absent} is not installed`;
}

export class Docker {
  readonly folder = mkdtempSync(join(tmpdir(), "rl-docker-"));
  readonly server = pathOf("redis-server");
  readonly client = pathOf("redis-cli");
  readonly #logs = new Map<string, string>();
  readonly #host = `unix://${this.folder}/socket`;

  /** Throws where it does not start. */
  static async start(): Promise<Docker> {
    const docker = new Docker();
    await docker.#begin();
    return docker;
  }

  async #begin(): Promise<void> {
    const { found } = await findCriu(packageRoot());
    if (found === undefined) throw new Error("no CRIU");
    const bin = join(this.folder, "bin");
    mkdirSync(bin);
    const command = [found.command, ...found.prefix].map(quoted).join(" ");
    writeScript(join(bin, "criu"), `exec ${command} "$@"\n`);
    const cgroups = leftCgroups();
    const places = ["--data-root", join(this.folder, "data"), "--exec-root", join(this.folder, "exec")];
    const own = ["--pidfile", join(this.folder, "pid"), "--host", this.#host];
    const network = ["--bridge", "none", "--iptables=false", "--ip-masq=false"];
    const daemon = spawn(
      "dockerd",
      ["--experimental", ...places, ...own, ...network, "--storage-driver", "overlay2"],
      { env: { ...process.env, PATH: `${bin}:${process.env["PATH"]}` }, stdio: ["ignore", "ignore", "pipe"] },
    );
    let said = "";
    daemon.stderr.on("data", (text: Buffer) => {
      said = (said + text.toString()).slice(-4096);
    });
    const before = { host: process.env["DOCKER_HOST"], scripts: scripts() };
    process.env["DOCKER_HOST"] = this.#host;
    onTestFinished(async () => {
      const all = this.docker("ps", "--all", "--quiet").split("\n").filter(Boolean);
      if (all.length > 0) this.docker("rm", "--force", ...all);
      for (const id of scripts().filter((one) => !before.scripts.includes(one)))
        rmSync(join(SCRIPTS, id), { force: true });
      spawnSync("docker", ["network", "rm", NETWORK]);
      if (before.host === undefined) delete process.env["DOCKER_HOST"];
      else process.env["DOCKER_HOST"] = before.host;
      const ended = once(daemon, "exit");
      daemon.kill("SIGTERM");
      await ended;
      spawnSync("rm", ["-rf", "--one-file-system", this.folder]);
      const ours = (): string[] => leftCgroups().filter((one) => !cgroups.includes(one));
      await until("docker's cgroups are gone", () => {
        for (const path of ours())
          spawnSync("find", [path, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
        return ours().length === 0;
      });
    });
    await until(`docker's daemon answers: ${said}`, () => {
      if (daemon.exitCode !== null) throw new Error(`dockerd ended: ${said}`);
      return spawnSync("docker", ["version"]).status === 0;
    });
    const root = join(this.folder, "root");
    makeRedisTree(root, [this.server, this.client]);
    const tree = join(this.folder, "tree.tar");
    execFileSync("tar", ["-C", root, "-cf", tree, "."]);
    this.docker("import", tree, "redis-alone");
    rmSync(tree);
    this.docker("network", "create", "--subnet", `${SUBNET}.0/24`, NETWORK);
  }

  docker(...args: string[]): string {
    const { stdout, stderr, status } = spawnSync("docker", args, { timeout: 60_000, encoding: "utf8" });
    if (status !== 0) throw new Error(`docker ${args.join(" ")}: ${stderr}`);
    return stdout.trim();
  }

  /** Starts a container of that name at that address of docker's bridge. Returns the address. */
  start(name: string, host: number, ...command: string[]): string {
    const address = `${SUBNET}.${host}`;
    const place = ["--detach", "--name", name, "--network", NETWORK, "--ip", address];
    this.docker("run", ...place, "redis-alone", ...command);
    return address;
  }

  /** Whole lines of its output. Costs no process, as waiting for one means reading it again and again. */
  logs(name: string): string[] {
    const path = this.#logs.get(name) ?? this.inspect(name, "{{.LogPath}}");
    this.#logs.set(name, path);
    const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
    return lines.map((line) => (JSON.parse(line) as { log: string }).log.trimEnd());
  }

  inspect(name: string, format: string): string {
    return this.docker("container", "inspect", "--format", format, name);
  }
}

/** Of containers: the driver leaves them. */
function scripts(): string[] {
  return existsSync(SCRIPTS) ? readdirSync(SCRIPTS) : [];
}

/** In each hierarchy: docker leaves its own there. */
function leftCgroups(): string[] {
  const root = "/sys/fs/cgroup";
  const hierarchies = [root, ...readdirSync(root).map((name) => join(root, name))];
  return hierarchies.map((hierarchy) => join(hierarchy, "docker")).filter((path) => existsSync(path));
}
