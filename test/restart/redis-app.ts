/** redis with a replica, and a client that counts up in it, one request after the other; all recorded. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { freePort, type Rig, until } from "../daemon/rig.ts";

export const REDIS_PROCESSES = ["primary", "replica", "writer"] as const;

export class RedisApp {
  readonly count: number;
  readonly #rig: Rig;
  readonly #ports = new Map<string, number>();

  constructor(rig: Rig, count: number) {
    this.#rig = rig;
    this.count = count;
  }

  async start(): Promise<void> {
    for (const name of ["primary", "replica"]) this.#ports.set(name, await freePort());
    await this.#server("primary");
    await this.#server("replica", "--replicaof", `127.0.0.1 ${this.#ports.get("primary")}`);
    await until("they have met", () => this.#log("replica").includes("Finished with success"));
    await this.#rig.run("writer", "bash", "-c", writer(this.#ports.get("primary")!, this.count));
  }

  async #server(name: string, ...more: string[]): Promise<void> {
    const dir = this.#rig.path(name);
    mkdirSync(dir);
    const own = ["--port", `${this.#ports.get(name)}`, "--bind", "127.0.0.1", "--dir", dir, "--save", ""];
    const quiet = ["--logfile", `${dir}/log`, "--repl-diskless-sync-delay", "0"];
    await this.#rig.run(name, "redis-server", ...own, ...quiet, ...more);
    await until(`${name} is ready`, () => this.#log(name).includes("Ready to accept connections"));
  }

  #log(name: string): string {
    const path = `${this.#rig.path(name)}/log`;
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  /** What the server has answered so far, in the client's order. */
  answers(): number[] {
    return this.#rig
      .output("writer")
      .split("\n")
      .filter((line) => line.startsWith(":"))
      .map((line) => Number(line.slice(1)));
  }

  /** Waits until all is counted. What is wrong; undefined if every increment counts once, in both servers. */
  async outcome(limitMs: number): Promise<string | undefined> {
    const deadlineMs = Date.now() + limitMs;
    while (this.answers().length < this.count && Date.now() < deadlineMs) await pause();
    const answers = this.answers();
    const wrong = answers.findIndex((answer, at) => answer !== at + 1);
    if (wrong >= 0) return `answer ${wrong + 1} is ${answers[wrong]}`;
    if (answers.length !== this.count) return `stopped after answer ${answers.length}`;
    for (const name of ["primary", "replica"]) {
      while (this.#counted(name) !== this.count && Date.now() < deadlineMs) await pause();
      if (this.#counted(name) !== this.count) return `${name} has counted to ${this.#counted(name)}`;
    }
    return undefined;
  }

  #counted(name: string): number {
    return Number(
      execFileSync("redis-cli", ["-p", `${this.#ports.get(name)}`, "get", "n"], { encoding: "utf8" }),
    );
  }
}

/** Counts up in the primary, one request after the other, and writes down each answer. */
function writer(port: number, count: number): string {
  return [
    `exec 3<>/dev/tcp/127.0.0.1/${port}`,
    `for ((i = 1; i <= ${count}; i++)); do`,
    `  printf 'INCR n\\r\\n' >&3; read -r -u 3 answer; echo "$answer"`,
    `  ((i % 10)) || sleep 0.02`,
    `done; sleep 1000`,
  ].join("\n");
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 50));
}
