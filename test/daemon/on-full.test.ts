/** A real full disk below a collector: a small tmpfs. Needs the right to mount. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { tile } from "../native/tiling.ts";
import { restartable } from "../restart/restartable.ts";
import { ECHO, freePort, missing, type Rig, until, withRig } from "./rig.ts";

const mount = (...args: string[]): boolean => spawnSync("mount", args).status === 0;

/** Sends the next byte as soon as one comes back. */
const BUSY = `const n=require("net");const c=n.connect(+process.argv[1],"127.0.0.1",()=>c.write("x"));c.setNoDelay();c.on("error",()=>process.exit(1));c.on("data",()=>c.write("x"))`;

const live = test.skipIf(missing !== undefined);

/** Runs `work` with a home of 24 MiB. */
function withSmallDisk(name: string, work: (rig: Rig) => Promise<void>): Promise<void> {
  return withRig(name, async (rig) => {
    expect(mount("-t", "tmpfs", "-o", "size=24m,mode=700", "recovery-line-test", rig.home)).toBe(true);
    try {
      await work(rig);
    } finally {
      spawnSync("umount", ["-l", rig.home]);
    }
  });
}

function fillUp(rig: Rig): () => void {
  const { bavail, bsize } = statfsSync(rig.home);
  try {
    writeFileSync(join(rig.home, "ballast"), Buffer.alloc(bavail * bsize));
  } catch (error) {
    expect(error).toMatchObject({ code: "ENOSPC" }); // the log grew meanwhile: full it is
  }
  return () => rmSync(join(rig.home, "ballast"));
}

async function talk(rig: Rig, suffix = ""): Promise<void> {
  const [port, server, client] = [await freePort(), `server${suffix}`, `client${suffix}`];
  await rig.run(server, process.execPath, "-e", ECHO, String(port));
  await until("it listens", () => rig.output(server).includes("listening"));
  await rig.run(client, process.execPath, "-e", BUSY, String(port));
  const said = async () => (await rig.events()).filter((event) => event.process === client).length;
  await until("they talk", async () => (await said()) > 50);
}

const frozen = (rig: Rig): boolean => ["server", "client"].every((name) => rig.cgroup(name).frozen);

live(
  "--on-full stop: on a full disk the processes stand still; with room again they go on and nothing was lost",
  () =>
    withSmallDisk("stop", async (rig) => {
      const collector = await rig.collect("--ring-mib", "1", "--on-full", "stop");
      await talk(rig);
      const empty = fillUp(rig);
      await until("both are held", () => frozen(rig));
      const client = await rig.client();
      expect(await client.metrics()).toContain("recovery_line_held_processes 2");
      expect(await rig.cli("checkpoint", rig.app, "--driver", "none")).toMatchObject({ code: 1 });
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(frozen(rig)).toBe(true);
      empty();
      await until(
        "both go on",
        () => !rig.cgroup("server").freezing && !rig.cgroup("client").freezing,
        30_000,
      );
      const before = (await rig.events()).length;
      await until("they talk", async () => (await rig.events()).length > before);
      for (const name of ["client", "server"]) rig.cgroup(name).kill();
      await until("both ended", () => !rig.cgroup("client").populated && !rig.cgroup("server").populated);
      const events = await rig.events();
      expect(events.filter(({ type }) => type === "gap")).toEqual([]);
      expect(tile(events).faults).toEqual([]);
      expect(await client.metrics()).toMatch(/recovery_line_held_seconds_total 0?\.?[1-9\d]/);
      client.close();
      collector.child.kill("SIGTERM");
      const { code, err } = await collector.ended;
      expect(code).toBe(0);
      expect(err).toMatch(/held still until the logs take its records(.|\n)*can be written again/);
      console.log(`${events.length} events, none lost`);
    }),
);

/** Of its children. */
function watchdogOf(pid: number): string | undefined {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
  return children.find((child) => {
    try {
      return readFileSync(`/proc/${child}/cmdline`, "utf8").includes("-watchdog");
    } catch {
      return false; // it has just ended
    }
  });
}

live(
  "a collector holds on without its watchdog and without anybody to tell it; killed, it leaves none frozen",
  () =>
    withSmallDisk("held", async (rig) => {
      const collector = await rig.collect("--ring-mib", "1", "--on-full", "stop");
      collector.child.stderr!.destroy(); // whoever read it is gone: nothing that it says may end it
      await talk(rig);
      fillUp(rig);
      await until("both are held", () => frozen(rig));
      const watchdog = watchdogOf(collector.child.pid!);
      process.kill(Number(watchdog), "SIGKILL");
      await until("another one watches", () => {
        const next = watchdogOf(collector.child.pid!);
        return next !== undefined && next !== watchdog;
      });
      await until("both are held again", () => frozen(rig));
      collector.child.kill("SIGKILL");
      await once(collector.child, "close");
      await until("both go on", () => !rig.cgroup("server").freezing && !rig.cgroup("client").freezing);
    }),
);

live("--on-full taint and halt on a full disk: what found no room is told later; halt ends by its code", () =>
  withSmallDisk("taint", async (rig) => {
    const collector = await rig.collect("--ring-mib", "1");
    await talk(rig);
    const empty = fillUp(rig);
    const client = await rig.client();
    await until(
      "the ring overflows",
      async () => (await client.stats()).lost.some((count) => count > 1000),
      30_000,
    );
    expect((await client.stats()).brokenApps).toMatchObject([{ app: rig.app, code: "RL_LOG_WRITE" }]);
    const { code: status, out } = await rig.cli("status", rig.app);
    expect([status, out]).toEqual([0, expect.stringMatching(/broken: +taint-\d+: (.|\n)* client +running /)]);
    empty();
    for (const name of ["client", "server"]) rig.cgroup(name).kill();
    await until("the log is well", async () => (await client.stats()).brokenApps.length === 0);
    const events = await rig.events();
    const { covered, faults } = tile(events);
    expect(faults).toEqual([]); // what found no room was told later: no gap, and every channel tiles
    for (const [key, bytes] of covered)
      if (key.startsWith("receive tcp:"))
        expect(covered.get(key.replace("receive", "send"))).toBeGreaterThanOrEqual(bytes);
    client.close();
    collector.child.kill("SIGTERM");
    expect((await collector.ended).code).toBe(0);
    console.log(`${events.length} events, no gap`);

    const halting = await rig.collect("--ring-mib", "1", "--on-full", "halt");
    await talk(rig, "2");
    fillUp(rig);
    const { code, err } = await halting.ended;
    expect([code, err]).toEqual([1, expect.stringContaining("--on-full halt")]);
  }),
);

restartable("on a full disk gc --apply removes images and compute answers by what is committed", () =>
  withSmallDisk("room", async (rig) => {
    await rig.collect("--ring-mib", "1");
    await rig.run("idle", "sleep", "1000");
    for (let taken = 0; taken < 2; taken += 1) await rig.json("checkpoint", rig.app, "idle");
    await talk(rig);
    fillUp(rig);
    const client = await rig.client();
    await until("its log is broken", async () =>
      (await client.metrics()).includes("recovery_line_broken_logs 1"),
    );
    client.close();
    const line = await rig.cli("compute", rig.app, "--failed", "client", "--json");
    expect(line.code).toBe(3);
    // What the others did since is unknown: nobody goes on from there.
    const answer = JSON.parse(line.out) as RecoveryLine;
    expect(answer).toMatchObject({ outcome: "tainted", unrecorded: ["idle", "server"] });
    expect(answer.line.map(({ process, action }) => [process, action])).toEqual([
      ["client", "initial"],
      ["idle", "restore"],
      ["server", "initial"],
    ]);
    const images = join(rig.home, rig.app, "images", "idle");
    expect(readdirSync(images)).toEqual(["1", "2"]);
    expect(await rig.cli("gc", rig.app, "--apply")).toMatchObject({
      code: 0,
      out: expect.stringMatching(/1 image, \d+ bytes: removed/),
    });
    expect(readdirSync(images)).toEqual(["2"]);
  }),
);

restartable(
  "a restart that finds no room for what it makes ready is refused, kills nobody and leaves nothing",
  () =>
    withSmallDisk("ready", async (rig) => {
      await rig.collect("--ring-mib", "1");
      for (const name of ["failed", "tied"]) await rig.run(name, "sleep", "1000");
      await rig.json("checkpoint", rig.app);
      const [alive] = rig.cgroup("tied").pids();
      rig.cgroup("failed").kill();
      await rig.hearsEnd("failed");
      await rig.events();
      const empty = fillUp(rig);
      expect(await rig.cli("restart", rig.app, "--failed", "failed,tied")).toMatchObject({
        code: 4,
        err: expect.stringMatching(/no room for its journal in \S+\/restart.*Nothing was killed/s),
      });
      expect(rig.cgroup("tied").pids()).toEqual([alive]);
      expect(existsSync(join(rig.home, rig.app, "restart"))).toBe(false);
      empty();
      expect((await rig.cli("restart", rig.app)).code).toBe(0);
    }),
);
