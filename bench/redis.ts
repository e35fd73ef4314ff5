// bench: redis SET, pipelined, with its server and client recorded by a whole collector, beside the same without
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KernelSource } from "../src/capture/kernel-source.ts";
import { Collector } from "../src/collect/collect.ts";
import { TestCgroups } from "../test/native/cgroups.ts";
import { ensureBpffs } from "../test/native/ring-rig.ts";
import { medianOf, report } from "./report.ts";

const PORT = "39427";
const ROUNDS = 9;
const REQUESTS = "400000";
const PIN_DIR = `/sys/fs/bpf/rl-bench-redis-${process.pid}`;

function inCgroup(cgroup: string, command: string, ...args: string[]): [string, string[]] {
  return ["sh", ["-c", 'echo $$ > "$0" && exec "$@"', `${cgroup}/cgroup.procs`, command, ...args]];
}

async function accepting(): Promise<void> {
  for (;;) {
    const socket = connect(Number(PORT), "127.0.0.1");
    const up = await new Promise((resolve) => {
      socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
    });
    socket.destroy();
    if (up) return;
  }
}

/** Requests a second. */
function sets(cgroup: string): number {
  const [command, args] = inCgroup(
    cgroup,
    "redis-benchmark",
    ...["-p", PORT, "-t", "set", "-n", REQUESTS, "-P", "16", "-q", "--csv"],
  );
  const csv = execFileSync(command, args, { encoding: "utf8" });
  return Number(/"SET","([\d.]+)"/.exec(csv)![1]);
}

ensureBpffs();
const home = mkdtempSync(join(tmpdir(), "rl-bench-redis-"));
const cgroups = new TestCgroups("rl-bench-redis");
const ids = ["server", "client"].map((name) => cgroups.make(name));
const server = spawn(...inCgroup(cgroups.path("server"), "redis-server", "--port", PORT, "--save", ""), {
  stdio: "ignore",
});
try {
  await accepting();
  const ratios: number[] = [];
  const plain: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = sets(cgroups.path("client"));
    const options = { pinDir: PIN_DIR, ringBytes: 16 << 20, cgroupLevel: 2 };
    const collector = await Collector.start({ ...options, home, runs: () => true });
    await collector.registrations.register({ app: "redis", process: "server", cgroupId: ids[0]! });
    await collector.registrations.register({ app: "redis", process: "client", cgroupId: ids[1]! });
    const recorded = sets(cgroups.path("client"));
    await collector.close();
    KernelSource.unpin(PIN_DIR);
    const after = sets(cgroups.path("client"));
    plain.push((before + after) / 2);
    ratios.push(recorded / ((before + after) / 2));
  }
  const ratio = medianOf(ratios);
  report(`redis SET, 16 in a pipeline, 50 clients, ${ROUNDS} rounds of ${REQUESTS}`, [
    { name: "not recorded", value: medianOf(plain), unit: "requests/s" },
    { name: "recorded to not recorded", value: ratio, unit: "×", goal: "≥ 0.9", met: ratio >= 0.9 },
  ]);
} finally {
  const ended = once(server, "close");
  server.kill("SIGKILL");
  await ended;
  await cgroups.remove();
  rmSync(home, { recursive: true, force: true });
}
