/** What packaging/ says of the collector in a container and of Slurm's scripts, done; its manifests, checked. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { connectCollector } from "../../src/client/client.ts";
import { attachedTo, cgroup2Root, cgroupOf } from "../../src/host/cgroups.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { PodmanStore, podmanAbsent } from "./podman-store.ts";
import { ASK, ECHO, freePort, missing, type Rig, until, withRig } from "./rig.ts";

const LIMIT = { timeout: 120_000 };
const absent = podmanAbsent();

function packaged(name: string): string {
  return readFileSync(join(packageRoot(), "packaging", name), "utf8");
}

/** All values of a key of recovery-line-collector.container. */
function quadlet(key: string): string[] {
  const lines = packaged("recovery-line-collector.container").split("\n");
  return lines.filter((line) => line.startsWith(`${key}=`)).map((line) => line.slice(key.length + 1));
}

/** Of the quadlet, with a home of the test's instead of the machine's. */
function volumes(rig: Rig): string[] {
  return quadlet("Volume").map((volume) => volume.replaceAll("/var/lib/recovery-line", rig.home));
}

/** As systemd would start it from the quadlet; Node.js and this package are the host's. */
function collectInContainer(rig: Rig, store: PodmanStore): void {
  for (const command of quadlet("ExecStartPre")) execFileSync("sh", ["-c", command]);
  const repository = packageRoot();
  const mounts = ["/usr:/usr:ro", `${repository}:${repository}:ro`, ...volumes(rig)];
  const exec = quadlet("Exec")[0]!.replace("/var/lib/recovery-line", rig.home).split(" ");
  store.podman(
    ...["run", "--detach", "--name", `rl-${rig.app}`, `--network=${quadlet("Network")[0]}`],
    ...quadlet("PodmanArgs")[0]!.split(" "),
    ...mounts.flatMap((mount) => ["--volume", mount]),
    ...["host-programs", process.execPath, join(repository, "dist/cli/main.js"), ...exec],
    ...["--pin-dir", rig.pinDir],
  );
}

interface Line {
  readonly outcome: string;
  readonly line: readonly { readonly process: string; readonly action: string }[];
}

async function collectorAnswers(rig: Rig): Promise<number | undefined> {
  const client = await connectCollector(rig.home).catch(() => undefined);
  const pid = await client?.ping().catch(() => undefined);
  client?.close();
  return pid?.pid;
}

test.skipIf(absent !== undefined)(
  `the collector in a privileged container records processes of the host and of another container, and a line is computed${absent === undefined ? "" : ` (${absent})`}`,
  LIMIT,
  () =>
    withRig("packaged", async (rig) => {
      const store = new PodmanStore();
      store.makeImage();
      collectInContainer(rig, store);
      try {
        await until(
          "it answers, under its number on the host",
          async () => (await collectorAnswers(rig)) === store.pidOf(`rl-${rig.app}`),
        );
        const port = String(await freePort());
        await rig.run("answers", process.execPath, "-e", ECHO, port);
        await until("the server listens", () => rig.output("answers").includes("listening"));
        await rig.run("asks", process.execPath, "-e", ASK, port);
        await until("what one sends the other receives", () => talked(rig, "asks", "answers"));
        const { outcome, line } = await rig.json<Line>("compute", rig.app, "--failed", "asks");
        expect({ outcome, line: line.map(({ process, action }) => `${process} ${action}`) }).toEqual({
          outcome: "clean",
          line: ["answers initial", "asks initial"],
        });

        const other = `rl-${rig.app}-other`;
        store.runHostProgram(other, process.execPath, "-e", ASK, port);
        await until("it runs", () => store.pidOf(other) > 0);
        const place = cgroupOf(store.pidOf(other))!;
        const attached = await rig.cli("attach", rig.app, "other", "--cgroup", place, "--no-checkpoint");
        expect(attached, attached.err).toMatchObject({ code: 0 });
        await until("the other container is recorded", () => talked(rig, "other", "answers"));
        expect(await rig.cli("detach", rig.app, "other")).toMatchObject({ code: 0 });
      } finally {
        store.podman("rm", "--force", "--time", "10", `rl-${rig.app}`); // the rig removes what it holds
      }
    }),
);

/** The second has received on a connection that the first has sent on. */
async function talked(rig: Rig, from: string, to: string): Promise<boolean> {
  const events = await rig.events();
  const channels = (name: string, type: string): string[] =>
    events.flatMap((one) =>
      one.process === name && one.type === type && "channel" in one ? [one.channel] : [],
    );
  const sent = channels(from, "send").filter((channel) => !channel.includes("/"));
  return channels(to, "receive").some((channel) => sent.includes(channel));
}

test.skipIf(missing !== undefined)(
  "a job of Slurm that asks for it is recorded from its prolog to its epilog",
  LIMIT,
  () =>
    withRig("slurm", async (rig) => {
      await rig.collect();
      mkdirSync(rig.path("bin"));
      symlinkSync(join(packageRoot(), "dist/cli/main.js"), rig.path("bin/recovery-line"));
      const top = join(cgroup2Root(), `slurm-${rig.app}`);
      const id = `${process.pid}`;
      const job = `job-${id}`;
      const levels = ["", `job_${id}`, `job_${id}/step_0`, `job_${id}/step_0/user`].map((path) =>
        join(top, path),
      );
      onTestFinished(() => {
        for (const level of levels.toReversed()) if (existsSync(level)) rmdirSync(level);
      });
      const slurm = (script: string, comment: string): number | null =>
        spawnSync(join(packageRoot(), `packaging/slurm/${script}.sh`), {
          stdio: "ignore",
          env: {
            ...process.env,
            PATH: `${rig.path("bin")}:${process.env["PATH"]}`,
            RECOVERY_LINE_HOME: rig.home,
            RECOVERY_LINE_SLURM_CGROUPS: top,
            SLURM_JOB_ID: id,
            SLURM_JOB_COMMENT: comment,
            SLURMD_NODENAME: "node1",
          },
        }).status;
      expect(slurm("prolog", "something else")).toBe(0);
      expect(slurm("prolog", "recovery-line")).toBe(0);
      for (const level of levels) mkdirSync(level);
      const program = spawn("sleep", ["1000"], { stdio: "ignore", detached: true });
      writeFileSync(join(levels[3]!, "cgroup.procs"), String(program.pid));
      await until("the job is attached", () => attachedTo(job).some((one) => one.process === "node1"));
      const client = await rig.client();
      await until("and recorded", async () =>
        (await client.processes()).some((one) => one.app === job && one.process === "node1" && one.live),
      );
      client.close();
      program.kill();
      await once(program, "exit");
      expect(slurm("epilog", "recovery-line")).toBe(0);
      expect(attachedTo(job)).toEqual([]);
    }),
);
