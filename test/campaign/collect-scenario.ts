/** The collector as a service, killed while real programs talk over TCP: every channel of every process tiles, without a gap, also where the ring had no room. */
import { ok, deepStrictEqual as same } from "node:assert";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { decodeBlock } from "../../src/format/block.ts";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import { readLog } from "../../src/log/segment-reader.ts";
import { hasCode } from "../../src/model/errors.ts";
import { until } from "../daemon/rig.ts";
import { compile } from "../native/c-build.ts";
import { tile } from "../native/tiling.ts";
import { storedEvents } from "../unit/log-rig.ts";
import type { Scenario } from "./kill-points.ts";

/** What the log held when it was looked at last. */
export interface Collected {
  readonly lastChain: number;
  /** Lines of the server, and which of them are acknowledged `stable` lines. */
  readonly lines: number;
  readonly acknowledged: ReadonlySet<number>;
}

const CONNECTIONS = "4";

/** How much the programs say, and the ring that takes it. */
interface Traffic {
  readonly name: string;
  readonly pauseUs: number;
  readonly ringBytes: number;
}

/** The ring has room for all, also while no collector lives. */
export const ROOMY: Traffic = { name: "collect", pauseUs: 3000, ringBytes: 16 * 1024 * 1024 };
/** 1024 records: it is full soon after each death. */
export const OVERFLOW: Traffic = { name: "overflow", pauseUs: 300, ringBytes: 64 * 1024 };

const sumOf = (numbers: readonly number[]): number => numbers.reduce((sum, one) => sum + one, 0);

export class TalkingPrograms {
  readonly app: string;
  readonly pinDir: string;
  readonly #home: string;
  readonly #dist: string;
  readonly #traffic: Traffic;
  readonly #cgroups: readonly ProcessCgroup[];
  readonly #programs: ChildProcess[] = [];

  constructor(home: string, dist: string, traffic: Traffic) {
    this.app = `campaign-${traffic.name}-${process.pid}`;
    this.pinDir = `/sys/fs/bpf/rl-campaign-${traffic.name}-${process.pid}`;
    this.#home = home;
    this.#dist = dist;
    this.#traffic = traffic;
    this.#cgroups = ["server", "client"].map((name) => new ProcessCgroup(this.app, name));
    for (const cgroup of this.#cgroups) cgroup.create();
  }

  #program(only?: "register" | "drain"): readonly string[] {
    const processes = ["server", "client"].map((name, at) => {
      const { id, path } = this.#cgroups[at]!;
      return [name, id, path];
    });
    const { app, pinDir } = this;
    const options = JSON.stringify({ app, processes, pinDir, ringBytes: this.#traffic.ringBytes, only });
    return [join(this.#home, "collect-writer.mjs"), this.#dist, options];
  }

  get scenario(): Scenario<Collected> {
    return {
      name: this.#traffic.name,
      program: this.#program(),
      start: { lastChain: 0, lines: 0, acknowledged: new Set() },
      check: (home, before, said) => this.#check(join(home, this.app), before, said),
      lines: 6,
      chained: true,
    };
  }

  /** Both programs; they are recorded from before their first connection on. */
  async start(home: string, port: number): Promise<void> {
    const program = compile("tcp_load", ["test/native/c/tcp_load.c"]);
    // Something must run in the cgroups before a collector looks at them.
    const server = this.#spawn(0, program, "server", String(port));
    await once(server.stdout!, "data");
    const waiting = this.#spawn(1, "sleep", "1000");
    await this.#peace(home, "register");
    this.#spawn(1, program, "client", String(port), CONNECTIONS, String(this.#traffic.pauseUs));
    await this.#end(waiting, "SIGKILL");
  }

  #spawn(at: number, command: string, ...args: string[]): ChildProcess {
    const script = 'echo $$ > "$0" && exec "$@"';
    const child = spawn(
      "sh",
      ["-c", script, join(this.#cgroups[at]!.path, "cgroup.procs"), command, ...args],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    this.#programs.push(child);
    return child;
  }

  async #end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, "close");
  }

  /** A life that nobody kills. Returns what the kernel counted. */
  async #peace(
    home: string,
    only: "register" | "drain",
  ): Promise<{ readonly committed: number; readonly lost: number }> {
    const child = spawn(process.execPath, [...this.#program(only), home], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let out = "";
    child.stdout.on("data", (text: Buffer) => {
      out += text.toString();
    });
    await once(child, "close");
    same(child.exitCode, 0, out);
    const stats = out.split("\n").find((line) => line.startsWith("stats "))!;
    const { committed, lost } = JSON.parse(stats.slice(6)) as Record<"committed" | "lost", number[]>;
    return { committed: sumOf(committed), lost: sumOf(lost) };
  }

  /** Every acknowledged line is where it was said to be. The blocks of a log that nobody holds. */
  async #check(dir: string, before: Collected, said: string): Promise<Collected> {
    const acknowledged = new Set(before.acknowledged);
    for (const line of said.split("\n"))
      if (/^ack \d+$/.test(line)) {
        const position = Number(line.slice(4));
        ok(position > before.lines || !acknowledged.has(position), `line ${position} was acknowledged twice`);
        acknowledged.add(position);
      }
    let { lastChain, lines } = before;
    const stable = new Set<number>();
    if (existsSync(dir))
      for await (const bytes of committed(dir, lastChain)) {
        const { header, columns } = decodeBlock(bytes);
        lastChain = header.chain;
        if (columns.process !== "server") continue;
        same(header.position, lines, "lines are missing");
        for (const event of columns.events()) {
          lines += 1;
          if (event.type === "stable") stable.add(lines);
        }
      }
    for (const position of acknowledged)
      if (position > before.lines) ok(stable.has(position), `acknowledged line ${position} is not there`);
    return { lastChain, lines, acknowledged };
  }

  /** The programs end; all they did must be in the log once, in order, or declared lost. Returns figures. */
  async finish(home: string): Promise<string> {
    const [server, , client] = this.#programs;
    for (const { path } of this.#cgroups) writeFileSync(join(path, "cgroup.freeze"), "0"); // as the last life may have left them
    await this.#end(client!, "SIGTERM"); // it finishes its round: whatever was sent has been received
    await this.#end(server!, "SIGKILL");
    const { committed, lost } = await this.#peace(home, "drain");
    const events = await storedEvents(join(home, this.app));
    const { covered, faults } = tile(events);
    if (this.#traffic === OVERFLOW) ok(lost > 0, "the ring was never full");
    else same(lost, 0, "the ring was large enough");
    same(events.filter(({ type }) => type === "gap").slice(0, 5), []);
    same(faults.slice(0, 5), []);
    let channels = 0;
    for (const [key, bytes] of covered) {
      if (!key.includes(" tcp:")) continue; // the server's standard output is a socket to this test
      const other = key.startsWith("send") ? key.replace("send", "receive") : key.replace("receive", "send");
      same([key, covered.get(other)], [key, bytes]);
      channels += 0.5;
    }
    return `${events.length} events of ${channels} TCP channels: every byte once and in order, 0 gaps; ${committed} records, ${lost} found no room`;
  }

  async remove(): Promise<void> {
    for (const child of this.#programs) await this.#end(child, "SIGKILL");
    for (const cgroup of this.#cgroups)
      await until("its processes are gone", () => {
        if (cgroup.populated) cgroup.kill();
        return cgroup.remove();
      });
    spawnSync("rmdir", [join(this.#cgroups[0]!.path, "..")]);
    KernelSource.unpin(this.pinDir);
  }
}

async function* committed(dir: string, since: number): AsyncGenerator<Uint8Array> {
  try {
    yield* readLog(dir, since);
  } catch (error) {
    if (!hasCode(error, "RL_UNKNOWN_APP")) throw error;
  }
}
