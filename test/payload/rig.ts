/** An application's cgroup, a capture and a payload logger of one test's own, and known traffic inside. */
import { execFileSync, type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { kernelSupport } from "../../src/capture/kernel-support.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { openPayloadStore, type PayloadLog } from "../../src/payload/payload-log.ts";
import { PayloadLogger, type PayloadLoggerOptions } from "../../src/payload/payload-logger.ts";
import { compile } from "../native/c-build.ts";
import { TestCgroups } from "../native/cgroups.ts";
import { ensureBpffs } from "../native/ring-rig.ts";
import { pattern } from "./pattern.ts";

/** Why nothing can be captured here; undefined where everything can. */
export const missing = kernelSupport().find(
  (one) => ["addon", "permission", "cgroup2"].includes(one.name) && !one.supported,
);

export interface Traffic {
  readonly family?: 4 | 6;
  readonly connections?: number;
  readonly bytes: number;
  readonly largestWrite?: number;
  /** SO_RCVBUF; 0: the kernel's default. */
  readonly receiveBuffer?: number;
  readonly mode?: "plain" | "urgent" | "reuse" | "wrap";
  /** Shell commands before it, in a network namespace of its own. */
  readonly namespace?: string;
}

/** A capture that records one process, "p". */
export class Recorded {
  readonly cgroups: TestCgroups;
  readonly pinDir: string;
  readonly #source: KernelSource;

  constructor(name: string) {
    ensureBpffs();
    this.cgroups = new TestCgroups(`payload-${name}`);
    const recorded = this.cgroups.make("p");
    this.pinDir = `/sys/fs/bpf/payload-${name}-${process.pid}`;
    this.#source = KernelSource.open({ pinDir: this.pinDir, ringBytes: 1 << 20, cgroupLevel: 2 });
    this.#source.select(recorded, true, 1); // who is not recorded has no names, and no payload is logged of it
  }

  async remove(): Promise<void> {
    this.#source.close();
    KernelSource.unpin(this.pinDir);
    await this.cgroups.remove();
  }
}

/** Makes what it runs; returns the program that sends. */
function built(): string {
  execFileSync("make", ["-s", "-C", join(packageRoot(), "native/payload")], { stdio: "inherit" });
  return compile("payload_traffic", ["test/payload/c/traffic_helper.c"], ["-O2", "-pthread"]);
}

export class PayloadRig {
  readonly appDir = mkdtempSync(join(tmpdir(), "rl-payload-"));
  readonly cgroups: TestCgroups;
  readonly pinDir: string;
  readonly ended: string[] = [];
  readonly #traffic = built();
  readonly #own: Recorded | undefined;
  readonly #loggers: PayloadLogger[] = [];

  /** Over a capture of its own, of that name, or over one that others use before and after it. */
  constructor(over: string | Recorded) {
    this.#own = typeof over === "string" ? new Recorded(over) : undefined;
    ({ cgroups: this.cgroups, pinDir: this.pinDir } = this.#own ?? (over as Recorded));
  }

  get appCgroup(): string {
    return dirname(this.cgroups.path("p"));
  }

  get folder(): string {
    return join(this.appDir, "payload");
  }

  /** Files of segments, oldest first. */
  get segments(): string[] {
    return readdirSync(this.folder)
      .filter((name) => name.endsWith(".payload"))
      .sort()
      .map((name) => join(this.folder, name));
  }

  async log(options: Partial<PayloadLoggerOptions> = {}): Promise<PayloadLogger> {
    const { appDir, pinDir, appCgroup: cgroup } = this;
    const onEnd = (why: string) => this.ended.push(why);
    const logger = await PayloadLogger.start({ appDir, pinDir, cgroup, onEnd, ...options });
    this.#loggers.push(logger);
    return logger;
  }

  /** Sends it all inside the application's cgroup, to the end. */
  send(traffic: Traffic): void {
    const result = this.trySend(traffic);
    if (result.status !== 0 || !result.stdout.endsWith("done\n"))
      throw new Error(`traffic failed: ${result.status} ${result.stdout} ${result.stderr}`);
  }

  trySend(traffic: Traffic): SpawnSyncReturns<string> {
    const [program, ...words] = this.#inside(traffic);
    return spawnSync(program, words, { encoding: "utf8", timeout: 60_000 });
  }

  /** The same, beside the test; resolves with the exit status. */
  async sendBeside(traffic: Traffic): Promise<number | null> {
    const [program, ...words] = this.#inside(traffic);
    const child = spawn(program, words, { stdio: "ignore" });
    const [status] = (await once(child, "close")) as [number | null];
    return status;
  }

  #inside(traffic: Traffic): [string, ...string[]] {
    const { family = 4, connections = 1, bytes, largestWrite = 4000, receiveBuffer = 0 } = traffic;
    const words = [family, connections, bytes, largestWrite, receiveBuffer, traffic.mode ?? "plain"];
    const command = [this.#traffic, ...words.map(String)];
    const inside = traffic.namespace === undefined ? command : namespaced(traffic.namespace, command);
    const script = 'echo $$ > "$0" && exec "$@"';
    const procs = join(this.cgroups.path("p"), "cgroup.procs");
    return ["sh", "-c", script, procs, ...inside];
  }

  store(): PayloadLog {
    return openPayloadStore(this.appDir)!;
  }

  async remove(): Promise<void> {
    for (const logger of this.#loggers) await logger.close();
    await this.#own?.remove();
    rmSync(this.appDir, { recursive: true });
  }
}

function namespaced(setup: string, command: readonly string[]): string[] {
  return ["unshare", "--net", "sh", "-c", `ip link set lo up && ${setup} && exec "$@"`, "sh", ...command];
}

/** Channel names by number of the stream, from their first bytes. */
export async function streamsOf(store: PayloadLog, streams: number): Promise<Map<number, string>> {
  const first = new Map<string, number>();
  for (let stream = 0; stream < streams; stream += 1)
    first.set(Buffer.from(pattern(stream, 0, 8)).toString("hex"), stream);
  const found = new Map<number, string>();
  for (const channel of await store.channels()) {
    const head = await store.read(channel, 0, 8);
    const stream = head === undefined ? undefined : first.get(Buffer.from(head).toString("hex"));
    if (stream !== undefined) found.set(stream, channel);
  }
  return found;
}
