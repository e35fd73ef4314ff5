/** `run --ranks`: each rank of Open MPI is a process of its own, with channels, cuts and lines; none comes back alone, and restart says why. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { type Rig, until, withRig } from "../daemon/rig.ts";
import { expectedRounds, mpiMissing, mpiRounds } from "./mpi-app.ts";
import { restartable } from "./restartable.ts";

const RANKS = 3;
/** More than come before it is stopped. */
const ROUNDS = 100_000;
const NAMES = Array.from({ length: RANKS }, (_, rank) => `job-rank-${rank}`);
/** Not over the bridge that another test makes and removes. */
const OVER_TCP = ["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"];

function run(rig: Rig, options: readonly string[], transport: readonly string[]): ReturnType<Rig["cli"]> {
  const mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", ...transport, "-np", `${RANKS}`];
  const output = ["--output", rig.path("job")];
  return rig.cli(
    "run",
    rig.app,
    "job",
    "--ranks",
    ...options,
    ...output,
    "--",
    ...mpirun,
    mpiRounds(),
    `${ROUNDS}`,
    rig.path("stop"),
  );
}

/** Lines of rank 0 that have come out whole. */
function rankLines(rig: Rig): string[] {
  const path = rig.path("job.rank-0");
  return existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : [];
}

/** "from to": who has received what the other sent. */
async function pairs(rig: Rig): Promise<Set<string>> {
  const sender = new Map<string, string>();
  const events = await rig.events();
  for (const one of events)
    if (one.type === "send" && !one.channel.includes("/")) sender.set(one.channel, one.process);
  return new Set(
    events.flatMap((one) => {
      const from = one.type === "receive" ? sender.get(one.channel) : undefined;
      return from === undefined ? [] : [`${from} ${one.process}`];
    }),
  );
}

(mpiMissing === undefined ? restartable : test.skip)(
  `ranks over TCP are seen by channel and go back together; one dies, restart refuses, and the job starts again${mpiMissing === undefined ? "" : ` (not supported here: ${mpiMissing} is missing)`}`,
  { timeout: 120_000 },
  () =>
    withRig("ranks", async (rig) => {
      await rig.collect();
      expect(await run(rig, ["--detach"], OVER_TCP)).toMatchObject({ code: 0 });
      await until("rank 0 counts", () => rankLines(rig).length > 20);
      const seen = await pairs(rig);
      for (const one of NAMES)
        for (const other of ["job", ...NAMES]) if (other !== one) expect(seen).toContain(`${one} ${other}`);
      const client = await rig.client();
      const recorded = (await client.processes()).sort((a, b) => (a.process < b.process ? -1 : 1)); // ranks begin in any order
      expect(recorded, "nothing passes by another way").toMatchObject(
        ["job", ...NAMES].map((process) => ({ process, uncaptured: [], live: true })),
      );

      const all = await rig.cli("checkpoint", rig.app, "--coordinated");
      expect(all.code).not.toBe(0);
      expect(all.err).toMatch(
        /was started by the process and is recorded under another name.*for MPI: mpirun with its ranks/s,
      );
      expect(await rig.cli("checkpoint", rig.app, ...NAMES, "--coordinated")).toMatchObject({ code: 0 });
      await until("rank 0 counts on", () => rankLines(rig).length > 60);
      const { line } = await rig.json<RecoveryLine>("compute", rig.app, "--failed", NAMES[1]!);
      expect(line.map(({ process, action }) => `${process} ${action}`)).toEqual([
        "job continue",
        ...NAMES.map((name) => `${name} restore`),
      ]);

      process.kill(rig.cgroup(NAMES[1]!).pids()[0]!, "SIGKILL");
      await until("mpirun has ended the job", async () =>
        (await client.processes()).every(({ live }) => !live),
      );
      const refused = await rig.cli("restart", rig.app);
      expect(refused.code).toBe(4);
      expect(refused.err).toMatch(
        /job would have to go back.*mpirun \(job\) is the parent of its ranks.*recorded whole/s,
      );

      const again = run(rig, ["--fresh"], []);
      await until("shared memory between ranks is told", async () =>
        (await client.unseen(rig.app).catch(() => [])).some(
          ({ process, reason, other }) =>
            process === NAMES[0] && reason === "shared-memory" && other.startsWith("job-rank-"),
        ),
      );
      writeFileSync(rig.path("stop"), "");
      expect(await again).toMatchObject({ code: 0 });
      const lines = rankLines(rig);
      const life = lines.slice(lines.findLastIndex((line) => line.startsWith("1 ")));
      expect(life.length).toBeGreaterThan(0);
      expect(life).toEqual(expectedRounds(life.length, RANKS));
      await until("all have ended", async () => (await client.processes()).every(({ live }) => !live));
      expect((await client.processes()).filter(({ failed }) => failed)).toEqual([]);
      client.close();
    }),
);
