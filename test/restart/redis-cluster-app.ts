/** A redis cluster of three, recorded, and who talks with it from outside: a load generator and look-ups at each server, which nobody records. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { freePort, type Rig, until } from "../daemon/rig.ts";

export const CLUSTER = ["redis-1", "redis-2", "redis-3"] as const;
const SLOTS = 16_384;

export class RedisCluster {
  readonly #rig: Rig;
  readonly #ports: number[] = [];
  readonly #strangers: ChildProcess[] = [];

  constructor(rig: Rig) {
    this.#rig = rig;
  }

  /**
   * Who makes the cluster talks with all servers, and would be a relay: it is recorded, and ends. Each of the others talks with one server,
   * so that nobody has to say who is outside.
   */
  async start(): Promise<void> {
    for (const name of CLUSTER) this.#ports.push(await this.#server(name));
    const nodes = this.#ports.map((port) => `127.0.0.1:${port}`);
    await this.#rig.run("create", "redis-cli", "--cluster", "create", ...nodes, "--cluster-yes");
    await this.answers();
    await until("who made it has ended", () => !this.#rig.cgroup("create").populated);
  }

  /** `clients`: connections of each load generator. */
  load(clients: number): void {
    for (const [index, port] of this.#ports.entries()) {
      const key = `{${this.#tagOf(port, index)}}:__rand_int__`;
      // It never ends where its server ends in the middle.
      this.#stranger(
        `timeout --foreground -s KILL 3 redis-benchmark -p ${port} -c ${clients} -n 1000 -r 1000 -q set ${key} value`,
      );
      this.#stranger(`redis-cli -p ${port} cluster nodes; redis-cli -p ${port} get ${key}`);
    }
  }

  async #server(name: string): Promise<number> {
    const [port, dir] = [await freePort(), this.#rig.path(name)];
    mkdirSync(dir);
    const own = ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--logfile", "log"];
    const { code, err } = await this.#rig.cli(
      ...["run", this.#rig.app, name, "--detach", "--data", dir, "--", "redis-server", ...own],
      ...[
        "--cluster-enabled",
        "yes",
        "--cluster-config-file",
        "nodes.conf",
        "--cluster-node-timeout",
        "5000",
      ],
    );
    if (code !== 0) throw new Error(`run ${name}: exit code ${code}: ${err}`);
    await until(`${name} is ready`, () => this.#ask(port, "ping") !== undefined);
    return port;
  }

  /** A tag whose keys the server itself serves: `create` gives each a third of the slots, in their order. */
  #tagOf(port: number, index: number): string {
    for (let tag = 0; ; tag += 1) {
      const slot = Number(this.#ask(port, "cluster", "keyslot", `${tag}`));
      if (Math.floor((slot * CLUSTER.length) / SLOTS) === index) return `${tag}`;
    }
  }

  /** Again and again, also where it fails, as its server has failed. */
  #stranger(command: string): void {
    const loop = `while :; do ${command}; sleep 0.3; done`;
    this.#strangers.push(spawn("sh", ["-c", loop], { stdio: "ignore", detached: true }));
  }

  #ask(port: number, ...command: string[]): string | undefined {
    try {
      return execFileSync("redis-cli", ["-p", `${port}`, ...command], {
        encoding: "utf8",
        timeout: 5000,
        stdio: ["ignore", "pipe", "ignore"],
      });
    } catch {
      return undefined;
    }
  }

  /** All slots are served, by each server's word. */
  async answers(limitMs = 60_000): Promise<void> {
    for (const port of this.#ports)
      await until(
        `the server at port ${port} says that the cluster is well`,
        () => {
          const info = this.#ask(port, "cluster", "info") ?? "";
          return info.includes("cluster_state:ok") && info.includes(`cluster_slots_ok:${SLOTS}`);
        },
        limitMs,
      );
  }

  stop(): void {
    for (const { pid } of this.#strangers) if (pid !== undefined) process.kill(-pid, "SIGKILL");
  }
}
