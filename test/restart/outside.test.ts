/** Who is not recorded is outside, by evidence: whoever talks with such a one loses no checkpoint for it, and who carries messages between two is seen. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { ASK, ECHO, freePort, missing, type Rig, until, withSharedCollector } from "../daemon/rig.ts";
import { LONG } from "../size.ts";
import type { Answer } from "./answer.ts";
import { restartable } from "./restartable.ts";

const live = test.skipIf(missing !== undefined);
const together = withSharedCollector("outside-peers");

interface Restarted extends Answer {
  readonly lostInputs: RecoveryLine["lostInputs"];
}

/** Passes on what comes, either way; nobody records it. */
const FORWARD = `const n=require("net");n.createServer(c=>{const d=n.connect(+process.argv[2],"127.0.0.1");c.pipe(d);d.pipe(c);c.on("error",()=>d.destroy());d.on("error",()=>c.destroy())}).listen(+process.argv[1],"127.0.0.1")`;

async function echo(rig: Rig, name: string): Promise<number> {
  const port = await freePort();
  await rig.run(name, process.execPath, "-e", ECHO, String(port));
  await until(`${name} listens`, () => rig.output(name).includes("listening"));
  return port;
}

async function said(socket: Socket, text: string): Promise<void> {
  socket.write(text);
  const [answer] = (await once(socket, "data")) as [Buffer];
  expect(answer.toString()).toBe(text);
}

async function connected(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  return socket.on("error", () => undefined);
}

/** Each connection begins with the question that came over it. */
async function request(port: number, text: string): Promise<void> {
  const socket = await connected(port);
  await said(socket, text);
  socket.destroy();
}

async function died(rig: Rig, name: string): Promise<void> {
  rig.cgroup(name).kill();
  await until(`${name} is dead`, () => !rig.cgroup(name).populated);
}

restartable(
  "a server that outside clients talk with keeps its checkpoints, and its lost inputs are told",
  () =>
    together("outside", async (rig) => {
      const port = await echo(rig, "web");
      await rig.run("batch", "sleep", "600");
      await request(port, "gone before anybody looks");
      const stays = await connected(port);
      await said(stays, "a client that stays");
      await rig.json("checkpoint", rig.app, "--driver", "criu");
      const web = rig.cgroup("web").pids();

      await died(rig, "batch");
      const first = await rig.json<Restarted>("restart", rig.app);
      expect(first.restarted).toEqual([{ process: "batch", action: "restore", checkpoint: 1 }]);
      expect(first.lostInputs).toEqual([]);
      expect(rig.cgroup("web").pids()).toEqual(web);
      await said(stays, "it goes on");

      await request(port, "after the checkpoint");
      stays.destroy();
      await died(rig, "web");
      const { out } = await rig.cli("compute", rig.app, "--failed", "web");
      const me = `process ${process.pid} (${readFileSync("/proc/self/comm", "utf8").trim()})`;
      const named = out.split("\n").filter((text) => text.includes(`${me} at 127.0.0.1`));
      expect(named.map((text) => text.split(/ +/)[0])).toEqual(["web", "web", "web", "web"]); // two inputs, two outputs
      const second = await rig.json<Restarted>("restart", rig.app);
      expect(second.restarted).toEqual([{ process: "web", action: "restore", checkpoint: 1 }]);
      expect(second.lostInputs.map(({ peer }) => peer)).toEqual(Array(2).fill(`${me} at 127.0.0.1`));
      const bytes = second.lostInputs.map(({ process, begin, end }) => [process, end - begin]);
      expect(bytes).toHaveLength(2);
      expect(bytes).toEqual(
        expect.arrayContaining([
          ["web", "after the checkpoint".length],
          ["web", "it goes on".length],
        ]),
      );
      await request(port, "served again");
    }),
);

/** Tells how its connections end. */
const TELLS = `require("net").createServer({allowHalfOpen:true},c=>{c.on("data",d=>c.write(d));c.on("error",e=>console.log("error",e.code));c.on("close",()=>console.log("closed"))}).listen(+process.argv[1],"127.0.0.1",()=>console.log("listening"))`;
/** Nobody records it, and it is another program than the test: it says something all the time, and how that ends. */
const CLIENT = `const c=require("net").connect(+process.argv[1],"127.0.0.1");setInterval(()=>c.write("x"),10);c.on("data",()=>process.stdout.write("."));c.on("error",e=>console.log(e.code));c.on("end",()=>console.log("end"))`;

/** How a client's connection ended. */
function ending(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
    socket.once("end", () => resolve("end"));
  });
}

restartable(
  "a process that goes back has its outside connections reset, and its listener goes on; those of a survivor go on",
  () =>
    together("reset", async (rig) => {
      const [port, other] = [await freePort(), await echo(rig, "goes-on")];
      await rig.run("fails", process.execPath, "-e", TELLS, String(port));
      await until("it listens", () => rig.output("fails").includes("listening"));
      const client = spawn(process.execPath, ["-e", CLIENT, String(other)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let heard = "";
      client.stdout.on("data", (text: Buffer) => {
        heard += text.toString();
      });
      try {
        const waits = await connected(port);
        // Holds its end when the other one has ended, as a program does that only writes.
        const holds = connect({ port, host: "127.0.0.1", allowHalfOpen: true }).on("error", () => undefined);
        await once(holds, "connect");
        for (const socket of [waits, holds]) await said(socket, "before");
        await until("the survivor is talked with", () => heard !== "");
        await rig.json("checkpoint", rig.app, "--driver", "criu");
        await said(waits, "after");
        const ended = [ending(waits), ending(holds)];
        await died(rig, "fails");
        expect(await Promise.all(ended)).toEqual(["end", "end"]);

        const { restarted, broken } = await rig.json<Restarted & { broken: { reset: boolean }[] }>(
          "restart",
          rig.app,
        );
        expect(restarted).toEqual([{ process: "fails", action: "restore", checkpoint: 1 }]);
        expect(broken.map(({ reset }) => reset)).toEqual([true, true]);
        const reset = ending(holds);
        holds.on("data", () => expect.unreachable("a connection that is over has data"));
        holds.write("are you there?");
        expect(["ECONNRESET", "EPIPE"]).toContain(await reset);
        await until("the process has heard of it", () => rig.output("fails").split("closed").length === 3);
        await request(port, "served again");
        const far = heard.length;
        await until("the survivor is talked with still", () => heard.length > far + 10);
        expect(heard).toMatch(/^\.+$/);
      } finally {
        client.kill("SIGKILL");
      }
    }),
);

/** Again and again somebody comes, says something and goes. */
const PASSERS_BY = `const n=require("net");setInterval(()=>{const c=n.connect(+process.argv[1],"127.0.0.1",()=>{c.write("x");setTimeout(()=>c.destroy(),50)}).on("error",()=>{})},20)`;

restartable(
  "who comes, speaks and goes while a server is brought back is outside, too, and spoils no checkpoint",
  LONG,
  () =>
    together("passers-by", async (rig) => {
      const port = await echo(rig, "web");
      await rig.json("checkpoint", rig.app, "--driver", "criu");
      await died(rig, "web");
      const passers = spawn(process.execPath, ["-e", PASSERS_BY, String(port)], { stdio: "ignore" });
      try {
        await rig.json("restart", rig.app);
      } finally {
        passers.kill("SIGKILL");
      }
      await request(port, "served again");
      await rig.json("checkpoint", rig.app, "--driver", "none");
      expect(await rig.json<RecoveryLine>("compute", rig.app, "--failed", "web")).toMatchObject({
        outcome: "clean",
        line: [{ action: "restore", checkpoint: 2 }],
      });
    }),
);

live(
  "a program that is not recorded and talks with two processes carries messages: both have a verdict",
  () =>
    together("relay", async (rig) => {
      const [port, way] = [await echo(rig, "answers"), await freePort()];
      const relay: ChildProcess = spawn(process.execPath, ["-e", FORWARD, String(way), String(port)], {
        stdio: "ignore",
      });
      try {
        await until("it forwards", () =>
          request(way, "x").then(
            () => true,
            () => false,
          ),
        );
        await rig.run("asks", process.execPath, "-e", ASK, String(way));
        await until("both have the verdict", async () => {
          await rig.events();
          const client = await rig.client();
          const mine = (await client.processes()).filter(({ app }) => app === rig.app);
          client.close();
          return mine.every(({ uncaptured }) => uncaptured.includes("relay"));
        });
        expect(await verdicts(rig)).toEqual([["relay"], ["relay"]]);
        await rig.json("checkpoint", rig.app, "--driver", "none");
        const { line } = await rig.json<RecoveryLine>("compute", rig.app).catch((error: Error) => {
          expect(error.message).toContain("exit code 3"); // tainted
          return { line: [] };
        });
        expect(line).toEqual([]);
      } finally {
        relay.kill("SIGKILL");
      }
    }),
);

live("who took what is undone and has given data to a process that keeps it: the answer names the pair", () =>
  together("passed-on", async (rig) => {
    const [to, from] = [await freePort(), await freePort()];
    const echoing = async (name: string): Promise<number> => {
      const port = await freePort();
      const outside = [`--outside=127.0.0.1:${to}`, `--outside=127.0.0.1:${from}`]; // it would count as a relay
      const command = [process.execPath, "-e", ECHO, String(port)];
      const asked = ["--detach", "--output", rig.path(`${name}.out`), ...outside, "--", ...command];
      expect(await rig.cli("run", rig.app, name, ...asked)).toMatchObject({ code: 0 });
      await until(`${name} listens`, () => rig.output(name).includes("listening"));
      return port;
    };
    const talk = async (localPort: number, port: number): Promise<void> => {
      const socket = connect({ port, host: "127.0.0.1", localPort }).on("error", () => undefined);
      await once(socket, "connect");
      await said(socket, "what it was told");
      socket.end();
      await once(socket, "close"); // the other end has closed, too
    };
    const [web, store] = [await echoing("web"), await echoing("store")];
    await rig.json("checkpoint", rig.app, "--driver", "none");
    await talk(to, web);
    await talk(from, store);
    const answer = await rig.json<RecoveryLine>("compute", rig.app, "--failed", "web");
    expect(answer).toMatchObject({
      outcome: "clean",
      line: [
        { process: "store", action: "continue" },
        { process: "web", action: "restore", checkpoint: 1 },
      ],
    });
    expect(answer.unsayable).toHaveLength(2); // its answer, and that it closed
    for (const output of answer.unsayable)
      expect(output).toMatchObject({ process: "web", passedOnTo: ["store"] });
    const { out } = await rig.cli("compute", rig.app, "--failed", "web");
    expect(out).toContain("store may know what web undoes");
    expect(out).toContain("say --failed web,store");
  }),
);

async function verdicts(rig: Rig): Promise<string[][]> {
  await rig.events(); // drained
  const { processes } = await rig.json<{ processes: { uncaptured: string[] }[] }>("status", rig.app);
  return processes.map(({ uncaptured }) => uncaptured);
}

live(
  "who reads of one process and only asks another whether it is there carries nothing, until it sends",
  LONG,
  () =>
    together("probe", async (rig) => {
      const port = await echo(rig, "web");
      const program = "setInterval(()=>console.log('tick'),10)";
      const { child } = rig.background("run", rig.app, "talks", "--", process.execPath, "-e", program);
      const [ticks] = (await once(child.stdout!, "data")) as [Buffer]; // this process has the other end of its output
      expect(ticks.toString()).toContain("tick");
      for (let probes = 0; probes < 5; probes += 1) (await connected(port)).destroy();
      const stays = await connected(port);
      expect(await verdicts(rig)).toEqual([[], []]);
      await rig.json("checkpoint", rig.app, "--driver", "none");
      expect(await rig.json<RecoveryLine>("compute", rig.app, "--failed", "web")).toMatchObject({
        outcome: "clean",
        line: [
          { process: "talks", action: "continue" },
          { process: "web", action: "restore", checkpoint: 1 },
        ],
      });

      await said(stays, "what it read, say");
      expect(await verdicts(rig)).toEqual([["relay"], ["relay"]]);
      await died(rig, "talks");
    }),
);

const SERVE = `require("net").createServer(c=>c.pipe(c)).listen(process.argv[1],()=>console.log("listening"))`;
const TALK = `const c=require("net").connect(process.argv[1]);setInterval(()=>c.write("x"),10);c.on("data",()=>{})`;

/** Options for the place where `server` of this rig's application listens, and for one of this test. */
async function contradicts(rig: Rig, other: string, port: string): Promise<void> {
  const mine = createServer().listen(0, "127.0.0.1");
  await once(mine, "listening");
  const here = (mine.address() as AddressInfo).port;
  const refused: [app: string, option: string, who: string][] = [
    [rig.app, `--outside=127.0.0.1:${port}`, `server of ${rig.app}, which is recorded, listens there`],
    [other, `--inside=127.0.0.1:${port}`, `server of ${rig.app}, another application, listens there`],
    [rig.app, `--inside=127.0.0.1:${here}`, `process ${process.pid} (`],
  ];
  for (const [app, option, who] of refused)
    expect(await rig.cli("run", app, "late", option, "--", "true")).toMatchObject({
      code: 2,
      err: expect.stringContaining(`${option.replace("=", " ")}: ${who}`),
    });
  const allowed = await rig.cli("run", rig.app, "late", `--outside=127.0.0.1:${here}`, "--", "true");
  expect(allowed).toMatchObject({ code: 0, err: "" });
  mine.close();
}

test.skipIf(missing !== undefined).each([
  ["TCP", async () => String(await freePort())],
  ["AF_UNIX", async (rig: Rig) => rig.path("socket")],
] as const)("a process of another application is outside, and status says which: %s", LONG, (kind, place) =>
  together(`other-${kind}`, async (rig) => {
    const address = await place(rig);
    await rig.run("server", process.execPath, "-e", SERVE, address);
    await until("it listens", () => rig.output("server").includes("listening"));
    const other = `${rig.app}-b`;
    const asked = await rig.cli(
      "run",
      other,
      "client",
      "--detach",
      "--",
      process.execPath,
      "-e",
      TALK,
      address,
    );
    try {
      expect(asked.code).toBe(0);
      await until("the server knows", async () => {
        await rig.events();
        return (await rig.cli("status", rig.app)).out.includes(
          `server talks with ${other}/client: another application`,
        );
      });
      const { processes } = await rig.json<{ processes: object[] }>("status", rig.app);
      expect(processes).toMatchObject([{ peers: [{ what: "foreign", peer: `${other}/client` }] }]);
      if (!address.includes("/")) await contradicts(rig, other, address);
      const channels = (await rig.events()).filter(({ type }) => type === "outside");
      expect(channels).toHaveLength(3);
      expect((await rig.events(other)).filter(({ type }) => type === "outside")).toHaveLength(4);
      await rig.json("checkpoint", rig.app, "--driver", "none");
      expect(await rig.json<RecoveryLine>("compute", rig.app, "--failed", "server")).toMatchObject({
        outcome: "clean",
        line: [{ action: "restore", checkpoint: 1 }],
      });
    } finally {
      const cgroup = new ProcessCgroup(other, "client");
      await until("the other application is gone", () => {
        if (cgroup.populated) cgroup.kill();
        return cgroup.remove();
      });
    }
  }),
);
