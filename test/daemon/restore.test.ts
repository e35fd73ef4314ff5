import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import { dueTimer } from "../../src/host/due-timers.ts";
import { whileFrozen } from "../../src/host/freeze.ts";
import { tablePorts, tables, unblockRestart, whileBlocked } from "../../src/host/port-block.ts";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { atSomeMoment, type DriverNotes } from "../../src/images/driver.ts";
import { compile } from "../native/c-build.ts";
import { freePort, type Rig, until, withRig } from "./rig.ts";

const criu = await findCriu();
const driver = criu.found === undefined ? undefined : new CriuDriver(criu.found);
const imaged = test.skipIf((await driver?.check())?.works !== true);

/** A command in a cgroup that nobody records: here it is only about the driver. */
function start(rig: Rig, ...command: string[]): number {
  const cgroup = rig.cgroup("p");
  cgroup.create();
  const output = openSync(rig.path("out"), "w");
  const enter = ["-c", 'echo $$ >"$0" && exec "$@"', join(cgroup.path, "cgroup.procs"), ...command];
  const child = spawn("/bin/sh", enter, {
    stdio: ["ignore", output, output],
    detached: true,
    cwd: rig.folder,
  });
  child.unref();
  closeSync(output);
  return child.pid!;
}

async function dump(rig: Rig, rootPid: number): Promise<{ folder: string; notes: DriverNotes }> {
  const folder = rig.path("image");
  mkdirSync(folder);
  const cgroup = rig.cgroup("p");
  const request = { folder, rootPid, cgroupPath: cgroup.path, limitMs: 30_000 };
  const notes = await atSomeMoment(() =>
    whileFrozen([cgroup], async (guard) => {
      const pids = cgroup.pids(); // not before: running, it forks
      const stored = await driver!.dump({ ...request, pids, guard });
      expect(cgroup.frozen).toBe(true); // still, so that the record can be written
      return stored;
    }),
  );
  return { folder, notes };
}

async function killAndRestore(rig: Rig, image: { folder: string; notes: DriverNotes }): Promise<number> {
  rig.cgroup("p").kill();
  await until("it is dead", () => !rig.cgroup("p").populated);
  return driver!.restore({ ...image, limitMs: 30_000, rollBackFiles: true });
}

const count = (rig: Rig): number =>
  existsSync(rig.path("count")) ? Number(readFileSync(rig.path("count"), "utf8")) : 0;

imaged(
  "a program that talks to itself over TCP comes back from its image, connection and threads included",
  () =>
    withRig("tcp-back", async (rig) => {
      const script = `let n=0;const net=require("net");net.createServer(c=>c.on("data",d=>c.write(d))).listen(+process.argv[1],"127.0.0.1",()=>{
      const c=net.connect(+process.argv[1],"127.0.0.1");c.write("x");c.on("data",d=>{n+=1;require("fs").writeFileSync("count",String(n));setTimeout(()=>c.write(d),2)})})`;
      const pid = start(rig, process.execPath, "-e", script, String(await freePort()));
      await until("it counts", () => count(rig) > 50);
      const image = await dump(rig, pid);
      const atDump = count(rig);
      await until("it goes on after the dump", () => count(rig) > atDump + 50);
      expect(await killAndRestore(rig, image)).toBe(pid);
      expect(rig.cgroup("p").pids()).toContain(pid);
      const restored = count(rig);
      expect(Math.abs(restored - atDump)).toBeLessThan(80); // it went back, not on
      await until("it counts again", () => count(rig) > restored + 50);
    }),
);

imaged("a tree of processes comes back with its ids, in its cgroup", () =>
  withRig("tree-back", async (rig) => {
    const pid = start(
      rig,
      "sh",
      "-c",
      "(while :; do sleep 0.05; done) & n=0; while :; do n=$((n+1)); echo $n >count.new; mv count.new count; sleep 0.02; done",
    );
    await until("it counts", () => count(rig) > 5);
    const image = await dump(rig, pid);
    const atDump = count(rig);
    await until("it goes on after the dump", () => count(rig) > atDump + 5);
    expect(await killAndRestore(rig, image)).toBe(pid);
    expect(rig.cgroup("p").pids().length).toBeGreaterThanOrEqual(2);
    const restored = count(rig);
    await until("it counts again", () => count(rig) > restored + 5);
  }),
);

imaged("a periodic timer that is due when the image is taken goes on", () =>
  withRig("timer-back", async (rig) => {
    const pid = start(rig, compile("timer_helper", ["test/native/c/timer_helper.c"]));
    await until("it counts", () => count(rig) > 5);
    const image = await dump(rig, pid);
    expect(await killAndRestore(rig, image)).toBe(pid);
    const restored = count(rig);
    await until("it counts again", () => count(rig) > restored + 20);
  }),
);

test("which timers are due: on by their interval, with ticks, and nothing left", () => {
  const info = (ticks: number, left: string, every: string): string =>
    `pos:\t0\nflags:\t02\nclockid: 1\nticks: ${ticks}\nsettime flags: 00\nit_value: (${left})\nit_interval: (${every})\n`;
  expect(dueTimer(info(3, "0, 0", "2, 5"))).toEqual({ interval: "2000000005", ticks: "3" });
  for (const other of [info(0, "0, 0", "0, 5"), info(3, "0, 1", "0, 5"), info(3, "0, 0", "0, 0"), "pos: 0\n"])
    expect(dueTimer(other)).toBeUndefined();
});

imaged("redis-server comes back with its data", () =>
  withRig("redis-back", async (rig) => {
    const port = String(await freePort());
    const pid = start(
      rig,
      "redis-server",
      "--port",
      port,
      "--bind",
      "127.0.0.1",
      "--save",
      "",
      "--logfile",
      "",
      "--daemonize",
      "no",
    );
    const redis = async (...args: string[]) => {
      const child = spawn("redis-cli", ["-p", port, ...args], { stdio: ["ignore", "pipe", "ignore"] });
      let text = "";
      for await (const chunk of child.stdout) text += chunk;
      return text.trim();
    };
    await until("it answers", async () => (await redis("ping")) === "PONG");
    await redis("set", "key", "before");
    const image = await dump(rig, pid);
    await redis("set", "key", "after");
    expect(await killAndRestore(rig, image)).toBe(pid);
    expect(await redis("get", "key")).toBe("before");
  }),
);

/** A cgroup that whoever waited for its processes removes: as it is frozen, or as it is asked whether it stands still. */
class Removed extends ProcessCgroup {
  override setFreeze(on: boolean): void {
    this.remove();
    super.setFreeze(on);
  }
}
class RemovedLater extends ProcessCgroup {
  override get frozen(): boolean {
    this.remove();
    return super.frozen;
  }
}

imaged("a cgroup that goes while it is frozen has ended, and is not waited for", () =>
  withRig("going", async (rig) => {
    for (const Kind of [Removed, RemovedLater]) {
      const cgroup = new Kind(rig.app, "p");
      cgroup.create();
      const frozen = whileFrozen([cgroup], () => Promise.resolve());
      await expect(frozen).rejects.toMatchObject({ code: "RL_UNKNOWN_PROCESS" });
    }
  }),
);

imaged("a network that has gone with its process is passed over by what unblocks it", async () => {
  const child = spawn("unshare", ["--net", "true"], { stdio: "ignore" });
  await once(child, "exit");
  await unblockRestart(`gone-${process.pid}`, [child.pid!]);
});

imaged("an nft that is killed while it blocks connections is an error, not a wait for good", async () => {
  const address = { address: "127.0.0.1", port: 1, v6: false };
  const work = async (): Promise<void> => {
    const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").trim().split(" ");
    const nft = children.find((pid) => readFileSync(`/proc/${pid}/comm`, "utf8") === "nft\n");
    process.kill(Number(nft), "SIGKILL");
    await until("it has ended", () => !existsSync(`/proc/${nft}`));
  };
  const blocked = whileBlocked(
    `killed-${process.pid}`,
    [{ local: address, remote: { ...address, port: 2 } }],
    [],
    work,
  );
  await expect(blocked).rejects.toMatchObject({
    code: "RL_NOT_SUPPORTED",
    message: expect.stringContaining("it ended before its time"),
  });
});

imaged("two that block connections of one application at one time: each blocks its own", async () => {
  const app = `both-${process.pid}`;
  const connection = (port: number) => {
    const address = { address: "127.0.0.1", v6: false };
    return { local: { ...address, port }, remote: { ...address, port: port + 1 } };
  };
  const blocked = async (): Promise<number[]> => {
    const ours = (await tables()).filter((name) => name.includes(Buffer.from(app).toString("hex")));
    const ports = await Promise.all(ours.map((name) => tablePorts(name)));
    return ports.flat(2).sort();
  };
  const [first, second] = [connection(1), connection(3)];
  const both = await whileBlocked(app, [first], [], () => whileBlocked(app, [second], [], blocked));
  expect([both, await blocked()]).toEqual([[1, 1, 2, 2, 3, 3, 4, 4], []]);
});

imaged("a CRIU that is killed half way leaves no table of nftables behind", () =>
  withRig("half", async (rig) => {
    const script = `const net=require("net");net.createServer(c=>c.on("data",d=>c.write(d))).listen(+process.argv[1],"127.0.0.1",()=>{
      const c=net.connect(+process.argv[1],"127.0.0.1");c.write("x");c.on("data",d=>{require("fs").writeFileSync("count","1");setTimeout(()=>c.write(d),2)})})`;
    const rootPid = start(rig, process.execPath, "-e", script, String(await freePort()));
    await until("it is connected", () => count(rig) > 0);
    const [seen, killer] = [rig.path("seen"), rig.path("killer")];
    const kill = `nft list tables inet >'${seen}'; kill -9 $PPID`; // the image is there, and CRIU has not let go yet
    writeFileSync(killer, `#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || { ${kill}; }\n`, {
      mode: 0o700,
    });
    const { prefix, ...rest } = criu.found!;
    const killed = new CriuDriver({ ...rest, prefix: [...prefix, "--action-script", killer] });
    const folder = rig.path("image");
    mkdirSync(folder);
    const before = await tables();
    const cgroup = rig.cgroup("p");
    const request = { folder, rootPid, cgroupPath: cgroup.path, limitMs: 60_000 };
    const dumped = whileFrozen([cgroup], (guard) => killed.dump({ ...request, pids: cgroup.pids(), guard }));
    await expect(dumped).rejects.toMatchObject({
      code: "RL_DRIVER",
      message: expect.stringContaining("SIGKILL"),
    });
    const made = readFileSync(seen, "utf8")
      .split("\n")
      .map((line) => line.replace("table inet ", ""))
      .filter((name) => name.startsWith("CRIU-") && !before.includes(name));
    expect(made, "its own lock, while it was at work").not.toEqual([]);
    const after = await tables();
    expect(after.filter((name) => made.includes(name))).toEqual([]);
  }),
);

imaged("a restore that can't be: CRIU's own words, and no half process", () =>
  withRig("no-back", async (rig) => {
    const pid = start(rig, "sleep", "1000");
    await until("it runs", () => rig.cgroup("p").pids().length === 1);
    const image = await dump(rig, pid);
    await expect(driver!.restore({ ...image, limitMs: 300 })).rejects.toMatchObject({
      code: "RL_DRIVER",
      message: expect.stringContaining(`id ${pid} is in use`),
    });
    rig.cgroup("p").kill();
    await until("it is dead", () => !rig.cgroup("p").populated);
    const empty = { ...image, folder: rig.path("nothing") };
    mkdirSync(empty.folder);
    await expect(driver!.restore({ ...empty, limitMs: 30_000 })).rejects.toMatchObject({
      code: "RL_DRIVER",
      advice: expect.stringMatching(/CRIU said: .*Error/s),
    });
    expect(rig.cgroup("p").populated).toBe(false);
  }),
);

imaged("what a program appended after the checkpoint is undone; a file that was replaced is refused", () =>
  withRig("append-back", async (rig) => {
    const pid = start(rig, "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done");
    const lines = () => readFileSync(rig.path("out"), "utf8").trim().split("\n").map(Number);
    await until("it counts", () => lines().length > 5);
    const image = await dump(rig, pid);
    const atDump = lines().length;
    await until("it goes on after the dump", () => lines().length > atDump + 5);
    rig.cgroup("p").kill();
    await until("it is dead", () => !rig.cgroup("p").populated);
    await expect(driver!.restore({ ...image, limitMs: 30_000 })).rejects.toMatchObject({ code: "RL_DRIVER" });
    const grown = readFileSync(rig.path("out"));
    renameSync(rig.path("out"), rig.path("old"));
    writeFileSync(rig.path("out"), grown);
    const again = { ...image, limitMs: 30_000, rollBackFiles: true };
    await expect(driver!.restore(again)).rejects.toMatchObject({ code: "RL_REFUSED" });
    expect(readFileSync(rig.path("out"))).toEqual(grown);
    renameSync(rig.path("old"), rig.path("out"));
    expect(await driver!.restore(again)).toBe(pid);
    await until("it counts again", () => lines().length > atDump + 10);
    const seen = lines();
    expect(seen).toEqual(seen.map((_, index) => index + 1)); // none lost, none doubled
  }),
);
