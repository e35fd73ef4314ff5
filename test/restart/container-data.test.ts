/** Containers with folders of this machine as part of their state, containers that go away under a checkpoint, and pods. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { kill } from "node:process";
import { expect, test } from "vitest";
import { isHeld, Podman, told, withoutPodman } from "../daemon/podman.ts";
import { until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

const reason = withoutPodman();
const containers = reason === undefined ? restartable : test.skip;
const LIMIT = { timeout: 180_000 };
const PORT = "6391";

/** The append-only files of a redis below a folder: how often it was told to count. */
function logged(folder: string): number {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((one) =>
    one.name.endsWith(".incr.aof"),
  );
  return files
    .map((one) => readFileSync(join(one.parentPath, one.name), "latin1").split("INCR").length - 1)
    .reduce((sum, one) => sum + one, 0);
}

containers("the folder that a container's redis writes its log to goes back with it, exactly", LIMIT, () =>
  withRig("volume", async (rig) => {
    const podman = new Podman();
    const name = `rl-${rig.app}`;
    const folder = rig.path("data");
    mkdirSync(folder);
    const mount = ["--volume", `${folder}:/data`];
    const server = [podman.server, "--port", PORT, "--dir", "/data", "--protected-mode", "no"];
    const keep = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    podman.run(name, mount, ...server, ...keep);
    await podman.listens(name);
    const address = podman.inspect(name, "{{.NetworkSettings.IPAddress}}");
    const place = ["-h", address, "-p", PORT];
    const ask = (...words: string[]): string =>
      execFileSync(podman.client, [...place, ...words], { encoding: "utf8" }).trim();
    const answers = (): boolean =>
      spawnSync(podman.client, [...place, "PING"]).stdout.toString() === "PONG\n";
    await rig.collect();
    for (let n = 0; n < 5; n += 1) ask("INCR", "k");
    const first = await told(rig, "attach", rig.app, "db", "--container", name, "--data", folder);
    expect(first).not.toContain(folder); // as a place that it may write, and that does not come back

    for (let n = 0; n < 7; n += 1) ask("INCR", "k");
    execFileSync("touch", [join(folder, "made-since")]);
    expect([ask("GET", "k"), logged(folder)]).toEqual(["12", 12]);
    podman.podman("kill", name);
    await told(rig, "restart", rig.app, "--failed", "db");
    await until("it answers", answers);
    expect([ask("GET", "k"), logged(folder)]).toEqual(["5", 5]);
    expect(readdirSync(folder)).not.toContain("made-since");
    for (let n = 0; n < 3; n += 1) ask("INCR", "k");
    expect([ask("GET", "k"), logged(folder)]).toEqual(["8", 8]);
    await told(rig, "checkpoint", rig.app, "db");
  }),
);

containers(
  "a container that is killed or removed while a checkpoint holds it: nothing is left frozen, it comes back, and others go on",
  LIMIT,
  () =>
    withRig("removed", async (rig) => {
      const podman = new Podman();
      const names = ["dies", "goes", "stays"].map((name) => `rl-${name}-${rig.app}`);
      const [dies, goes] = names as [string, string, string];
      for (const name of names) await podman.serve(name);
      await rig.collect();
      for (const name of ["dies", "goes", "stays"])
        await told(rig, "attach", rig.app, name, "--container", `rl-${name}-${rig.app}`, "--no-checkpoint");
      await told(rig, "checkpoint", rig.app, "--coordinated");

      const first = podman.pidOf(dies);
      expect(first).toBeGreaterThan(0); // 0 is this test's own process group to `kill`
      for (const [process, ends] of [
        ["dies", () => kill(first, "SIGKILL")],
        ["goes", () => podman.podman("rm", "--force", "--time", "0", goes)], // podman lets it wait for its own checkpoint
      ] as const) {
        const { ended } = rig.background("checkpoint", rig.app, process);
        await until("it is held", () => isHeld(rig));
        ends();
        const { code, err } = await ended;
        if (code !== 0) expect(err).toContain(process); // it was over before its image was
        expect(isHeld(rig)).toBe(false);
        await until(`${process} is known to have failed`, async () => {
          const { processes } = await rig.json<{ processes: { process: string; state: string }[] }>(
            ...["status", rig.app],
          );
          return processes.find((one) => one.process === process)?.state.includes("failed") === true;
        });
        await told(rig, "restart", rig.app, "--failed", process); // from this image, or the one before
      }
      expect(await told(rig, "checkpoint", rig.app, "stays")).toContain("stays");
    }),
);

containers(
  "a pod as one process: what its containers tell each other is inside, it is recorded by cuts; an image, and a line that needs one, are refused",
  LIMIT,
  () =>
    withRig("pod", async (rig) => {
      const podman = new Podman();
      const pod = `rl-pod-${rig.app}`;
      podman.podman(
        ...["pod", "create", "--name", pod, "--network", "podman"],
        ...["--infra-image", "redis-alone", "--infra-command", podman.server],
      );
      podman.run(`${pod}-db`, ["--pod", pod], podman.server, "--port", PORT, "--save", "");
      const talk = [podman.client, "-p", PORT, "-r", "-1", "-i", "0.01", "INCR", "k"];
      podman.run(`${pod}-client`, ["--pod", pod], ...talk);
      await until("the client counts", () => podman.logs(`${pod}-client`).includes("20"));
      await rig.collect();
      const said = await told(rig, "attach", rig.app, "all", "--pod", pod);
      expect(said).toMatch(/all +1 +\d+ connections +none/);
      expect(said).toContain("only cuts are recorded");
      const line = await rig.cli("compute", rig.app);
      expect([line.code, line.err]).toEqual([4, expect.stringContaining("all would have to go back")]);
      const { code, err } = await rig.cli("checkpoint", rig.app, "all");
      expect([code, err]).toEqual([1, expect.stringContaining("runs in a container")]);
      await told(rig, "checkpoint", rig.app, "all", "--driver", "none");
      await told(rig, "detach", rig.app, "all");
      expect(podman.podman("pod", "inspect", "--format", "{{.State}}", pod)).toBe("Running");
    }),
);
