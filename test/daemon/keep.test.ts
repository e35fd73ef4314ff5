/** `collect --keep-bytes`, `--keep-hours` on a live collector: what no line needs goes, what one may need stays, and that is said. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { verifyLog } from "../../src/log/verify-log.ts";
import { ASK, ECHO, freePort, missing, type Rig, type Running, until, withRig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);

async function talk(rig: Rig): Promise<void> {
  const port = String(await freePort());
  await rig.run("server", process.execPath, "-e", ECHO, port);
  await until("the server listens", () => rig.output("server").includes("listening"));
  await rig.run("client", process.execPath, "-e", ASK, port, "20");
}

/** Some traffic in a segment that is sealed; with `checkpoint` what came before it needs no line any more. */
async function segment(rig: Rig, checkpoint: boolean): Promise<void> {
  const before = await lines(rig);
  await until("more traffic", async () => (await lines(rig)) > before + 30);
  if (checkpoint) await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "none");
  const client = await rig.client();
  await client.rotate(rig.app);
  client.close();
}

async function lines(rig: Rig): Promise<number> {
  const known = [await rig.known("server"), await rig.known("client")];
  return known.reduce((sum, one) => sum + one!.lines, 0);
}

async function metric(rig: Rig, name: string): Promise<number> {
  const client = await rig.client();
  const text = await client.metrics();
  client.close();
  return Number(new RegExp(`^recovery_line_${name} (.*)$`, "m").exec(text)?.[1]);
}

function segments(rig: Rig): number {
  return readdirSync(join(rig.home, rig.app, "segments")).length;
}

/** Whether it has a child: the command that collects. */
const tries = ({ child: { pid } }: Running): boolean =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8") !== "";

async function stop(collector: Running) {
  collector.child.kill("SIGTERM");
  return collector.ended;
}

/** Side by side: a collector looks every five seconds. */
live(
  "--keep-bytes 1000, --keep-hours 0: segments that no line needs go, the rest is whole and gives the line",
  () =>
    Promise.all(
      [
        ["--keep-bytes", "1000"],
        ["--keep-hours", "0"],
      ].map((wanted) =>
        withRig(`keep${wanted[0]!.slice(6)}`, async (rig) => {
          const collector = await rig.collect(...wanted, "--keep-in-transit", "any");
          await talk(rig);
          for (let round = 0; round < 3; round += 1) await segment(rig, true);
          await until("it is removed", async () => (await metric(rig, "pruned_bytes_total")) > 1000);
          await until("folders are gone", () => segments(rig) <= 2);
          const { line } = await rig.json<{ line: { process: string; checkpoint: number }[] }>(
            "compute",
            rig.app,
            "--failed",
            "server,client",
          );
          expect(line.map((one) => one.checkpoint)).toEqual([3, 3]);
          expect(await stop(collector)).toMatchObject({ code: 0 });
          expect((await verifyLog(join(rig.home, rig.app))).damages).toEqual([]);
        }),
      ),
    ).then(() => undefined),
);

live("--keep-bytes where lines may need all of it: nothing is removed, a metric and one line say so", () =>
  withRig("keep-not", async (rig) => {
    const collector = await rig.collect("--keep-bytes", "1000");
    await talk(rig);
    for (let round = 0; round < 3; round += 1) await segment(rig, false);
    await until("it is counted", async () => (await metric(rig, "keep_unmet_logs")) === 1);
    expect(segments(rig)).toBe(4);
    expect(await metric(rig, "pruned_bytes_total")).toBe(0);
    // The next try comes to the same: said once.
    await until("it is tried again", () => tries(collector));
    await until("and that has ended", () => !tries(collector));
    expect(await metric(rig, "keep_unmet_logs")).toBe(1);
    const { code, err } = await stop(collector);
    expect(code).toBe(0);
    const said = err.split("\n").filter((text) => text.includes("stays beyond --keep-bytes"));
    expect(said).toEqual([expect.stringContaining("may still be needed")]);
  }),
);

test("one node of several can't say what lines need: refused by name", () =>
  withRig("keep-nodes", async (rig) => {
    expect(await rig.cli("collect", "--keep-bytes", "1", "--nodes", "a,b")).toMatchObject({
      code: 2,
      err: expect.stringContaining("gc --apply"),
    });
    expect(await rig.cli("collect", "--keep-in-transit", "any")).toMatchObject({ code: 2 });
    expect(await rig.cli("gc", "app", "--keep-bytes", "1")).toMatchObject({ code: 2 });
  }));
