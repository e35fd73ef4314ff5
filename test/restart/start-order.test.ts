/** What starts from its command starts before those that connect to it, and who ends at once is told. */
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { readyRule, startOrder } from "../../src/host/readiness.ts";
import { freePort, type Rig, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

test("rules of readiness", () => {
  expect(readyRule("port:7001")).toEqual({ kind: "port", port: 7001 });
  expect(readyRule("exec:test -e a:b")).toEqual({ kind: "exec", command: "test -e a:b" });
  for (const wrong of ["port:0", "port:65536", "port:x", "file:relative", "tcp:1", "exec:", ""])
    expect(() => readyRule(wrong)).toThrow("is no rule");
});

test("each starts after those with a rule that it connects to; those without start last, a ring in its order", () => {
  const order = (connects: [string, string][], ...names: string[]): string =>
    startOrder(
      names.map((name) => (/[A-Z]/.test(name) ? { process: name, ready: "port:1" } : { process: name })),
      connects,
    )
      .map(({ process }) => process)
      .join("");
  expect(order([], "a", "B", "C")).toBe("BCa");
  expect(order([["B", "C"]], "a", "B", "C")).toBe("CBa");
  expect(order([["B", "a"]], "a", "B")).toBe("Ba");
  expect(
    order(
      [
        ["B", "C"],
        ["C", "D"],
        ["D", "B"],
      ],
      "B",
      "C",
      "D",
    ),
  ).toBe("DCB");
  expect(
    order(
      [
        ["B", "D"],
        ["C", "B"],
      ],
      "C",
      "B",
      "D",
    ),
  ).toBe("DBC");
});

const SERVER = `setTimeout(()=>require("node:net").createServer(c=>c.on("error",()=>{})).listen(+process.argv[1],"127.0.0.1",()=>console.log("listening")),700)`;
const CLIENT = `const c=require("node:net").connect(+process.argv[1],"127.0.0.1");c.on("error",e=>{console.log(e.code);process.exit(7)});c.on("connect",()=>console.log("connected"));setInterval(()=>{},1000)`;

async function ready(rig: Rig, name: string, rule: string, ...command: string[]): Promise<void> {
  const options = ["--ready", rule, "--detach", "--output", rig.path(`${name}.out`)];
  expect(await rig.cli("run", rig.app, name, ...options, "--", ...command)).toMatchObject({
    code: 0,
    err: "",
  });
}

restartable("a client that tries once finds its server again; who ends at once is no success", () =>
  withRig("order", async (rig) => {
    await rig.collect();
    const port = await freePort();
    await ready(rig, "server", `port:${port}`, process.execPath, "-e", SERVER, `${port}`);
    await until("it listens", () => rig.output("server").includes("listening"));
    await rig.run("client", process.execPath, "-e", CLIENT, `${port}`);
    await until("it has connected", () => rig.output("client").includes("connected"));
    await rig.run(
      "once",
      "sh",
      "-c",
      'test -e "$0" && echo there is a pid file && exit 3; touch "$0"; sleep 1000',
      rig.path("pid"),
    );
    await until("it has begun", () => existsSync(rig.path("pid")));
    await rig.run("short", "true");
    for (const name of ["server", "client"]) rig.cgroup(name).kill();
    await until("both are dead", () => ["server", "client"].every((name) => !rig.cgroup(name).populated));
    await rig.json("restart", rig.app);
    await until("it has connected again", () => rig.output("client").includes("connected"));
    expect([rig.output("client"), rig.cgroup("client").populated]).toEqual(["connected\n", true]);

    rig.cgroup("once").kill();
    await until("it is dead", () => !rig.cgroup("once").populated);
    const again = await rig.cli("restart", rig.app, "--failed", "once,short", "--json");
    expect([again.code, JSON.parse(again.out)]).toMatchObject([
      1,
      {
        notBack: [{ process: "once", state: "failed", exitCode: 3, lastLines: ["there is a pid file"] }],
        notReady: [],
      },
    ]);
    expect(again.err).toContain(
      "once is not back, it ended at once: failed (code 3); its last lines: there is a pid file",
    );
  }),
);
