/** The C library under sanitizers, in one ring with Node.js, under kills at random moments. RL_SDK_SEEDS as in ring.test.ts. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { afterAll, expect, test } from "vitest";
import { join } from "../../src/sdk/index.ts";
import { sized } from "../size.ts";
import { type Outcome, runRing } from "./ring-rig.ts";
import { buildSdkProgram } from "./sdk-build.ts";

const SEEDS = Number(process.env["RL_SDK_SEEDS"] ?? sized(10, 2));
const FIRST = Number(process.env["RL_SDK_FIRST"] ?? 501);
const outcomes: Outcome[] = [];
afterAll(() => {
  const kills = outcomes.flatMap(({ actions }) => actions).length;
  console.log(`SDK, C with Node.js: ${outcomes.length} runs exact, ${kills} kills`);
});

test(`${SEEDS} seeds of C and Node.js processes: each message exactly once, results as in a run of the logged order`, {
  timeout: 240_000 + SEEDS * 10_000,
}, async () => {
  const program = buildSdkProgram("ring_program");
  for (let seed = FIRST; seed < FIRST + SEEDS; seed += 1) outcomes.push(await runRing(seed, program));
  expect(outcomes.length).toBe(SEEDS);
});

test("C reads what Node.js wrote; a flipped bit before synced bytes is damage to it, too, and no bytes crash it", async () => {
  const program = buildSdkProgram("ring_program");
  const home = mkdtempSync(path(tmpdir(), "rl-sdk-c-"));
  try {
    const node = await join({ app: "ring", process: "a", home });
    node.connect("b");
    for (let token = 0; token < 3; token += 1)
      await node.send("b", JSON.stringify({ token: `a.${token}`, hops: 1 }));
    await node.close();
    const log = path(home, "ring", "sdk", "a", "log");
    const whole = readFileSync(log);
    const synced = Number(whole.readBigUInt64LE(whole.lastIndexOf("RLSTABLE") + 8));
    /** What it says. If it `stays` once it has joined, it gets a moment more for what it may still have to say; else it ends by itself. */
    const start = async (hops: string, stays = true): Promise<string> => {
      const child = spawn(program, [home, "a", "a,b", "3", hops, "5"], { stdio: ["ignore", "pipe", "pipe"] });
      const ended = once(child, "close");
      const limit = setTimeout(() => child.kill("SIGKILL"), 30_000);
      let said = "";
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding("utf8").on("data", (text: string) => {
          said += text;
          if (stays && said.includes("joined")) setTimeout(() => child.kill("SIGKILL"), 50);
        });
      await ended;
      clearTimeout(limit);
      return said;
    };
    expect(await start("1")).toBe("joined 2\n");
    writeFileSync(log, whole);
    expect(await start("2", false)).toContain("failed: replay: message 0 to b is not the one in the log");
    for (let at = 8; at < whole.length; at += 7) {
      const harmed = Buffer.from(whole);
      harmed[at]! ^= 1 << (at % 8);
      writeFileSync(log, harmed);
      if (at < synced) expect(await start("1"), `byte ${at}`).toContain("before bytes that were synced");
      else expect(await start("1"), `byte ${at}`).toContain("joined");
    }
    for (let size = 0; size < whole.length; size += 20) {
      writeFileSync(log, whole.subarray(0, size));
      expect(await start("1"), `cut at ${size}`).toMatch(/^joined \d\n$/);
    }
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});
