import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { KernelSource } from "../../src/capture/kernel-source.ts";
import { kernelSupport } from "../../src/capture/kernel-support.ts";
import { Collector } from "../../src/collect/collect.ts";
import { FakeDisk } from "../unit/collect-fakes.ts";
import { compile } from "./c-build.ts";
import { TestCgroups } from "./cgroups.ts";
import { tile } from "./tiling.ts";

const missing = kernelSupport().find((one) => ["addon", "permission"].includes(one.name) && !one.supported);
const live = test.skipIf(missing !== undefined);

let home: string;
let pinDir: string;
let cgroups: TestCgroups;
let disk: FakeDisk;
let collector: Collector;
let ids: Record<string, number>;
let children: ChildProcess[];

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "ring-capture-"));
  pinDir = `/sys/fs/bpf/rl-ring-capture-${process.pid}`;
  cgroups = new TestCgroups("rl-ring-capture");
  disk = new FakeDisk();
  children = [];
  ids = Object.fromEntries(["server", "client"].map((name) => [name, cgroups.make(name)]));
});
afterEach(async () => {
  for (const child of children) child.kill("SIGKILL");
  await collector.close();
  KernelSource.unpin(pinDir);
  await cgroups.remove();
  rmSync(home, { recursive: true, force: true });
});

async function start(ringBytes: number): Promise<void> {
  const source = KernelSource.open({ pinDir, ringBytes, cgroupLevel: cgroups.level });
  collector = await Collector.over({ source, home, openLog: disk.opener(() => true) });
  for (const [name, cgroupId] of Object.entries(ids))
    await collector.registrations.register({ app: "load", process: name, cgroupId });
}

/** A server, and a client that talks to it for a while; the client ends, the server stays. */
async function load(ms: number, connections: number, pauseUs: number): Promise<void> {
  const program = compile("tcp_load", ["test/native/c/tcp_load.c"]);
  const server = cgroups.spawn("server", program, ["server", "0"]);
  children.push(server);
  const port = String((await once(server.stdout!, "data"))[0]).trim();
  const client = cgroups.spawn("client", program, ["client", port, String(connections), String(pauseUs)]);
  children.push(client);
  await new Promise((resolve) => setTimeout(resolve, ms));
  client.kill("SIGTERM");
  await once(client, "close");
}

const events = () => disk.events(join(home, "load"));

live(
  "real TCP: send and receive ranges of every channel tile, and the cut vectors say the same",
  async () => {
    await start(16 << 20);
    await load(1500, 6, 50);
    await collector.drain();
    const { covered, faults } = tile(events());
    expect(faults.slice(0, 5)).toEqual([]);
    expect(covered.size).toBeGreaterThanOrEqual(4 * 6);
    for (const name of ["server", "client"]) {
      const { cut, complete, uncaptured, details } = await collector.cut(ids[name]!);
      expect([complete, uncaptured]).toEqual([true, []]);
      const mine = events().filter((event) => event.process === name);
      const seen = tile(mine).covered;
      const told = new Map([
        ...[...cut.sent].map(([channel, end]) => [`send ${channel}`, end] as const),
        ...[...cut.received].map(([channel, end]) => [`receive ${channel}`, end] as const),
      ]);
      for (const [end, offset] of told) expect([end, seen.get(end)]).toEqual([end, offset]);
      expect(details.length).toBeLessThan(seen.size); // what has ended is in the log alone
    }
    expect(collector.stats()).toMatchObject({ gaps: 0, unknown: 0, bad: 0, recursionMisses: 0 });
  },
);

live(
  "a ring that is too small: what finds no room is told later, every channel tiles, and nothing is missing",
  async () => {
    await start(4096);
    await load(700, 6, 0);
    await collector.drain();
    const { lost, gaps } = collector.stats();
    expect(lost.reduce((sum, one) => sum + one, 0)).toBeGreaterThan(0);
    expect(gaps).toBe(0);
    const { covered, faults } = tile(events());
    expect(faults).toEqual([]);
    expect(covered.size).toBeGreaterThanOrEqual(4 * 6);
  },
);

live(
  "UDP between two recorded processes cannot be matched: a gap, the reason is kept, a checkpoint loses its cut",
  async () => {
    await start(1 << 20);
    const inside = (name: string, program: string) => {
      const script = `echo $$ > "$0" && exec node -e "const s=require('dgram').createSocket('udp4');${program}"`;
      const procs = `${cgroups.path(name)}/cgroup.procs`;
      return spawn("sh", ["-c", script, procs], { stdio: ["ignore", "pipe", "inherit"] });
    };
    const taker = inside(
      "server",
      "s.bind(0,'127.0.0.1',()=>console.log(s.address().port));s.on('message',()=>process.exit())",
    );
    const [port] = (await once(taker.stdout, "data")) as [Buffer];
    const ends = [once(taker, "close")];
    ends.push(once(inside("client", `s.send('x',${Number(port)},'127.0.0.1',()=>process.exit())`), "close"));
    await Promise.all(ends);
    await collector.drain();
    expect(await collector.facts.uncaptured("load", "server")).toContain("udp");
    expect(await collector.facts.uncaptured("load", "client")).toContain("udp");
    const cut = await collector.cut(ids["client"]!);
    expect(cut.uncaptured).toContain("udp");
    const checkpoint = {
      type: "checkpoint",
      process: "client",
      checkpoint: 1,
      usable: true,
      cut: cut.cut,
    } as const;
    await collector.append("load", checkpoint);
    const types = events()
      .filter(({ process }) => process === "client")
      .map((event) => [event.type, "cut" in event]);
    expect(types.at(-1)).toEqual(["checkpoint", false]);
    expect(types).toContainEqual(["gap", false]);
  },
);
