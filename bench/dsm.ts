// bench: what recording costs a program in distributed shared memory, and a record costs a memory ring
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { openEventLog } from "../src/engine/append-log.ts";
import { Collector } from "../src/engine/collect.ts";
import { collectMemory } from "../src/engine/collect-memory.ts";
import { RecoveryLineError } from "../src/model/errors.ts";
import { packageRoot } from "../src/ring/binding.ts";
import { KernelSource } from "../src/ring/kernel-source.ts";
import { requireSupport } from "../src/ring/kernel-support.ts";
import { MemoryRings } from "../src/ring/memory-rings.ts";
import { TestCgroups } from "../test/native/cgroups.ts";
import { ensureBpffs } from "../test/native/ring-rig.ts";
import { type Figure, medianOf, report } from "./report.ts";

/** SOR, long enough that opening a log does not count; on each of SIZES processes. */
const RUN = ["sor", "--n", "1024", "--iterations", "400", "--unchecked"];
const SIZES = [2, 4];
const ROUNDS = 7;
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

/** One run beside its collection; in the cgroup of `procs` if that is not "". */
async function measure(
  processes: number,
  words: readonly string[],
  procs = "",
  collect?: () => Promise<unknown>,
): Promise<Measured> {
  const script = 'if [ -n "$0" ]; then echo $$ > "$0"; fi; TIMEFORMAT="%U %S"; time "$@"';
  const command = [join(root, "build/dsm/dsm-kernels"), ...RUN, "--processes", `${processes}`, ...words];
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

/** Each is one way to record; the number of the run names a log. */
const MODES: Record<string, (processes: number, run: number) => Promise<Measured>> = {
  nothing: (processes) => measure(processes, []),
  "memory rings": (processes, run) =>
    measure(processes, ["--collector", socket, "--application", `run-${processes}-${run}`], "", () =>
      collectMemory(rings, join(folder, "home"), ({ ended }) => ended === processes),
    ),
  "the kernel ring": kernelRing,
  "JSON Lines": (processes) => measure(processes, ["--trace", folder]),
};

/** The sockets of the run, as of any program; the DSM's own records are off. Loading and unloading are not in the figures. */
async function kernelRing(processes: number, run: number): Promise<Measured> {
  const pinDir = `/sys/fs/bpf/rl-bench-dsm-${process.pid}`;
  const cgroups = new TestCgroups("rl-bench-dsm");
  const cgroupId = cgroups.make("sor");
  const source = KernelSource.open({ pinDir, ringBytes: RING_BYTES, cgroupLevel: cgroups.level });
  const home = mkdtempSync(join(folder, "kernel-"));
  const collector = await Collector.over({ source, openLog: openEventLog, home });
  try {
    await collector.register({ app: `kernel-${processes}-${run}`, process: "sor", cgroupId });
    const procs = `${cgroups.path("sor")}/cgroup.procs`;
    const measured = await measure(processes, [], procs);
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
    requireSupport("permission", "tcp-naive", "cgroup2");
    ensureBpffs();
    return undefined;
  } catch (error) {
    if (error instanceof RecoveryLineError && error.code === "RL_NOT_SUPPORTED") return error.message;
    throw error;
  }
}

/** All modes in turn, round by round, each round beginning with another one: what slows the machine slows all of them. */
async function rounds(processes: number, modes: readonly string[]): Promise<Map<string, Measured>> {
  const all = new Map<string, Measured[]>(modes.map((mode) => [mode, []]));
  for (let round = 0; round < ROUNDS; round += 1)
    for (let turn = 0; turn < modes.length; turn += 1) {
      const mode = modes[(round + turn) % modes.length]!;
      all.get(mode)!.push(await MODES[mode]!(processes, round));
    }
  const middle = (runs: readonly Measured[], of: keyof Measured) => medianOf(runs.map((run) => run[of]));
  return new Map(
    [...all].map(([mode, runs]) => [
      mode,
      {
        wall: middle(runs, "wall"),
        cpu: middle(runs, "cpu"),
        program: middle(runs, "program"),
        records: middle(runs, "records"),
      },
    ]),
  );
}

/** The verdict rests on processor time; the wall clock of a busy machine is shown and judges nothing. */
function figures(medians: ReadonlyMap<string, Measured>): Figure[] {
  const base = medians.get("nothing") as Measured;
  return [...medians].flatMap(([mode, { wall, cpu, program, records }]): Figure[] => {
    if (mode === "nothing")
      return [{ name: "processor time without recording", value: cpu, unit: "s a run" }];
    const extra = (cpu / base.cpu - 1) * 100;
    const goal = mode === "memory rings" ? { goal: "≤ 5 %", met: extra <= 5 } : {};
    const who = mode === "JSON Lines" ? "" : " and their collector";
    return [
      { name: `added by ${mode}${who}, processor time of all processes`, value: extra, unit: "%", ...goal },
      { name: "… of the program alone", value: (program / base.program - 1) * 100, unit: "%" },
      { name: "… in wall time, ratio of medians", value: wall / base.wall, unit: "times" },
      { name: "… records of a run", value: records, unit: "" },
    ];
  });
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
  for (const processes of SIZES) {
    const more = processes > cpus().length ? ", more than there are cores: they wait for each other" : "";
    const title = `distributed shared memory, SOR 1024 × 1024 on ${processes} processes${more}; medians of ${ROUNDS} rounds`;
    report(title, figures(await rounds(processes, modes)));
  }
  report("memory rings", [oneRecord()]);
} finally {
  rings.close();
  rmSync(folder, { recursive: true, force: true });
}
