/** `collect --user`: a collector without any right, and the helper beside it, with real processes and kills. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { connectCollector } from "../../src/client/client.ts";
import { isUnit } from "../../src/log/complete-cut.ts";
import type { Event } from "../../src/model/event.ts";
import {
  ASK,
  ECHO,
  freePort,
  missing,
  type Rig,
  type Running,
  until,
  withRig,
  withSharedCollector,
} from "./rig.ts";

const NOBODY = 65534;
const CLI = join(import.meta.dirname, "../../dist/cli/main.js");
/** CAP_PERFMON and CAP_BPF. */
const TWO = "000000c000000000";
const NONE = "0000000000000000";

function asNobody(...command: string[]): { status: number | null; err: string } {
  const who = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];
  const { status, stderr } = spawnSync("setpriv", [...who, ...command], { timeout: 20_000 });
  return { status, err: stderr?.toString() ?? "" };
}

/** Why it can't be tried here. */
function absent(): string | undefined {
  if (missing !== undefined) return missing.reason;
  if (process.getuid!() !== 0) return "only root can give rights away";
  return asNobody("test", "-r", CLI).status === 0 ? undefined : `nobody can't read ${CLI}`;
}

const reason = absent();
const root = test.skipIf(reason !== undefined);

function withOpenRig(name: string, work: (rig: Rig) => Promise<void>): Promise<void> {
  return withRig(name, async (rig) => {
    chmodSync(rig.folder, 0o711); // the home's own mode keeps others out
    await work(rig);
  });
}

/** The same with one collector for all. */
const together = withSharedCollector("attach-all", "--user", "nobody", "--dsm", "userfaultfd");

function collect(rig: Rig, ...args: string[]): Promise<Running> {
  return rig.collect("--user", "nobody", ...args);
}

function helperOf({ child }: Running): number {
  const pids = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim().split(" ");
  const helper = pids.find((pid) => readFileSync(`/proc/${pid}/comm`, "utf8") === "rl-attach\n");
  if (helper === undefined) throw new Error("the collector has no helper");
  return Number(helper);
}

/** A field of every thread of a process, each value once. */
function ofThreads(pid: number, field: string): string[] {
  const values = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, "utf8");
    return new RegExp(`^${field}:[ \\t]*(.*?)[ \\t]*$`, "m").exec(status)?.[1] ?? "?";
  });
  return [...new Set(values)];
}

function rights(pid: number): Record<string, string[]> {
  const fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Uid", "Gid", "Groups"];
  return Object.fromEntries(fields.map((field) => [field, ofThreads(pid, field)]));
}

async function converse(rig: Rig): Promise<void> {
  const port = await freePort();
  await rig.run("server", process.execPath, "-e", ECHO, String(port));
  await until("it listens", () => rig.output("server").includes("listening"));
  await rig.run("client", process.execPath, "-e", ASK, String(port));
  await until("they talk", async () => (await rig.events()).length > 20);
}

/** Without a hole, and both ends at most what travels apart: nothing was lost. */
function expectTiled(events: readonly Event[]): void {
  const ends = new Map<string, number>();
  for (const event of events) {
    expect(event.type).not.toBe("gap");
    if ((event.type !== "send" && event.type !== "receive") || isUnit(event.channel)) continue;
    const side = `${event.type} ${event.channel}`;
    expect([side, event.begin]).toEqual([side, ends.get(side) ?? 0]);
    ends.set(side, event.end);
  }
  expect(ends.size).toBe(4);
}

const FIRST =
  "a collector as nobody records a real conversation, and nothing in it has any right; signals of a terminal or a service manager end it, and only then the helper";

root(FIRST, () =>
  withOpenRig("attach", async (rig) => {
    const running = await collect(rig, "--metrics-port", "0");
    expect(running.ready).toContain("as nobody without rights");
    const pid = running.child.pid!;
    await converse(rig);
    const who = String(NOBODY).concat(`\t${NOBODY}`.repeat(3));
    expect(rights(pid)).toMatchObject({
      ...{ CapInh: [NONE], CapPrm: [NONE], CapEff: [NONE], CapBnd: [NONE], CapAmb: [NONE] },
      ...{ NoNewPrivs: ["1"], Uid: [who], Gid: [who] },
    });
    expect(ofThreads(pid, "Groups")).not.toContain("0");
    expect(readdirSync(`/proc/${pid}/task`).length).toBeGreaterThan(3);
    expect(rights(helperOf(running))).toEqual({
      ...{ CapInh: [NONE], CapPrm: [TWO], CapEff: [TWO], CapBnd: [NONE], CapAmb: [NONE] },
      ...{ NoNewPrivs: ["1"], Uid: [who], Gid: [who], Groups: [""] },
    });
    const home = [rig.home, ...readdirSync(rig.home).map((name) => join(rig.home, name))];
    expect([...new Set(home.map((path) => lstatSync(path).uid))]).toEqual([NOBODY]);

    expectTiled(await rig.events());
    const client = await rig.client();
    const cut = await client.cut(rig.app, "client");
    expect(cut).toMatchObject({ complete: true, uncaptured: [] });
    expect(cut.cut.sent.size + cut.cut.received.size).toBe(2);
    client.close();
    const line = await rig.json<{ outcome: string; line: object[] }>(
      "compute",
      rig.app,
      "--failed",
      "server",
    );
    expect(line).toMatchObject({ outcome: "clean", line: [{ process: "client" }, { process: "server" }] });
    rig.cgroup("client").kill(); // its end is noticed, its cgroup is root's to remove
    await rig.hearsEnd("client");
    const helper = helperOf(running);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.kill(helper, signal);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(isRunning(helper)).toBe(true);
    running.child.kill("SIGINT");
    expect(await running.ended).toMatchObject({ code: 0, err: "" });
    await until("the helper ends", () => !isRunning(helper));
  }),
);

root(
  "kill -9 of the helper is told and ends the collector; what happens until the next one starts is in the log",
  () =>
    withOpenRig("attach-kill", async (rig) => {
      const first = await collect(rig);
      await converse(rig);
      const killed = performance.now();
      process.kill(helperOf(first), "SIGKILL");
      const { code, err } = await first.ended;
      expect([code, err]).toEqual([1, expect.stringContaining("the attach helper has ended")]);
      expect(performance.now() - killed).toBeLessThan(10_000);
      await new Promise((resolve) => setTimeout(resolve, 200)); // they go on talking
      const second = await collect(rig);
      const before = (await rig.events()).length;
      await until("they are recorded again", async () => (await rig.events()).length > before + 20);
      expectTiled(await rig.events());

      const helper = helperOf(second);
      second.child.kill("SIGKILL");
      await second.ended;
      await until("the helper ends with its collector", () => !isRunning(helper));
      await collect(rig);
      await until("and again", async () => (await rig.events()).length > before + 60);
      expectTiled(await rig.events());
    }),
);

function isRunning(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
}

root(
  "one reader a ring, with helper or without; a home that was given away is not root's to collect into",
  () =>
    together("attach-locks", async (rig) => {
      for (const user of [[], ["--user", "nobody"]]) {
        const other = rig.path(`other${user.length}`);
        const { code, err } = await rig.cli("collect", "--pin-dir", rig.pinDir, "--log", other, ...user);
        expect([code, err]).toEqual([1, expect.stringMatching(/is being read by process \d+/)]);
      }
      const { code, err } = await rig.cli("collect", "--pin-dir", `${rig.pinDir}-2`);
      expect([code, err]).toEqual([1, expect.stringContaining("must be mode 0700 and your own")]);
    }),
);

root("page faults of userfaultfd are counted through the helper, too", () =>
  together("attach-dsm", async (rig) => {
    const client = await rig.client();
    const { userfaults } = await client.stats();
    client.close();
    expect(userfaults).toMatchObject({ fault: { calls: expect.any(Number), bytes: 0 } });
  }),
);

root("root asks a collector of another user only where nobody but root can have put its home", () =>
  withOpenRig("attach-placed", async (rig) => {
    await collect(rig);
    expect(await connectCollector(rig.home)).toBeDefined();
    const folder = rig.path("folder");
    mkdirSync(folder, { mode: 0o755 });
    const moved = join(folder, "home");
    symlinkSync(folder, rig.path("link"));
    renameSync(rig.home, moved);
    expect(await connectCollector(moved)).toBeDefined();
    expect(await connectCollector(join(rig.path("link"), "home"))).toBeUndefined();
    chmodSync(folder, 0o1777); // the home is not root's, the sticky bit does not keep it there
    expect(await connectCollector(moved)).toBeUndefined();
    chmodSync(folder, 0o755);
    chownSync(folder, NOBODY, NOBODY);
    expect(await connectCollector(moved)).toBeUndefined();
    chownSync(folder, 0, 0);
    renameSync(moved, rig.home);
    chmodSync(rig.folder, 0o1777);
    expect(await connectCollector(rig.home)).toBeUndefined();
    chmodSync(rig.folder, 0o711);
  }),
);

root("what takes root's rights, or would make root act on the user's word, is refused with a reason", () =>
  together("attach-refusals", async (rig) => {
    chmodSync(rig.folder, 0o711);
    const refused = async (code: number, why: string, ...args: string[]): Promise<void> => {
      const ended = await rig.cli(...args);
      expect([args.join(" "), ended.code, ended.err]).toEqual([
        args.join(" "),
        code,
        expect.stringContaining(why),
      ]);
    };
    const start = ["collect", "--pin-dir", rig.pinDir];
    await refused(2, "--on-full stop freezes processes", ...start, "--user", "nobody", "--on-full", "stop");
    await refused(2, "that user is root", ...start, "--user", "root");
    await refused(2, "there is no such user", ...start, "--user", "no such user");
    const open = rig.path("open");
    mkdirSync(open);
    chmodSync(open, 0o777);
    await refused(1, "can be exchanged by others", ...start, "--user", "nobody", "--log", join(open, "home"));
    const roots = rig.path("roots");
    mkdirSync(roots);
    writeFileSync(join(roots, "something"), "");
    await refused(1, "belongs to user 0, and is not empty", ...start, "--user", "nobody", "--log", roots);
    expect(lstatSync(roots).uid).toBe(0);
    const fresh = join(rig.path("above"), "fresh");
    await refused(1, "is being read by process", ...start, "--user", "nobody", "--log", fresh);
    expect(existsSync(rig.path("above")), "a start that fails leaves no home").toBe(false);
    const mine = asNobody(process.execPath, CLI, ...start, "--user", "nobody", "--log", rig.home);
    expect([mine.status, mine.err]).toEqual([1, expect.stringContaining("--user takes root")]);

    await refused(1, "keeping payloads takes CAP_NET_ADMIN", "run", rig.app, "p", "--payload", "--", "true");
    await rig.run("server", "sleep", "60");
    const why = `belongs to user ${NOBODY}`;
    await refused(1, why, "checkpoint", rig.app);
    await refused(1, why, "restart", rig.app, "--failed", "server");
    await refused(1, why, "gc", rig.app, "--apply");
    await refused(1, why, "import", rig.app, "--from", "/dev/null");
  }),
);
