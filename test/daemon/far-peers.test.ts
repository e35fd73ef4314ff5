/** Whoever is on another machine is outside by its address, unless this host may lead that address back to itself. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { beforeAll, expect, test } from "vitest";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import type { PeerNote } from "../../src/model/stored-process.ts";
import { compile } from "../native/c-build.ts";
import { missing, type Rig, until, withRig } from "./rig.ts";

const [FAR, NEAR, PORT] = ["198.51.100.2", "198.51.100.1", "7001"];
/** Says how much it was told; told "go" as an argument it answers. */
const CLIENT = `const c=require("net").connect(${PORT},"${FAR}");c.on("data",d=>{console.log(d+"");if(process.argv[1])c.write("x",()=>console.log("said"))});setInterval(()=>{},1e6)`;
const NAT = `nft 'add table ip t; add chain ip t c { type nat hook prerouting priority -100; }; add rule ip t c ip daddr 203.0.113.1 dnat to 10.0.0.1' && echo ready && cat`;

const lacks =
  spawnSync("unshare", [
    "--net",
    "sh",
    "-c",
    "ip link add name rl0 type veth peer name rl1 && nft list ruleset",
  ]).status !== 0;
let far: string;
beforeAll(() => {
  far = compile("far", ["test/native/c/far_helper.c"]);
});

/** Started by us, and its first line read. */
async function helper(program: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  let said = "";
  child.stdout!.on("data", (text: Buffer) => {
    said += text.toString();
  });
  await until(`${program} is ready`, () => said.includes("\n"));
  return child;
}

async function notes(rig: Rig): Promise<Record<string, readonly PeerNote[]>> {
  await rig.events();
  const { processes } = await rig.json<{ processes: { process: string; peers?: PeerNote[] }[] }>(
    ...["status", rig.app],
  );
  return Object.fromEntries(processes.map(({ process, peers = [] }) => [process, peers]));
}

async function client(rig: Rig, name: string, ...more: string[]): Promise<void> {
  await rig.run(name, process.execPath, "-e", CLIENT, ...more);
  await until(`${name} is told`, () => rig.output(name).includes(more.length > 0 ? "said" : "hello"));
}

test.skipIf(missing !== undefined || lacks)(
  "another machine is outside by its address; where this host translates addresses it is in doubt; a relay where it may carry data",
  () =>
    withRig("far", async (rig) => {
      await rig.collect();
      const machine = await helper(far, `rlf${process.pid % 1e6}`, FAR, NEAR, PORT);
      try {
        await client(rig, "web");
        await until("it is outside", async () => {
          const told = (await rig.events()).filter(({ type }) => type === "outside");
          return told.length === 4 && told.every(({ process }) => process === "web");
        });
        expect(await notes(rig)).toEqual({ web: [] });
        await rig.json("checkpoint", rig.app, "--driver", "none");
        expect(await rig.json<RecoveryLine>("compute", rig.app, "--failed", "web")).toMatchObject({
          outcome: "clean",
          line: [{ process: "web", action: "restore", checkpoint: 1 }],
        });

        const translates = await helper("unshare", "--net", "sh", "-c", NAT);
        await client(rig, "doubts");
        let doubts: readonly PeerNote[] = [];
        await until("it is in doubt", async () => {
          doubts = (await notes(rig))["doubts"]!;
          return doubts.length > 0;
        });
        expect(doubts).toMatchObject([{ what: "doubted", peer: `${FAR}:${PORT}` }]);
        expect(doubts[0]!.rule).toContain("ip daddr 203.0.113.1 dnat to 10.0.0.1");
        const { out } = await rig.cli("status", rig.app);
        expect(out).toMatch(
          new RegExp(`doubts talks with ${FAR}:${PORT}.*may lead to a process here.*run --outside ${FAR}`),
        );
        translates.kill("SIGKILL");
        await until("it is gone", () => translates.exitCode !== null || translates.signalCode !== null);

        await client(rig, "asks", "go");
        const relay = [{ what: "relay", peer: FAR }];
        await until("it carries data", async () => {
          const { web, asks } = await notes(rig);
          return JSON.stringify([web, asks]) === JSON.stringify([relay, relay]);
        });
      } finally {
        machine.kill("SIGKILL");
      }
    }),
);
