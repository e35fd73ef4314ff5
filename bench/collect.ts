// bench: the kernel ring into the logs, beside a bare LevelDB loop; memory at a steady rate and under short connections; cost when idle
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Level } from "level";
import { KernelSource } from "../src/capture/kernel-source.ts";
import { Collector } from "../src/collect/collect.ts";
import { RingKind } from "../src/format/ring-layout.ts";
import { SMALL_HEAP_FLAGS, SMALL_HEAP_VARIABLES } from "../src/host/small-heap.ts";
import { openEventLog } from "../src/log/append-log.ts";
import { type Running, until, withBenchRig } from "../test/daemon/rig.ts";
import { compile } from "../test/native/c-build.ts";
import { RingRig } from "../test/native/ring-rig.ts";
import { type Figure, median, report } from "./report.ts";

const SLOT = 64;
const VALUE_BYTES = 256 * 1024;
const PROCESS = 77;
const CONNECTIONS = 64;
/** On the disk the logs live on, not in memory. */
const scratch = mkdtempSync(join(process.cwd(), "build", "bench-collect-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

interface Setup {
  readonly rig: RingRig;
  readonly collector: Collector;
  readonly end: () => Promise<void>;
}

async function setUp(name: string, ringBytes: number): Promise<Setup> {
  const rig = new RingRig(`bench-${name}`, ringBytes);
  const source = KernelSource.attach(rig.ringPath, ringBytes);
  const collector = await Collector.over({ source, openLog: openEventLog, home: join(scratch, name) });
  await collector.registrations.register({ app: "bench", process: "p0", cgroupId: PROCESS });
  const end = async () => {
    await collector.close();
    rig.remove();
  };
  return { rig, collector, end };
}

function events(collector: Collector): number {
  const counted = collector.stats().events;
  return (counted[RingKind.SEND] ?? 0) + (counted[RingKind.RECEIVE] ?? 0);
}

let runs = 0;

/** The floor: raw slots, 4096 a value, each put synced before the next. Events per second. */
async function bareLoop(count: number): Promise<number> {
  const db = new Level<string, Uint8Array>(join(scratch, `bare-${runs++}`), { valueEncoding: "view" });
  await db.open();
  const value = new Uint8Array(VALUE_BYTES);
  for (let at = 0; at < value.length; at += 4) value[at] = Math.random() * 256;
  const values = Math.floor((count * SLOT) / VALUE_BYTES);
  const start = performance.now();
  for (let i = 0; i < values; i += 1) await db.put(String(i).padStart(9, "0"), value, { sync: true });
  const seconds = (performance.now() - start) / 1000;
  await db.close();
  return (values * VALUE_BYTES) / SLOT / seconds;
}

/** A producer at its own speed beside the collector: events per second until the last one is durable. */
async function live(count: number, perSecond?: number): Promise<{ rate: number; lost: number }> {
  const { rig, collector, end } = await setUp(`live-${runs++}`, 64 << 20);
  const start = performance.now();
  const { emitted, lost } = await rig.produce(count, PROCESS, CONNECTIONS, perSecond);
  await collector.drain();
  const rate = emitted / ((performance.now() - start) / 1000);
  if (events(collector) !== emitted) throw new Error(`logged ${events(collector)} of ${emitted}`);
  await end();
  return { rate, lost };
}

/** How fast a backlog of `count` records gets durable: the ring is filled while nobody reads. */
async function backlog(count: number): Promise<number> {
  const name = `backlog-${runs++}`;
  const rig = new RingRig(`bench-${name}`, 64 << 20);
  const home = join(scratch, name);
  const open = async () => {
    const source = KernelSource.attach(rig.ringPath, 64 << 20);
    return Collector.over({ source, openLog: openEventLog, home });
  };
  const first = await open();
  await first.registrations.register({ app: "bench", process: "p0", cgroupId: PROCESS });
  await first.close();
  const { emitted } = await rig.produce(count, PROCESS, CONNECTIONS);
  const second = await open();
  const start = performance.now();
  await second.drain();
  const rate = emitted / ((performance.now() - start) / 1000);
  if (events(second) !== emitted) throw new Error(`logged ${events(second)} of ${emitted}`);
  await second.close();
  rig.remove();
  return rate;
}

/** MiB of a process, by a field of its status. */
function mibOf(pid: number | "self", field: "VmRSS" | "VmHWM"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
}

/** In a process of its own, with the heap that `collect` has. */
function alone<T>(...words: string[]): T {
  const self = fileURLToPath(import.meta.url);
  const env = { ...process.env, ...SMALL_HEAP_VARIABLES };
  return JSON.parse(
    execFileSync(process.execPath, [...SMALL_HEAP_FLAGS, self, ...words], { encoding: "utf8", env }),
  );
}

/** Processor time of a process, s. */
function cpuSeconds(pid: number): number {
  const TICKS = 100;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

const SHORT_A_SECOND = 15_000;

interface Short {
  readonly peakMib: number;
  readonly events: number;
  readonly gaps: number;
  readonly cut: boolean;
  /** Reasons of a verdict on the server. */
  readonly verdicts: readonly string[];
}

function shortName(what: string, { events, gaps, cut, verdicts }: Short): string {
  const after = cut ? "then a checkpoint with its cut" : `NO CUT AFTERWARDS (${verdicts.join(", ")})`;
  return `peak memory of the whole service, ${what}, ${(events / 1e6).toFixed(1)} M events, ${gaps} gaps, ${after}`;
}

/** The whole service under a recorded server of short connections to a client that nobody records. */
async function shortConnections(count: number, perSecond?: number): Promise<Short> {
  const program = compile("short_connections", ["bench/short_connections.c"], ["-O2", "-pthread"]);
  let figures: Short | undefined;
  await withBenchRig("bench-short", async (rig) => {
    const { child } = await rig.collect();
    await rig.run("server", program, "server");
    await until("it listens", () => /\d+\n/.test(rig.output("server")));
    await promisify(execFile)(program, [
      ...["client", rig.output("server").trim(), String(count), "4"],
      ...(perSecond === undefined ? [] : [String(perSecond)]),
    ]);
    const { code, out } = await rig.cli("checkpoint", rig.app, "server", "--driver", "none");
    const client = await rig.client();
    const { events, gaps } = await client.stats();
    const verdicts = (await client.processes()).flatMap(({ uncaptured }) => uncaptured);
    client.close();
    const all = Object.values(events).reduce((sum, one) => sum + one, 0);
    const cut = code === 0 && /server +1 +0 connections/.test(out);
    figures = { peakMib: mibOf(child.pid!, "VmHWM"), events: all, gaps, cut, verdicts };
  });
  return figures!;
}

/** Share of a core that the service takes while so many recorded processes sleep. */
async function idleShare(counts: readonly number[]): Promise<number[]> {
  const SETTLE_MS = 15_000;
  const MEASURE_MS = 30_000;
  const shares: number[] = [];
  await withBenchRig("bench-idle", async (rig) => {
    const { child }: Running = await rig.collect();
    let running = 0;
    for (const count of counts) {
      for (; running < count; running += 1) await rig.run(`p${running}`, "sleep", "1000");
      await sleep(SETTLE_MS);
      const [before, beganMs] = [cpuSeconds(child.pid!), performance.now()];
      await sleep(MEASURE_MS);
      shares.push((cpuSeconds(child.pid!) - before) / ((performance.now() - beganMs) / 1000));
    }
  });
  return shares;
}

/** In a process of its own: prints the peak resident memory in MiB and the losses after `seconds` at `perSecond`. */
async function steady(perSecond: number, seconds: number): Promise<void> {
  const { rig, collector, end } = await setUp("steady", 16 << 20);
  const before = process.cpuUsage();
  const { emitted, lost } = await rig.produce(perSecond * seconds, PROCESS, CONNECTIONS, perSecond);
  await collector.drain();
  const { user, system } = process.cpuUsage(before);
  console.log(
    JSON.stringify({ peakMib: mibOf("self", "VmHWM"), lost, cpu: (user + system) / 1e6 / seconds, emitted }),
  );
  await end();
}

/**
 * In a process of its own: `apps` applications, ten at a time, that come, do `each` events over many connections, and go. Prints the
 * resident memory at the end and at its peak, MiB.
 */
async function comeAndGo(apps: number, each: number): Promise<void> {
  const rig = new RingRig("bench-many", 16 << 20);
  const source = KernelSource.attach(rig.ringPath, 16 << 20);
  const collector = await Collector.over({ source, openLog: openEventLog, home: join(scratch, "many") });
  const AT_ONCE = 10;
  for (let first = 0; first < apps; first += AT_ONCE) {
    const numbers = Array.from({ length: Math.min(AT_ONCE, apps - first) }, (_, at) => first + at);
    for (const number of numbers)
      await collector.registrations.register({
        app: `app-${number}`,
        process: "p0",
        cgroupId: 1000 + number,
      });
    for (const number of numbers) await rig.produce(each, 1000 + number, CONNECTIONS);
    for (const number of numbers) await collector.registrations.unregister(`app-${number}`, "p0");
  }
  await collector.drain();
  const logged = events(collector);
  console.log(
    JSON.stringify({ residentMib: mibOf("self", "VmRSS"), peakMib: mibOf("self", "VmHWM"), logged }),
  );
  await collector.close();
  rig.remove();
}

async function main(): Promise<void> {
  const COUNT = 1_000_000;
  const bare = await median(3, () => bareLoop(COUNT));
  const drained = await median(3, () => backlog(COUNT));
  const { rate: atOnce, lost: dropped } = await live(4_000_000, 1_000_000);
  const { peakMib, lost, cpu } = alone<{ peakMib: number; lost: number; cpu: number }>("steady");
  const many = alone<{ residentMib: number; peakMib: number; logged: number }>("many");
  const short = await shortConnections(1_000_000, SHORT_A_SECOND);
  const rush = await shortConnections(1_000_000);
  const idle = await idleShare([2, 20]);
  const floor = { name: "bare 256 KiB synced put loop", value: bare / 1e6 };
  const figures: Figure[] = [
    {
      name: "ring to LevelDB, durable",
      value: drained / 1e6,
      unit: "M events/s",
      floor,
      goal: "≥ 70 % of the bare loop",
      met: drained >= 0.7 * bare,
    },
    {
      name: `live at 1 M events/s, ${dropped} dropped`,
      value: atOnce / 1e6,
      unit: "M events/s",
      goal: "none dropped",
      met: dropped === 0,
    },
    {
      name: `peak memory at 200 000 events/s for 20 s, ${lost} dropped, ${(cpu * 100).toFixed(0)} % of a core`,
      value: peakMib,
      unit: "MiB",
      goal: "≤ 150 MiB",
      met: peakMib <= 150 && lost === 0,
    },
    {
      name: `peak memory, ${(many.logged / 1e6).toFixed(0)} M events of 1 000 applications that came and went; ${many.residentMib.toFixed(0)} MiB at the end`,
      value: many.peakMib,
      unit: "MiB",
      goal: "≤ 150 MiB",
      met: many.peakMib <= 150,
    },
    {
      name: shortName(
        `1 M short connections to clients that are not recorded, ${SHORT_A_SECOND} a second`,
        short,
      ),
      value: short.peakMib,
      unit: "MiB",
      goal: "≤ 150 MiB",
      met: short.peakMib <= 150 && short.gaps === 0 && short.cut,
    },
    {
      name: shortName("the same as fast as two cores can, which server, client and collector share", rush),
      value: rush.peakMib,
      unit: "MiB",
    },
    ...[2, 20].map((count, at) => ({
      name: `the service while ${count} recorded processes sleep`,
      value: idle[at]! * 100,
      unit: "% of a core",
      goal: "≤ 0.5 %",
      met: idle[at]! <= 0.005,
    })),
  ];
  report("collector: kernel ring to the log", figures);
}

const [, , what, apps = "1000", rate] = process.argv;
if (what === "steady") await steady(200_000, 20);
else if (what === "many") await comeAndGo(Number(apps), 10_000);
else if (what === "short")
  console.log(await shortConnections(Number(apps), rate === undefined ? undefined : Number(rate)));
else if (what === "idle") console.log(await idleShare([2, 20]));
else await main();
