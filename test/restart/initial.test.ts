import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { lockHolder } from "../../src/host/reader-lock.ts";
import { type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import type { Answer } from "./answer.ts";
import { restartable } from "./restartable.ts";

const together = withSharedCollector("initial");

const COUNTER = 'echo "$PWD $GREETING"; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done';

function lines(rig: Rig, name: string): string[] {
  return rig.output(name).trim().split("\n");
}

restartable(
  "who has no checkpoint starts again with its command, its folder, its environment and an empty output; who is not concerned goes on",
  () =>
    together("initial", async (rig) => {
      process.env["GREETING"] = "hello";
      const pid = await rig.run("counter", "sh", "-c", COUNTER);
      delete process.env["GREETING"];
      const other = await rig.run("other", "sh", "-c", COUNTER);
      await until("both count", () => lines(rig, "counter").length > 20 && lines(rig, "other").length > 20);
      rig.cgroup("counter").kill();
      await until("it is dead", () => !rig.cgroup("counter").populated);
      const answer = await rig.json<Answer>("restart", rig.app);
      expect(answer.restarted).toEqual([{ process: "counter", action: "initial", checkpoint: 0 }]);
      await until("it counts again", () => lines(rig, "counter").length > 5);
      const greeting = `${process.cwd()} hello`;
      expect(lines(rig, "counter").slice(0, 3)).toEqual([greeting, "1", "2"]);
      expect(lines(rig, "counter").filter((line) => line === greeting).length).toBe(1); // nothing is left of its first life
      expect(rig.cgroup("counter").pids()).not.toContain(pid);
      expect(rig.cgroup("other").pids()).toContain(other);
      const seen = lines(rig, "other").slice(1).map(Number);
      expect(seen).toEqual(seen.map((_, at) => at + 1));
      const rollbacks = (await rig.events()).filter(({ type }) => type === "rollback");
      expect(rollbacks).toEqual([expect.objectContaining({ process: "counter", checkpoint: 0 })]);
    }),
);

/** As a checkpoint does that is under way; returns what ends it. */
async function held(rig: Rig, name: string): Promise<() => Promise<void>> {
  const holder = spawn("flock", [rig.cgroup(name).path, "sh", "-c", "echo; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await once(holder.stdout, "data");
  return async () => {
    holder.stdin.end();
    await once(holder, "exit");
  };
}

/** Starts a restart that waits for whoever is held. */
async function waiting(rig: Rig) {
  const { child, ended } = rig.background("restart", rig.app, "--json");
  const lock = join(rig.home, rig.app, "gc", "lock");
  await until("it is at it", () => existsSync(lock) && lockHolder(lock) === child.pid);
  return { ended };
}

restartable(
  "who dies of the first one's death while the restart waits for a checkpoint comes back, too",
  () =>
    together("later", async (rig) => {
      for (const name of ["first", "later"]) await rig.run(name, "sh", "-c", COUNTER);
      const letGo = await held(rig, "later");
      rig.cgroup("first").kill();
      await until("it is dead", () => !rig.cgroup("first").populated);
      const { ended } = await waiting(rig);
      rig.cgroup("later").kill();
      await until("it is dead", () => !rig.cgroup("later").populated);
      await letGo();
      const { code, out } = await ended;
      expect([code, (JSON.parse(out) as Answer).restarted.map(({ process }) => process).sort()]).toEqual([
        0,
        ["first", "later"],
      ]);
      for (const name of ["first", "later"]) expect(rig.cgroup(name).populated).toBe(true);
    }),
);

restartable("a command that nobody knows is not guessed; nothing has failed; no such application", () =>
  together("unknown", async (rig) => {
    const cgroup = rig.cgroup("p");
    cgroup.create();
    const client = await rig.client();
    await client.register({ app: rig.app, process: "p", cgroupId: cgroup.id! });
    client.close();
    const unknown = await rig.cli("restart", rig.app, "--json");
    expect(unknown.code).toBe(4);
    expect(JSON.parse(unknown.out).error).toMatchObject({
      code: "RL_REFUSED",
      message: "p has to start again from its initial state, and its command is not known",
    });
    await rig.run("q", "sleep", "1000");
    expect(await rig.cli("restart", rig.app, "--failed", "nobody")).toMatchObject({ code: 2 });
    expect(await rig.cli("restart", "nothing")).toMatchObject({ code: 2 });
    expect(existsSync(join(rig.home, rig.app, "restart"))).toBe(false);
    expect(rig.cgroup("q").pids().length).toBe(1);
    expect(readFileSync(`${rig.cgroup("q").path}/cgroup.freeze`, "utf8").trim()).toBe("0");
  }),
);
