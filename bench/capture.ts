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
type Mode = "off" | "not selected" | "selected";
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

/** One measurement with the programs attached. The reader waits meanwhile: the ring has room for all of it. */
async function attached(
  worker: Worker,
  kind: Kind,
  source: KernelSource,
  cgroupId: number,
  selected: boolean,
): Promise<number> {
  source.select(cgroupId, selected, 1);
  const ns = await worker.run(kind, PAIRS);
  const read = readAll(source);
  if (selected && read < 2 * PAIRS) throw new Error(`${read} records of ${2 * PAIRS}`);
  return ns;
}

/** The three modes side by side, µs per event; which comes first alternates. */
async function round(
  worker: Worker,
  kind: Kind,
  cgroupId: number,
  odd: boolean,
): Promise<Record<Mode, number>> {
  const before = odd ? 0 : await worker.run(kind, PAIRS);
  const times = { "not selected": 0, selected: 0 };
  const source = KernelSource.open({ pinDir: PIN_DIR, ringBytes: RING_BYTES, cgroupLevel: 2 });
  try {
    for (const selected of [odd, !odd])
      times[selected ? "selected" : "not selected"] = await attached(
        worker,
        kind,
        source,
        cgroupId,
        selected,
      );
    if (source.counters().lost.some((one) => one > 0)) throw new Error("the ring was too small for a round");
  } finally {
    source.close();
    KernelSource.unpin(PIN_DIR);
  }
  const off = odd ? await worker.run(kind, PAIRS) : before;
  return { off: off / 2000, "not selected": times["not selected"] / 2000, selected: times.selected / 2000 };
}

async function figures(worker: Worker, kind: Kind, label: string, cgroupId: number): Promise<Figure[]> {
  const rounds: Record<Mode, number>[] = [];
  for (let n = 0; n < ROUNDS; n += 1) rounds.push(await round(worker, kind, cgroupId, n % 2 === 1));
  const off = medianOf(rounds.map((one) => one.off));
  return (["not selected", "selected"] as const).map((mode) => {
    // Rounds stand side by side: the machine's slow drifts cancel in their differences.
    const value = medianOf(rounds.map((one) => one[mode] - one.off));
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
