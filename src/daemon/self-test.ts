/**
 * The loopback self-test: two small programs talk over TCP inside cgroups of their own, through a capture, a collector and a
 * log of their own; then the log must say that on each channel send and receive ranges tile the same bytes.
 */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KernelSource } from "../capture/kernel-source.ts";
import { Collector } from "../collect/collect.ts";
import { decodeBlock } from "../format/block.ts";
import { ensureBpffs } from "../host/bpffs.ts";
import { ProcessCgroup, processCgroupLevel } from "../host/cgroups.ts";
import { spawn } from "../host/spawn.ts";
import { isUnit } from "../log/complete-cut.ts";
import type { Event } from "../model/event.ts";

const RING_BYTES = 1 << 20;
const TALK_LIMIT_MS = 15_000;
const APP = "self-test";

/** Echoes; prints its port. */
const SERVER = `require("net").createServer((c) => { c.pipe(c); c.on("error", () => {}); }).listen(0, "127.0.0.1", function () { console.log(this.address().port); });`;
/** Sends odd sizes over three connections, each to the end of its echo. */
const CLIENT = `const net = require("net"); const sizes = [1, 1447, 70001, 9, 300000];
let open = 3; for (let n = 0; n < 3; n += 1) { const c = net.connect(process.argv[1], "127.0.0.1"); let want = 0, got = 0;
for (const size of sizes) { want += size + n; c.write(Buffer.alloc(size + n, n)); }
c.on("data", (d) => { got += d.length; if (got === want) { c.end(); if (--open === 0) process.exitCode = 0; } }); }
process.exitCode = 1;`;

/** What ends a program from a terminal or a service manager. */
const ENDING = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface SelfTest {
  readonly passed: boolean;
  /** One sentence. */
  readonly reason: string;
}

/** Leaves nothing behind, also where a signal ends this program meanwhile. Never throws: what stops it is its reason. */
export async function loopbackSelfTest(): Promise<SelfTest> {
  const stop = new AbortController();
  const end = (signal: NodeJS.Signals): void => stop.abort(signal);
  for (const signal of ENDING) process.once(signal, end);
  try {
    return await clearedSelfTest(stop.signal);
  } finally {
    for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve)); // one that came in time is heard
    for (const signal of ENDING) process.off(signal, end);
    if (stop.signal.aborted) process.kill(process.pid, stop.signal.reason);
  }
}

async function clearedSelfTest(stop: AbortSignal): Promise<SelfTest> {
  const home = mkdtempSync(join(tmpdir(), "recovery-line-doctor-"));
  const name = `doctor-${process.pid}`;
  const pinDir = `/sys/fs/bpf/recovery-line-${name}`;
  const cgroups = ["server", "client"].map((one) => new ProcessCgroup(name, one));
  try {
    ensureBpffs(pinDir);
    for (const cgroup of cgroups) cgroup.create();
    return judge(await converse(home, pinDir, cgroups, stop));
  } catch (error) {
    return { passed: false, reason: (error as Error).message };
  } finally {
    for (const cgroup of cgroups) await clear(cgroup);
    unpin(pinDir);
    rmSync(home, { recursive: true, force: true });
  }
}

async function converse(
  home: string,
  pinDir: string,
  cgroups: readonly ProcessCgroup[],
  stop: AbortSignal,
): Promise<Event[]> {
  const options = { home, pinDir, ringBytes: RING_BYTES, cgroupLevel: processCgroupLevel() };
  const collector = await Collector.start(options);
  try {
    for (const [index, process] of ["server", "client"].entries())
      await collector.registrations.register({ app: APP, process, cgroupId: cgroups[index]!.id! });
    await talk(cgroups[0]!, cgroups[1]!, stop);
    await collector.drain();
    const events: Event[] = [];
    for await (const block of collector.logs.readBlocks(APP))
      events.push(...decodeBlock(block).columns.events());
    return events;
  } finally {
    await collector.close();
  }
}

async function talk(server: ProcessCgroup, client: ProcessCgroup, stop: AbortSignal): Promise<void> {
  const signal = AbortSignal.any([AbortSignal.timeout(TALK_LIMIT_MS), stop]);
  const echo = node(server, SERVER);
  const [port] = (await once(echo.stdout!, "data", { signal })) as [Buffer];
  const talker = node(client, CLIENT, port.toString().trim());
  const [code] = (await once(talker, "exit", { signal })) as [number | null];
  if (code !== 0) throw new Error("the test's own conversation over 127.0.0.1 failed");
  echo.kill("SIGKILL");
  await once(echo, "exit");
}

/** A program inside the cgroup from its first instruction on. Its output goes through `cat`: Node's own pipes are sockets, which would be recorded. */
function node(cgroup: ProcessCgroup, script: string, ...args: string[]): ChildProcess {
  const enter = 'echo $$ >"$0" && exec "$@"';
  const procs = join(cgroup.path, "cgroup.procs");
  const inside = ["-c", enter, procs, process.execPath, "-e", script, ...args];
  if (args.length > 0) return spawn("/bin/sh", inside, { stdio: "ignore" });
  return spawn("/bin/sh", ["-c", '"$@" | cat', "sh", "/bin/sh", ...inside], {
    stdio: ["ignore", "pipe", "ignore"],
  });
}

/** Each direction of each connection: what was sent and what was received, from 0 on without hole, equally far. */
function judge(events: readonly Event[]): SelfTest {
  const ends = new Map<string, { sent: number; received: number }>();
  for (const event of events) {
    if (event.type === "gap") return { passed: false, reason: `a gap (${event.reason ?? "no reason"})` };
    if ((event.type !== "send" && event.type !== "receive") || isUnit(event.channel)) continue;
    const end = ends.get(event.channel) ?? { sent: 0, received: 0 };
    ends.set(event.channel, end);
    const side = event.type === "send" ? "sent" : "received";
    if (event.begin !== end[side])
      return {
        passed: false,
        reason: `${event.channel}: ${side} bytes ${end[side]} to ${event.begin} are missing or doubled`,
      };
    end[side] = event.end;
  }
  const unequal = [...ends].find(([, { sent, received }]) => sent !== received);
  if (unequal !== undefined)
    return {
      passed: false,
      reason: `${unequal[0]}: ${unequal[1].sent} bytes sent, ${unequal[1].received} received`,
    };
  if (ends.size !== 6)
    return { passed: false, reason: `${ends.size} channels were recorded where 6 were used` };
  const bytes = [...ends.values()].reduce((sum, { sent }) => sum + sent, 0);
  return {
    passed: true,
    reason: `${events.length} events, 6 channels, ${bytes} bytes: send and receive ranges tile.`,
  };
}

async function clear(cgroup: ProcessCgroup): Promise<void> {
  try {
    for (let attempt = 0; attempt < 100 && !cgroup.remove(); attempt += 1) {
      if (cgroup.populated) cgroup.kill(); // again and again: a shell may have been on its way into it
      await sleep(10);
    }
  } catch {} // what stopped the test stops its clearing, too, and has been told
}

function unpin(pinDir: string): void {
  try {
    KernelSource.unpin(pinDir);
  } catch {} // as above
}
