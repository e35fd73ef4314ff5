import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { kernelSupport } from "../../src/capture/kernel-support.ts";
import { Collector } from "../../src/collect/collect.ts";
import { decodeBlock } from "../../src/format/block.ts";
import { openEventLog } from "../../src/log/append-log.ts";
import { readLog } from "../../src/log/segment-reader.ts";
import type { Event } from "../../src/model/event.ts";
import { freePort } from "../daemon/rig.ts";
import { TestCgroups } from "./cgroups.ts";
import { ensureBpffs } from "./ring-rig.ts";
import { tile } from "./tiling.ts";

const CLIENTS = 20;
/** Each is at least a send and a receive on either side. */
const REQUESTS = 55_000;

function missing(): string | undefined {
  const lacking = kernelSupport().find((one) => ["addon", "permission"].includes(one.name) && !one.supported);
  if (lacking !== undefined) return `RL_NOT_SUPPORTED: ${lacking.name}: ${lacking.reason}`;
  try {
    execFileSync("redis-server", ["--version"]);
    execFileSync("redis-benchmark", ["--version"]);
  } catch (error) {
    return `RL_NOT_SUPPORTED: Debian's redis-server and redis-tools are not installed: ${(error as Error).message}`;
  }
  return undefined;
}

async function accepting(port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const socket = connect(port, "127.0.0.1");
    const answer = await new Promise((resolve) => {
      socket.on("connect", () => resolve("up")).on("error", () => resolve("down"));
    });
    socket.destroy();
    if (answer === "up") return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("redis-server does not come up");
}

async function readEvents(folder: string): Promise<Event[]> {
  const events: Event[] = [];
  for await (const block of readLog(folder))
    for (const event of decodeBlock(block).columns.events()) events.push(event);
  return events;
}

/** The channel's two ends have the same bytes; the test's own probe of the port is nobody's. */
function unequalEnds(covered: ReadonlyMap<string, number>): string[] {
  return [...covered]
    .filter(
      ([key, bytes]) => key.startsWith("send tcp:") && covered.get(key.replace("send", "receive")) !== bytes,
    )
    .map(([key, bytes]) => `${key}: ${bytes} sent, ${covered.get(key.replace("send", "receive"))} received`);
}

const reason = missing();

test(`redis-server under redis-benchmark: ${REQUESTS} requests, nothing lost, every channel tiles`, async ({
  skip,
}) => {
  skip(reason !== undefined, reason);
  ensureBpffs();
  const home = mkdtempSync(join(tmpdir(), "redis-"));
  const pinDir = `/sys/fs/bpf/rl-redis-${process.pid}`;
  const cgroups = new TestCgroups("rl-redis");
  const ids = new Map(["redis", "benchmark"].map((name) => [name, cgroups.make(name)]));
  try {
    const source = KernelSource.open({ pinDir, ringBytes: 16 << 20, cgroupLevel: cgroups.level });
    const collector = await Collector.over({ source, home, openLog: openEventLog });
    for (const [name, cgroupId] of ids)
      await collector.registrations.register({ app: "shop", process: name, cgroupId });
    const port = await freePort();
    const options = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    const server = cgroups.spawn("redis", "redis-server", [...options, "--dir", home]);
    server.stdout?.resume();
    await accepting(port);
    const load = ["-p", String(port), "-c", String(CLIENTS), "-n", String(REQUESTS), "-t", "set", "-q"];
    // Not to a pipe of ours: who probes the one and reads the other may carry something between them.
    const quietly = ["-c", 'exec redis-benchmark "$@" >/dev/null', "sh", ...load];
    const benchmark = cgroups.spawn("benchmark", "sh", quietly);
    await once(benchmark, "close");
    expect(benchmark.exitCode).toBe(0);
    await collector.drain();
    const cuts = await Promise.all(
      [...ids].map(async ([name, id]) => [name, await collector.cut(id)] as const),
    );
    const gone = once(server, "close");
    server.kill("SIGKILL");
    await gone;
    await collector.drain();
    const { lost, recursionMisses, gaps, unknown, bad } = collector.stats();
    await collector.close();

    expect(lost.reduce((sum, one) => sum + one, 0)).toBe(0);
    expect({ recursionMisses, gaps, unknown, bad }).toEqual({
      recursionMisses: 0,
      gaps: 0,
      unknown: 0,
      bad: 0,
    });
    const events = await readEvents(join(home, "shop"));
    const tcp = events.filter((event) => "channel" in event && event.channel.startsWith("tcp:"));
    const { covered, faults } = tile(tcp);
    expect(faults).toEqual([]);
    expect(tcp.length).toBeGreaterThanOrEqual(200_000);
    // Two directions of each client, and of the connection that asks for the configuration.
    expect(covered.size).toBeGreaterThanOrEqual(4 * CLIENTS);
    expect(unequalEnds(covered)).toEqual([]);
    for (const [name, { cut, complete, uncaptured }] of cuts) {
      expect([name, complete, uncaptured]).toEqual([name, true, []]);
      const mine = tile(tcp.filter((event) => event.process === name)).covered;
      const told = [
        ...[...cut.sent].map(([channel, end]) => [`send ${channel}`, end] as const),
        ...[...cut.received].map(([channel, end]) => [`receive ${channel}`, end] as const),
      ].filter(([key, end]) => key.includes(" tcp:") && end > 0);
      for (const [key, end] of told) expect([key, mine.get(key)]).toEqual([key, end]);
    }
  } finally {
    KernelSource.unpin(pinDir);
    await cgroups.remove();
    rmSync(home, { recursive: true, force: true });
  }
});
