/** podman with an image of redis and its libraries. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "vitest";
import { PodmanStore, podmanAbsent } from "./podman-store.ts";
import { type Rig, until } from "./rig.ts";

const PORT = "6390";

/** Why containers of redis can't be tried here; undefined where they can. */
export function withoutPodman(): string | undefined {
  return podmanAbsent("redis-server");
}

export class Podman extends PodmanStore {
  readonly server = pathOf("redis-server");
  readonly client = pathOf("redis-cli");
  readonly #logs = new Map<string, string>();

  constructor() {
    super();
    this.useFor(process.env);
    const root = join(this.folder, "root");
    makeRedisTree(root, [this.server, this.client]);
    this.importTree(root, "redis-alone");
  }

  /** Starts a container of that name on podman's bridge. */
  start(name: string, ...command: string[]): void {
    this.run(name, ["--network", "podman"], ...command);
  }

  run(name: string, options: readonly string[], ...command: string[]): void {
    this.podman("run", "--detach", "--name", name, ...options, "redis-alone", ...command);
  }

  /** Returns "address:port" of a redis in a container of that name. */
  async serve(name: string): Promise<string> {
    this.start(name, this.server, "--port", PORT, "--save", "", "--protected-mode", "no");
    await this.listens(name);
    return `${this.inspect(name, "{{.NetworkSettings.IPAddress}}")}:${PORT}`;
  }

  listens(name: string): Promise<void> {
    return until("redis listens", () => this.logs(name).some((line) => line.includes("Ready to accept")));
  }

  /** Whole lines of its output. Costs no process, as waiting for one means reading it again and again. */
  logs(name: string): string[] {
    const path = this.#logs.get(name) ?? this.inspect(name, "{{.HostConfig.LogConfig.Path}}");
    this.#logs.set(name, path);
    const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
    return lines.map((line) => line.split(" ").slice(3).join(" ")); // time, stream, F
  }

  inspect(name: string, format: string): string {
    return this.podman("container", "inspect", "--format", format, name);
  }
}

/** These programs, their libraries and /tmp. */
export function makeRedisTree(root: string, programs: readonly string[]): void {
  for (const program of programs) {
    const libraries = execFileSync("ldd", [program])
      .toString()
      .match(/\/[^ ]+/g)!;
    for (const file of [program, ...libraries]) {
      mkdirSync(join(root, dirname(file)), { recursive: true });
      cpSync(file, join(root, file), { dereference: true });
    }
  }
  mkdirSync(join(root, "tmp"), { recursive: true });
}

/** What a command of ours prints; fails where it does. */
export async function told(rig: Rig, ...args: string[]): Promise<string> {
  const { code, out, err } = await rig.cli(...args);
  expect(code, `${args.join(" ")}: ${out}${err}`).toBe(0);
  return out + err;
}

/** CRIU has a container in its hands, and waits for us. */
export function isHeld(rig: Rig): boolean {
  try {
    return readdirSync(rig.home, { recursive: true }).some((path) =>
      /\.podman-[^/]+\/root$/.test(String(path)),
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return isHeld(rig); // a folder went while it was read
  }
}

/** "": it is not installed. */
export function pathOf(program: string): string {
  return execFileSync("sh", ["-c", `command -v ${program} || true`])
    .toString()
    .trim();
}
