/** A network namespace of the program's own: with its loopback alone it comes back, with other interfaces it is refused before anything stands still. */
import { execFileSync } from "node:child_process";
import { expect } from "vitest";
import { until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

/** Talks with itself over the loopback of its namespace. */
const SELF = `const n=require("node:net");n.createServer(c=>c.on("data",d=>c.write(d))).listen(7000,"127.0.0.1",()=>{const c=n.connect(7000,"127.0.0.1");let k=0;c.on("data",()=>console.log(++k));setInterval(()=>c.write("x"),20)})`;

restartable(
  "a namespace with a loopback comes back; one with a way out is refused by name, and nothing stood still",
  () =>
    withRig("network", async (rig) => {
      await rig.collect();
      const up = 'ip link set lo up && exec "$@"';
      await rig.run("inside", "unshare", "--net", "sh", "-c", up, "sh", process.execPath, "-e", SELF);
      await until("it talks", () => rig.output("inside").split("\n").length > 20);
      await rig.json("checkpoint", rig.app);
      rig.cgroup("inside").kill();
      await until("it is dead", () => !rig.cgroup("inside").populated);
      await rig.json("restart", rig.app);
      const before = rig.output("inside").length;
      await until("it talks again", () => rig.output("inside").length > before + 100);
      const counted = rig.output("inside").trim().split("\n").map(Number);
      expect(counted).toEqual(counted.map((_, at) => at + 1));

      const veth = `ip link add rl-in type veth peer name rl-out && ${up}`;
      const pid = await rig.run("bridged", "unshare", "--net", "sh", "-c", veth, "sh", "sleep", "1000");
      await until("it sleeps", () =>
        execFileSync("cat", [`/proc/${pid}/comm`], { encoding: "utf8" }).startsWith("sleep"),
      );
      const { code, err } = await rig.cli("checkpoint", rig.app, "bridged");
      expect([code, err]).toEqual([
        1,
        expect.stringMatching(/network namespace of its own .* with rl-(in|out), rl-(in|out)/),
      ]);
      expect(err).toContain("--driver none");
      expect([rig.cgroup("bridged").pids(), rig.cgroup("bridged").freezing]).toEqual([[pid], false]);
      expect(await rig.cli("checkpoint", rig.app, "bridged", "--driver", "none")).toMatchObject({ code: 0 });
    }),
);
