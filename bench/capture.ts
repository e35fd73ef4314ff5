// bench: what capturing adds to one send or receive, beside the same call without capture
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { KernelSource } from "../src/capture/kernel-source.ts";
import { compile } from "../test/native/c-build.ts";
import { TestCgroups } from "../test/native/cgroups.ts";
import { ensureBpffs } from "../test/native/ring-rig.ts";
import { type Figure, medianOf, report } from "./report.ts";

const PAIRS = 20_000;
const ROUNDS = 15;
const RING_BYTES = 16 << 20;
const PIN_DIR = `/sys/fs/bpf/rl-bench-capture-${process.pid}`;
/**
 * off: no programs. empty: programs on the same hooks that do nothing. filter: they look whether the process is recorded, and that is all.
 * not selected: ours, the process is not recorded. selected: it is.
 */
type Mode = "off" | "empty" | "filter" | "not selected" | "selected";
type Kind = "tcp" | "unix" | "short";

/** A program in a cgroup of its own that sends bytes to itself on demand. */
class Worker {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor(cgroups: TestCgroups, name: string) {
    const program = compile("pairs", ["test/native/c/pairs_helper.c"], ["-O2"]);
    const procs = `${cgroups.path(name)}/cgroup.procs`;
    const script = 'echo $$ > "$0" && exec "$@"';
    this.#child = spawn("sh", ["-c", script, procs, program, "1"], { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#child.stdout! });
  }

  /** CPU time in ns of one send and one receive together, over a new connection; of "short", of one connection made and closed. */
  async run(kind: Kind, pairs: number): Promise<number> {
    const line = once(this.#lines, "line");
    this.#child.stdin?.write(`${kind} ${pairs}\n`);
    return Number((await line)[0]);
  }

  async end(): Promise<void> {
    const closed = once(this.#child, "close");
    this.#child.stdin?.end();
    await closed;
  }
}

/** Reads the ring empty; returns the records found. */
function readAll(source: KernelSource): number {
  const bytes = new Uint8Array(4096 * 64);
  let read = 0;
  for (;;) {
    const { records, position } = source.drain(bytes);
    source.commit(position);
    read += records;
    if (records === 0) return read;
  }
}

/** What is loaded for a mode, and whether the process is selected. The reader waits meanwhile: the ring has room for all of it. */
const MODES: readonly { readonly mode: Mode; readonly variant: string; readonly selected: boolean }[] = [
  { mode: "empty", variant: "floor=1", selected: true },
  { mode: "filter", variant: "floor=2", selected: true },
  { mode: "not selected", variant: "", selected: false },
  { mode: "selected", variant: "", selected: true },
];

type Loaded = Omit<(typeof MODES)[number], "mode"> & { readonly mode?: Mode };

function attached(
  worker: Worker,
  kind: Kind,
  cgroupId: number,
  { mode, variant, selected }: Loaded,
  pairs = PAIRS,
  before = (): void => {},
  after = (): void => {},
): Promise<number> {
  const take = (source: KernelSource): void => source.select(cgroupId, selected, 1);
  const work = async (): Promise<number> => {
    before();
    const ns = await worker.run(kind, pairs);
    after();
    return ns;
  };
  return captured(variant, take, work, mode === "selected" ? 2 * PAIRS : 0);
}

/** What `work` took, in ns, while the capture is loaded and records what `take` selects: so many records at least. */
async function captured(
  variant: string,
  take: (source: KernelSource) => void,
  work: () => Promise<number>,
  records: number,
): Promise<number> {
  const source = KernelSource.open({ pinDir: PIN_DIR, ringBytes: RING_BYTES, cgroupLevel: 2, variant });
  try {
    take(source);
    const ns = await work();
    const read = readAll(source);
    if (read < records) throw new Error(`${read} records of ${records}`);
    if (source.counters().lost.some((one) => one > 0)) throw new Error("the ring was too small for a round");
    return ns;
  } finally {
    source.close();
    KernelSource.unpin(PIN_DIR);
  }
}

/** All modes side by side, µs a pair; which comes first alternates. */
async function round(
  worker: Worker,
  kind: Kind,
  cgroupId: number,
  odd: boolean,
): Promise<Record<Mode, number>> {
  const times: Record<Mode, number> = { off: 0, empty: 0, filter: 0, "not selected": 0, selected: 0 };
  times.off = (await worker.run(kind, PAIRS)) / 1000;
  for (const one of odd ? [...MODES].reverse() : MODES)
    times[one.mode] = (await attached(worker, kind, cgroupId, one)) / 1000;
  times.off = (times.off + (await worker.run(kind, PAIRS)) / 1000) / 2;
  return times;
}

/** Rounds stand side by side: the machine's slow drifts cancel in their ratios and differences. */
async function figures(worker: Worker, kind: Kind, label: string, cgroupId: number): Promise<Figure[]> {
  const rounds: Record<Mode, number>[] = [];
  for (let n = 0; n < ROUNDS; n += 1) rounds.push(await round(worker, kind, cgroupId, n % 2 === 1));
  const median = (of: (one: Record<Mode, number>) => number): number => medianOf(rounds.map(of));
  const plain = { name: "the pair without programs", value: median((one) => one.off) };
  const added = (mode: Mode): number => median((one) => (one[mode] - one.off) / 2);
  const pair = median((one) => one.selected / one.empty);
  const filter = median((one) => one["not selected"] / one.filter);
  return [
    ...(["empty", "filter", "not selected", "selected"] as const).map((mode) => ({
      name: `added to one ${label} event, ${mode}`,
      value: added(mode),
      unit: "µs",
      ...(mode === "empty" ? { floor: plain } : { floor: { name: "empty programs", value: added("empty") } }),
      ...(mode === "selected" && kind === "tcp" ? { goal: "≤ 0.3 µs", met: added(mode) <= 0.3 } : {}),
    })),
    {
      name: `${label} pair, recorded to empty programs`,
      value: pair,
      unit: "×",
      goal: "≤ 2.5",
      met: pair <= 2.5,
    },
    {
      name: `${label} pair, not recorded to an empty filter`,
      value: filter,
      unit: "×",
      goal: "≤ 1.2",
      met: filter <= 1.2,
    },
  ];
}

/* ---- processes that were attached where they are: at another depth, and in cgroups below theirs ---- */

/** CPU time in ns of a pair of TCP calls of a process that `take` has recorded. */
function recordedPair(worker: Worker, take: (source: KernelSource) => void): Promise<number> {
  return captured("", take, () => worker.run("tcp", PAIRS), 2 * PAIRS);
}

/** `nested` runs two levels below the cgroup that is attached. */
async function attachedFigures(
  worker: Worker,
  cgroupId: number,
  nested: Worker,
  attachedId: number,
): Promise<Figure[]> {
  const parent = statSync(cgroups.path("")).ino;
  const ways = {
    run: () => recordedPair(worker, (source) => source.select(cgroupId, true, 1)),
    attached: () => recordedPair(nested, (source) => source.attach(attachedId, 1, parent)),
    beside: () =>
      recordedPair(worker, (source) => {
        source.select(cgroupId, true, 1);
        source.attach(attachedId, 1, parent);
      }),
  };
  const rounds: Record<keyof typeof ways, number>[] = [];
  for (let n = 0; n < ROUNDS; n += 1) {
    const one = { run: 0, attached: 0, beside: 0 };
    const names = ["run", "attached", "beside"] as const;
    for (const name of n % 2 === 1 ? names.toReversed() : names) one[name] = await ways[name]();
    rounds.push(one);
  }
  const ratio = (name: string, of: "attached" | "beside"): Figure => {
    const value = medianOf(rounds.map((one) => one[of] / one.run));
    return { name, value, unit: "×", goal: "≤ 1.05", met: value <= 1.05 };
  };
  return [
    ratio("TCP pair, attached two levels above, to one of run", "attached"),
    ratio("TCP pair of run while another is attached, to none is", "beside"),
  ];
}

/* ---- the programs alone, by the kernel's own account: whatever else the machine does is not in it ---- */

const STATS = "/proc/sys/kernel/bpf_stats_enabled";
const SHORT = 5_000;
const PROGRAM_ROUNDS = 5;
/** Which program runs, while what is done: by a process that is recorded, or by one that is not. */
const RUNS: readonly {
  readonly kind: Kind;
  readonly selected: boolean;
  readonly programs: readonly string[];
}[] = [
  { kind: "tcp", selected: true, programs: ["sock_sent", "sock_received"] },
  { kind: "tcp", selected: false, programs: ["sock_sent", "sock_received"] },
  { kind: "unix", selected: true, programs: ["sock_sent", "sock_received"] },
  { kind: "short", selected: true, programs: ["tcp_state", "tcp_destroyed", "socket_released"] },
  { kind: "short", selected: false, programs: ["tcp_state", "tcp_destroyed"] },
];

interface Runs {
  readonly run_time_ns?: number;
  readonly run_cnt?: number;
}

function runsOf(program: string): { ns: number; runs: number } {
  const path = `${PIN_DIR}/prog_${program}`;
  if (!existsSync(path)) return { ns: 0, runs: 0 };
  const text = execFileSync("bpftool", ["-j", "prog", "show", "pinned", path], { encoding: "utf8" });
  const { run_time_ns = 0, run_cnt = 0 } = JSON.parse(text) as Runs;
  return { ns: run_time_ns, runs: run_cnt };
}

/** ns a run of each program, in one round. */
async function programRound(
  worker: Worker,
  cgroupId: number,
  { kind, selected, programs }: (typeof RUNS)[number],
  variant: string,
): Promise<number[]> {
  let first = programs.map(runsOf);
  let last = first;
  const loaded = { variant, selected };
  const pairs = kind === "short" ? SHORT : PAIRS;
  await attached(
    worker,
    kind,
    cgroupId,
    loaded,
    pairs,
    () => {
      first = programs.map(runsOf);
    },
    () => {
      last = programs.map(runsOf);
    },
  );
  return programs.map((_, n) => (last[n]!.ns - first[n]!.ns) / (last[n]!.runs - first[n]!.runs));
}

async function programFigures(
  worker: Worker,
  cgroupId: number,
  run: (typeof RUNS)[number],
): Promise<Figure[]> {
  const ours: number[][] = [];
  const empty: number[][] = [];
  for (let n = 0; n < PROGRAM_ROUNDS; n += 1) {
    empty.push(await programRound(worker, cgroupId, run, "floor=1"));
    ours.push(await programRound(worker, cgroupId, run, ""));
  }
  return run.programs.map((program, at) => ({
    name: `${program}, ${run.kind === "short" ? "short connections" : run.kind}, ${run.selected ? "selected" : "not selected"}`,
    value: medianOf(ours.map((one) => one[at]!)),
    unit: "ns a run",
    ...(run.kind === "short"
      ? {}
      : { floor: { name: "that does nothing", value: medianOf(empty.map((one) => one[at]!)) } }),
  }));
}

/** The kernel's account takes time itself (in the floor as well), so nothing else is measured meanwhile. */
async function accounted(worker: Worker, cgroupId: number): Promise<Figure[]> {
  const before = readFileSync(STATS, "utf8");
  const figures: Figure[] = [];
  const restore = (): void => writeFileSync(STATS, before);
  process.on("exit", restore); // also where somebody ends the bench
  process.once("SIGTERM", () => process.exit(143));
  process.once("SIGINT", () => process.exit(130));
  writeFileSync(STATS, "1");
  try {
    for (const run of RUNS) figures.push(...(await programFigures(worker, cgroupId, run)));
  } finally {
    restore();
    process.off("exit", restore);
  }
  return figures;
}

ensureBpffs();
const cgroups = new TestCgroups("rl-bench-capture");
const cgroupId = cgroups.make("worker");
const worker = new Worker(cgroups, "worker");
cgroups.make("elsewhere");
const attachedId = cgroups.make("elsewhere/job");
cgroups.make("elsewhere/job/step");
cgroups.make("elsewhere/job/step/task");
const nested = new Worker(cgroups, "elsewhere/job/step/task");
try {
  const tcp = await figures(worker, "tcp", "TCP", cgroupId);
  const unix = await figures(worker, "unix", "AF_UNIX", cgroupId);
  report(`cost of capture, ${ROUNDS} rounds of ${PAIRS} pairs`, [...tcp, ...unix]);
  report("attached processes", await attachedFigures(worker, cgroupId, nested, attachedId));
  report("the programs alone, by the kernel's account", await accounted(worker, cgroupId));
} finally {
  await worker.end();
  await nested.end();
  await cgroups.remove();
}
