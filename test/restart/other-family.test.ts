/** Found by two jobs of Open MPI at once: a listener of the other family alone on the same port stands in nobody's way. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { expect, onTestFinished } from "vitest";
import { freePort, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

const LISTEN = `require("node:net").createServer().listen(JSON.parse(process.argv[1]),()=>console.log("listening"))`;
const V4 = { host: "0.0.0.0" };
const V6 = { host: "::", ipv6Only: true };

const command = (where: object): string[] => [process.execPath, "-e", LISTEN, JSON.stringify(where)];

async function stranger(where: object): Promise<ChildProcess> {
  const [file, ...args] = command(where) as [string, ...string[]];
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child.stdout!, "data");
  return child;
}

restartable(
  "whoever listens by the other family alone on its port is no obstacle; by both families it is",
  () =>
    withRig("family", async (rig) => {
      await rig.collect();
      const listeners = { four: { ...V4, port: await freePort() }, six: { ...V6, port: await freePort() } };
      for (const [name, where] of Object.entries(listeners)) {
        await rig.run(name, ...command(where));
        await until("it listens", () => rig.output(name).includes("listening"));
      }
      await rig.json("checkpoint", rig.app);
      const kill = async (): Promise<void> => {
        for (const name of Object.keys(listeners)) rig.cgroup(name).kill();
        await until("both are dead", () =>
          Object.keys(listeners).every((name) => !rig.cgroup(name).populated),
        );
      };
      await kill();
      const beside = [
        await stranger({ ...V6, port: listeners.four.port }),
        await stranger({ ...V4, port: listeners.six.port }),
      ];
      await rig.json("restart", rig.app);
      expect(beside.map(({ exitCode }) => exitCode)).toEqual([null, null]);
      await kill();
      for (const child of beside) child.kill();
      await Promise.all(beside.map((child) => once(child, "exit")));
      await stranger({ host: "::", port: listeners.four.port });
      const { code, err } = await rig.cli("restart", rig.app);
      expect([code, err]).toEqual([
        4,
        expect.stringContaining(`four: port ${listeners.four.port} is taken by process`),
      ]);
    }),
);
