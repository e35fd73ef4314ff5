/**
 * The ranks of a job of Open MPI, each a recorded process of its own: mpirun starts native/wait/rank.sh instead of each, which enters a
 * frozen cgroup and becomes the rank once it is registered. mpirun itself, with what else it starts, is one more process.
 *
 * PMIx would give its data to the ranks in memory that it shares with them, which nobody records: it is told to send them.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { applicationCgroup, ProcessCgroup } from "../host/cgroups.ts";
import { cgroupId, standsStill } from "../host/freeze.ts";
import { startTicksOf } from "../host/process-tree.ts";
import { StartGuard } from "../host/start-guard.ts";
import { NO_IO_URING, OWN_IPC, startHelper } from "../host/start-helper.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { FREEZE_LIMIT_MS } from "../model/limits.ts";
import type { StartRecipe } from "../model/stored-process.ts";
import { packageRoot } from "../native/binding.ts";
import type { CollectorClient } from "./client.ts";
import type { ProcessStart } from "./start-process.ts";

/** What the ranks have from the job. */
export type RankJob = Pick<
  ProcessStart,
  "app" | "process" | "trust" | "rules" | "payload" | "mode" | "group" | "recipe"
>;

/** Between two looks for new ranks, in ms. */
const LOOK_MS = 5;

/** What mpirun finds in its environment. `output`: what a rank writes goes to that name with ".rank-N". Throws RL_USAGE, RL_NOT_SUPPORTED. */
export function rankEnvironment(
  app: string,
  process: string,
  output: string | undefined,
  { allowIoUring, ownIpc }: Pick<StartRecipe, "allowIoUring" | "ownIpc">,
): Record<string, string> {
  const words = [
    "/bin/sh",
    join(packageRoot(), "native/wait/rank.sh"),
    startHelper("enter"),
    applicationCgroup(app),
    process,
    output ?? "-",
    ...(allowIoUring === true ? [] : [NO_IO_URING]),
    ...(ownIpc === true ? [OWN_IPC] : []),
    "--",
  ];
  const spaced = words.find((word) => /\s/.test(word));
  if (spaced !== undefined)
    throw new RecoveryLineError("RL_USAGE", `--ranks: Open MPI takes no path with a space: ${spaced}`);
  return { OMPI_MCA_orte_fork_agent: words.join(" "), PMIX_MCA_gds: "hash" };
}

/** Of earlier jobs nothing may be in the way. Throws RL_LOCKED where a rank runs still. */
export function removeOldRanks(app: string, process: string): void {
  for (const name of rankNames(app, process)) {
    const cgroup = new ProcessCgroup(app, name);
    if (!cgroup.remove())
      throw new RecoveryLineError(
        "RL_LOCKED",
        `process ${name} of ${app} runs already: ${cgroup.path} holds process ${cgroup.pids().join(", ")}`,
        "End it first, or take another name.",
      );
  }
}

/**
 * Registers each rank as it comes, and lets it go; resolves once all are there, or mpirun has ended. Throws what registering throws, the rank
 * killed. Whoever is killed meanwhile takes the job along, whose other ranks nobody would let go.
 */
export async function takeRanks(collector: CollectorClient, job: RankJob): Promise<string[]> {
  const launcher = new ProcessCgroup(job.app, job.process);
  if (!launcher.populated) return [];
  const guard = await StartGuard.ofRanks(launcher).catch((error: unknown) => {
    launcher.kill(); // and with it all that would wait for good
    for (const name of rankNames(job.app, job.process)) new ProcessCgroup(job.app, name).kill();
    throw error;
  });
  try {
    return await takeEach(collector, job, launcher);
  } finally {
    await guard.letGo();
  }
}

async function takeEach(
  collector: CollectorClient,
  job: RankJob,
  launcher: ProcessCgroup,
): Promise<string[]> {
  const taken = new Set<string>();
  for (let size = Number.POSITIVE_INFINITY; taken.size < size && launcher.populated; await sleep(LOOK_MS))
    for (const name of rankNames(job.app, job.process)) {
      const cgroup = new ProcessCgroup(job.app, name);
      if (taken.has(name) || !cgroup.populated) continue;
      taken.add(name);
      size = await takeRank(collector, job, name, cgroup);
    }
  return [...taken];
}

/** Returns how many ranks the job has. */
async function takeRank(
  collector: CollectorClient,
  { app, process, recipe, ...rest }: RankJob,
  name: string,
  cgroup: ProcessCgroup,
): Promise<number> {
  await standsStill(cgroup, performance.now() + FREEZE_LIMIT_MS);
  const pid = cgroup.pids()[0] ?? 0;
  try {
    await collector.register({
      ...rest,
      app,
      process: name,
      cgroupId: cgroupId(cgroup),
      start: { command: recipe.command, cwd: recipe.cwd, env: {}, mpiJob: process },
      task: { pid, startTicks: startTicksOf(pid) ?? 0 },
    });
    return worldSize(pid);
  } catch (error) {
    cgroup.kill();
    throw error;
  } finally {
    cgroup.thaw();
  }
}

/** From the environment that mpirun gave it; it has not begun yet. */
function worldSize(pid: number): number {
  const size = /(?:^|\0)OMPI_COMM_WORLD_SIZE=(\d+)/.exec(readFileSync(`/proc/${pid}/environ`, "utf8"))?.[1];
  return size === undefined ? Number.POSITIVE_INFINITY : Number(size);
}

function rankNames(app: string, process: string): string[] {
  const ofJob = (name: string): boolean => name.startsWith(`${process}-rank-`) && /-rank-\d+$/.test(name);
  try {
    return readdirSync(applicationCgroup(app)).filter(ofJob);
  } catch {
    return []; // nothing of the application has run yet
  }
}
