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
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildIdOf } from "../../src/host/build-id.ts";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { imagesFolder } from "../../src/images/image-store.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { type Ended, freePort, Rig, until, withRig, withSharedCollector } from "../daemon/rig.ts";
import { sized } from "../size.ts";
import { restartable, restartableSuite } from "./restartable.ts";

const together = withSharedCollector("obstacles");

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

/** Asks once, is answered, and has finished. */
const JOB = `const c=require("node:net").connect(+process.argv[1],"127.0.0.1",()=>c.write("j"));c.on("data",()=>{console.log(process.pid);process.exit(0)})`;

interface Obstacle {
  readonly name: string;
  /** Those of one round can be in the way at the same time. */
  readonly round?: 1 | 2 | 3;
  readonly says: () => RegExp;
  /** Called with --dry-run, too. */
  readonly also?: "dry-run";
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

/** An application of which one process lives, one has finished and two are dead, and what is in its restart's way. */
const world = {} as {
  rig: Rig;
  dir: string;
  port: number;
  server: number;
  client: number;
  holder: ReturnType<typeof spawn>;
};
const at = (name: string): string => join(world.dir, name);

function obstacles(): Obstacle[] {
  const moved = (round: 1 | 2 | 3, name: string, says: RegExp, instead?: () => void): Obstacle => ({
    round,
    name: `${name} moved${instead === undefined ? "" : ", another in its place"}`,
    says: () => says,
    also: "dry-run",
    put: () => {
      renameSync(at(name), at(`${name}.1`));
      instead?.();
    },
    take: () => {
      rmSync(at(name), { recursive: true, force: true });
      renameSync(at(`${name}.1`), at(name));
    },
  });
  const write = (name: string) => (): void => writeFileSync(at(name), "another");
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
  return [
    {
      name: "connection held",
      round: 1,
      says: () =>
        new RegExp(
          `the connection from 127\\.0\\.0\\.1:${world.port} to .* is held by process ${world.holder.pid} \\(python3\\)`,
        ),
      put: () => undefined,
      take: async () => {
        world.holder.kill("SIGKILL");
        await once(world.holder, "exit");
      },
    },
    {
      name: "stranger in the cgroup",
      says: () =>
        /server: process \d+ \(sleep\) is in its cgroup \S+\/server, and was not started by recovery-line run/,
      put: async () => {
        await until("its own cgroup is gone", () => world.rig.cgroup("server").remove());
        stranger = spawn("sleep", ["1000"], { stdio: "ignore" });
        world.rig.cgroup("server").create();
        writeFileSync(join(world.rig.cgroup("server").path, "cgroup.procs"), `${stranger.pid}`);
      },
      take: async () => {
        expect(world.rig.cgroup("server").pids()).toEqual([stranger!.pid]);
        await ends();
        await until("it is gone", () => world.rig.cgroup("server").remove());
      },
    },
    {
      name: "cgroups read-only",
      says: () => /the cgroup \S+ can't be written \(EROFS\)/,
      calls: withReadOnlyCgroups,
      put: () => undefined,
      take: () => undefined,
    },
    {
      name: "CRIU lacks something",
      says: () => /criu can't bring images back here: criu: criu check failed \(exit code 1\)/,
      calls: (_, ...args) => withCriu(world.rig, "check*) exit 1;;")(...args),
      put: () => undefined,
      take: () => undefined,
    },
    moved(1, "sleeper", /\/sleeper, which it uses, is another build of the same size/, () =>
      writeFileSync(at("sleeper"), otherBuild(at("sleeper.1")), { mode: 0o755 }),
    ),
    {
      name: "id of a zombie",
      round: 1,
      says: () =>
        /process id \d+ is that of a process which has ended, and process \d+ \(taker\), its parent/,
      put: () => starts(at("taker"), `${world.server}`, "zombie"),
      take: ends,
    },
    {
      name: "id taken",
      round: 2,
      says: () => /process id \d+ is in use by process \d+ \(taker\)/,
      put: () => starts(at("taker"), `${world.server}`),
      take: async () => {
        process.kill(world.server, "SIGKILL"); // its child, which has that id
        await ends();
      },
    },
    {
      name: "address gone",
      round: 2,
      says: () =>
        /the connection from 10\.213\.7\.9:\d+ to .* needs the address 10\.213\.7\.9, which no interface here has/,
      put: () => ip("del"),
      take: () => ip("add"),
    },
    {
      name: "disk full",
      round: 2,
      says: () => /the disk of \S+\/disk\/data has \d+ bytes free, and 3\d{6} are put back beside/,
      put: () => writeFileSync(at("disk/filler"), Buffer.alloc(3 << 20)),
      take: () => rmSync(at("disk/filler")),
    },
    moved(1, "log", /\/log, which it writes, is gone/),
    moved(2, "log", /\/log, which it writes, is another file now/, write("log")),
    {
      name: "log cut",
      round: 3,
      says: () => /\/log, which it writes, has 0 bytes and had [1-9]/,
      put: () => {
        text = readFileSync(at("log"), "utf8");
        truncateSync(at("log"));
      },
      take: () => writeFileSync(at("log"), text),
    },
    {
      name: "changed inside",
      round: 2,
      says: () => /\/place, which it writes in place, holds something else than at the checkpoint/,
      put: () => writeFileSync(at("place"), "12x45 and more"),
      take: () => writeFileSync(at("place"), "12345 and more"), // is cut back
    },
    moved(1, "read", /\/read, which it uses, is gone/),
    {
      name: "mount gone",
      round: 1,
      says: () => /\/mounted\/file, which it uses, is gone/,
      put: () => unmount(at("mounted")),
      take: () => bind(world.dir),
    },
    {
      name: "mount gone, a file of the same size in the folder below",
      round: 2,
      says: () =>
        /\/mounted\/file, which it uses, lay on the mount \S+\/mounted \(.* in it\) and is on the mount \S+ \(.*\) now: mount/,
      put: () => {
        unmount(at("mounted"));
        writeFileSync(at("mounted/file"), "12345");
      },
      take: () => {
        rmSync(at("mounted/file"));
        bind(world.dir);
      },
    },
    {
      name: "another mount in its place",
      round: 3,
      says: () =>
        /\/mounted\/file, which it uses, lay on .* and is on the mount \S+\/mounted \(tmpfs of other\) now/,
      put: () => {
        execFileSync("mount", ["-t", "tmpfs", "other", at("mounted")]);
        writeFileSync(at("mounted/file"), "12345");
      },
      take: () => unmount(at("mounted")),
    },
    {
      name: "another network namespace",
      says: () =>
        /client: it was in the network namespace net:\[\d+\], and this command is in another one, .*nsenter --net --target \d+/,
      calls: async (_, ...args) => unshared(["--net"], 'exec "$0" "$@"', ...args),
      put: () => undefined,
      take: () => undefined,
    },
    moved(3, "job", /job: it has to start again, and its program \S+\/job is gone: put it back/),
    moved(2, "read", /\/read, which it uses, has 7 bytes and had 5/, write("read")),
    moved(3, "here", /\/here, which it uses, is no folder any more/, write("here")),
    {
      name: "port taken",
      round: 3,
      says: () => /port \d+ is taken by process \d+ \(node\)/,
      put: () =>
        starts(
          process.execPath,
          "-e",
          `require("node:net").createServer().listen(${world.port},()=>console.log("listening"))`,
        ),
      take: ends,
    },
  ];
}

/** By `npm test` all of a round at once, as a restart names all that is in its way; else each alone. */
function rounds(): [name: string, all: Obstacle[]][] {
  const each = obstacles();
  const first = (one: Obstacle): boolean =>
    one.round === undefined || each.find(({ round }) => round === one.round) === one;
  const together = each
    .filter(first)
    .map((one) => (one.round === undefined ? [one] : each.filter(({ round }) => round === one.round)));
  const all = sized(
    each.map((one) => [one]),
    together,
  );
  return all.map((some) => [some.map(({ name }) => name).join("; "), some]);
}

const callsCli = (rig: Rig, ...args: string[]): Promise<Ended> => rig.cli(...args);

restartableSuite("in the way of a restart", () => {
  beforeAll(async () => {
    world.rig = new Rig("obstacles");
    mkdirSync(world.rig.home, { mode: 0o700 });
    await world.rig.collect();
    layOut();
    await startAll();
  });
  afterAll(async () => {
    world.holder?.kill("SIGKILL");
    ip("del");
    for (const name of ["disk", "mounted"]) unmount(at(name));
    await world.rig.remove();
  });

  test.each(rounds())("%s: named, and who lived before lives after", async (name, all) => {
    const { rig, client } = world;
    for (const { put } of all) await put();
    try {
      for (const flags of all.some(({ also }) => also === "dry-run") ? [["--dry-run"], []] : [[]]) {
        const { code, err } = await (all[0]!.calls ?? callsCli)(rig, "restart", rig.app, ...flags);
        for (const { says } of all)
          expect([name, flags, code, err]).toEqual([name, flags, 4, expect.stringMatching(says())]);
        const { freezing } = rig.cgroup("client");
        expect([name, rig.cgroup("client").pids(), freezing]).toEqual([name, [client], false]);
      }
    } finally {
      for (const { take } of all.toReversed()) await take();
    }
    expect(existsSync(join(rig.home, rig.app, "restart"))).toBe(false);
  });

  test("--accept-files takes a file as it is; a restart that fails half way has ways out, and without obstacles all come back", async () => {
    const { rig, server } = world;
    const place = at("place");
    writeFileSync(place, "1x345");
    const accepts = await rig.cli("restart", rig.app, "--dry-run", "--accept-files", place);
    expect(accepts).toMatchObject({ code: 0, err: "" });
    writeFileSync(place, "12345 and more");
    await failsHalfWay(rig);
    const answered = rig.output("job");
    await rig.json("restart", rig.app);
    expect(readFileSync(place, "utf8")).toBe("12345");
    const got = rig.output("client").length;
    await until("they talk again", () => rig.output("client").length > got + 20);
    expect(rig.cgroup("server").pids()).toContain(server);
    await until("the job has run again", () => !["", answered].includes(rig.output("job")));
  });
});

function layOut(): void {
  world.dir = world.rig.path("work");
  for (const name of ["here", "disk", "real", "mounted"]) mkdirSync(at(name), { recursive: true });
  writeFileSync(at("taker.c"), TAKES_ID);
  execFileSync("cc", ["-D_GNU_SOURCE", "-o", at("taker"), at("taker.c")]);
  copyFileSync("/bin/sleep", at("sleeper"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m", "none", at("disk")]);
  for (const name of ["real/file", "read", "place"]) writeFileSync(at(name), "12345");
  writeFileSync(at("job"), `#!/bin/sh\nexec '${process.execPath}' -e '${JOB}' "$1"\n`, { mode: 0o755 });
  bind(world.dir);
  ip("add");
  mkdirSync(at("disk/data"));
  writeFileSync(at("disk/data/file"), Buffer.alloc(3 << 20, "x"));
}

async function startAll(): Promise<void> {
  const { rig, dir } = world;
  const port = await freePort();
  const store = ["--data", at("disk/data"), "--detach", "--", "sleep", "1000"];
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
  await rig.run("job", at("job"), `${port}`);
  await until("the job has finished", () => !rig.cgroup("job").populated);
  expect(rig.output("job")).toMatch(/^\d+\n$/);
  const holder = spawn("python3", ["-c", HOLDS_CONNECTION, `${server}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(holder.stdout, "data");
  for (const name of ["server", "store"]) {
    rig.cgroup(name).kill();
    await until("it is dead", () => !rig.cgroup(name).populated);
  }
  await until("its id is free", () => !existsSync(`/proc/${server}`));
  Object.assign(world, { port, server, client, holder });
}

/** In mounts of its own, as a container may show them. */
async function withReadOnlyCgroups(_: Rig, ...args: string[]): Promise<Ended> {
  const script = `mount -o remount,bind,ro '${cgroup2Root()}' && exec "$0" "$@"`;
  return unshared(["--mount", "--propagation", "private"], script, ...args);
}

/** The command in namespaces of its own, by a shell's script that gets it. */
function unshared(namespaces: string[], script: string, ...args: string[]): Ended {
  const command = [process.execPath, join(packageRoot(), "dist/cli/main.js"), ...args];
  const words = [...namespaces, "sh", "-c", script, ...command];
  const env = { ...process.env, RECOVERY_LINE_HOME: world.rig.home };
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
    err: expect.stringMatching(/client, job, server, store of .* are dead, all others go on\. .*--abandon/),
  });
  expect(await rig.cli("run", rig.app, "server", "--", "true")).toMatchObject({ code: 1 });
  expect(await rig.cli("restart", rig.app, "--abandon")).toMatchObject({
    code: 0,
    out: expect.stringContaining("is given up. Dead, and failed: client, job, server, store"),
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
    together("further", async (rig) => {
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
  "--back-further passes over images that are damaged or gone, and over a checkpoint without one; without it they are named",
  () =>
    together("damaged", async (rig) => {
      const dies = async (): Promise<void> => {
        rig.cgroup("p").kill();
        await until("it is dead", () => !rig.cgroup("p").populated);
      };
      const refused = async (what: RegExp): Promise<void> => {
        for (const flags of [[], ["--dry-run"], ["--fall-back"]])
          expect(await rig.cli("restart", rig.app, ...flags)).toMatchObject({
            code: 4,
            err: expect.stringMatching(new RegExp(`p: .*${what.source}.*--back-further`, "s")),
          });
      };
      await rig.run("p", "sleep", "1000");
      for (const driver of Array(3).fill("criu")) await rig.json("checkpoint", rig.app, "--driver", driver);
      expect(await rig.cli("checkpoint", rig.app, "--driver", "none")).toMatchObject({
        code: 0,
        err: expect.stringMatching(/^recovery-line: checkpoint 4 of p has no image, .* checkpoint 3 .*\n$/),
      });
      await dies();
      await refused(/checkpoint 4 has no image \(--driver none\)/);
      const image = (index: number, ...names: string[]): string =>
        join(imagesFolder(rig.home, rig.app, "p"), `${index}`, ...names);
      rmSync(image(3), { recursive: true });
      const manifest = image(2, "manifest.json");
      rmSync(manifest);
      mkdirSync(manifest);
      const verified = await rig.cli("verify", rig.app);
      expect(verified.code).toBe(5);
      for (const place of ["checkpoint 2 of p: image damaged", "checkpoint 3 of p: its image"])
        expect(verified.out).toContain(place);
      expect(await rig.json<object>("restart", rig.app, "--back-further")).toMatchObject({
        passedOver: [4, 3, 2].map((checkpoint) => ({ process: "p", checkpoint, why: "obstacle" })),
        restarted: [{ process: "p", action: "restore", checkpoint: 1 }],
      });
      const collected = await rig.json<object>("gc", rig.app, "--apply");
      expect(collected).toMatchObject({ leftovers: [{ process: "p", checkpoint: 2 }] });
      expect(await rig.json<object>("verify", rig.app)).toMatchObject({ outcome: "clean", images: 1 });
      await dies();
      rmSync(join(image(1, "files"), "inventory.img"));
      await refused(/image damaged: \S+inventory\.img is missing/);
    }),
);

restartable(
  "a program in a terminal: said when it is started and checkpointed, and its restart refused",
  () =>
    together("terminal", async (rig) => {
      const cli = join(packageRoot(), "dist/cli/main.js");
      const command = `RECOVERY_LINE_HOME=${rig.home} ${process.execPath} ${cli} run ${rig.app} p -- sleep 1000`;
      const typescript = rig.path("typescript");
      const terminal = spawn("script", ["-qfc", command, typescript], {
        stdio: ["pipe", "ignore", "inherit"],
      });
      await until("it runs", async () => (await rig.known("p"))?.live === true);
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
