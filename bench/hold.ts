// bench: output commit: what a client waits for an answer that is held, beside the same answer not held; what the hook costs where nothing is held
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { createInterface, type Interface } from "node:readline";
import { KernelSource } from "../src/capture/kernel-source.ts";
import { freePort, Rig, until } from "../test/daemon/rig.ts";
import { compile } from "../test/native/c-build.ts";
import { TestCgroups } from "../test/native/cgroups.ts";
import { ensureBpffs } from "../test/native/ring-rig.ts";
import { type Figure, medianOf, report } from "./report.ts";

const REQUESTS = 15;
const PAIRS = 20_000;
const ROUNDS = 9;
const PIN_DIR = `/sys/fs/bpf/rl-bench-hold-${process.pid}`;
/** Answers every byte. */
const ANSWERS =
  "use Socket;socket(my $l,PF_INET,SOCK_STREAM,0);bind($l,pack_sockaddr_in($ARGV[0],INADDR_LOOPBACK)) or die;listen($l,9);for(;;){accept(my $c,$l) or next;while(sysread($c,my $q,1)){syswrite($c,$q)}}";

/* ---- a request and its answer, with everything ---- */

async function answered(socket: Socket): Promise<number> {
  const began = performance.now();
  socket.write("?");
  await once(socket, "data");
  return performance.now() - began;
}

async function connected(port: number): Promise<Socket> {
  let socket: Socket | undefined;
  await until("it listens", async () => {
    const tried = connect(port, "127.0.0.1");
    const made = await once(tried, "connect").then(
      () => true,
      () => false,
    );
    if (made) socket = tried;
    return made;
  });
  return socket!;
}

async function latency(rig: Rig, name: string, ...flags: string[]): Promise<number[]> {
  const port = await freePort();
  const { code, err } = await rig.cli(
    "run",
    rig.app,
    name,
    "--detach",
    ...flags,
    "--",
    "perl",
    "-e",
    ANSWERS,
    `${port}`,
  );
  if (code !== 0) throw new Error(err);
  const socket = await connected(port);
  await answered(socket); // the process that takes checkpoints is started by the first
  const times: number[] = [];
  for (let n = 0; n < REQUESTS; n += 1) times.push(await answered(socket));
  socket.destroy();
  return times;
}

/** In a world of its own: a client that talks with both would be a relay between them. */
async function inRig<T>(name: string, work: (rig: Rig) => Promise<T>): Promise<T> {
  const rig = new Rig(name);
  mkdirSync(rig.home, { mode: 0o700 });
  try {
    await rig.collect();
    return await work(rig);
  } finally {
    await rig.remove();
  }
}

interface Checkpoints {
  readonly checkpoints: readonly { readonly frozenMs: number }[];
}

async function requests(): Promise<Figure[]> {
  const plain = await inRig("bench-plain", (rig) => latency(rig, "web"));
  const floor = { name: "the same, recorded and not held", value: medianOf(plain) };
  return inRig("bench-held", async (rig) => {
    const held = await latency(rig, "web", "--hold-output");
    const { checkpoints } = await rig.json<Checkpoints>("checkpoint", rig.app, "web");
    const still = checkpoints[0]?.frozenMs ?? Number.NaN;
    return [
      { name: `answer to one byte, held, median of ${REQUESTS}`, value: medianOf(held), unit: "ms", floor },
      { name: "the longest of them", value: Math.max(...held), unit: "ms" },
      { name: "of that the process stood still for one checkpoint", value: still, unit: "ms" },
    ];
  });
}

/* ---- the hook alone: a process that holds and talks with itself, which is inside ---- */

class Worker {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor(cgroups: TestCgroups, name: string) {
    const program = compile("pairs", ["test/native/c/pairs_helper.c"], ["-O2"]);
    const script = 'echo $$ > "$0" && exec "$@"';
    this.#child = spawn("sh", ["-c", script, `${cgroups.path(name)}/cgroup.procs`, program, "1"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#lines = createInterface({ input: this.#child.stdout! });
  }

  /** CPU time in ns of one send and one receive together. */
  async run(pairs: number): Promise<number> {
    const line = once(this.#lines, "line");
    this.#child.stdin?.write(`tcp ${pairs}\n`);
    return Number((await line)[0]);
  }

  async end(): Promise<void> {
    const closed = once(this.#child, "close");
    this.#child.stdin?.end();
    await closed;
  }
}

function readAll(source: KernelSource): void {
  const bytes = new Uint8Array(4096 * 64);
  for (;;) {
    const { records, position } = source.drain(bytes);
    source.commit(position);
    if (records === 0) return;
  }
}

async function hook(cgroups: TestCgroups): Promise<Figure[]> {
  const source = KernelSource.open({ pinDir: PIN_DIR, ringBytes: 16 << 20, cgroupLevel: 2 });
  const [held, plain] = [cgroups.make("held"), cgroups.make("plain")];
  const workers = { held: new Worker(cgroups, "held"), plain: new Worker(cgroups, "plain") };
  source.select(held, true, 1);
  source.select(plain, true, 1);
  source.holdOutput(held);
  const times = { held: [] as number[], plain: [] as number[] };
  try {
    for (let n = 0; n < ROUNDS; n += 1)
      for (const which of ["plain", "held", "held", "plain"] as const) {
        times[which].push((await workers[which].run(PAIRS)) / 1000);
        readAll(source);
      }
  } finally {
    await Promise.all([workers.held.end(), workers.plain.end()]);
    source.close();
    KernelSource.unpin(PIN_DIR);
  }
  const floor = { name: "the same, recorded and not holding", value: medianOf(times.plain) };
  return [
    {
      name: "one send and receive inside, of a process that holds",
      value: medianOf(times.held),
      unit: "µs",
      floor,
    },
  ];
}

ensureBpffs();
const cgroups = new TestCgroups("rl-bench-hold");
try {
  const inside = await hook(cgroups);
  report("output commit", [...(await requests()), ...inside]);
} finally {
  await cgroups.remove();
}
