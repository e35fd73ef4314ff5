/** What stands in the way of a restart is found before anything is killed; and there is a way out of one that failed half way. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { buildIdOf } from "../../src/host/build-id.ts";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { type Ended, freePort, type Rig, until, withRig } from "../daemon/rig.ts";
import { restartable } from "./restartable.ts";

/** Writes each byte it gets to its log; has a file open to read and stands in a folder. */
const SERVER = `const [,port,dir]=process.argv;const fs=require("node:fs");const log=fs.openSync(dir+"/log","a");fs.openSync(dir+"/read","r");fs.openSync(dir+"/mounted/file","r");fs.openSync(dir+"/place","r+");process.chdir(dir+"/here");
require("node:net").createServer(c=>{c.on("error",()=>{});c.on("data",d=>{fs.writeSync(log,d);c.write(d)})}).listen(+port,"127.0.0.1",()=>console.log("listening"))`;
const CLIENT = `const [,port]=process.argv;const c=require("node:net").connect({port:+port,host:"127.0.0.1",localAddress:process.argv[2]});let n=0;c.on("error",()=>{});c.on("data",()=>{console.log(++n)});setInterval(()=>c.write("x"),20)`;

function bind(dir: string): void {
  execFileSync("mount", ["--bind", join(dir, "real"), join(dir, "mounted")]);
}

function unmount(place: string): void {
  execFileSync("umount", ["-l", place]);
}

interface Obstacle {
  readonly name: string;
  readonly says: RegExp;
  /** How the command is called; absent: as always. */
  readonly calls?: (rig: Rig, ...args: string[]) => Promise<Ended>;
  put(): void | Promise<void>;
  take(): void | Promise<void>;
}

/** Takes a process id, and waits for nobody: the child lives, or is a zombie. */
const TAKES_ID = `
#include <linux/sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words) {
    pid_t wanted = atoi(words[1]);
    struct clone_args how = {.set_tid = (uintptr_t)&wanted, .set_tid_size = 1};
    long child;
    while ((child = syscall(SYS_clone3, &how, sizeof(how))) < 0)
        usleep(1000);
    if (child == 0 && count > 2)
        _exit(0);
    printf("taken\\n");
    fflush(stdout);
    pause();
}`;
/** Takes the server's end of its connection, so that it goes on when the server is dead. */
const HOLDS_CONNECTION = `
import ctypes, os, socket, sys, time
pid = int(sys.argv[1])
process, held = os.pidfd_open(pid), []
for name in os.listdir(f"/proc/{pid}/fd"):
    if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"): continue
    end = socket.socket(fileno=ctypes.CDLL(None).syscall(438, process, int(name), 0))
    try: held.append((end, end.getpeername()[1]))
    except OSError: end.close()
print("held", flush=True)
time.sleep(1000)`;
/** An address of the loopback device while this test runs. */
const ADDRESS = "10.213.7.9";

function ip(what: "add" | "del"): void {
  execFileSync("ip", ["addr", what, `${ADDRESS}/32`, "dev", "lo"]);
}

/** The same size, another build. */
function otherBuild(path: string): Buffer {
  const bytes = readFileSync(path);
  const at = bytes.indexOf(Buffer.from(buildIdOf(path)!, "hex"));
  bytes[at] = bytes[at]! ^ 1;
  return bytes;
}

function obstacles(
  rig: Rig,
  dir: string,
  port: number,
  server: number,
  holder: ReturnType<typeof spawn>,
): Obstacle[] {
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
  const starts = async (program: string, ...words: string[]): Promise<void> => {
    stranger = spawn(program, words, { stdio: ["ignore", "pipe", "inherit"] });
    await once(stranger.stdout!, "data");
  };
  const ends = async (): Promise<void> => {
    stranger!.kill("SIGKILL");
    await once(stranger!, "exit");
  };
  const taker = join(dir, "taker");
  return [
    {
      name: "connection held",
      says: new RegExp(
        `the connection from 127\\.0\\.0\\.1:${port} to .* is held by process ${holder.pid} \\(python3\\)`,
      ),
      put: () => undefined,
      take: async () => {
        holder.kill("SIGKILL");
        await once(holder, "exit");
      },
    },
    {
      name: "stranger in the cgroup",
      says: /server: process \d+ \(sleep\) is in its cgroup \S+\/server, and was not started by recovery-line run/,
      put: async () => {
        await until("its own cgroup is gone", () => rig.cgroup("server").remove());
        stranger = spawn("sleep", ["1000"], { stdio: "ignore" });
        rig.cgroup("server").create();
        writeFileSync(join(rig.cgroup("server").path, "cgroup.procs"), `${stranger.pid}`);
      },
      take: async () => {
        expect(rig.cgroup("server").pids()).toEqual([stranger!.pid]);
        await ends();
        await until("it is gone", () => rig.cgroup("server").remove());
      },
    },
    {
      name: "cgroups read-only",
      says: /the cgroup \S+ can't be written \(EROFS\)/,
      calls: withReadOnlyCgroups,
      put: () => undefined,
      take: () => undefined,
    },
    {
      name: "CRIU lacks something",
      says: /criu can't bring images back here: criu: criu check failed \(exit code 1\)/,
      calls: (_, ...args) => withCriu(rig, "check*) exit 1;;")(...args),
      put: () => undefined,
      take: () => undefined,
    },
    moved("sleeper", /\/sleeper, which it uses, is another build of the same size/, () =>
      writeFileSync(join(dir, "sleeper"), otherBuild(join(dir, "sleeper.1")), { mode: 0o755 }),
    ),
    {
      name: "id of a zombie",
      says: /process id \d+ is that of a process which has ended, and process \d+ \(taker\), its parent/,
      put: () => starts(taker, `${server}`, "zombie"),
      take: ends,
    },
    {
      name: "id taken",
      says: /process id \d+ is in use by process \d+ \(taker\)/,
      put: () => starts(taker, `${server}`),
      take: async () => {
        process.kill(server, "SIGKILL"); // its child, which has that id
        await ends();
      },
    },
    {
      name: "address gone",
      says: /the connection from 10\.213\.7\.9:\d+ to .* needs the address 10\.213\.7\.9, which no interface here has/,
      put: () => ip("del"),
      take: () => ip("add"),
    },
    {
      name: "disk full",
      says: /the disk of \S+\/disk\/data has \d+ bytes free, and 3\d{6} are put back beside/,
      put: () => writeFileSync(join(dir, "disk/filler"), Buffer.alloc(3 << 20)),
      take: () => rmSync(join(dir, "disk/filler")),
    },
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
    {
      name: "mount gone",
      says: /\/mounted\/file, which it uses, is gone/,
      put: () => unmount(join(dir, "mounted")),
      take: () => bind(dir),
    },
    moved("read", /\/read, which it uses, has 7 bytes and had 5/, write("read")),
    moved("here", /\/here, which it uses, is no folder any more/, write("here")),
    {
      name: "port taken",
      says: /port \d+ is taken by process \d+ \(node\)/,
      put: () =>
        starts(
          process.execPath,
          "-e",
          `require("node:net").createServer().listen(${port},()=>console.log("listening"))`,
        ),
      take: ends,
    },
  ];
}

restartable(
  "files, folders and ports in the way are named by dry run and restart alike, and who lived before lives after",
  { timeout: 300_000 },
  () =>
    withRig("obstacles", async (rig) => {
      await rig.collect();
      const dir = rig.path("work");
      mkdirSync(join(dir, "here"), { recursive: true });
      mkdirSync(join(dir, "disk"));
      writeFileSync(join(dir, "taker.c"), TAKES_ID);
      execFileSync("cc", ["-D_GNU_SOURCE", "-o", join(dir, "taker"), join(dir, "taker.c")]);
      copyFileSync("/bin/sleep", join(dir, "sleeper"));
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m", "none", join(dir, "disk")]);
      for (const name of ["real", "mounted"]) mkdirSync(join(dir, name));
      writeFileSync(join(dir, "real/file"), "12345");
      bind(dir);
      try {
        ip("add");
        await withObstacles(rig, dir);
      } finally {
        ip("del");
        unmount(join(dir, "disk"));
        unmount(join(dir, "mounted"));
      }
    }),
);

const callsCli = (rig: Rig, ...args: string[]): Promise<Ended> => rig.cli(...args);

async function withObstacles(rig: Rig, dir: string): Promise<void> {
  writeFileSync(join(dir, "read"), "12345");
  writeFileSync(join(dir, "place"), "12345");
  const port = await freePort();
  mkdirSync(join(dir, "disk/data"));
  writeFileSync(join(dir, "disk/data/file"), Buffer.alloc(3 << 20, "x"));
  const store = ["--data", join(dir, "disk/data"), "--detach", "--", "sleep", "1000"];
  expect(await rig.cli("run", rig.app, "store", ...store)).toMatchObject({ code: 0 });
  const both = '"$0"/sleeper 1000 & exec "$@"';
  const node = [process.execPath, "-e", SERVER, `${port}`, dir];
  const server = await rig.run("server", "sh", "-c", both, dir, ...node);
  await until("it listens", () => rig.output("server").includes("listening"));
  const client = await rig.run("client", process.execPath, "-e", CLIENT, `${port}`, ADDRESS);
  await until("they talk", () => rig.output("client").length > 20);
  expect(await rig.cli("checkpoint", rig.app, "--coordinated")).toMatchObject({
    code: 0,
    err: expect.stringMatching(
      /^recovery-line: server may write in place what no image holds: \S+\/place; name the folder/,
    ),
  });
  const holder = spawn("python3", ["-c", HOLDS_CONNECTION, `${server}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(holder.stdout, "data");
  for (const name of ["server", "store"]) {
    rig.cgroup(name).kill();
    await until("it is dead", () => !rig.cgroup(name).populated);
  }
  await until("its id is free", () => !existsSync(`/proc/${server}`));
  for (const { name, says, put, take, calls } of obstacles(rig, dir, port, server, holder)) {
    await put();
    for (const flags of name.includes("moved") ? [["--dry-run"], []] : [[]]) {
      const { code, err } = await (calls ?? callsCli)(rig, "restart", rig.app, ...flags);
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
  expect(rig.cgroup("server").pids()).toContain(server);
}

/** In mounts of its own, as a container may show them. */
async function withReadOnlyCgroups(rig: Rig, ...args: string[]): Promise<Ended> {
  const script = 'mount -o remount,bind,ro "$0" && exec "$@"';
  const command = [process.execPath, join(packageRoot(), "dist/cli/main.js"), ...args];
  const words = ["--mount", "--propagation", "private", "sh", "-c", script, cgroup2Root(), ...command];
  const env = { ...process.env, RECOVERY_LINE_HOME: rig.home };
  const { status, stdout, stderr } = spawnSync("unshare", words, { env, encoding: "utf8" });
  return { code: status, out: stdout, err: stderr };
}

/** Calls with a CRIU that fails at each restore. */
function brokenCriu(rig: Rig): (...args: string[]) => Promise<Ended> {
  return withCriu(rig, "*restore*) exit 1;;");
}

/** `does`: a case of a shell's, by its words. */
function withCriu(rig: Rig, does: string): (...args: string[]) => Promise<Ended> {
  const broken = rig.path("criu");
  const text = `#!/bin/sh\ncase "$*" in ${does} *--version*) echo "Version: 4.2.1";; esac\n`;
  writeFileSync(broken, text, { mode: 0o755 });
  return async (...args) => {
    process.env["RECOVERY_LINE_CRIU"] = broken;
    try {
      return await rig.cli(...args);
    } finally {
      delete process.env["RECOVERY_LINE_CRIU"];
    }
  };
}

/** CRIU itself fails, after the kill: the answer says what that leaves, and there are two ways on. */
async function failsHalfWay(rig: Rig): Promise<void> {
  const withBroken = brokenCriu(rig);
  const failed = await withBroken("restart", rig.app);
  expect(failed).toMatchObject({
    code: 1,
    err: expect.stringMatching(/client, server, store of .* are dead, all others go on\. .*--abandon/),
  });
  expect(await rig.cli("run", rig.app, "server", "--", "true")).toMatchObject({ code: 1 });
  expect(await rig.cli("restart", rig.app, "--abandon")).toMatchObject({
    code: 0,
    out: expect.stringContaining("is given up. Dead, and failed: client, server, store"),
  });
  expect(await rig.cli("restart", rig.app, "--abandon")).toMatchObject({ code: 2 });

  expect(await withBroken("restart", rig.app)).toMatchObject({ code: 1 });
  const fresh = await rig.cli("run", rig.app, "third", "--detach", "--", "sleep", "1000");
  expect(fresh.code).toBe(0); // no part of that restart
}

const APPENDS = `const fs=require("node:fs");const f=fs.openSync(process.argv[1],"a");setInterval(()=>fs.writeSync(f,"line\\n"),5)`;

restartable("a restart is refused as compute is, where the log of a node is not there", () =>
  withRig("nodes", async (rig) => {
    await rig.collect("--node", "a", "--nodes", "a,b");
    await rig.run("p", "sleep", "1000");
    const other = await rig.run("q", "sleep", "1000");
    rig.cgroup("p").kill();
    await until("it is dead", () => !rig.cgroup("p").populated);
    const says = expect.stringContaining('is of node "b": its evidence is missing');
    for (const command of ["compute", "restart"])
      expect(await rig.cli(command, rig.app)).toMatchObject({ code: 4, err: says });
    expect(rig.cgroup("q").pids()).toEqual([other]);
  }),
);

restartable(
  "--back-further: an older line without the image that is in the way, or that CRIU can't restore",
  () =>
    withRig("further", async (rig) => {
      await rig.collect();
      const log = rig.path("log");
      const size = (): number => (existsSync(log) ? statSync(log).size : 0);
      const goesOn = (what: string): Promise<void> => {
        const before = size();
        return until(what, () => size() > before + 50);
      };
      const dies = async (): Promise<void> => {
        rig.cgroup("p").kill();
        await until("it is dead", () => !rig.cgroup("p").populated);
      };
      await rig.run("p", process.execPath, "-e", APPENDS, log);
      await goesOn("it has begun");
      await rig.json("checkpoint", rig.app);
      const first = size();
      await goesOn("it writes");
      await rig.json("checkpoint", rig.app);
      await dies();
      truncateSync(log, first + 10);
      const refused = await rig.cli("restart", rig.app);
      expect(refused).toMatchObject({
        code: 4,
        err: expect.stringMatching(/log, which it writes, has .* --back-further/s),
      });
      const further = await rig.json<object>("restart", rig.app, "--back-further");
      expect(further).toMatchObject({
        passedOver: [{ process: "p", checkpoint: 2, why: "obstacle" }],
        restarted: [{ process: "p", action: "restore", checkpoint: 1 }],
      });
      await goesOn("it goes on");
      await dies();
      expect(await brokenCriu(rig)("restart", rig.app)).toMatchObject({ code: 1 });
      expect(await rig.json<object>("restart", rig.app, "--back-further")).toMatchObject({
        passedOver: [{ process: "p", checkpoint: 1, why: "obstacle" }],
        restarted: [{ process: "p", action: "initial" }],
      });
      await goesOn("it has begun again");
    }),
);

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
