/** Two clustered nats-servers, a publisher and a subscriber, all recorded: numbered messages from one end to the other. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { SERVER_READY } from "../../src/demo/demo-programs.ts";
import { freePort, type Rig, until } from "../daemon/rig.ts";

export const NATS_PROCESSES = ["nats-1", "nats-2", "publisher", "subscriber"] as const;

export class NatsApp {
  /** At most. */
  readonly messages: number;
  readonly #rig: Rig;
  readonly #folder: string;
  readonly #flags: readonly string[];

  /** `flags`: for each `run`. */
  constructor(rig: Rig, messages: number, ...flags: string[]) {
    this.#rig = rig;
    this.#flags = flags;
    this.messages = messages;
    this.#folder = rig.path("nats");
    mkdirSync(this.#folder);
  }

  async start(): Promise<void> {
    const [client1, client2] = [await freePort(), await freePort()];
    const [route1, route2] = [await freePort(), await freePort()];
    await this.#server("nats-1", client1, route1, route2);
    await this.#server("nats-2", client2, route2, route1);
    await until("the servers have met", () => this.#log("nats-2").includes("Route connection created"));
    await this.#run("subscriber", "bash", "-c", subscriber(client2, this.#received));
    await this.#run("publisher", "bash", "-c", publisher(client1, this.messages, this.#last));
    await until("the subscriber's interest has reached the other server", () =>
      this.#text.includes("\r\nhello\r\n"),
    );
    writeFileSync(`${this.#last}.go`, "");
  }

  /** Messages come after `count` of them, as far as there are any left: on a slow machine all may have come by then. */
  async goesOn(count: number): Promise<void> {
    const enough = Math.min(count + 100, this.messages);
    await until("it goes on", () => this.numbers().length >= enough);
  }

  async #server(name: string, port: number, route: number, other: number): Promise<void> {
    const log = `${this.#folder}/${name}.log`;
    const address = ["-a", "127.0.0.1", "-p", `${port}`, "-n", name, "-l", log];
    const cluster = ["--cluster_name", "rig", "--cluster", `nats://127.0.0.1:${route}`];
    await this.#run(name, "nats-server", ...address, ...cluster, "--routes", `nats://127.0.0.1:${other}`);
    await until(`${name} is ready`, () => this.#log(name).includes(SERVER_READY));
  }

  async #run(name: string, ...command: string[]): Promise<void> {
    const { code, err } = await this.#rig.cli(
      "run",
      this.#rig.app,
      name,
      "--detach",
      ...this.#flags,
      "--",
      ...command,
    );
    if (code !== 0) throw new Error(`run ${name}: exit code ${code}: ${err}`);
  }

  /** SIGKILL for all of them. */
  kill(): void {
    for (const name of NATS_PROCESSES) this.#rig.cgroup(name).kill();
  }

  #log(name: string): string {
    const path = `${this.#folder}/${name}.log`;
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  get #received(): string {
    return `${this.#folder}/received.txt`;
  }

  get #text(): string {
    return existsSync(this.#received) ? readFileSync(this.#received, "latin1") : "";
  }

  /** How many messages it were, once the publisher has ended. */
  get #last(): string {
    return `${this.#folder}/last`;
  }

  /** Numbers of the messages that the subscriber has written down, in its order. */
  numbers(): number[] {
    return [...this.#text.matchAll(/order (\d{6})\r\n/g)].map((match) => Number(match[1]));
  }

  /** Lets some more messages come, and waits for the last one. What is wrong; undefined if all is exact. */
  async outcome(limitMs: number): Promise<string | undefined> {
    const sent = (): number => (existsSync(this.#last) ? Number(readFileSync(this.#last, "utf8")) : 0);
    const deadlineMs = Date.now() + limitMs;
    let numbers = this.numbers();
    const enough = Math.min(numbers.length + 100, this.messages);
    while ((sent() === 0 || numbers.at(-1) !== sent()) && Date.now() < deadlineMs) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      numbers = this.numbers();
      if (numbers.length >= enough) writeFileSync(`${this.#last}.stop`, "");
    }
    const wrong = numbers.findIndex((number, index) => number !== index + 1);
    if (wrong >= 0) return `message ${wrong + 1} is ${numbers[wrong]}`;
    return numbers.length === sent() ? undefined : `stopped after message ${numbers.length} of ${sent()}`;
  }
}

/** It has failed, and not finished, where it hears its server's end before it is killed itself. */
function subscriber(port: number, file: string): string {
  return `exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'CONNECT {"verbose":false}\\r\\nSUB orders 1\\r\\n' >&3; cat <&3 >'${file}'; exit 1`;
}

/** Says hello until `last`.go is there. Ten messages, a pause, and again, until `last`.stop is there or there are enough; how many it were is in `last`. */
function publisher(port: number, messages: number, last: string): string {
  return [
    `exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'CONNECT {"verbose":false}\\r\\n' >&3`,
    `while [[ ! -e '${last}.go' ]]; do printf 'PUB orders 5\\r\\nhello\\r\\n' >&3; sleep 0.05; done`,
    `for ((i = 1; i <= ${messages}; i++)); do`,
    `  printf 'PUB orders 12\\r\\norder %06d\\r\\n' $i >&3`,
    `  ((i % 10)) || { sleep 0.025; [[ ! -e '${last}.stop' ]] || break; }`,
    `done; echo $((i > ${messages} ? ${messages} : i)) >'${last}'; sleep 1000`,
  ].join("\n");
}
