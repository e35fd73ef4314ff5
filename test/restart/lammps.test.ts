/**
 * A LAMMPS simulation under Open MPI as one recorded process: `mpirun` and its ranks are one tree in one cgroup, so that one image
 * holds both ends of every connection, pipe and pty among them. Ranks talk over TCP: Open MPI's shared memory (btl vader, PMIx's
 * default store) lies in files on a tmpfs, whose contents no image holds.
 */
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { missing, until, withRig } from "../daemon/rig.ts";
import { LONG } from "../size.ts";
import { type Answer, fromNowhere } from "./answer.ts";
import { EVERY, STEPS, simulation, startSimulation, step, thermo } from "./lammps-app.ts";

/** Of one wait for the simulation, in ms: it shares the processors with other tests. */
const LIMIT_MS = 120_000;

/** Why it can't run here; undefined where it can. */
async function unsupported(): Promise<string | undefined> {
  if (missing !== undefined) return `RL_NOT_SUPPORTED: ${missing.name}: ${missing.reason}`;
  for (const [program, name] of [
    ["mpirun", "openmpi-bin"],
    ["lmp", "lammps"],
  ] as const)
    if (spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0)
      return `RL_NOT_SUPPORTED: ${program} is not installed (Debian: ${name})`;
  const criu = await findCriu();
  if (criu.found === undefined) return `RL_NOT_SUPPORTED: ${criu.reason}`;
  const { works, reason } = await new CriuDriver(criu.found).check();
  return works ? undefined : `RL_NOT_SUPPORTED: ${reason}`;
}

const reason = await unsupported();

test.skipIf(reason !== undefined)(
  `LAMMPS under Open MPI, killed in the middle and restarted: the same numbers as without a failure${reason === undefined ? "" : ` (${reason})`}`,
  { timeout: 4 * LIMIT_MS, ...LONG }, // mpi.test.ts brings jobs of Open MPI back
  () =>
    withRig("lammps", async (rig) => {
      const undisturbed = simulation(rig, "undisturbed");
      const [program, ...args] = undisturbed.command as [string, ...string[]];
      const { status, stderr } = spawnSync(program, args, { timeout: LIMIT_MS, encoding: "utf8" });
      expect({ status, stderr }).toMatchObject({ status: 0 });
      const expected = thermo(undisturbed.log);
      expect(expected.length).toBe(STEPS / EVERY + 1);

      await rig.collect();
      const { command, log } = simulation(rig, "job");
      await startSimulation(rig, "job", command);
      await until("it computes", () => step(log) >= STEPS / 4, LIMIT_MS);
      const taken = await rig.json<{ checkpoints: { cut: boolean; uncaptured: string[] }[] }>(
        "checkpoint",
        rig.app,
        "--driver",
        "criu",
      );
      expect(taken.checkpoints).toMatchObject([{ cut: true, uncaptured: [] }]); // nothing had to be trusted
      const atCheckpoint = step(log);
      await until("it goes on", () => step(log) >= atCheckpoint + 2 * EVERY, LIMIT_MS);
      rig.cgroup("job").kill();
      await until("it is dead", () => !rig.cgroup("job").populated);
      const atDeath = step(log);
      expect(atDeath).toBeLessThan(STEPS);

      const answer = await rig.json<Answer>("restart", rig.app);
      expect(answer.restarted).toEqual([{ process: "job", action: "restore", checkpoint: 1 }]);
      expect(fromNowhere(answer)).toEqual([]);
      await until("it has ended", () => !rig.cgroup("job").populated, LIMIT_MS);
      expect(rig.output("job")).toBe("");
      expect(thermo(log)).toEqual(expected);
    }),
);
