import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { CollectorClient } from "../../src/client/client.ts";
import type { RegisterRequest } from "../../src/client/protocol.ts";
import { type StartedProcess, startProcess } from "../../src/client/start-process.ts";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import { cgroupId, holdCgroup } from "../../src/host/freeze.ts";
import { lockedBy } from "../../src/host/wait-for-lock.ts";
import { isUnit } from "../../src/log/complete-cut.ts";
import { native, packageRoot } from "../../src/native/binding.ts";
import { tile } from "../native/tiling.ts";
import { sized } from "../size.ts";
import { ASK, ECHO, freePort, missing, type Rig, until, withRig } from "./rig.ts";
import { stranger } from "./strangers.ts";

const live = test.skipIf(missing !== undefined);

interface Status {
  readonly processes: {
    readonly process: string;
    readonly state: string;
    readonly pids: number[];
    readonly incarnation: number;
  }[];
}

async function stateOf(rig: Rig, name: string): Promise<string | undefined> {
  const { processes } = await rig.json<Status>("status", rig.app);
  return processes.find(({ process }) => process === name)?.state;
}

live("the exit status is the command's; a signal to run reaches the command", () =>
  withRig("exit", async (rig) => {
    await rig.collect();
    const script = async (name: string, text: string) =>
      (await rig.cli("run", rig.app, name, "--", "sh", "-c", text)).code;
    expect(await script("seven", "exit 7")).toBe(7);
    expect(await script("killed", "kill -9 $$")).toBe(137);
    expect(await script("terminated", "kill $$")).toBe(143);
    const waiting = await rig.start(
      "run",
      rig.app,
      "waits",
      "--",
      "sh",
      "-c",
      'trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done',
    );
    waiting.child.kill("SIGTERM");
    expect((await waiting.ended).code).toBe(9);
    await rig.hearsEnd("waits");
    expect(await stateOf(rig, "waits")).toBe("failed");
  }),
);

live(
  "a detached command that has ended leaves no cgroup behind, with a collector or before one came back",
  () =>
    withRig("cgroups", async (rig) => {
      const gone = (name: string) =>
        until(`no cgroup "${name}"`, () => new ProcessCgroup(rig.app, name).id === undefined);
      const first = await rig.collect();
      await rig.cli("run", rig.app, "short", "--detach", "--", "true");
      const into = await rig.cli("import", rig.app, "--from", import.meta.filename);
      expect([into.code, into.err]).toEqual([
        1,
        expect.stringContaining("is being written by the collector"),
      ]);
      await gone("short");
      await rig.cli("run", rig.app, "longer", "--detach", "--", "sleep", "1");
      first.child.kill("SIGKILL");
      await first.ended;
      await until("it ends", () => !new ProcessCgroup(rig.app, "longer").populated);
      expect(new ProcessCgroup(rig.app, "longer").id).toBeDefined();
      await rig.collect();
      await gone("longer");
      await gone("");
      expect(await stateOf(rig, "longer")).toBe("finished");
    }),
);

/** Starts a command held, and never hears from its collector whether it is recorded. */
const HELD_FOR_GOOD = `
  const [module, app, unwatched, begun, ...command] = process.argv.slice(1);
  const { startProcess } = await import(module);
  setInterval(() => undefined, 1000);
  const register = () => new Promise(() => console.log("registering"));
  await startProcess({ register }, {
    app, process: "held", command, mode: "first", stdio: "ignore", detached: true, unwatched: unwatched === "true",
    recipe: { command, cwd: "/", env: process.env },
    begun: () => { if (begun === "killed") process.kill(process.pid, "SIGKILL"); },
  });
`;

live.each([
  ["while its command is held", false, "goes on"],
  ["while its detached command is held", true, "goes on"],
  ["while its command is on the way into its cgroup", false, "killed"],
  ["while its detached command is on the way into its cgroup", true, "killed"],
])("run that is killed %s ends it, before its first instruction", (_, unwatched, begun) =>
  withRig("start-killed", async (rig) => {
    const module = join(packageRoot(), "dist/client/start-process.js");
    const mark = rig.path("began");
    const args = [module, rig.app, String(unwatched), begun, "touch", mark];
    const starting = stranger(process.execPath, ["--input-type=module", "-e", HELD_FOR_GOOD, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = once(starting, "exit");
    const { path } = rig.cgroup("held");
    if (begun !== "killed") {
      await once(starting.stdout!, "data");
      expect([rig.cgroup("held").frozen, rig.cgroup("held").pids().length]).toEqual([true, 1]);
      starting.kill("SIGKILL");
    }
    await ended;
    await until("its cgroup is gone", () => !existsSync(join(path, "..")));
    expect(existsSync(mark)).toBe(false);
  }),
);

const begin = (rig: Rig, collector: CollectorClient, name: string): Promise<StartedProcess> => {
  const command: [string, string] = ["sleep", "1000"];
  const recipe = { command, cwd: "/", env: { PATH: process.env["PATH"]! } };
  const common = { mode: "fresh", stdio: "ignore", detached: true, unwatched: true } as const;
  return startProcess(collector, { app: rig.app, process: name, command, recipe, ...common });
};

live("two starts of one process: one of them runs, the other is refused and leaves it alone", () =>
  withRig("start-twice", async (rig) => {
    await rig.collect();
    const collector = await rig.client();
    const both = await Promise.allSettled([begin(rig, collector, "p"), begin(rig, collector, "p")]);
    const begun = both.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const refused = both.flatMap((one) => (one.status === "rejected" ? [String(one.reason)] : []));
    expect(refused).toEqual([expect.stringContaining("runs already")]);
    expect(begun.map(({ task }) => task.pid)).toEqual(rig.cgroup("p").pids());
    expect(rig.cgroup("p").freezing).toBe(false);
    expect((await rig.known("p"))?.live).toBe(true);
    collector.close();
  }),
);

live("a start waits until a checkpoint or restore of the life before has let go of its cgroup", () =>
  withRig("start-held", async (rig) => {
    await rig.collect();
    const collector = await rig.client();
    const cgroup = rig.cgroup("p");
    cgroup.create();
    const lock = holdCgroup(cgroup);
    let isHeld = true;
    const register = (body: RegisterRequest) => {
      expect(isHeld).toBe(false);
      return collector.register(body);
    };
    const unseen = () => collector.unseen(rig.app);
    const starting = begin(rig, { register, unseen } as unknown as CollectorClient, "p");
    starting.catch(() => undefined);
    await sleep(300); // long enough for it to come in, where nothing keeps it out
    expect(cgroup.populated).toBe(false);
    isHeld = false;
    native().unlock(lock);
    expect((await starting).incarnation).toBe(1);
    expect(cgroup.populated).toBe(true);
    collector.close();
  }),
);

live("a run in the foreground leaves the cgroup that a restart holds, and removes it where nobody does", () =>
  withRig("end-held", async (rig) => {
    await rig.collect();
    const ends = async (name: string, held: boolean): Promise<boolean> => {
      const { ended } = await rig.start("run", rig.app, name, "--", "sh", "-c", "echo; exec sleep 1000");
      const cgroup = rig.cgroup(name);
      // `run` has it in hand until a moment after the command began.
      const lock = held ? await lockedBy(performance.now() + 30_000, () => holdCgroup(cgroup)) : undefined;
      cgroup.kill();
      expect((await ended).code).toBe(137);
      if (lock !== undefined) native().unlock(lock);
      return cgroup.hasPlace;
    };
    expect([await ends("alone", false), await ends("held", true)]).toEqual([false, true]);
  }),
);

live("what has ended before it is registered is told by name, in our words", () =>
  withRig("no-cgroup", async (rig) => {
    expect(() => cgroupId(rig.cgroup("p"))).toThrow(`the process of ${rig.cgroup("p").path} has ended`);
  }),
);

/** Takes the ranks of a job whose collector never answers. */
const RANKS_HELD = `
  const [module, app] = process.argv.slice(1);
  const { takeRanks } = await import(module);
  setInterval(() => undefined, 1000);
  const register = () => new Promise(() => console.log("registering"));
  await takeRanks({ register }, { app, process: "job", mode: "first", recipe: { command: ["mpirun"], cwd: "/", env: {} } });
`;

live("run --ranks that is killed while ranks are held ends them with their launcher", () =>
  withRig("ranks-killed", async (rig) => {
    const names = ["job", "job-rank-0", "job-rank-1"];
    for (const name of names) {
      const [cgroup, { pid }] = [rig.cgroup(name), stranger("sleep", ["1000"])];
      mkdirSync(cgroup.path, { recursive: true });
      if (name !== "job") cgroup.setFreeze(true);
      writeFileSync(join(cgroup.path, "cgroup.procs"), String(pid));
    }
    const module = join(packageRoot(), "dist/client/start-ranks.js");
    const args = ["--input-type=module", "-e", RANKS_HELD, module, rig.app];
    const taking = stranger(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    await once(taking.stdout!, "data");
    taking.kill("SIGKILL");
    await until("nothing of the job is left", () => names.every((name) => !rig.cgroup(name).populated));
    await until("no rank's cgroup is left", () =>
      names.slice(1).every((name) => !existsSync(rig.cgroup(name).path)),
    );
  }),
);

live("wrong use of run: nothing is registered, nothing is left in the cgroup", () =>
  withRig("wrong", async (rig) => {
    expect(await rig.cli("run", rig.app, "p", "--", "true")).toMatchObject({
      code: 1,
      err: expect.stringContaining("no collector"),
    });
    await rig.collect();
    const wrong: [string[], RegExp][] = [
      [["run", rig.app, "p", "--", "no-such-program-here"], /no program/],
      [["run", "../x", "p", "--", "true"], /\.\.\/x/],
      [["run", rig.app, "p/q", "--", "true"], /p\/q/],
      [["run", "rings.sock", "p", "--", "true"], /"rings\.sock" is no application name: it is reserved/],
      [["run", "cgroup.procs", "p", "--", "true"], /"cgroup\.procs" is no application name: it is reserved/],
      [["run", rig.app, "cpu.stat", "--", "true"], /"cpu\.stat" is no process name: it is reserved/],
      [
        ["attach", rig.app, "cgroup.procs", "--pid", "1"],
        /"cgroup\.procs" is no process name: it is reserved/,
      ],
      [
        ["run", rig.app, "p", "--trust", "udp,everything", "--", "true"],
        /--trust "everything": no such kind/,
      ],
      [["run", rig.app, "p", "--trust", "overflow", "--", "true"], /--trust "overflow": no such kind/],
      [
        ["run", rig.app, "p", "--outside", "10.0.0.0/33", "--", "true"],
        /--outside "10\.0\.0\.0\/33" is no address range/,
      ],
      [
        ["run", rig.app, "p", "--inside", "web.example", "--", "true"],
        /--inside "web\.example" is no address/,
      ],
      [
        ["run", rig.app, "p", "--outside", "10.0.0.0/8", "--inside", "10.1.0.0/8", "--", "true"],
        /--outside 10\.0\.0\.0\/8 and --inside 10\.1\.0\.0\/8 contradict each other|--inside 10\.1\.0\.0\/8 and --outside 10\.0\.0\.0\/8 contradict each other/,
      ],
    ];
    for (const [args, text] of wrong)
      expect(await rig.cli(...args)).toMatchObject({ code: 2, err: expect.stringMatching(text) });
    expect(await (await rig.client()).processes()).toEqual([]);
    expect(rig.cgroup("p").id).toBeUndefined();
    expect(await rig.cli("run", rig.app, "p", "--", "true")).toMatchObject({ code: 0 });
  }),
);

live(
  "what a command's children do is the process's, from the first byte on, and a kill leaves the process known",
  () =>
    withRig("forks", async (rig) => {
      await rig.collect();
      const port = await freePort();
      await rig.run("server", process.execPath, "-e", ECHO, String(port));
      await until("the server listens", () => rig.output("server").includes("listening"));
      const asks = `"$0" -e '${ASK}' ${port} & "$0" -e '${ASK}' ${port} & wait`;
      const root = await rig.run("client", "sh", "-c", asks, process.execPath);
      await until("both children talk", async () => {
        const events = await rig.events();
        return (
          new Set(
            events.flatMap((event) =>
              event.process === "client" && event.type === "send" && !isUnit(event.channel)
                ? [event.channel]
                : [],
            ),
          ).size === 2
        );
      });
      expect(rig.cgroup("client").pids()).toContain(root);
      expect(await rig.cli("run", rig.app, "client", "--", "true")).toMatchObject({
        code: 1,
        err: expect.stringContaining("runs already"),
      });
      rig.cgroup("client").kill();
      await rig.hearsEnd("client");
      const { covered, faults } = tile(await rig.events());
      expect(faults).toEqual([]);
      expect(covered.size).toBe(2 * 2 * 2);
      expect(await rig.cli("run", rig.app, "client", "--", "true")).toMatchObject({
        code: 2,
        err: expect.stringContaining("--fresh"),
      });
      expect(await rig.cli("run", rig.app, "client", "--fresh", "--", "true")).toMatchObject({ code: 0 });
      const types = (await rig.events())
        .filter(({ process }) => process === "client")
        .map(({ type }) => type);
      expect(types.at(-1)).toBe("rollback");
    }),
);

live("kill -9 of the collector under load, again and again: no byte is missing or doubled afterwards", () =>
  withRig("crash", async (rig) => {
    const first = await rig.collect();
    const port = await freePort();
    await rig.run("server", process.execPath, "-e", ECHO, String(port));
    await until("the server listens", () => rig.output("server").includes("listening"));
    await rig.run("client", process.execPath, "-e", ASK, String(port), "1");
    let collector = first;
    for (let round = 0; round < sized(4, 2); round += 1) {
      await new Promise((resolve) => setTimeout(resolve, 150 + 100 * round));
      collector.child.kill("SIGKILL");
      await collector.ended;
      await new Promise((resolve) => setTimeout(resolve, 100));
      collector = await rig.collect();
    }
    const before = (await rig.events()).length;
    await until("it goes on", async () => (await rig.events()).length > before + 20);
    rig.cgroup("client").kill();
    rig.cgroup("server").kill();
    for (const name of ["client", "server"]) await rig.hearsEnd(name);
    const { covered, faults } = tile(await rig.events());
    expect(faults).toEqual([]);
    expect(covered.size).toBe(4);
    expect(Math.min(...covered.values())).toBeGreaterThan(0);
    collector.child.kill("SIGTERM");
    expect((await collector.ended).code).toBe(0);
  }),
);
