/** Ctrl-C and kill -9 in the middle of a restart: it ends by itself, or says that it was begun, and is taken up. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { lockHolder } from "../../src/host/reader-lock.ts";
import { abandon, type RestartRequest, restart, takeUp } from "../../src/restart/restart.ts";
import { readJournal, restartFolder, writeJournal } from "../../src/restart/restart-journal.ts";
import { type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import { killPoints, kind, restartKilledAt } from "./killed-at.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("signals");

interface Status {
  readonly processes: readonly { readonly process: string; readonly state: string }[];
  readonly cutOffRestarts: readonly { readonly application: string; readonly processes: readonly string[] }[];
}

const states = ({ processes }: Status): string[] =>
  processes.map(({ process, state }) => `${process} ${state}`);
const RUNNING = ["one running", "two running"];

async function checkpointed(rig: Rig): Promise<void> {
  for (const name of ["one", "two"]) await rig.run(name, "bash", "-c", "while :; do sleep 0.05; done");
  await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
}

/** A restart of both that is killed once its journal is there. */
async function killedHalfWay(rig: Rig): Promise<void> {
  await checkpointed(rig);
  const journal = `after rename ${kind(`/home/${rig.app}/restart/journal.json`)}`;
  const killed = await restartKilledAt(rig, killPoints(rig), journal, 1, "--failed", "one,two");
  expect(killed).toMatchObject({ signal: "SIGKILL" });
}

restartable("a signal once the plan is printed: the restart says that it goes on, and ends well", () =>
  together("signal", async (rig) => {
    await checkpointed(rig);
    const { child, ended } = await rig.start("restart", rig.app, "--failed", "one,two");
    child.kill("SIGINT");
    child.kill("SIGTERM");
    const { code, out, err } = await ended;
    expect([code, out, err]).toEqual([
      0,
      expect.stringContaining("2 processes restarted"),
      expect.stringContaining("the restart is under way and ends by itself"),
    ]);
    const after = await rig.json<Status>("status", rig.app);
    expect([states(after), after.cutOffRestarts]).toEqual([RUNNING, []]);
  }),
);

restartable(
  "a signal that ends who reads the output, too (restart | tee): the restart ends well all the same",
  () =>
    together("no-reader", async (rig) => {
      await checkpointed(rig);
      const { child, ended } = await rig.start("restart", rig.app, "--failed", "one,two");
      for (const stream of [child.stdout!, child.stderr!]) await once(stream.destroy(), "close");
      child.kill("SIGINT");
      const { code } = await ended;
      expect(code).toBe(0);
      const back = (await rig.events()).filter(({ type }) => type === "rollback");
      expect(back.map(({ process }) => process).sort()).toEqual(["one", "two"]);
      const after = await rig.json<Status>("status", rig.app);
      expect([states(after), after.cutOffRestarts]).toEqual([RUNNING, []]);
    }),
);

restartable("killed half way: status says so and what to do; the next call takes it up", () =>
  together("half-way", async (rig) => {
    await killedHalfWay(rig);
    expect((await rig.json<Status>("status", rig.app)).cutOffRestarts).toMatchObject([
      { application: rig.app, processes: ["one", "two"] },
    ]);
    expect((await rig.cli("status")).out).toContain(`recovery-line restart ${rig.app}`);
    expect(await rig.cli("checkpoint", rig.app)).toMatchObject({
      code: 1,
      err: expect.stringContaining("a restart of"),
    });
    expect(await rig.cli("restart", rig.app)).toMatchObject({
      code: 0,
      out: expect.stringContaining("taken up"),
    });
    const after = await rig.json<Status>("status", rig.app);
    expect([states(after), after.cutOffRestarts]).toEqual([RUNNING, []]);
  }),
);

restartable("killed half way while its driver goes on: the next call waits for the driver's end", () =>
  together("driver-left", async (rig) => {
    await killedHalfWay(rig);
    // As CRIU does while it restores: it holds the cgroup's lock, and its caller is dead.
    const driver = spawn("flock", [rig.cgroup("two").path, "sh", "-c", "echo; exec sleep 3"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(driver.stdout, "data");
    expect(await rig.cli("restart", rig.app)).toMatchObject({
      code: 0,
      out: expect.stringContaining("taken up"),
    });
    expect(driver.exitCode).toBe(0); // it has ended, by itself, before the restart did
    expect(states(await rig.json<Status>("status", rig.app))).toEqual(RUNNING);
  }),
);

restartable(
  "who dies while its image is being stored: the restart waits for that before it kills anybody",
  () =>
    together("dying", async (rig) => {
      await checkpointed(rig);
      // As a checkpoint does: it holds the cgroup's lock, and its process is dead.
      const storing = spawn("flock", [rig.cgroup("one").path, "sh", "-c", "echo; exec cat"], {
        stdio: ["pipe", "pipe", "inherit"],
      });
      await once(storing.stdout, "data");
      rig.cgroup("one").kill();
      await until("it is dead", () => !rig.cgroup("one").populated);
      const pids = rig.cgroup("two").pids();
      const { child, ended } = rig.background("restart", rig.app, "--failed", "one,two");
      const lock = join(rig.home, rig.app, "gc", "lock");
      await until("it is at it", () => existsSync(lock) && lockHolder(lock) === child.pid);
      await sleep(2_000); // without the wait it has killed by now, or has given up
      expect([child.exitCode, rig.cgroup("two").pids().includes(pids[0]!)]).toEqual([null, true]);
      storing.stdin.end();
      expect((await ended).code).toBe(0);
      expect(states(await rig.json<Status>("status", rig.app))).toEqual(RUNNING);
    }),
);

restartable("what a restart that was cut off has brought back dies also where it can't be unblocked", () =>
  together("no-nft", async (rig) => {
    await checkpointed(rig);
    const { home, app } = rig;
    const begun = { format: 1, application: app, keepSurvivors: false, fallBack: false } as const;
    await writeJournal(restartFolder(home, app), { ...begun, phase: "restoring", processes: ["one", "two"] });
    const journal = (await readJournal(restartFolder(home, app)))!;
    const client = await rig.client();
    const path = process.env["PATH"];
    process.env["PATH"] = "/nowhere";
    await expect(takeUp({ home, app, log: client }, journal)).rejects.toMatchObject({
      message: expect.stringContaining("nft"),
    });
    process.env["PATH"] = path;
    client.close();
    for (const name of ["one", "two"]) expect(rig.cgroup(name).populated).toBe(false);
  }),
);

restartable(
  "what was read before another restart ended is not acted on: nobody who has come back is killed",
  () =>
    together("stale", async (rig) => {
      await killedHalfWay(rig);
      const journal = (await readJournal(restartFolder(rig.home, rig.app)))!;
      const lives = new Map([["one", (await rig.known("one"))!.incarnation]]);
      const client = await rig.client();
      const { home, app } = rig;
      const request = { home, app, log: client, payload: undefined };
      expect((await rig.cli("restart", app)).code).toBe(0);
      const refused = { code: "RL_LOCKED", message: expect.stringContaining("another restart") };
      await expect(takeUp(request, journal)).rejects.toMatchObject(refused);
      await expect(abandon(request, journal)).rejects.toMatchObject(refused);
      const again = { ...request, journal: undefined, lives } as Partial<RestartRequest> as RestartRequest;
      await expect(restart({ ...again, journal })).rejects.toMatchObject(refused);
      await expect(restart(again)).rejects.toMatchObject(refused);
      client.close();
      expect(states(await rig.json<Status>("status", app))).toEqual(RUNNING);
    }),
);
