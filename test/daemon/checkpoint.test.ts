import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, expect, test } from "vitest";
import { type CheckpointResult, checkpointTogether } from "../../src/checkpoint/checkpoint.ts";
import { isCriu, tracerOf } from "../../src/host/criu-processes.ts";
import { holdCgroup } from "../../src/host/freeze.ts";
import { treeRoots } from "../../src/host/process-tree.ts";
import { lockHolder } from "../../src/host/reader-lock.ts";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { NotNow } from "../../src/images/driver.ts";
import { imagesFolder, openImage } from "../../src/images/image-store.ts";
import { noneDriver } from "../../src/images/none/driver-none.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { native } from "../../src/native/binding.ts";
import { LONG, sized } from "../size.ts";
import { fakePrograms, withVariables } from "../unit/fake-programs.ts";
import {
  ASK,
  ECHO,
  freePort,
  missing,
  type Rig,
  SMALL_ASK,
  SMALL_ECHO,
  until,
  withSharedCollector,
} from "./rig.ts";

const together = withSharedCollector("checkpoint");

const live = test.skipIf(missing !== undefined);
const criu = await findCriu();
const check = criu.found === undefined ? undefined : await new CriuDriver(criu.found).check();
const imaged = test.skipIf(missing !== undefined || check?.works !== true);
const measured: string[] = [];
afterAll(() => console.log(measured.join("\n")));

interface Answer {
  readonly checkpoints: CheckpointResult[];
}

const LARGE = [ECHO, ASK].map((script) => [process.execPath, "-e", script]);

/** A server and a client of it that talk all the time. */
async function pair(
  rig: Rig,
  [server, client]: readonly (readonly string[])[] = [SMALL_ECHO, SMALL_ASK],
): Promise<void> {
  const port = String(await freePort());
  await rig.run("server", ...server!, port);
  await until("the server listens", () => rig.output("server").includes("listening"));
  await rig.run("client", ...client!, port);
  await until("they talk", async () => (await rig.events()).length > 20);
}

async function checkpoint(rig: Rig, ...args: string[]): Promise<CheckpointResult[]> {
  const { checkpoints } = await rig.json<Answer>("checkpoint", rig.app, ...args);
  for (const { process, frozenMs, phasesMs, imageBytes } of checkpoints) {
    const phases = Object.entries(phasesMs).map(([name, ms]) => `${name} ${ms.toFixed(1)}`);
    measured.push(
      `${args.join(" ")} ${process}: stood still ${frozenMs.toFixed(1)} ms (${phases.join(", ")}), ${imageBytes} bytes`,
    );
  }
  return checkpoints;
}

/**
 * What the log says at each checkpoint must be what the kernel said: sends and receives before it, not one byte more. A cut names all that
 * was used since the one before, and all connections that exist; what has ended may be left out once it was named.
 */
async function expectCutsAtTheirPlace(rig: Rig, names: readonly string[]): Promise<void> {
  const events = await rig.events();
  for (const name of names) {
    const sent = new Map<string, number>();
    const received = new Map<string, number>();
    let checkpoints = 0;
    let used = new Set<string>();
    for (const event of events.filter(({ process }) => process === name)) {
      if (event.type === "send") sent.set(event.channel, event.end);
      if (event.type === "receive") received.set(event.channel, event.end);
      if (event.type === "send" || event.type === "receive") used.add(`${event.type} ${event.channel}`);
      if (event.type !== "checkpoint") continue;
      checkpoints += 1;
      for (const [kind, named, said] of [
        ["send", event.cut!.sent, sent],
        ["receive", event.cut!.received, received],
      ] as const) {
        for (const [channel, offset] of named)
          expect([channel, offset]).toEqual([channel, said.get(channel)]);
        for (const channel of said.keys())
          if (used.has(`${kind} ${channel}`)) expect(named.has(channel), channel).toBe(true);
      }
      used = new Set();
    }
    expect(checkpoints).toBeGreaterThan(0);
  }
}

live("driver none: checkpoints of talking programs, and a line from them", () =>
  together("line", async (rig) => {
    await pair(rig);
    const rounds = sized(3, 1);
    for (let round = 0; round < rounds; round += 1) {
      expect(
        (await checkpoint(rig, "--driver", "none")).map(({ process, checkpoint, cut }) => [
          process,
          checkpoint,
          cut,
        ]),
      ).toEqual([
        ["server", round + 1, true],
        ["client", round + 1, true],
      ]);
    }
    await checkpoint(rig, "--driver", "none", "--coordinated");
    await expectCutsAtTheirPlace(rig, ["client", "server"]);
    rig.cgroup("client").kill();
    await rig.events();
    const line = await rig.json<RecoveryLine>("compute", rig.app);
    expect(line).toMatchObject({ outcome: "clean", evidence: { gaps: 0, lost: 0 } });
    // The coordinated pair is consistent by its making, and it is the newest of all.
    expect(line.line.map(({ process, checkpoint, action }) => [process, checkpoint, action])).toEqual([
      ["client", rounds + 1, "restore"],
      ["server", rounds + 1, "restore"],
    ]);
    expect(existsSync(imagesFolder(rig.home, rig.app, "client"))).toBe(false);
  }),
);

imaged(
  "driver criu: image and cut of one instant under a manifest; the programs go on; damage is refused",
  () =>
    together("image", async (rig) => {
      await pair(rig);
      const taken = [
        ...(await checkpoint(rig, "--driver", "criu")),
        ...(await checkpoint(rig, "--driver", "criu", "--coordinated")),
      ];
      await expectCutsAtTheirPlace(rig, ["client", "server"]);
      const before = (await rig.events()).length;
      await until("they go on talking", async () => (await rig.events()).length > before + 20);
      expect(
        (await rig.events()).filter(
          (event) => event.type === "gap" || JSON.stringify(event).includes("unix:"),
        ),
      ).toEqual([]);
      const images = taken.map(({ image }) => image!);
      for (const image of images) {
        const { manifest } = await openImage(rig.home, rig.app, image);
        expect(manifest.files.length).toBeGreaterThan(10);
        expect(manifest.connections.length).toBe(1);
      }
      for (const [index, [what, harm]] of HARM.entries()) {
        const [name, hash] = images[0]!.split("#");
        const copy = `images/client/${100 + index}`;
        cpSync(join(rig.home, rig.app, name!), join(rig.home, rig.app, copy), { recursive: true });
        await openImage(rig.home, rig.app, `${copy}#${hash}`);
        harm(join(rig.home, rig.app, copy, "files"));
        const refused = { code: "RL_REFUSED", message: expect.stringContaining(what) };
        await expect(openImage(rig.home, rig.app, `${copy}#${hash}`)).rejects.toMatchObject(refused);
      }
      await expect(openImage(rig.home, rig.app, "images/../../x/1#00")).rejects.toMatchObject({
        code: "RL_REFUSED",
      });
      await openImage(rig.home, rig.app, images[1]!);
    }),
);

/** Ways to damage an image's files, and what is said of each. */
const HARM: readonly (readonly [string, (files: string) => void])[] = [
  [
    "differs from its checksum",
    (files) => flip(join(files, readdirSync(files).find((name) => name.startsWith("pages-"))!)),
  ],
  ["is not in the manifest", (files) => writeFileSync(join(files, "foreign.img"), "")],
  ["is missing", (files) => rmSync(join(files, "inventory.img"))],
  ["is not the file of", (files) => appendFileSync(join(files, "files.img"), "x")],
  [
    "differs from the checksum in the log",
    (files) => appendFileSync(join(files, "..", "manifest.json"), "\n"),
  ],
];

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(path, bytes);
}

imaged(
  "a checkpoint that is killed half way: the process goes on, a record has its whole image, the next one works",
  () =>
    together("killed", async (rig) => {
      await pair(rig, LARGE); // an image takes its time
      const cli = join(import.meta.dirname, "../../dist/cli/main.js");
      const args = ["checkpoint", rig.app, "server", "--log", rig.home, "--driver", "criu"];
      const cgroup = rig.cgroup("server");
      const kills = [
        ["SIGKILL", 0],
        ["SIGTERM", 30],
        ["SIGKILL", 70],
        ["SIGKILL", 110],
        ["SIGKILL", 160],
      ] as const;
      for (const [signal, delayMs] of kills.slice(0, sized(5, 3))) {
        const tool = spawn(process.execPath, [cli, ...args], { stdio: "ignore" });
        await until("it has frozen the process", () => cgroup.freezing);
        await new Promise((resolve) => setTimeout(resolve, delayMs));
        tool.kill(signal);
        await until("the watchdog thaws", () => !cgroup.freezing && !cgroup.frozen);
        const before = (await rig.events()).length;
        await until("the programs go on", async () => (await rig.events()).length > before + 20);
      }
      for (const event of await rig.events())
        if (event.type === "checkpoint") await openImage(rig.home, rig.app, event.image!);
      const [taken] = await checkpoint(rig, "server", "--driver", "criu");
      expect(taken).toMatchObject({ cut: true, usable: true });
      const images = readdirSync(imagesFolder(rig.home, rig.app, "server"));
      expect(images.filter((name) => name.startsWith("."))).toEqual([]);
      await expectCutsAtTheirPlace(rig, ["server"]);
    }),
);

/** False where it has ended. */
function signalled(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

/** A checkpoint of the server that is killed; the CRIU that it leaves has its process in hand, and has stopped. */
async function leftCriu(rig: Rig): Promise<number> {
  const [pid] = rig.cgroup("server").pids();
  const begin = () => rig.background("checkpoint", rig.app, "server", "--driver", "criu").child;
  let child = begin();
  let criuPid: number | undefined;
  await until("CRIU has it in hand, and stands still", () => {
    if (child.exitCode !== null) child = begin(); // nobody looked while it was at work
    criuPid = tracerOf(pid!);
    return criuPid !== undefined && signalled(criuPid, "SIGSTOP");
  });
  child.kill("SIGKILL");
  await once(child, "exit"); // not "close": CRIU may hold its output
  return criuPid!;
}

imaged("a checkpoint is killed, its CRIU works on for a while: the next checkpoint waits for its end", () =>
  together("outlived", async (rig) => {
    await pair(rig);
    const criuPid = await leftCriu(rig);
    const goesOn = sleep(2_000).then(() => process.kill(criuPid, "SIGCONT"));
    const [next] = await checkpoint(rig, "server", "--driver", "criu").finally(() => goesOn);
    expect(next).toMatchObject({ cut: true, usable: true });
    await expectCutsAtTheirPlace(rig, ["server"]);
  }),
);

imaged("a checkpoint is killed, its CRIU works on for a while: a restart waits for its end, too", () =>
  together("outlived-restart", async (rig) => {
    await pair(rig);
    const criuPid = await leftCriu(rig);
    const { child, ended } = rig.background("restart", rig.app, "--failed", "client", "--dry-run");
    let atWork = false;
    child.stdout!.once("data", () => {
      atWork = isCriu(criuPid);
    });
    try {
      await until("it is at the server", () => lockHolder(rig.cgroup("server").path) === child.pid);
      await sleep(1_500); // longer than what a mere thawing may take
    } finally {
      process.kill(criuPid, "SIGCONT");
    }
    expect(await ended).toMatchObject({ code: 0, out: expect.stringContaining("client"), err: "" });
    expect([atWork, rig.cgroup("server").freezing]).toEqual([false, false]);
  }),
);

imaged("redis-server under load: checkpoints while clients are connected, no answer lost", LONG, () =>
  together("redis", async (rig) => {
    const port = await freePort();
    await rig.run(
      "redis",
      "redis-server",
      "--port",
      String(port),
      "--bind",
      "127.0.0.1",
      "--save",
      "",
      "--dir",
      rig.folder,
    );
    await until("redis is ready", () => rig.output("redis").includes("Ready to accept"));
    await rig.run(
      "load",
      "redis-benchmark",
      "-p",
      String(port),
      "-c",
      "5",
      "-n",
      "60000",
      "-t",
      "incr",
      "-q",
    );
    await until("load is on", async () => (await rig.events()).length > 500);
    const taken = [
      ...(await checkpoint(rig, "redis", "--driver", "criu")),
      ...(await checkpoint(rig, "redis", "--driver", "criu")),
    ];
    expect(taken.map(({ cut, usable }) => [cut, usable])).toEqual([
      [true, true],
      [true, true],
    ]);
    await until("the load ends by itself", () => !rig.cgroup("load").populated);
    const [answer] = (
      await rig.cli(
        "run",
        rig.app,
        "asker",
        "--",
        "redis-cli",
        "-p",
        String(port),
        "get",
        "counter:__rand_int__",
      )
    ).out.split("\n");
    expect(answer).toBe("60000");
    await expectCutsAtTheirPlace(rig, ["redis"]);
  }),
);

live("wrong use of checkpoint", () =>
  together("refuse", async (rig) => {
    expect(await rig.cli("checkpoint", rig.app)).toMatchObject({
      code: 2,
      err: expect.stringContaining("no application"),
    });
    await rig.run("p", "sleep", "100");
    expect(await rig.cli("checkpoint", rig.app, "q")).toMatchObject({
      code: 2,
      err: expect.stringContaining('no process "q"'),
    });
    rig.cgroup("p").setFreeze(true);
    expect(await rig.cli("checkpoint", rig.app, "p", "--driver", "none")).toMatchObject({
      code: 1,
      err: expect.stringContaining("frozen already"),
    });
    rig.cgroup("p").setFreeze(false);
    rig.cgroup("p").kill();
    await rig.hearsEnd("p");
    expect((await rig.cli("checkpoint", rig.app, "p")).err).toContain("has ended");
  }),
);

live("a checkpoint that meets the next life of its process records nothing of the one before", () =>
  together("lives", async (rig) => {
    await rig.run("p", "sleep", "1000");
    const log = await rig.client();
    const { incarnation } = (await rig.known("p"))!;
    rig.cgroup("p").kill();
    await rig.hearsEnd("p");
    expect((await rig.cli("run", rig.app, "p", "--fresh", "--detach", "--", "sleep", "1001")).code).toBe(0);
    const target = { app: rig.app, process: "p", incarnation, cgroup: rig.cgroup("p") };
    const options = { home: rig.home, log, driver: noneDriver, usable: true };
    await expect(checkpointTogether([target], options)).rejects.toMatchObject({
      code: "RL_UNKNOWN_PROCESS",
      message: expect.stringContaining("another life of it is recorded"),
    });
    const now = { ...target, incarnation: incarnation + 1 };
    expect(await checkpointTogether([now], options)).toMatchObject([{ process: "p" }]);
    expect((await rig.events()).filter(({ type }) => type === "checkpoint")).toHaveLength(1);
    log.close();
  }),
);

imaged("what ends while it is imaged is told to have ended, and keeps no other from its checkpoint", () =>
  together("ends-imaged", async (rig) => {
    for (const name of ["ends", "other"]) await rig.run(name, "sleep", "1000");
    const { path } = rig.cgroup("ends");
    const dead = `until grep -q 'populated 0' ${path}/cgroup.events; do sleep .01; done`;
    const { command, prefix } = criu.found!;
    const folder = fakePrograms(() => ({
      criu: `${[command, ...prefix].join(" ")} "$@" || exit
case " $* " in *" dump "*) echo 1 >${path}/cgroup.kill; ${dead};; esac`,
    }));
    const { code, out, err } = await withVariables({ RECOVERY_LINE_CRIU: join(folder, "criu") }, () =>
      rig.spawned("checkpoint", rig.app, "ends", "other", "--driver", "criu", "--json"),
    );
    expect([code, err]).toEqual([1, ""]);
    expect(JSON.parse(out)).toMatchObject({
      checkpoints: [{ process: "other" }],
      failed: [{ process: "ends", code: "RL_UNKNOWN_PROCESS" }],
    });
  }),
);

live("a health check in a container costs one moment, not the checkpoint", () =>
  together("health", async (rig) => {
    await rig.run("p", "sh", "-c", "(sleep 101 & ); exec sleep 100"); // the engine's command is no child of the container's either
    const cgroup = rig.cgroup("p");
    await until("both are there", () => cgroup.pids().length === 2);
    const log = await rig.client();
    const { incarnation } = (await rig.known("p"))!;
    const more = async (): Promise<[]> => {
      cgroup.setFreeze(true); // as the engine's CRIU leaves it
      await until("it stands still", () => cgroup.frozen);
      return [];
    };
    const driver = { ...noneDriver, hold: async (): Promise<void> => undefined };
    const options = { home: rig.home, log, driver, usable: true, more };
    const target = { app: rig.app, process: "p", incarnation, cgroup };
    await expect(checkpointTogether([target], options)).rejects.toBeInstanceOf(NotNow);
    const check = cgroup.pids().find((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("101"));
    process.kill(check!, "SIGKILL");
    await until("it has ended", () => cgroup.pids().length === 1);
    expect(await checkpointTogether([target], options)).toMatchObject([{ process: "p" }]);
    log.close();
  }),
);

imaged("what CRIU can't dump is told with CRIU's reason; the process goes on and nothing is recorded", () =>
  together("undumpable", async (rig) => {
    await rig.run("two", "sh", "-c", "(sleep 101 & ); exec sleep 100");
    await until("the orphan is there", () => treeRoots(rig.cgroup("two").pids()).length === 2);
    const { code, err } = await rig.cli("checkpoint", rig.app, "two", "--driver", "criu");
    expect([code, err]).toEqual([1, expect.stringContaining("2 separate trees")]);
    await rig.run("parent", "sh", "-c", `sleep 102 & echo $! >'${rig.path("child")}'; wait`);
    const told = () => (existsSync(rig.path("child")) ? readFileSync(rig.path("child"), "utf8") : "");
    await until("it has a child", () => told().endsWith("\n"));
    rig.cgroup("elsewhere").create();
    const child = told().trim();
    writeFileSync(join(rig.cgroup("elsewhere").path, "cgroup.procs"), child);
    expect(await rig.cli("checkpoint", rig.app, "parent", "--driver", "criu")).toMatchObject({
      code: 1,
      err: expect.stringContaining(`process ${child} was started by the process`),
    });
    expect(rig.cgroup("two").freezing).toBe(false);
    expect((await rig.events()).filter(({ type }) => type === "checkpoint")).toEqual([]);
    expect(readdirSync(imagesFolder(rig.home, rig.app, "two"))).toEqual([]);
  }),
);

test.skipIf(missing !== undefined || criu.found === undefined)(
  "a restart waits for a checkpoint that is under way, and a checkpoint for none",
  () =>
    together("waits", async (rig) => {
      for (const name of ["dies", "goes-on"]) await rig.run(name, "sleep", "1000");
      rig.cgroup("dies").kill();
      await until("it is dead", () => !rig.cgroup("dies").populated);
      const lock = holdCgroup(rig.cgroup("goes-on"));
      let held = true;
      const letGo = (): void => {
        if (held) native().unlock(lock);
        held = false;
      };
      try {
        expect(await rig.cli("checkpoint", rig.app, "goes-on", "--driver", "none")).toMatchObject({
          code: 1,
          err: expect.stringContaining(`is being checkpointed or restored by process ${process.pid}`),
        });
        const restarting = rig.cli("restart", rig.app, "--dry-run");
        let ended = false;
        void restarting.then(() => {
          ended = true;
        });
        await sleep(1500);
        expect(ended).toBe(false);
        letGo();
        expect(await restarting).toMatchObject({ code: 0, out: expect.stringContaining("dies") });
      } finally {
        letGo();
      }
    }),
);
