/** Children that have ended and were not waited for, and what one process that is refused means for the others (case 05-zombie). */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { childOutside, startTicksOf, treeRoots } from "../../src/host/process-tree.ts";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { compile } from "../native/c-build.ts";
import { sized } from "../size.ts";
import { missing, type Rig, until, withSharedCollector } from "./rig.ts";

const together = withSharedCollector("zombie");

const criu = await findCriu();
const check = criu.found === undefined ? undefined : await new CriuDriver(criu.found).check();
const imaged = test.skipIf(missing !== undefined || check?.works !== true);

const LEAVES_ZOMBIE =
  'import subprocess,time; subprocess.Popen(["true"]); print("child", flush=True); time.sleep(600)';

test("a child that has ended and was not waited for is nothing that a tree lacks; a living one is", async () => {
  const script =
    'import subprocess,sys; p = subprocess.Popen(["cat"], stdin=subprocess.PIPE); print(p.pid, flush=True); sys.stdin.read()';
  const parent = spawn("python3", ["-c", script], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const [text] = (await once(parent.stdout!, "data")) as [Buffer];
    const child = Number(text);
    expect(childOutside([parent.pid!])).toBe(child);
    process.kill(child, "SIGKILL");
    await until("it is a zombie", () => startTicksOf(child) === undefined);
    expect(childOutside([parent.pid!])).toBeUndefined();
    expect(startTicksOf(parent.pid!)).toBeGreaterThan(0);
  } finally {
    parent.kill("SIGKILL");
  }
});

interface Answer {
  readonly checkpoints: { readonly process: string }[];
  readonly failed: { readonly process: string; readonly code: string; readonly message: string }[];
}

async function zombieIn(rig: Rig, name: string): Promise<void> {
  await rig.run(name, "python3", "-c", LEAVES_ZOMBIE);
  await until("its child has ended", () => rig.output(name).includes("child"));
}

imaged("a process with a zombie is checkpointed, and comes back", () =>
  together("zombie", async (rig) => {
    await zombieIn(rig, "p");
    const { checkpoints } = await rig.json<Answer>("checkpoint", rig.app);
    expect(checkpoints.map(({ process }) => process)).toEqual(["p"]);
    rig.cgroup("p").kill();
    await until("it is dead", () => !rig.cgroup("p").populated);
    expect((await rig.cli("restart", rig.app)).code).toBe(0);
    expect(rig.cgroup("p").populated).toBe(true);
  }),
);

imaged(
  "a process that is in the midst of vfork is imaged a moment later: stopped there, CRIU would wait for ever",
  () =>
    together("vfork", async (rig) => {
      await rig.run("p", compile("vfork_helper", ["test/native/c/vfork_helper.c"]));
      await until("it starts programs", () => rig.output("p").includes("1"));
      for (let turn = 0; turn < sized(3, 2); turn += 1)
        expect(
          (await rig.json<Answer>("checkpoint", rig.app)).checkpoints.map(({ process }) => process),
        ).toEqual(["p"]);
    }),
);

imaged("one process that is refused hides none of the others: each is tried and told, exit code 1", () =>
  together("refused", async (rig) => {
    await rig.run("a", "sleep", "600");
    await rig.run("b", "sh", "-c", "sleep 600 & sleep 601 & exec true");
    await rig.run("c", "sleep", "600");
    await until("b is two trees", () => treeRoots(rig.cgroup("b").pids()).length === 2);
    const json = await rig.cli("checkpoint", rig.app, "--json");
    const { checkpoints, failed } = JSON.parse(json.out) as Answer;
    expect(json.code).toBe(1);
    expect(checkpoints.map(({ process }) => process)).toEqual(["a", "c"]);
    expect(failed.map(({ process, code }) => [process, code])).toEqual([["b", "RL_DRIVER"]]);
    expect(failed[0]!.message).toContain("2 separate trees");
    const text = await rig.cli("checkpoint", rig.app);
    expect(text.code).toBe(1);
    expect(text.out).toMatch(/^a .*\nc /m);
    expect(text.err).toContain("no checkpoint of b: b is 2 separate trees");
  }),
);
