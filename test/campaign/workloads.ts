/**
 * What the campaign runs: each workload plays one seeded run in a world of its own. A workload that can't be judged throws (the run counts as
 * failed, or as wrong where an assertion about the result or about received ≤ sent threw).
 */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { seeded } from "../../src/demo/seeded.ts";
import { type Rig, until, withRig } from "../daemon/rig.ts";
import { makeDsm } from "../dsm/dsm-build.ts";
import { Application, survive } from "../dsm/survive.ts";
import { type Answer, fromNowhere } from "../restart/answer.ts";
import { restartInterrupted } from "../restart/interrupted.ts";
import { EVERY, STEPS, simulation, startSimulation, step, thermo } from "../restart/lammps-app.ts";
import { natsRun, type RunMode } from "../restart/nats-run.ts";
import { REDIS_PROCESSES, RedisApp } from "../restart/redis-app.ts";
import { CLUSTER, RedisCluster } from "../restart/redis-cluster-app.ts";
import { runRing } from "../sdk/ring-rig.ts";
import { Etcd, Jvm, MariaDb, Mpi, Postgresql, Prometheus, refuseMissing } from "./applications/programs.ts";
import { fiveRounds, type Served } from "./applications/served.ts";

export interface RunResult {
  /** exact: the output of a run without failure · refused: nothing was touched · failed: it said so · wrong: it did not. */
  readonly outcome: "exact" | "refused" | "failed" | "wrong";
  readonly detail: string;
  /** Of `restart`, in ms; one a restart. */
  readonly restartMs: readonly number[];
  /** Went back to a checkpoint older than its newest one, or to the start, summed over processes and restarts. */
  readonly rolledFurther?: number;
  readonly replayedBytes?: number;
}

type Workload = (seed: number) => Promise<RunResult>;

const LIMIT_MS = 60_000;

const nats =
  (mode: RunMode): Workload =>
  (seed) =>
    inRig(seed, (rig) => natsRun(rig, seed, mode));

const SERVED: Readonly<Record<string, new (rig: Rig) => Served>> = {
  mariadb: MariaDb,
  etcd: Etcd,
  jvm: Jvm,
  prometheus: Prometheus,
  postgresql: Postgresql,
  mpi: Mpi,
};

async function served(name: string, seed: number): Promise<RunResult> {
  refuseMissing(name);
  return inRig(seed, async (rig) => {
    const told = await fiveRounds(rig, seed, new SERVED[name]!(rig));
    return { ...told, detail: `${name}: ${told.detail}` };
  });
}

export const WORKLOADS: Readonly<Record<string, Workload>> = {
  payload: nats("payload"),
  coordinated: nats("coordinated"),
  "fall-back": nats("fall-back"),
  interrupted: nats("interrupted"),
  images: nats("images"),
  redis: (seed) => inRig(seed, (rig) => redisRun(rig, seed)),
  "redis-cluster": (seed) => inRig(seed, (rig) => clusterRun(rig, seed)),
  lammps: (seed) => inRig(seed, (rig) => lammpsRun(rig, seed)),
  sdk: async (seed) => ({ outcome: "exact", detail: "", restartMs: (await runRing(seed)).restartMs }),
  dsm: dsmRun,
  applications: (seed) => served(Object.keys(SERVED)[seed % Object.keys(SERVED).length]!, seed),
  ...Object.fromEntries(Object.keys(SERVED).map((name) => [name, (seed: number) => served(name, seed)])),
};

/**
 * One round of all that must be exact. `images` stands apart: independent checkpoints, no payload log and no leave to fall back, so
 * that a refusal is the right answer to nearly every crash. `redis-cluster` is KILLS kills a run under load, asked for by its name.
 */
export const ROUND: readonly string[] = [
  ...[
    "payload",
    "redis",
    "coordinated",
    "sdk",
    "payload",
    "lammps",
    "interrupted",
    "dsm",
    "payload",
    "fall-back",
  ],
  ...[
    "payload",
    "redis",
    "coordinated",
    "sdk",
    "payload",
    "redis",
    "interrupted",
    "dsm",
    "payload",
    "fall-back",
  ],
];

async function inRig(seed: number, play: (rig: Rig) => Promise<RunResult>): Promise<RunResult> {
  let result: RunResult | undefined;
  await withRig(`campaign-${seed}`, async (rig) => {
    result = await play(rig);
  });
  return result!;
}

/** Coordinated checkpoints at random moments; all die, or one; a restart, interrupted in every third run; up to twice. */
async function redisRun(rig: Rig, seed: number): Promise<RunResult> {
  const random = seeded(seed);
  const restartMs: number[] = [];
  await rig.collect();
  const app = new RedisApp(rig, 2000);
  await app.start();
  await until("it counts", () => app.answers().length > 20, LIMIT_MS);
  for (let round = 1 + random(2); round > 0; round -= 1) {
    for (let count = 1 + random(2); count > 0; count -= 1) {
      await pause(random(300));
      await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
    }
    await pause(random(500));
    const all = random(2) > 0;
    for (const name of all ? REDIS_PROCESSES : [REDIS_PROCESSES[random(3)]!]) rig.cgroup(name).kill();
    const broken = await restarted(rig, restartMs, random(3) === 0 ? random : undefined);
    if (broken !== undefined) return broken;
  }
  const wrong = await app.outcome(LIMIT_MS);
  return { outcome: wrong === undefined ? "exact" : "wrong", detail: wrong ?? "", restartMs };
}

/** Of a run of `redis-cluster`, count. */
const KILLS = 10;
/** Connections of each of its load generators, up to, count. */
const CLIENTS = 8;

/**
 * A redis cluster under the load of programs that nobody records: checkpoint, go on, kill one at a random time, restart. Whoever fails, no
 * line is at the start or behind the newest checkpoint, nothing has been received that is not sent, and the cluster serves again.
 */
async function clusterRun(rig: Rig, seed: number): Promise<RunResult> {
  const random = seeded(seed);
  const restartMs: number[] = [];
  const told = { lost: 0, unsayable: 0, reset: 0 };
  await rig.collect();
  const cluster = new RedisCluster(rig);
  try {
    await cluster.start();
    cluster.load(1 + random(CLIENTS));
    for (let kill = 1; kill <= KILLS; kill += 1) {
      await pause(random(1000));
      const index = await clusterCheckpoint(rig);
      await pause(random(2000));
      await died(rig, CLUSTER[random(CLUSTER.length)]!);
      const worthless = await worthlessFor(rig, index);
      if (worthless !== undefined)
        return { outcome: "wrong", detail: `kill ${kill}: ${worthless}`, restartMs };
      const broken = await restarted(rig, restartMs, undefined, ({ lostInputs, unsayable, broken: over }) => {
        told.lost += lostInputs?.length ?? 0;
        told.unsayable += unsayable?.length ?? 0;
        told.reset += over?.length ?? 0;
      });
      if (broken !== undefined) return { ...broken, detail: `kill ${kill}: ${broken.detail}` };
      await cluster.answers();
    }
  } finally {
    cluster.stop();
  }
  const outside = (await rig.events()).filter(({ type }) => type === "outside").length;
  const detail = `${KILLS} kills; channels to outside ${outside}, of them with inputs lost ${told.lost}, outputs unsayable ${told.unsayable}; connections reset ${told.reset}`;
  return { outcome: outside > 0 ? "exact" : "wrong", detail, restartMs };
}

async function died(rig: Rig, name: string): Promise<void> {
  rig.cgroup(name).kill();
  await until(`${name} is dead`, () => !rig.cgroup(name).populated);
}

/** Of all servers at one moment; whoever made the cluster has ended. Returns its number. */
async function clusterCheckpoint(rig: Rig): Promise<number> {
  const { checkpoints } = await rig.json<{ checkpoints: readonly { checkpoint: number }[] }>(
    ...["checkpoint", rig.app, ...CLUSTER, "--coordinated", "--driver", "criu"],
  );
  return Math.max(...checkpoints.map(({ checkpoint }) => checkpoint));
}

/** What each failure would cost now, and that of all together; `index`: of the newest checkpoint. */
async function worthlessFor(rig: Rig, index: number): Promise<string | undefined> {
  const answer = await rig.json<Costs>("failures", rig.app, "--failed", CLUSTER.join());
  const worst = [...answer.failures, answer.together].find(
    ({ checkpoints, unbounded }) => checkpoints > 0 || unbounded > 0,
  );
  if (answer.outcome === "clean" && worst === undefined) return undefined;
  await keepEvidence(rig);
  return `newest checkpoint ${index}: ${answer.outcome}, ${JSON.stringify({ ...worst, lostInputs: [], unsayable: [] })}`;
}

/** What a wrong line is looked into by. */
async function keepEvidence(rig: Rig): Promise<void> {
  mkdirSync("build/campaign", { recursive: true });
  await rig.cli("export", rig.app, "--to", `build/campaign/${rig.app}.jsonl`);
}

interface Costs {
  readonly outcome: string;
  readonly failures: readonly Cost[];
  readonly together: Cost;
}

/** Checkpoints that the line goes back behind, and processes at their start that have one. */
interface Cost {
  readonly checkpoints: number;
  readonly unbounded: number;
}

let expected: readonly string[] | undefined;

/** Once by itself, the first time; then killed at a random step of a run with checkpoints at random steps. */
async function lammpsRun(rig: Rig, seed: number): Promise<RunResult> {
  const random = seeded(seed);
  const restartMs: number[] = [];
  await rig.collect();
  expected ??= await undisturbed(rig);
  const { command, log } = simulation(rig, "job");
  await startSimulation(rig, "job", command);
  const first = EVERY * (1 + random(5));
  await until("it computes", () => step(log) >= first, LIMIT_MS);
  for (let count = 1 + random(2); count > 0; count -= 1)
    await rig.json("checkpoint", rig.app, "--driver", "criu");
  await pause(random(1500));
  rig.cgroup("job").kill();
  await until("it is dead", () => !rig.cgroup("job").populated);
  const atDeath = step(log);
  const broken = await restarted(rig, restartMs);
  if (broken !== undefined) return broken;
  await until("it has ended", () => !rig.cgroup("job").populated, 3 * LIMIT_MS); // ranks that poll need a processor each
  const same = JSON.stringify(thermo(log)) === JSON.stringify(expected) && rig.output("job") === "";
  const detail = `killed at step ${atDeath} of ${STEPS}`;
  return { outcome: same ? "exact" : "wrong", detail, restartMs };
}

/** The same job, not recorded and never killed. */
async function undisturbed(rig: Rig): Promise<readonly string[]> {
  const { command, log } = simulation(rig, "undisturbed");
  const [program, ...args] = command as [string, ...string[]];
  await promisify(execFile)(program, args, { timeout: 2 * LIMIT_MS });
  const rows = thermo(log);
  if (rows.length !== STEPS / EVERY + 1) throw new Error(`the undisturbed run wrote ${rows.length} rows`);
  return rows;
}

const KERNELS = [
  ["sor", "--n", "96", "--iterations", "40"],
  ["matmul", "--n", "96"],
  ["lu", "--n", "48"],
  ["tsp", "--n", "9"],
] as const;

async function dsmRun(seed: number): Promise<RunResult> {
  const folder = mkdtempSync(join(tmpdir(), "dsm-campaign-"));
  try {
    const words = KERNELS[seeded(seed)(KERNELS.length)]!;
    const app = new Application(folder, join(makeDsm(), "dsm-kernels"), words);
    const checkpoints = await survive(app, seed);
    return { outcome: "exact", detail: `${words[0]}, from checkpoints ${checkpoints}`, restartMs: [] };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** One restart, to its end or through interruptions. Undefined: it worked and nobody had received what is not sent. */
async function restarted(
  rig: Rig,
  restartMs: number[],
  interrupting?: (limit: number) => number,
  look?: (answer: Partial<Answer>) => void,
): Promise<RunResult | undefined> {
  const { code, out, err } =
    interrupting === undefined
      ? await rig.cli("restart", rig.app, "--json")
      : (await restartInterrupted(rig, interrupting, 1 + interrupting(3), 2500)).last;
  if (code !== 0) return { outcome: code === 4 ? "refused" : "failed", detail: out + err, restartMs };
  const answer = JSON.parse(out) as Partial<Answer>;
  if (answer.connections === undefined) return undefined; // all was there already, or had been done before
  look?.(answer);
  restartMs.push(answer.phasesMs!["total"]!);
  const broken = fromNowhere(answer as Answer);
  return broken.length === 0
    ? undefined
    : { outcome: "wrong", detail: `received more than sent: ${broken}`, restartMs };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
