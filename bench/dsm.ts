// bench: what recording costs a program in distributed shared memory, and a record costs a memory ring
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { collectMemory } from "../src/engine/collect-memory.ts";
import { packageRoot } from "../src/ring/binding.ts";
import { MemoryRings } from "../src/ring/memory-rings.ts";
import { median, report } from "./report.ts";

/** SOR on as many processes as most machines have cores; one run takes about a second. */
const RUN = ["sor", "--processes", "2", "--n", "1024", "--iterations", "100"];
const PAIRS = 9;
const root = packageRoot();
const folder = mkdtempSync(join(tmpdir(), "dsm-bench-"));
const socket = join(folder, "rings.sock");
const rings = new MemoryRings(socket);

interface Result {
  readonly seconds: number;
  /** Processor time of rank 0, both its threads. */
  readonly cpuSeconds: number;
  readonly records: number;
  readonly recordsLost: number;
  readonly correct: boolean;
}

async function run(...words: string[]): Promise<Result> {
  const { stdout } = await promisify(execFile)(join(root, "build/dsm/dsm-kernels"), [...RUN, ...words]);
  const result = JSON.parse(stdout.trim().split("\n").at(-1) as string) as Result;
  if (!result.correct || result.recordsLost > 0) throw new Error(`a run went wrong: ${stdout}`);
  return result;
}

/** The same with rings that a collector writes to a log; the collector competes for the cores. */
async function recorded(name: string): Promise<Result> {
  const running = run("--collector", socket, "--application", name);
  await collectMemory(rings, join(folder, "home"), ({ ended }) => ended === 2);
  return running;
}

/** Medians of with over without, run in turn: a noisy machine slows both. */
async function slowdown(work: (pair: number) => Promise<Result>): Promise<{ wall: number; cpu: number }> {
  const cpu: number[] = [];
  const wall = await median(PAIRS, async () => {
    const first = cpu.length % 2 === 0 ? await run() : undefined;
    const with_ = await work(cpu.length);
    const without = first ?? (await run());
    cpu.push(with_.cpuSeconds / without.cpuSeconds);
    return with_.seconds / without.seconds;
  });
  return { wall, cpu: await median(PAIRS, () => cpu.pop() as number) };
}

execFileSync("make", ["-s", "-C", join(root, "native"), "dsm"]);
const { seconds, records } = await recorded("warm");
const rate = records / seconds;
const ring = await slowdown((pair) => recorded(`run-${pair}`));
const file = await slowdown(() => run("--trace", folder));

const program = join(folder, "memory_ring_bench");
const sources = ["test/dsm/c/memory_ring_test.c", "native/ring/memory_ring.c", "native/ring/ring_write.c"];
execFileSync("cc", [
  "-O2",
  "-std=gnu11",
  "-o",
  program,
  ...sources.map((path) => join(root, path)),
  "-lpthread",
]);
const each = JSON.parse(execFileSync(program, ["bench"], { encoding: "utf8" })) as Record<string, number>;

report("distributed shared memory, SOR 1024 × 1024 on 2 processes", [
  { name: "records of rank 0", value: rate, unit: "records/s" },
  {
    name: "slowdown by memory rings and their collector",
    value: (ring.wall - 1) * 100,
    unit: "%",
    goal: "≤ 5 %",
    met: ring.wall <= 1.05,
  },
  { name: "… in processor time of the program", value: (ring.cpu - 1) * 100, unit: "%" },
  { name: "slowdown by JSON Lines", value: (file.wall - 1) * 100, unit: "%" },
  { name: "… in processor time of the program", value: (file.cpu - 1) * 100, unit: "%" },
  {
    name: "one record into a memory ring",
    value: each["nsPerRecord"] as number,
    unit: "ns",
    floor: { name: "copying it", value: each["nsCopy"] as number },
    goal: "≤ 30 ns",
    met: (each["nsPerRecord"] as number) <= 30,
  },
]);
rings.close();
rmSync(folder, { recursive: true, force: true });
