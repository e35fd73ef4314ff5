/** What one action can't have (a program, a descriptor, a look at the disk) costs that action, and ends no recording. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, onTestFinished, test, vi } from "vitest";
import { BackPressure } from "../../src/daemon/back-pressure.ts";
import { OutputCommitter } from "../../src/daemon/output-committer.ts";
import { OwnCommands } from "../../src/daemon/own-commands.ts";
import { dist } from "../built.ts";
import { built, LiveRig } from "../policy/live-rig.ts";

/** On a loaded machine. */
const WAIT = { timeout: 30_000 };

/** Opens files until there is no descriptor left, then starts a program. */
const OUT_OF_DESCRIPTORS = `
  const { openSync } = await import("node:fs");
  const { spawn } = await import(process.argv[1]);
  try { for (;;) openSync("/dev/null"); } catch (error) { if (error.code !== "EMFILE") throw error; }
  try { spawn("true", [], { stdio: "pipe" }); } catch (error) { console.log(error.code); }
`;

test("out of descriptors nothing can be started: it is thrown, and ends no process", () => {
  const module = pathToFileURL(join(dist, "host/spawn.js")).href;
  const limited = ["-c", 'ulimit -n 64; exec "$@"', "sh", process.execPath, "--input-type=module"];
  const said = execFileSync("sh", [...limited, "-e", OUT_OF_DESCRIPTORS, module], { encoding: "utf8" });
  expect(said).toBe("RL_SYSTEM\n");
});

test("a command that can't be started is an answer that says why", async () => {
  const [program, home] = [["no\0program"] as const, "/nowhere"];
  const ran = await new OwnCommands(program, home).run(["gc", "shop"]);
  expect(ran).toMatchObject({ code: null, why: expect.stringContaining("null bytes") });
  const committer = new OutputCommitter(program, home);
  for (const _ of [1, 2])
    expect(await committer.ask({ app: "shop", processes: ["web"] })).toMatchObject({
      committed: [],
      why: expect.stringMatching(/its checkpoints can't be taken: .*null bytes/),
    });
  await committer.close();
});

test("policies that can't be asked are told once, not at every beat", async () => {
  let beats = 0;
  const rig = new LiveRig(["web"], {
    beatMs: 1,
    node: () => {
      beats += 1;
      throw new Error("the disk is gone");
    },
  });
  onTestFinished(() => rig.remove());
  await rig.plug(built('<on event="beat" each="process"><note text="heard"/></on>'));
  await vi.waitUntil(() => beats > 3, WAIT);
  expect(rig.trouble).toEqual(["policies can't be asked: the disk is gone"]);
});

test("a watchdog of held processes that can't be started again is tried again, and told once; nothing is held meanwhile", async () => {
  const told: string[] = [];
  const started: ChildProcess[] = [];
  const askedAt: number[] = [];
  let asked = 0;
  const recording = {
    ringFill: 1,
    processes: () => {
      asked += 1;
      return [];
    },
  };
  const pressure = await BackPressure.start(
    recording,
    (sentence) => told.push(sentence),
    async () => {
      askedAt.push(asked);
      if (askedAt.length === 2 || askedAt.length === 3) throw new Error("no watchdog");
      started.push(spawn("cat", [], { stdio: ["pipe", "ignore", "ignore"] }));
      return started.at(-1)!;
    },
  );
  onTestFinished(() => pressure.close());
  await vi.waitUntil(() => asked > 0, WAIT);
  started[0]!.kill("SIGKILL");
  await vi.waitUntil(() => askedAt.length === 4 && asked > askedAt[3]!, WAIT);
  expect(askedAt[3]).toBe(askedAt[1]);
  expect(told.filter((sentence) => sentence.includes("no watchdog"))).toEqual([
    "no watchdog; until one is there nothing is held still",
  ]);
});
