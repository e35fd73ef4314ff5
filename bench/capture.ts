// bench: what capturing adds to one send or receive, beside the same call without capture
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface, type Interface } from "node:readline";
import { KernelSource } from "../src/ring/kernel-source.ts";
import { compile } from "../test/native/c-build.ts";
import { TestCgroups } from "../test/native/cgroups.ts";
import { ensureBpffs } from "../test/native/ring-rig.ts";
import { type Figure, medianOf, report } from "./report.ts";

const PAIRS = 20_000;
const ROUNDS = 21;
const RING_BYTES = 16 << 20;
const PIN_DIR = `/sys/fs/bpf/rl-bench-capture-${process.pid}`;
const MODES = ["off", "not selected", "selected"] as const;
type Mode = (typeof MODES)[number];
type Kind = "tcp" | "unix";

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

  /** CPU time in ns of one send and one receive together, over a new connection. */
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

/** One round in one mode. The reader waits meanwhile: the ring has room for the whole round. */
async function measure(worker: Worker, kind: Kind, mode: Mode, cgroupId: number): Promise<number> {
  if (mode === "off") return worker.run(kind, PAIRS);
  const source = KernelSource.open({ pinDir: PIN_DIR, ringBytes: RING_BYTES, cgroupLevel: 2 });
  try {
    if (mode === "selected") source.select(cgroupId, true);
    const ns = await worker.run(kind, PAIRS);
    const read = readAll(source);
    const { lost } = source.counters();
    if (lost.some((one) => one > 0)) throw new Error("the ring was too small for a round");
    if (mode === "selected" && read < 2 * PAIRS) throw new Error(`${read} records of ${2 * PAIRS}`);
    return ns;
  } finally {
    source.close();
    KernelSource.unpin(PIN_DIR);
  }
}

async function figures(worker: Worker, kind: Kind, label: string, cgroupId: number): Promise<Figure[]> {
  const times: Record<Mode, number[]> = { off: [], "not selected": [], selected: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const first = round % MODES.length; // no mode always follows the same other
    for (const mode of [...MODES.slice(first), ...MODES.slice(0, first)])
      times[mode].push((await measure(worker, kind, mode, cgroupId)) / 2000);
  }
  const off = medianOf(times.off);
  return (["not selected", "selected"] as const).map((mode) => {
    // Rounds stand side by side: the machine's slow drifts cancel in their differences.
    const value = medianOf(times[mode].map((time, round) => time - times.off[round]!));
    const floor = { name: "the call itself", value: off };
    const figure: Figure = { name: `added to one ${label} event, process ${mode}`, value, unit: "µs", floor };
    return mode === "selected" && kind === "tcp"
      ? { ...figure, goal: "≤ 0.5 µs", met: value <= 0.5 }
      : figure;
  });
}

ensureBpffs();
const cgroups = new TestCgroups("rl-bench-capture");
const cgroupId = cgroups.make("worker");
const worker = new Worker(cgroups, "worker");
try {
  const tcp = await figures(worker, "tcp", "TCP", cgroupId);
  const unix = await figures(worker, "unix", "AF_UNIX", cgroupId);
  report(`cost of capture, ${ROUNDS} rounds of ${PAIRS} pairs`, [...tcp, ...unix]);
} finally {
  await worker.end();
  await cgroups.remove();
}
