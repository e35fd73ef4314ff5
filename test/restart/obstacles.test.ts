/** What stands in the way of a restart is found before anything is killed; and there is a way out of one that failed half way. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { packageRoot } from "../../src/ring/binding.ts";
import { freePort, type Rig, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

/** Writes each byte it gets to its log; has a file open to read and stands in a folder. */
const SERVER = `const [,port,dir]=process.argv;const fs=require("node:fs");const log=fs.openSync(dir+"/log","a");fs.openSync(dir+"/read","r");fs.openSync(dir+"/place","r+");process.chdir(dir+"/here");
require("node:net").createServer(c=>{c.on("error",()=>{});c.on("data",d=>{fs.writeSync(log,d);c.write(d)})}).listen(+port,"127.0.0.1",()=>console.log("listening"))`;
const CLIENT = `const [,port]=process.argv;const c=require("node:net").connect(+port,"127.0.0.1");let n=0;c.on("error",()=>{});c.on("data",()=>{console.log(++n)});setInterval(()=>c.write("x"),20)`;

interface Obstacle {
  readonly name: string;
  readonly says: RegExp;
  put(): void | Promise<void>;
  take(): void | Promise<void>;
}

function obstacles(dir: string, port: number): Obstacle[] {
  const moved = (name: string, says: RegExp, instead?: () => void): Obstacle => ({
    name: `${name} moved${instead === undefined ? "" : ", another in its place"}`,
    says,
    put: () => {
      renameSync(join(dir, name), join(dir, `${name}.1`));
      instead?.();
    },
    take: () => {
      rmSync(join(dir, name), { recursive: true, force: true });
      renameSync(join(dir, `${name}.1`), join(dir, name));
    },
  });
  const write = (name: string) => (): void => writeFileSync(join(dir, name), "another");
  let text = "";
  let stranger: ReturnType<typeof spawn> | undefined;
  return [
    moved("log", /\/log, which it writes, is gone/),
    moved("log", /\/log, which it writes, is another file now/, write("log")),
    {
      name: "log cut",
      says: /\/log, which it writes, has 0 bytes and had [1-9]/,
      put: () => {
        text = readFileSync(join(dir, "log"), "utf8");
        truncateSync(join(dir, "log"));
      },
      take: () => writeFileSync(join(dir, "log"), text),
    },
    {
      name: "changed inside",
      says: /\/place, which it writes in place, holds something else than at the checkpoint/,
      put: () => writeFileSync(join(dir, "place"), "12x45 and more"),
      take: () => writeFileSync(join(dir, "place"), "12345 and more"), // is cut back
    },
    moved("read", /\/read, which it uses, is gone/),
    moved("read", /\/read, which it uses, has 7 bytes and had 5/, write("read")),
    moved("here", /\/here, which it uses, is no folder any more/, write("here")),
    {
      name: "port taken",
      says: /port \d+ is taken by process \d+ \(node\)/,
      put: async () => {
        const program = `require("node:net").createServer().listen(${port},()=>console.log("listening"))`;
        stranger = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
        await once(stranger.stdout!, "data");
      },
      take: async () => {
        stranger!.kill("SIGKILL");
        await once(stranger!, "close");
      },
    },
  ];
}

restartable(
  "files, folders and ports in the way are named by dry run and restart alike, and who lived before lives after",
  { timeout: 120_000 },
  () =>
    withRig("obstacles", async (rig) => {
      await rig.collect();
      const dir = rig.path("work");
      mkdirSync(join(dir, "here"), { recursive: true });
      writeFileSync(join(dir, "read"), "12345");
      writeFileSync(join(dir, "place"), "12345");
      const port = await freePort();
      const server = await rig.run("server", process.execPath, "-e", SERVER, `${port}`, dir);
      await until("it listens", () => rig.output("server").includes("listening"));
      const client = await rig.run("client", process.execPath, "-e", CLIENT, `${port}`);
      await until("they talk", () => rig.output("client").length > 20);
      expect(await rig.cli("checkpoint", rig.app, "--coordinated")).toMatchObject({
        code: 0,
        err: expect.stringMatching(
          /^recovery-line: server may write in place what no image holds: \S+\/place; name the folder/,
        ),
      });
      process.kill(server, "SIGKILL");
      await until("it is dead", () => !rig.cgroup("server").populated);
      for (const { name, says, put, take } of obstacles(dir, port)) {
        await put();
        for (const flags of [["--dry-run"], []]) {
          const { code, err } = await rig.cli("restart", rig.app, ...flags);
          expect([name, flags, code, err]).toEqual([name, flags, 4, expect.stringMatching(says)]);
          expect([name, rig.cgroup("client").pids(), rig.cgroup("client").freezing]).toEqual([
            name,
            [client],
            false,
          ]);
        }
        await take();
      }
      expect(existsSync(join(rig.home, rig.app, "restart"))).toBe(false);
      writeFileSync(join(dir, "place"), "1x345");
      const accept = ["--accept-files", join(dir, "place")];
      expect((await rig.cli("restart", rig.app, "--dry-run", ...accept)).code).toBe(0);
      writeFileSync(join(dir, "place"), "12345 and more");
      await failsHalfWay(rig);
      await rig.json("restart", rig.app);
      expect(readFileSync(join(dir, "place"), "utf8")).toBe("12345");
      const got = rig.output("client").length;
      await until("they talk again", () => rig.output("client").length > got + 20);
      expect(rig.cgroup("server").pids()).toEqual([server]);
    }),
);

/** CRIU itself fails, after the kill: the answer says what that leaves, and there are two ways on. */
async function failsHalfWay(rig: Rig): Promise<void> {
  const broken = rig.path("criu");
  writeFileSync(
    broken,
    '#!/bin/sh\ncase "$*" in *restore*) exit 1;; *--version*) echo "Version: 4.2.1";; esac\n',
    { mode: 0o755 },
  );
  const withBroken = async (...args: string[]) => {
    process.env["RECOVERY_LINE_CRIU"] = broken;
    try {
      return await rig.cli(...args);
    } finally {
      delete process.env["RECOVERY_LINE_CRIU"];
    }
  };
  const failed = await withBroken("restart", rig.app);
  expect(failed).toMatchObject({
    code: 1,
    err: expect.stringMatching(/client, server of .* are dead, all others go on\. .*--abandon/),
  });
  expect(await rig.cli("run", rig.app, "server", "--", "true")).toMatchObject({ code: 1 });
  expect(await rig.cli("restart", rig.app, "--abandon")).toMatchObject({
    code: 0,
    out: expect.stringContaining("is given up. Dead, and failed: client, server"),
  });
  expect(await rig.cli("restart", rig.app, "--abandon")).toMatchObject({ code: 2 });

  expect(await withBroken("restart", rig.app)).toMatchObject({ code: 1 });
  const fresh = await rig.cli("run", rig.app, "third", "--detach", "--", "sleep", "1000");
  expect(fresh.code).toBe(0); // no part of that restart
}

restartable(
  "a program in a terminal: said when it is started and checkpointed, and its restart refused",
  () =>
    withRig("terminal", async (rig) => {
      await rig.collect();
      const cli = join(packageRoot(), "dist/cli/main.js");
      const command = `RECOVERY_LINE_HOME=${rig.home} ${process.execPath} ${cli} run ${rig.app} p -- sleep 1000`;
      const typescript = rig.path("typescript");
      const terminal = spawn("script", ["-qfc", command, typescript], {
        stdio: ["pipe", "ignore", "inherit"],
      });
      await until("it runs", () => rig.cgroup("p").populated);
      await until("it was said", () => readFileSync(typescript, "utf8").includes("has this terminal open"));
      const taken = await rig.cli("checkpoint", rig.app);
      expect(taken).toMatchObject({ code: 0, err: expect.stringContaining("p has the terminal /dev/pts/") });
      rig.cgroup("p").kill();
      await once(terminal, "close");
      for (const flags of [["--dry-run"], []])
        expect(await rig.cli("restart", rig.app, ...flags)).toMatchObject({
          code: 4,
          err: expect.stringContaining("holds a terminal, and no image brings one back"),
        });
    }),
);
