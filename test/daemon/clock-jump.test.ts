/**
 * The wall clock jumps under a running collector, an hour and a day to either side: commits come in time, nothing is lost or doubled,
 * checkpoints and the line are what they were. The clock of this process alone: c/clock_jump.c stands before its libc.
 */
import { openSync, writeFileSync, writeSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { expect, test } from "vitest";
import { decodeBlock } from "../../src/format/block.ts";
import { compile } from "../native/c-build.ts";
import { tile } from "../native/tiling.ts";
import { sized } from "../size.ts";
import { ASK, ECHO, freePort, missing, type Rig, until, withRig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);
const HOUR = 3600;

async function collectWithClock(rig: Rig): Promise<(seconds: number) => void> {
  const library = compile("clock_jump.so", ["test/native/c/clock_jump.c"], ["-shared", "-fPIC", "-ldl"]);
  const file = rig.path("clock");
  writeFileSync(file, Buffer.alloc(8));
  const fd = openSync(file, "r+");
  const env = { LD_PRELOAD: library, CLOCK_JUMP: file };
  Object.assign(process.env, env);
  try {
    await rig.collect();
  } finally {
    for (const name of Object.keys(env)) delete process.env[name];
  }
  return (seconds) => {
    const offset = Buffer.alloc(8);
    offset.writeBigInt64LE(BigInt(seconds));
    writeSync(fd, offset, 0, 8, 0);
  };
}

/** The collector's wall clock, seconds of the epoch: the date of its answer. */
function answeredAt(rig: Rig): Promise<number> {
  return new Promise((resolve, reject) => {
    get({ socketPath: join(rig.home, "collector.sock"), path: "/v1/ping", agent: false }, (response) => {
      response.resume();
      resolve(Date.parse(response.headers.date!) / 1000);
    }).on("error", reject);
  });
}

/** Committed lines: nobody asks the collector to drain. */
async function committed(rig: Rig): Promise<number> {
  const client = await rig.client();
  let lines = 0;
  for await (const block of client.blocks(rig.app)) lines += decodeBlock(block).columns.count;
  client.close();
  return lines;
}

live("the wall clock jumps to and fro under a collector", () =>
  withRig("clock", async (rig) => {
    const jump = await collectWithClock(rig);
    const port = String(await freePort());
    await rig.run("server", process.execPath, "-e", ECHO, port);
    await until("the server listens", () => rig.output("server").includes("listening"));
    await rig.run("client", process.execPath, "-e", ASK, port);
    let checkpoint = 0;
    for (const seconds of sized([0, HOUR, -HOUR, 48 * HOUR, -48 * HOUR, 0], [HOUR, -48 * HOUR, 0])) {
      jump(seconds);
      // The clock did jump: Node keeps the date of its answers for a second.
      const off = async () => (await answeredAt(rig)) - Date.now() / 1000 - seconds;
      await until("its clock is another one", async () => Math.abs(await off()) < 60);
      const before = await committed(rig);
      await until(`commits at ${seconds} s`, async () => (await committed(rig)) > before + 20);
      checkpoint += 1;
      const { checkpoints } = await rig.json<{ checkpoints: { checkpoint: number }[] }>(
        ...["checkpoint", rig.app, "--coordinated", "--driver", "none"],
      );
      expect(checkpoints.map((one) => one.checkpoint)).toEqual([checkpoint, checkpoint]);
    }
    const { faults } = tile(await rig.events());
    expect(faults).toEqual([]);
    const { line } = await rig.json<{ line: { checkpoint: number }[] }>(
      ...["compute", rig.app, "--failed", "server,client"],
    );
    expect(line.map((one) => one.checkpoint)).toEqual([checkpoint, checkpoint]);
  }),
);
