/**
 * Containers of docker go back along the line, by docker's own checkpoint: a redis in one, its client in another. The client's log is the
 * sequence of its counter's values, and redis's append-only file, in the files that its container has changed, holds each of them once.
 *
 * RECOVERY_LINE_CONTAINER_ROUNDS: how often they are killed and restarted (1; by test:long 2).
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import {
  isRuncConfLeft,
  placeRuncConf,
  RUNC_CONF,
  takeRuncConfAway,
} from "../../src/images/container/runc-conf.ts";
import { Docker, withoutDocker } from "../daemon/docker.ts";
import { told } from "../daemon/podman.ts";
import { until, withRig } from "../daemon/rig.ts";
import { sized } from "../size.ts";
import { restartable } from "./restartable.ts";

const reason = withoutDocker();
const ROUNDS = Number(process.env["RECOVERY_LINE_CONTAINER_ROUNDS"] ?? sized(2, 1));
const MORE = 40;
const PORT = "6390";

/** How far the client has counted; throws where a value is missing, doubled or no number. */
function counted(docker: Docker, client: string): number {
  const lines = docker.logs(client);
  lines.forEach((line, at) => {
    if (line !== String(at + 1)) throw new Error(`the client got ${line} as answer ${at + 1}`);
  });
  return lines.length;
}

function setHost(host: string): void {
  process.env["DOCKER_HOST"] = host;
}

/** Commands in redis's append-only file. */
function appended(docker: Docker, db: string): number {
  const changes = docker.inspect(db, "{{.GraphDriver.Data.UpperDir}}");
  const base = join(changes, "tmp/appendonlydir");
  const file = existsSync(base)
    ? join(base, "appendonly.aof.1.incr.aof")
    : join(changes, "tmp/appendonly.aof");
  return readFileSync(file, "utf8").split("INCR").length - 1;
}

(reason === undefined ? restartable : test.skip)(
  "redis in one container of docker and its client in another: killed and restored, exact by the client's count and redis's file",
  { timeout: 120_000 + ROUNDS * 60_000 },
  () =>
    withRig("docker", async (rig) => {
      const hadConf = existsSync(RUNC_CONF);
      const docker = await Docker.start();
      const [db, client] = [`rl-db-${rig.app}`, `rl-client-${rig.app}`];
      const file = ["--save", "", "--appendonly", "yes", "--dir", "/tmp", "--protected-mode", "no"];
      const host = docker.start(db, 2, docker.server, "--port", PORT, ...file);
      await until("redis listens", () => docker.logs(db).some((line) => line.includes("Ready to accept")));
      const ask = ["-h", host, "-p", PORT, "-r", "-1", "-i", "0.01", "INCR", "k"];
      docker.start(client, 3, docker.client, ...ask);
      const more = (from: number): Promise<void> =>
        until("the client counts", () => counted(docker, client) > from + MORE);
      await more(0);
      await rig.collect();
      await rig.run("aside", "sleep", "1000");
      await told(rig, "attach", rig.app, "db", "--container", db, "--no-checkpoint");
      const first = await told(rig, "attach", rig.app, "client", "--container", client);
      expect(first).not.toContain("only cuts");

      for (let round = 0; round < ROUNDS; round += 1) {
        const saved = counted(docker, client);
        await more(saved);
        const [victim, process] = round % 2 === 0 ? [db, "db"] : [client, "client"];
        docker.docker("kill", victim);
        expect(await told(rig, "restart", rig.app, "--failed", process)).toContain("2 processes restarted");
        await more(saved);
        for (const name of [db, client]) expect(docker.inspect(name, "{{.State.Status}}")).toBe("running");
        await told(rig, "checkpoint", rig.app, "--coordinated");
      }
      const saved = counted(docker, client);
      await more(saved);
      const [last, failed] = ROUNDS % 2 === 0 ? [db, "db"] : [client, "client"];
      docker.docker("kill", last);
      const cutOff = rig.background("restart", rig.app, "--failed", failed);
      await until("CRIU is about to be started", () => existsSync(RUNC_CONF));
      cutOff.child.kill("SIGKILL");
      await cutOff.ended;
      expect(await told(rig, "restart", rig.app), "after one that was killed").toContain("is taken up");
      await more(saved);
      rig.cgroup("aside").kill();
      const own = process.env["DOCKER_HOST"]!;
      process.env["DOCKER_HOST"] = "ssh://no-checkpoints.example";
      const alone = told(rig, "restart", rig.app, "--failed", "aside");
      expect(await alone.finally(() => setHost(own)), "those that go on need no docker").toContain(
        "1 process restarted",
      );
      docker.docker("kill", client);
      const count = counted(docker, client);
      expect(appended(docker, db) - count, "each answered INCR is in the file once").toBeOneOf([0, 1]);
      expect(await told(rig, "status", rig.app)).toMatch(/client +failed \(code 137\)/);
      docker.docker("rm", "--force", db);
      expect(await rig.cli("restart", rig.app, "--failed", "client,db")).toMatchObject({
        code: 4,
        err: expect.stringContaining(`the container ${db} was removed`),
      });
      expect(existsSync(RUNC_CONF), "the machine's file is as it was").toBe(hadConf);
    }),
);

restartable(
  "what CRIU is told below runc stands behind the machine's own, one at a time, and goes; a crash's too",
  async () => {
    const before = existsSync(RUNC_CONF) ? readFileSync(RUNC_CONF) : undefined;
    const own = "log-level 2\n";
    mkdirSync(dirname(RUNC_CONF), { recursive: true });
    writeFileSync(RUNC_CONF, own);
    try {
      const takeAway = await placeRuncConf(["tcp-established"], 1000);
      const placed = readFileSync(RUNC_CONF, "utf8");
      expect(placed).toMatch(/^# .*\nlog-level 2\ntcp-established\n$/);
      expect(isRuncConfLeft(), "it is in use").toBe(false);
      await expect(placeRuncConf(["file-locks"], 50)).rejects.toMatchObject({ code: "RL_TIMEOUT" });
      takeAway();
      takeAway();
      expect(readFileSync(RUNC_CONF, "utf8")).toBe(own);
      expect(isRuncConfLeft()).toBe(false);

      const again = await placeRuncConf(["tcp-established"], 1000);
      const left = readFileSync(RUNC_CONF);
      again();
      writeFileSync(RUNC_CONF, left); // as a crash leaves it, without what was there before
      expect(isRuncConfLeft()).toBe(true);
      const next = await placeRuncConf(["file-locks"], 1000);
      expect(readFileSync(RUNC_CONF, "utf8")).toMatch(/^# .*\nfile-locks\n$/);
      next();
      expect(existsSync(RUNC_CONF)).toBe(false);
      mkdirSync(dirname(RUNC_CONF), { recursive: true });
      writeFileSync(RUNC_CONF, left);
      takeRuncConfAway();
      expect(existsSync(RUNC_CONF)).toBe(false);
    } finally {
      if (before === undefined) rmSync(RUNC_CONF, { force: true });
      else writeFileSync(RUNC_CONF, before);
    }
  },
);
