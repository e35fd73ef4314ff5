// bench: what recording costs a program in distributed shared memory, and a record costs a memory ring
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { KernelSource } from "../src/capture/kernel-source.ts";
import { requireSupport } from "../src/capture/kernel-support.ts";
import { MemoryRings } from "../src/capture/memory-rings.ts";
import { Collector } from "../src/collect/collect.ts";
import { collectMemory } from "../src/collect/collect-memory.ts";
import { openEventLog } from "../src/log/append-log.ts";
import { RecoveryLineError } from "../src/model/errors.ts";
import { packageRoot } from "../src/native/binding.ts";
import { TestCgroups } from "../test/native/cgroups.ts";
import { ensureBpffs } from "../test/native/ring-rig.ts";
import { type Figure, medianOf, report } from "./report.ts";

/** SOR by number of processes; iterations for about 10 s. */
const SIZES: readonly { readonly processes: number; readonly iterations: number }[] = [
  { processes: 2, iterations: 6000 },
  { processes: 4, iterations: 3400 },
];
/** How often what the goal is about is measured, and how often what it may be compared with. */
const ROUNDS = 7;
const OTHER_ROUNDS = 3;
/** Runs of one iteration, which show what a run costs at least. */
const SHORT_RUNS = 7;
const RING_BYTES = 16 << 20;
const root = packageRoot();
const folder = mkdtempSync(join(tmpdir(), "dsm-bench-"));
const socket = join(folder, "rings.sock");
const rings = new MemoryRings(socket);

/** In s. `cpu` is the processor time of all processes: launcher, both ranks with all threads, and this one, which collects. */
interface Measured {
  readonly wall: number;
  readonly cpu: number;
  /** Without this process. */
  readonly program: number;
  readonly records: number;
}

/** What runs, and the number of the run, which names a log. */
interface Run {
  readonly processes: number;
  readonly iterations: number;
  readonly number: number;
}

/** One run beside its collection; in the cgroup of `procs` if that is not "". */
async function measure(
  { processes, iterations }: Run,
  words: readonly string[],
  procs = "",
  collect?: () => Promise<unknown>,
): Promise<Measured> {
  const script = 'if [ -n "$0" ]; then echo $$ > "$0"; fi; TIMEFORMAT="%U %S"; time "$@"';
  const kernel = ["sor", "--n", "1024", "--iterations", `${iterations}`, "--unchecked"];
  const command = [join(root, "build/dsm/dsm-kernels"), ...kernel, "--processes", `${processes}`, ...words];
  const before = process.cpuUsage();
  const [{ stdout, stderr }] = await Promise.all([
    promisify(execFile)("bash", ["-c", script, procs, ...command]),
    collect?.(),
  ]);
  const own = process.cpuUsage(before);
  const result = JSON.parse(stdout.trim().split("\n").at(-1) as string) as Record<string, number>;
  if (result["recordsLost"] !== 0) throw new Error(`a run lost records: ${stdout}`);
  const [user = Number.NaN, system = Number.NaN] = stderr.trim().split(" ").map(Number);
  return {
    wall: result["seconds"]!,
    program: user + system,
    cpu: user + system + (own.user + own.system) / 1e6,
    records: result["records"]!,
  };
}

/** Each is one way to record. */
const MODES: Record<string, (run: Run) => Promise<Measured>> = {
  nothing: (run) => measure(run, []),
  // The same once more: what the machine makes of two equal runs.
  "nothing again": (run) => measure(run, []),
  "memory rings": memoryRings,
  "the kernel ring": kernelRing,
  "JSON Lines": (run) => measure(run, ["--trace", folder]),
};
/** Not beside these. */
const OTHERS = new Set(["the kernel ring", "JSON Lines"]);

/** A log for each run: opened, written, closed. */
function memoryRings(run: Run): Promise<Measured> {
  const application = `run-${run.processes}-${run.iterations}-${run.number}`;
  return measure(run, ["--collector", socket, "--application", application], "", () =>
    collectMemory(rings, join(folder, "home"), ({ ended }) => ended === run.processes),
  );
}

/** The sockets of the run, as of any program; the DSM's own records are off. Loading and unloading are not in the figures. */
async function kernelRing(run: Run): Promise<Measured> {
  const pinDir = `/sys/fs/bpf/rl-bench-dsm-${process.pid}`;
  const cgroups = new TestCgroups("rl-bench-dsm");
  const cgroupId = cgroups.make("sor");
  const source = KernelSource.open({ pinDir, ringBytes: RING_BYTES, cgroupLevel: cgroups.level });
  const home = mkdtempSync(join(folder, "kernel-"));
  const collector = await Collector.over({ source, openLog: openEventLog, home });
  try {
    await collector.registrations.register({
      app: `kernel-${run.processes}-${run.number}`,
      process: "sor",
      cgroupId,
    });
    const procs = `${cgroups.path("sor")}/cgroup.procs`;
    const measured = await measure(run, [], procs);
    await collector.drain();
    const { events, gaps } = collector.stats();
    if (gaps > 0) throw new Error(`${gaps} gaps: the kernel ring was too small for a run`);
    return { ...measured, records: events.reduce((sum, one) => sum + one, 0) };
  } finally {
    await collector.close();
    KernelSource.unpin(pinDir);
    await cgroups.remove();
  }
}

/** Why the kernel ring can't be measured here; then it is left out, by name. */
function kernelRingMissing(): string | undefined {
  try {
    requireSupport("permission", "cgroup2");
    ensureBpffs();
    return undefined;
  } catch (error) {
    if (error instanceof RecoveryLineError && error.code === "RL_NOT_SUPPORTED") return error.message;
    throw error;
  }
}

type Rounds = ReadonlyMap<string, readonly Measured[]>;

/** All modes in turn, round by round, each round beginning with another one: what slows the machine slows all of them. */
async function rounds(size: (typeof SIZES)[number], modes: readonly string[]): Promise<Rounds> {
  const all = new Map<string, Measured[]>(modes.map((mode) => [mode, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    const now = modes.filter((mode) => round < OTHER_ROUNDS || !OTHERS.has(mode));
    for (let turn = 0; turn < now.length; turn += 1) {
      const mode = now[(round + turn) % now.length]!;
      all.get(mode)!.push(await MODES[mode]!({ ...size, number: round }));
    }
  }
  return all;
}

type Quantity = "wall" | "cpu" | "program";

/** What a mode adds, in %, round by round: each round is compared with its own two runs without recording. */
function added(all: Rounds, mode: string, of: Quantity): number[] {
  const [first, second] = [all.get("nothing")!, all.get("nothing again")!];
  return all.get(mode)!.map((run, round) => {
    const base = (first[round]![of] + second[round]![of]) / 2;
    return (run[of] / base - 1) * 100;
  });
}

/** What this process did beside the program in a mode, in % of a run without recording: noise of the program is not in it. */
function beside(all: Rounds, mode: string): number[] {
  const base = all.get("nothing")!;
  return all.get(mode)!.map((run, round) => ((run.cpu - run.program) / base[round]!.cpu) * 100);
}

/** Median over rounds, %, with the best and the worst round in its name; the goal where there is one. */
function percent(name: string, values: readonly number[], goal = false): Figure {
  const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(1));
  const value = medianOf(values);
  const figure = { name: `${name} (rounds: ${least} to ${most})`, value, unit: "%" };
  return goal ? { ...figure, goal: "≤ 5 %", met: value <= 5 } : figure;
}

/** The whole counts: what the run takes by the clock, and the processor time of all processes, logs opened and closed included. */
function figures(all: Rounds): Figure[] {
  const base = all.get("nothing")!;
  const middle = (runs: readonly Measured[], of: keyof Measured) => medianOf(runs.map((run) => run[of]));
  const twice = (of: Quantity) =>
    all.get("nothing again")!.map((run, round) => (run[of] / base[round]![of] - 1) * 100);
  const result: Figure[] = [
    { name: "processor time without recording", value: middle(base, "cpu"), unit: "s a run" },
    { name: "wall time without recording", value: middle(base, "wall"), unit: "s a run" },
    percent("noise: the same again without recording, processor time", twice("cpu")),
    percent("noise: the same again without recording, wall time", twice("wall")),
  ];
  for (const [mode, runs] of all) {
    if (mode.startsWith("nothing")) continue;
    const who = mode === "JSON Lines" ? "" : " and their collector";
    const goal = mode === "memory rings";
    result.push(
      percent(`added by ${mode}${who}, processor time of all processes`, added(all, mode, "cpu"), goal),
      percent("… in wall time", added(all, mode, "wall"), goal),
      percent("… processor time of the program alone", added(all, mode, "program")),
      percent("… of the collector, and what started the program, alone", beside(all, mode)),
      { name: "… records of one of its processes", value: middle(runs, "records"), unit: "" },
    );
  }
  return result;
}

/** What recording costs however short a run is: the log is opened, written and closed once. */
async function fixedCost(): Promise<Figure[]> {
  const size = { processes: 2, iterations: 1 };
  const without: number[] = [];
  const recorded: number[] = [];
  for (let number = 0; number < SHORT_RUNS; number += 1) {
    without.push((await MODES["nothing"]!({ ...size, number })).cpu);
    recorded.push((await memoryRings({ ...size, number })).cpu);
  }
  const least = medianOf(without);
  return [
    {
      name: "fixed cost of recording a run, part of the figures below: its log opened and closed",
      value: (medianOf(recorded) - least) * 1000,
      unit: "ms of processor time",
    },
    {
      name: "… by a collector that was just started and runs its code for the first time",
      value: (recorded[0]! - least) * 1000,
      unit: "ms of processor time",
    },
  ];
}

/** One record into a ring beside a copy of it, ns. */
function oneRecord(): Figure {
  const program = join(folder, "memory_ring_bench");
  const sources = ["test/dsm/c/memory_ring_test.c", "native/ring/memory_ring.c", "native/ring/ring_write.c"];
  const paths = sources.map((path) => join(root, path));
  execFileSync("cc", ["-O2", "-std=gnu11", "-o", program, ...paths, "-lpthread"]);
  const each = JSON.parse(execFileSync(program, ["bench"], { encoding: "utf8" })) as Record<string, number>;
  const value = each["nsPerRecord"] as number;
  const floor = { name: "copying it", value: each["nsCopy"] as number };
  return {
    name: "one record into a memory ring",
    value,
    unit: "ns",
    floor,
    goal: "≤ 30 ns",
    met: value <= 30,
  };
}

execFileSync("make", ["-s", "-C", join(root, "native"), "dsm"]);
try {
  const why = kernelRingMissing();
  if (why !== undefined) console.log(`# the kernel ring is left out: ${why}`);
  const modes = Object.keys(MODES).filter((mode) => why === undefined || mode !== "the kernel ring");
  report("distributed shared memory, memory rings: fixed cost", await fixedCost());
  for (const size of SIZES) {
    const more =
      size.processes > cpus().length ? ", more than there are cores: they wait for each other" : "";
    const title = `distributed shared memory, SOR 1024 × 1024, ${size.iterations} iterations on ${size.processes} processes${more}; medians of ${ROUNDS} rounds`;
    report(title, figures(await rounds(size, modes)));
  }
  report("memory rings", [oneRecord()]);
} finally {
  rings.close();
  rmSync(folder, { recursive: true, force: true });
}
