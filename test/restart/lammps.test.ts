/**
 * A LAMMPS simulation under Open MPI as one recorded process: `mpirun` and its ranks are one tree in one cgroup, so that one image
 * holds both ends of every connection, pipe and pty among them. Ranks talk over TCP: Open MPI's shared memory (btl vader, PMIx's
 * default store) lies in files on a tmpfs, whose contents no image holds.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { CriuDriver } from "../../src/restart/driver-criu.ts";
import { findCriu } from "../../src/restart/driver-criu-find.ts";
import { missing, type Rig, until, withRig } from "../daemon/rig.ts";
import { type Answer, fromNowhere } from "./answer.ts";

const STEPS = 2000;
const EVERY = 100;
/** Of one wait for the simulation, in ms: it shares the processors with other tests. */
const LIMIT_MS = 60_000;

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

/** The melt of LAMMPS's own example `melt`, 4000 atoms, written to its log every `EVERY` steps. */
const MELT = `units lj
atom_style atomic
lattice fcc 0.8442
region box block 0 10 0 10 0 10
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 3.0 87287 loop geom
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
neigh_modify every 20 delay 0 check no
fix 1 all nve
thermo ${EVERY}
thermo_modify flush yes
run ${STEPS}
`;

/** The command, and its log; session files of Open MPI go into the test's folder, too. */
function simulation(rig: Rig, name: string): { command: string[]; log: string } {
  const folder = rig.path(name);
  mkdirSync(folder);
  writeFileSync(`${folder}/in.lj`, MELT);
  const log = `${folder}/log.lammps`;
  const mpi = ["mpirun", "-np", "2", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"];
  const network = ["btl", "self,tcp", "btl_tcp_if_include", "lo", "oob_tcp_if_include", "lo"];
  for (let at = 0; at < network.length; at += 2) mpi.push("--mca", network[at]!, network[at + 1]!);
  const lammps = ["lmp", "-in", `${folder}/in.lj`, "-log", log, "-screen", "none"];
  return { command: ["env", "PMIX_MCA_gds=hash", `TMPDIR=${folder}`, ...mpi, ...lammps], log };
}

/** Rows of the thermo output: numbers of the simulation only, no times. */
function thermo(log: string): string[] {
  const lines = existsSync(log) ? readFileSync(log, "utf8").split("\n") : [];
  const head = lines.findIndex((line) => line.startsWith("Step "));
  if (head < 0) return [];
  const end = lines.findIndex((line) => line.startsWith("Loop time"));
  return lines.slice(head + 1, end < 0 ? -1 : end);
}

const step = (log: string): number => Number(thermo(log).at(-1)?.trim().split(/\s+/)[0] ?? -1);

async function start(rig: Rig, name: string, command: string[]): Promise<void> {
  const flags = ["--detach", "--output", rig.path(`${name}.out`)];
  const { code, err } = await rig.cli("run", rig.app, name, ...flags, "--", ...command);
  if (code !== 0) throw new Error(`run ${name}: exit code ${code}: ${err}`);
}

test.skipIf(reason !== undefined)(
  `LAMMPS under Open MPI, killed in the middle and restarted: the same numbers as without a failure${reason === undefined ? "" : ` (${reason})`}`,
  { timeout: 4 * LIMIT_MS },
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
      await start(rig, "job", command);
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
