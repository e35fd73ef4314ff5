// bench: checkpoint and restart of a redis-server, beside plain CRIU on the same program in the same run
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { CriuDriver } from "../src/images/criu/driver-criu.ts";
import { type CriuCommand, findCriu } from "../src/images/criu/driver-criu-find.ts";
import { freePort, missing, type Rig, until, withBenchRig } from "../test/daemon/rig.ts";
import { type Figure, medianOf, report } from "./report.ts";

const ROUNDS = 5;
/** Of values in the server, bytes. */
const DATA_BYTES = 64 << 20;
const VALUE_BYTES = 1 << 16;
const REQUESTS = 100_000;

interface Checkpoint {
  readonly imageBytes: number;
  readonly frozenMs: number;
  readonly phasesMs: Readonly<Record<"dump" | "store", number>>;
}

interface Restart {
  readonly restarted: readonly { process: string; action: string }[];
  readonly phasesMs: Readonly<Record<string, number>>;
}

function server(folder: string, port: number): string[] {
  mkdirSync(folder);
  const quiet = ["--save", "", "--logfile", `${folder}/log`, "--dir", folder];
  return ["redis-server", "--port", `${port}`, "--bind", "127.0.0.1", ...quiet];
}

async function ready(port: number): Promise<void> {
  await until(
    "the server answers",
    () =>
      new Promise((resolve) => {
        const socket = connect(port, "127.0.0.1");
        socket.once("error", () => resolve(false));
        socket.once("data", () => resolve(socket.destroy() !== undefined));
        socket.write("PING\r\n");
      }),
    20_000,
  );
}

const FILL =
  "for i = 1, ARGV[1] do redis.call('set', 'key' .. i, string.rep(tostring(i), ARGV[2]):sub(1, ARGV[2])) end";

function filling(port: number): string[] {
  return ["redis-cli", "-p", `${port}`, "eval", FILL, "0", `${DATA_BYTES / VALUE_BYTES}`, `${VALUE_BYTES}`];
}

function loading(port: number): string[] {
  const work = ["-n", `${REQUESTS}`, "-c", "1", "-P", "16", "-t", "set", "--csv"];
  return ["redis-benchmark", "-p", `${port}`, ...work];
}

/** A client without a record. Returns what it printed. */
function client([program, ...args]: string[]): string {
  return execFileSync(program!, args, { encoding: "utf8" });
}

/** A client with one: what a server received from nobody known would belong to no line. */
async function recordedClient(rig: Rig, name: string, command: string[]): Promise<string> {
  await rig.run(name, ...command);
  await until(`${name} has ended`, () => !rig.cgroup(name).populated, 30_000);
  return rig.output(name);
}

/** Requests a second, as redis-benchmark says. */
function rate(printed: string): number {
  return Number(/"SET","([\d.]+)"/.exec(printed)![1]);
}

/** One dump that leaves the program running, and one restore after its death; ms, bytes. */
async function plain(criu: CriuCommand, pid: number, folder: string, port: number) {
  mkdirSync(folder);
  const words = ["-D", folder, "--tcp-established", "--network-lock", "nftables", "--file-locks"];
  const call = (...args: string[]): number => {
    const from = performance.now();
    execFileSync(criu.command, [...criu.prefix, ...args, ...words], { stdio: "ignore" });
    return performance.now() - from;
  };
  const dumpMs = call("dump", "-t", `${pid}`, "--leave-running");
  const bytes = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  process.kill(pid, "SIGKILL");
  await until("it is gone", () => !alive(pid));
  const restoreMs = call("restore", "--restore-detached");
  await ready(port);
  return { dumpMs, restoreMs, bytes };
}

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function recorded(rig: Rig, name: string) {
  const taken = await rig.json<{ checkpoints: Checkpoint[] }>(
    "checkpoint",
    rig.app,
    name,
    "--driver",
    "criu",
  );
  const pids = rig.cgroup(name).pids();
  rig.cgroup(name).kill();
  // Either way CRIU needs the old ids, and init may take a second to wait for the dead: not ours to measure.
  await until("its ids are free", () => !pids.some(alive));
  const answer = await rig.json<Restart>("restart", rig.app, "--failed", name);
  if (answer.restarted.length !== 1 || answer.restarted[0]!.action !== "restore")
    throw new Error(`not restored: ${JSON.stringify(answer.restarted)}`);
  return { ...taken.checkpoints[0]!, restart: answer.phasesMs };
}

const push = (into: Map<string, number[]>, values: Readonly<Record<string, number>>): void => {
  for (const [name, value] of Object.entries(values)) into.set(name, [...(into.get(name) ?? []), value]);
};

async function measure(rig: Rig, criu: CriuCommand): Promise<Map<string, number[]>> {
  const figures = new Map<string, number[]>();
  await rig.collect();
  const [bare, port] = [await freePort(), await freePort()];
  const [program, ...args] = server(rig.path("bare"), bare) as [string, ...string[]];
  const child = spawn(program, args, { stdio: "ignore", detached: true });
  const pid = child.pid!;
  try {
    await rig.run("redis", ...server(rig.path("redis"), port));
    await ready(bare);
    client(filling(bare));
    await until("it is ready", () =>
      readFileSync(`${rig.path("redis")}/log`, "utf8").includes("Ready to acc"),
    );
    await recordedClient(rig, "filling", filling(port));
    for (let round = 0; round < ROUNDS; round += 1) {
      const bareRate = rate(client(loading(bare)));
      push(figures, {
        bareRate,
        rate: rate(await recordedClient(rig, `load-${round}`, loading(port))),
      });
      const floor = await plain(criu, pid, rig.path(`plain-${round}`), bare);
      push(figures, { plainDump: floor.dumpMs, plainRestore: floor.restoreMs, plainBytes: floor.bytes });
      const { frozenMs, imageBytes, phasesMs, restart } = await recorded(rig, "redis");
      push(figures, { frozenMs, imageBytes, dump: phasesMs.dump, store: phasesMs.store });
      push(figures, { total: restart["total"]!, restore: restart["restore"]!, plan: restart["plan"]! });
    }
  } finally {
    if (alive(pid)) process.kill(pid, "SIGKILL");
  }
  return figures;
}

const { found } = await findCriu();
if (missing !== undefined || found === undefined || !(await new CriuDriver(found).check()).works)
  console.log("# restart: RL_NOT_SUPPORTED, no capture or no CRIU on this machine");
else
  await withBenchRig("bench-restart", async (rig) => {
    const figures = await measure(rig, found);
    const of = (name: string, unit = 1): number => medianOf(figures.get(name) ?? []) / unit;
    const dumped = { name: "criu dump by hand", value: of("plainDump") };
    const restored = { name: "criu restore by hand", value: of("plainRestore") };
    const list: Figure[] = [
      { name: "checkpoint: the program stands still", value: of("frozenMs"), unit: "ms", floor: dumped },
      { name: "  of it the dump", value: of("dump"), unit: "ms", floor: dumped },
      { name: "  of it checksums and sync of the image", value: of("store"), unit: "ms" },
      {
        name: "image",
        value: of("imageBytes", 1e6),
        unit: "MB",
        floor: { name: "criu dump by hand", value: of("plainBytes", 1e6) },
      },
      { name: "restart after a failure, all", value: of("total"), unit: "ms", floor: restored },
      { name: "  of it the restore", value: of("restore"), unit: "ms", floor: restored },
      { name: "  of it line, verification, images and plan", value: of("plan"), unit: "ms" },
      {
        name: "SET, 16 in a pipeline, server and client recorded",
        value: of("rate"),
        unit: "requests/s",
        floor: { name: "not recorded", value: of("bareRate") },
      },
    ];
    report(`restart: redis-server with ${DATA_BYTES >> 20} MiB of values, medians of ${ROUNDS} rounds`, list);
  });
