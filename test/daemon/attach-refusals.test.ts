/** What can't be attached: said in words, by exit code, and nothing of it touched; also where another collector records it. */
import { type ChildProcess, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { attachCgroupAt, detach } from "../../src/client/attach-process.ts";
import type { CollectorClient } from "../../src/client/client.ts";
import {
  attachedTo,
  attachLockPath,
  cgroup2Root,
  cgroupOf,
  noteOrigin,
  ProcessCgroup,
} from "../../src/host/cgroups.ts";
import { holdCgroup } from "../../src/host/freeze.ts";
import { isKernelThread } from "../../src/host/process-tree.ts";
import { native, packageRoot } from "../../src/native/binding.ts";
import { sized } from "../size.ts";
import { PodmanStore, podmanAbsent } from "./podman-store.ts";
import { missing, type Rig, until, withRig, withSharedCollector } from "./rig.ts";
import { removeCgroups, stranger } from "./strangers.ts";

const LIMIT = { timeout: 60_000 };
const NOBODY = "65534";
const absent = podmanAbsent();
const atOne = withSharedCollector("one");
const atOther = withSharedCollector("other");

function sleeper(): ChildProcess {
  return stranger("sleep", ["1000"]);
}

/** A cgroup of nobody of ours, with `inside` as a level below it. */
function elsewhere(name: string, inside?: string): string {
  const path = join(cgroup2Root(), name);
  const levels = [path, ...(inside === undefined ? [] : [join(path, inside)])];
  for (const level of levels) mkdirSync(level);
  onTestFinished(() => removeCgroups(...levels));
  return path;
}

async function refused(rig: Rig, wanted: readonly string[], told: RegExp, codes = [2]): Promise<void> {
  const { code, err } = await rig.cli("attach", rig.app, "new", ...wanted);
  expect(err, wanted.join(" ")).toMatch(told);
  expect(codes, `${wanted.join(" ")}: ${err}`).toContain(code);
  expect(attachedTo(rig.app), wanted.join(" ")).toEqual([]);
  expect(new ProcessCgroup(rig.app, "new").id, wanted.join(" ")).toBeUndefined();
}

/** Attaches the process and never hears from its collector whether it is recorded. */
const WAITS_FOR_GOOD = `
  const { attachTree } = await import(process.argv[1]);
  setInterval(() => undefined, 1000);
  const register = () => new Promise(() => console.log("registering"));
  await attachTree({ ping: async () => ({ pid: 0 }), register }, { app: process.argv[2], process: "new", trust: [] }, +process.argv[3]);
`;

test.skipIf(missing !== undefined)(
  "who is killed while it attaches a process leaves it running",
  LIMIT,
  async () => {
    const [app, { pid }] = [`attach-killed-${process.pid}`, sleeper()];
    const cgroup = new ProcessCgroup(app, "new");
    onTestFinished(() => {
      process.kill(pid!, "SIGKILL");
      return until("it is gone", () => cgroup.remove());
    });
    const module = join(packageRoot(), "dist/client/attach-process.js");
    const args = ["--input-type=module", "-e", WAITS_FOR_GOOD, module, app, String(pid)];
    const attaching = stranger(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    await once(attaching.stdout!, "data");
    expect([cgroup.frozen, cgroup.pids()]).toEqual([true, [pid]]);
    attaching.kill("SIGKILL");
    await until("it runs", () => !cgroup.freezing);
  },
);

test.skipIf(missing !== undefined)(
  "detach waits for a checkpoint, and takes along what a process starts while it is moved",
  LIMIT,
  async () => {
    const app = `detach-forks-${process.pid}`;
    const cgroup = new ProcessCgroup(app, "p");
    onTestFinished(() => until("it is gone", () => cgroup.remove()));
    const [first, child] = [sleeper(), sleeper()];
    const enter = ({ pid }: ChildProcess): void =>
      writeFileSync(join(cgroup.path, "cgroup.procs"), String(pid), { flag: "r+" });
    cgroup.create();
    noteOrigin(app, "p", cgroupOf(process.pid)!);
    enter(first);
    const look = vi.spyOn(ProcessCgroup.prototype, "pids").mockImplementationOnce(() => {
      enter(child); // as the kernel puts a child, after the look
      return [first.pid!];
    });
    onTestFinished(() => look.mockRestore());
    const lock = holdCgroup(cgroup);
    let isHeld = true;
    const unregister = async (): Promise<void> => expect(isHeld).toBe(false);
    const detaching = detach({ unregister } as unknown as CollectorClient, app, "p");
    isHeld = false;
    native().unlock(lock);
    await detaching;
    expect([first, child].map(({ pid }) => cgroupOf(pid!))).toEqual(Array(2).fill(cgroupOf(process.pid)));
    expect(cgroup.id).toBeUndefined();
  },
);

test.skipIf(missing !== undefined)(
  "a cgroup that goes between two looks has nothing running in it",
  async () => {
    const path = elsewhere(`gone-${process.pid}`);
    const wanted = { app: `gone-${process.pid}`, process: "new", trust: [] };
    const lock = native().lock(attachLockPath()); // whoever attaches waits for it, behind the first look
    const attaching = attachCgroupAt({} as CollectorClient, wanted, path);
    rmdirSync(path);
    native().unlock(lock);
    await expect(attaching).rejects.toThrow("nothing runs in it");
  },
);

/** A systemctl that has one running unit, in the cgroup of that name. */
function fakeSystemd(rig: Rig, group: string): void {
  const bin = rig.path("bin");
  mkdirSync(bin);
  const script = `#!/bin/sh\ncase "$*" in *is-system-running*) echo running;; *" idle.service") echo ${group};; esac\n`;
  writeFileSync(join(bin, "systemctl"), script);
  chmodSync(join(bin, "systemctl"), 0o755);
  const before = process.env["PATH"]!;
  process.env["PATH"] = `${bin}:${before}`;
  onTestFinished(() => {
    process.env["PATH"] = before;
  });
}

test.skipIf(missing !== undefined)(
  "kernel threads, cgroups of version 1, units without processes, and what belongs to another user",
  LIMIT,
  () =>
    atOne("refusals", async (rig) => {
      const thread = readdirSync("/proc").find((name) => /^\d+$/.test(name) && isKernelThread(Number(name)));
      if (thread !== undefined)
        await refused(rig, ["--pid", thread], /can't be attached: it is a thread of the kernel/);

      const version1 = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"].find((path) =>
        existsSync(join(path, "cgroup.procs")),
      );
      const strange = version1 ?? rig.folder;
      if (version1 === undefined) writeFileSync(join(strange, "cgroup.procs"), ""); // no such here: a folder that looks like one
      await refused(rig, ["--cgroup", strange], /is no cgroup of version 2.*lie below/s);

      const group = `/unit-${rig.app}`;
      elsewhere(group.slice(1));
      fakeSystemd(rig, group);
      await refused(rig, ["--unit", "idle.service"], /can't be process new of .*: nothing runs in it/);
      await refused(rig, ["--unit", "unknown.service"], /the unit unknown.service does not run/);

      const { pid } = sleeper();
      const before = cgroupOf(pid!);
      const command = [
        join(packageRoot(), "dist/cli/main.js"),
        "attach",
        rig.app,
        "new",
        "--pid",
        String(pid),
      ];
      const asNobody = spawnSync(
        "setpriv",
        [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups", process.execPath, ...command],
        {
          env: { ...process.env, RECOVERY_LINE_HOME: rig.home },
          encoding: "utf8",
        },
      );
      expect(asNobody.status).toBe(1);
      expect(asNobody.stderr).toMatch(/is not open to this user.*Only root and the collector's own user/s);
      expect(cgroupOf(pid!), "it was not moved").toBe(before);
    }),
);

test.skipIf(absent !== undefined)(
  `a container that was made and not started, and one that has ended${absent === undefined ? "" : ` (${absent})`}`,
  LIMIT,
  () =>
    atOne("stopped", async (rig) => {
      const store = new PodmanStore();
      store.makeImage();
      store.useFor(process.env);
      const name = `rl-${rig.app}`;
      store.podman("create", "--name", name, "--volume", "/usr:/usr:ro", "host-programs", "true");
      await refused(rig, ["--container", name], new RegExp(`the container ${name} does not run`));
      store.podman("start", "--attach", name);
      await refused(rig, ["--container", name], new RegExp(`the container ${name} does not run`));
      store.podman("rm", name);
      await refused(rig, ["--container", name], new RegExp(`knows a container "${name}"`));
    }),
);

test.skipIf(missing !== undefined)(
  "two collectors and one cgroup: who comes second is told both names, and records nothing",
  LIMIT,
  () =>
    atOne("first", (first) =>
      atOther("second", async (second) => {
        const path = elsewhere(`shared-${first.app}`, "below");
        const { pid } = sleeper();
        writeFileSync(join(path, "below/cgroup.procs"), String(pid));
        expect(
          await first.cli("attach", first.app, "db", "--cgroup", join(path, "below"), "--no-checkpoint"),
        ).toMatchObject({ code: 0 });

        const both = (what: string): RegExp => new RegExp(`can't be process new of ${second.app}: ${what}`);
        await refused(
          second,
          ["--cgroup", join(path, "below")],
          both(`it is, or lies in, process db of ${first.app}`),
        );
        await refused(second, ["--cgroup", path], both(`db of ${first.app} lies below it`));
        await refused(
          second,
          ["--pid", String(pid)],
          new RegExp(`is recorded as process db of ${first.app} already`),
        );
        const same = await second.cli("attach", first.app, "db", "--cgroup", join(path, "below"));
        expect(same.code).not.toBe(0);
        expect(same.err).toMatch(
          new RegExp(`process db of ${first.app} runs already: ${join(path, "below")}`),
        );
        const started = await second.cli("run", first.app, "db", "--detach", "--", "sleep", "1");
        expect(started.code).not.toBe(0);
        expect(started.err).toMatch(new RegExp(`process db of ${first.app} runs already`));

        const client = await second.client();
        expect(await client.processes(), "the second records nobody").toEqual([]);
        client.close();
        expect(await first.cli("detach", first.app, "db")).toMatchObject({ code: 0 });
        expect(
          await second.cli("attach", second.app, "db", "--cgroup", path, "--no-checkpoint"),
        ).toMatchObject({ code: 0 });
        const now = await second.client();
        expect((await now.processes()).map(({ app, process: name, live }) => [app, name, live])).toEqual([
          [second.app, "db", true],
        ]);
        now.close();
        expect(await second.cli("detach", second.app, "db")).toMatchObject({ code: 0 });
      }),
    ),
);

test.skipIf(missing !== undefined)(
  "what was recorded into a log directory that is gone is detached and attached again; what another collector records is not",
  LIMIT,
  () =>
    atOther("bystander", (bystander) =>
      withRig("home-lost", async (rig) => {
        const first = await rig.collect();
        const { pid } = sleeper();
        const before = cgroupOf(pid!);
        const attach = ["attach", rig.app, "db", "--pid", String(pid), "--no-checkpoint"];
        expect(await rig.cli(...attach)).toMatchObject({ code: 0 });
        const foreign = await bystander.cli("detach", rig.app, "db");
        expect(foreign.code).toBe(2);
        expect(foreign.err).toContain(
          `db of ${rig.app} is recorded into ${rig.home}, by process ${first.child.pid}`,
        );
        expect(foreign.err).toContain(`recovery-line detach ${rig.app} db --log ${rig.home}`);

        first.child.kill("SIGKILL");
        await first.ended;
        rmSync(rig.home, { recursive: true });
        mkdirSync(rig.home, { mode: 0o700 });
        await rig.collect();
        const again = await rig.cli(...attach);
        expect(again).toMatchObject({
          code: 2,
          err: expect.stringContaining("recovery-line detach ends that"),
        });
        expect(await rig.cli("detach", rig.app, "db")).toMatchObject({ code: 0 });
        expect([cgroupOf(pid!), rig.cgroup("db").id]).toEqual([before, undefined]);
        expect(await rig.cli("detach", rig.app, "db")).toMatchObject({
          err: expect.stringContaining("there is no application"),
        });
        expect(await rig.cli(...attach)).toMatchObject({ code: 0 });
        expect(await rig.known("db")).toMatchObject({ live: true });
        expect(await rig.cli("detach", rig.app, "db")).toMatchObject({ code: 0 });
      }),
    ),
);

test.skipIf(missing !== undefined)(
  "two that attach the same cgroup, or the same process, at one instant: one wins, the other is told both names",
  { timeout: 120_000 },
  () =>
    atOne("left", (left) =>
      atOther("right", async (right) => {
        const path = elsewhere(`both-${left.app}`);
        const { pid } = sleeper();
        const { pid: free } = sleeper();
        writeFileSync(join(path, "cgroup.procs"), String(pid));
        const rounds = sized(2, 1);
        let races = 0;
        for (let round = 0; round < rounds; round += 1)
          for (const what of [
            ["--cgroup", path],
            ["--pid", String(free)],
          ])
            for (const second of [left, right]) {
              races += 1;
              const racers = [
                { rig: left, name: `one-${races}` },
                { rig: second, name: `two-${races}` },
              ];
              const ended = await Promise.all(
                racers.map(({ rig, name }) =>
                  rig.spawned("attach", rig.app, name, ...what, "--no-checkpoint"),
                ),
              );
              const winner = ended.findIndex(({ code }) => code === 0);
              const told = ended.map(({ code, err }) => `${code}: ${err}`).join("\n");
              expect(winner, told).toBeGreaterThanOrEqual(0);
              const [won, lost] = [racers[winner]!, racers[1 - winner]!];
              expect(ended[1 - winner], told).toMatchObject({ code: 2 });
              const holder = `process ${won.name} of ${won.rig.app}`;
              expect(ended[1 - winner]!.err).toContain(holder);
              expect(ended[1 - winner]!.err).toContain(`process ${lost.name} of ${lost.rig.app}`);
              for (const rig of new Set([left, right])) {
                const client = await rig.client();
                const live = (await client.processes()).filter((one) => one.live);
                expect(live.map(({ process }) => process)).toEqual(rig === won.rig ? [won.name] : []);
                client.close();
              }
              expect(await won.rig.cli("detach", won.rig.app, won.name)).toMatchObject({ code: 0 });
            }
      }),
    ),
);
