/** What a log can't know while nobody writes it down, no line may rest on. */
import { expect, test } from "vitest";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { missing, withRig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);

/** Sends a line to everyone connected whenever it gets SIGUSR1; writes its port first. */
const SERVER =
  'const net=require("node:net");const all=[];process.on("SIGUSR1",()=>all.forEach(c=>c.write("late\\n")));' +
  'const s=net.createServer(c=>all.push(c)).listen(0,"127.0.0.1",()=>console.log(s.address().port))';
const client = (port: string): string =>
  `require("node:net").connect(${port},"127.0.0.1").on("connect",()=>console.log("there")).on("data",d=>console.log(String(d).trim()))`;

interface Answer extends RecoveryLine {
  readonly unrecorded?: readonly string[];
}

live("without a collector, a process that runs on can't continue: it may have received what is undone", () =>
  withRig("unrecorded", async (rig) => {
    const collector = await rig.collect();
    const server = await rig.run("server", process.execPath, "-e", SERVER);
    await expect.poll(() => rig.output("server")).toMatch(/^\d+\n$/);
    await rig.run("client", process.execPath, "-e", client(rig.output("server").trim()));
    await expect.poll(() => rig.output("client")).toBe("there\n");
    await rig.json("checkpoint", rig.app, "--coordinated", "--driver", "none");
    const before = await rig.json<Answer>("compute", rig.app, "--failed", "server");
    expect(before.line[0]).toMatchObject({ process: "client", action: "continue" });

    collector.child.kill("SIGKILL");
    await collector.ended;
    process.kill(server, "SIGUSR1");
    await expect.poll(() => rig.output("client")).toBe("there\nlate\n");

    const { code, out } = await rig.cli("compute", rig.app, "--failed", "server", "--json");
    const dark = JSON.parse(out) as Answer;
    expect([code, dark.outcome, dark.unrecorded]).toEqual([3, "tainted", ["client"]]);
    expect(dark.line[0]).toMatchObject({ process: "client", action: "restore", checkpoint: 1 });
    const drawn = await rig.cli("compute", rig.app, "--failed", "server", "--diagram");
    expect(drawn).toMatchObject({ code: 3, out: expect.stringContaining("No collector records client now") });
    for (const command of [
      ["explain", rig.app, "client", "--failed", "server"],
      ["failures", rig.app],
    ])
      expect(await rig.cli(...command)).toMatchObject({
        code: 3,
        err: expect.stringContaining("No collector records"),
      });
    expect(await rig.json<Answer>("compute", rig.app)).not.toHaveProperty("unrecorded"); // nobody goes on

    const again = await rig.collect();
    await rig.events(); // drained
    const after = await rig.json<Answer>("compute", rig.app, "--failed", "server");
    expect(after).not.toHaveProperty("unrecorded");
    expect(after.line[0]).toMatchObject({ process: "client", action: "restore", checkpoint: 1 });

    for (const name of ["client", "server"]) rig.cgroup(name).kill();
    await expect.poll(() => rig.cgroup("client").populated || rig.cgroup("server").populated).toBe(false);
    again.child.kill("SIGTERM");
    await again.ended;
    const ended = await rig.json<Answer>("compute", rig.app, "--failed", "server"); // clean, or it throws
    expect(ended).not.toHaveProperty("unrecorded"); // both ended before the collector, which saw it
  }),
);
