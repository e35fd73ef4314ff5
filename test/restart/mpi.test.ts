/** Jobs of Open MPI, flags as Debian has them: whole jobs come back, whoever of them is killed, and end with the right result. */
import { expect, test } from "vitest";
import { until, withRig } from "../daemon/rig.ts";
import { expectedRounds, MpiJob, mpiMissing } from "./mpi-app.ts";
import { restartable } from "./restartable.ts";

(mpiMissing === undefined ? restartable : test.skip)(
  `two jobs at once: one loses a rank, then both lose all, and both end with the right result${mpiMissing === undefined ? "" : ` (not supported here: ${mpiMissing} is missing)`}`,
  { timeout: 120_000 },
  () =>
    withRig("mpi", async (rig) => {
      await rig.collect();
      const jobs = ["left", "right"].map((name) => new MpiJob(rig, name, name === "right"));
      for (const job of jobs) await job.start();
      for (const job of jobs) await job.reaches(20);
      await rig.json("checkpoint", rig.app);
      for (const job of jobs) await job.reaches(20);
      process.kill(jobs[0]!.ranks()[1]!, "SIGKILL");
      await until("mpirun has ended the job", () => !jobs[0]!.running);
      await rig.json("restart", rig.app);
      await jobs[0]!.reaches(20);
      await rig.json("checkpoint", rig.app);
      for (const job of jobs) await job.reaches(20);
      for (const { name } of jobs) rig.cgroup(name).kill();
      await until("both are dead", () => jobs.every(({ running }) => !running));
      await rig.json("restart", rig.app);
      for (const job of jobs) await job.reaches(20);
      for (const job of jobs) job.stop();
      await until("both have ended", () => jobs.every(({ running }) => !running));
      const client = await rig.client();
      await until("their ends are known", async () => (await client.processes()).every(({ live }) => !live));
      expect((await client.processes()).map(({ failed }) => failed)).toEqual([false, false]);
      client.close();
      for (const job of jobs) expect(job.lines()).toEqual(expectedRounds(job.lines().length));
    }),
);
