/** A LAMMPS simulation under Open MPI as one recorded process, and its thermo output. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import type { Rig } from "../daemon/rig.ts";

export const STEPS = 2000;
export const EVERY = 100;

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
export function simulation(rig: Rig, name: string): { command: string[]; log: string } {
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
export function thermo(log: string): string[] {
  const lines = existsSync(log) ? readFileSync(log, "utf8").split("\n") : [];
  const head = lines.findIndex((line) => line.startsWith("Step "));
  if (head < 0) return [];
  const end = lines.findIndex((line) => line.startsWith("Loop time"));
  return lines.slice(head + 1, end < 0 ? -1 : end);
}

/** The last step that it has written. */
export const step = (log: string): number => Number(thermo(log).at(-1)?.trim().split(/\s+/)[0] ?? -1);

export async function startSimulation(rig: Rig, name: string, command: string[]): Promise<void> {
  const flags = ["--detach", "--output", rig.path(`${name}.out`)];
  const { code, err } = await rig.cli("run", rig.app, name, ...flags, "--", ...command);
  if (code !== 0) throw new Error(`run ${name}: exit code ${code}: ${err}`);
}
