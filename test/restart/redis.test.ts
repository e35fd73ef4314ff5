import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { CriuDriver } from "../../src/restart/driver-criu.ts";
import { findCriu } from "../../src/restart/driver-criu-find.ts";
import { freePort, missing, type Rig, until, withRig } from "../daemon/rig.ts";
import { type Answer, fromNowhere } from "./answer.ts";

const criu = await findCriu();
const works = criu.found !== undefined && (await new CriuDriver(criu.found).check()).works;
const restartable = test.skipIf(missing !== undefined || !works);

const COUNT = 2500;
const PROCESSES = ["primary", "replica", "writer"] as const;

async function redis(rig: Rig, name: string, port: number, ...args: string[]): Promise<void> {
  const dir = rig.path(name);
  mkdirSync(dir);
  const own = [
    "--port",
    `${port}`,
    "--bind",
    "127.0.0.1",
    "--dir",
    dir,
    "--save",
    "",
    "--logfile",
    `${dir}/log`,
  ];
  await rig.run(name, "redis-server", ...own, "--repl-diskless-sync-delay", "0", ...args);
  await until(`${name} is ready`, () => log(rig, name).includes("Ready to accept connections"));
}

function log(rig: Rig, name: string): string {
  const path = `${rig.path(name)}/log`;
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Counts up in the primary, one request after the other, and writes down each answer. */
function writer(port: number): string {
  return [
    `exec 3<>/dev/tcp/127.0.0.1/${port}`,
    `for ((i = 1; i <= ${COUNT}; i++)); do`,
    `  printf 'INCR n\\r\\n' >&3; read -r -u 3 answer; echo "$answer"`,
    `  ((i % 10)) || sleep 0.02`,
    `done; sleep 1000`,
  ].join("\n");
}

function answers(rig: Rig): number[] {
  return rig
    .output("writer")
    .split("\n")
    .filter((line) => line.startsWith(":"))
    .map((line) => Number(line.slice(1)));
}

restartable(
  "redis with a replica and a client: killed and restarted twice, every increment counts once, in both",
  () =>
    withRig("redis-pair", async (rig) => {
      await rig.collect();
      const [primary, replica] = [await freePort(), await freePort()];
      await redis(rig, "primary", primary);
      await redis(rig, "replica", replica, "--replicaof", `127.0.0.1 ${primary}`);
      await until("they have met", () => log(rig, "replica").includes("Finished with success"));
      await rig.run("writer", "bash", "-c", writer(primary));
      for (const round of [1, 2]) {
        await until("it counts", () => answers(rig).length > round * 150, 20_000);
        await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "criu");
        const atCheckpoint = answers(rig).length;
        await until("it goes on", () => answers(rig).length > atCheckpoint + 50, 20_000);
        for (const name of round === 1 ? PROCESSES : PROCESSES.slice(0, 1)) rig.cgroup(name).kill();
        await until("it is dead", () => !rig.cgroup("primary").populated);
        const answer = await rig.json<Answer>("restart", rig.app);
        expect(answer.restarted.map(({ checkpoint }) => checkpoint)).toEqual([round, round, round]);
        expect(fromNowhere(answer)).toEqual([]);
      }
      await until("it has counted to the end", () => answers(rig).length >= COUNT, 40_000);
      expect(answers(rig)).toEqual(Array.from({ length: COUNT }, (_, at) => at + 1));
      const get = (port: number) =>
        execFileSync("redis-cli", ["-p", `${port}`, "get", "n"])
          .toString()
          .trim();
      expect(get(primary)).toBe(String(COUNT));
      await until("the replica has it all", () => get(replica) === String(COUNT));
    }),
);
