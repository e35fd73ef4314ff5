/** `attach` and `detach`: what runs already, with its open connections, as a process tree and in a cgroup of somebody else. */
import type { ChildProcess } from "node:child_process";
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { attachedTo, cgroup2Root, cgroupOf, ProcessCgroup } from "../../src/host/cgroups.ts";
import { restartable } from "../restart/restartable.ts";
import { freePort, missing, type Rig, until, withRig } from "./rig.ts";
import { removeCgroups, stranger } from "./strangers.ts";

const LIMIT = { timeout: 60_000 };

/** Adds 1 to a number on one connection, and ends where the answer is not the next one. */
const COUNTER = `use IO::Socket::INET; $|=1;
my $s; for (1..99) { $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ARGV[0]") and last; select(undef,undef,undef,.05) }
for (my $n = 1;; $n++) { syswrite($s, "INCR k\\r\\n"); my $b = ""; while ($b !~ /\\n/) { sysread($s, my $x, 99) or die "closed"; $b .= $x }
$b =~ /:$n\\r/ or die "got $b for $n"; print "$n\\n"; select(undef,undef,undef,.01) }`;

/** A cgroup that nobody of us made, two levels above where ours are, and what runs in it. */
class Elsewhere {
  readonly path: string;

  constructor(rig: Rig) {
    this.path = join(cgroup2Root(), `elsewhere-${rig.app}`);
    mkdirSync(this.path);
    onTestFinished(async () => {
      writeFileSync(join(this.path, "cgroup.kill"), "1");
      await removeCgroups(this.path);
    });
  }

  pids(): number[] {
    return readFileSync(join(this.path, "cgroup.procs"), "utf8").split("\n").filter(Boolean).map(Number);
  }

  take({ pid }: ChildProcess): void {
    writeFileSync(join(this.path, "cgroup.procs"), String(pid));
  }
}

/** In a session of its own, and of nobody's cgroup. */
function program(rig: Rig, name: string, command: string, ...args: string[]): ChildProcess {
  const words = ["-c", 'out=$1; shift; exec "$@" >"$out" 2>&1 </dev/null', "sh", rig.path(`${name}.out`)];
  return stranger("sh", [...words, command, ...args], { cwd: rig.folder });
}

async function store(rig: Rig): Promise<{ redis: ChildProcess; port: number }> {
  const port = await freePort();
  const redis = program(
    rig,
    "db",
    "redis-server",
    "--port",
    String(port),
    "--save",
    "",
    "--bind",
    "127.0.0.1",
  );
  await until("redis listens", () => rig.output("db").includes("Ready to accept"));
  return { redis, port };
}

function count(rig: Rig): number {
  return Number(rig.output("client").trim().split("\n").at(-1));
}

async function goesOn(rig: Rig): Promise<void> {
  const before = count(rig);
  await until("the client counts on", () => count(rig) > before + 20);
}

restartable(
  "what ran before it was recorded comes back exactly, with the connection between them",
  LIMIT,
  () =>
    withRig("attached", async (rig) => {
      await rig.collect();
      const { redis, port } = await store(rig);
      const elsewhere = new Elsewhere(rig);
      elsewhere.take(redis);
      const client = program(rig, "client", "perl", "-e", COUNTER, String(port));
      await goesOn(rig);

      expect(await rig.cli("attach", rig.app, "client", "--pid", String(client.pid))).toMatchObject({
        code: 0,
      });
      await until("the collector finds redis at the other end, which is outside", async () =>
        (await rig.events()).some(({ type }) => type === "outside"),
      );
      expect(await rig.cli("attach", rig.app, "db", "--cgroup", elsewhere.path)).toMatchObject({ code: 0 });
      await goesOn(rig);
      const line = await rig.json<{ line: { process: string; action: string }[]; lostInputs: unknown[] }>(
        ...["compute", rig.app, "--failed", "db"],
      );
      expect(line.line.map(({ process, action }) => `${process} ${action}`)).toEqual([
        "client restore",
        "db restore",
      ]);
      expect(line.lostInputs, "redis is not outside any more").toEqual([]);

      process.kill(redis.pid!, "SIGKILL");
      await until("the client ends, too", () => rig.output("client").includes("closed"));
      await until("both are known to have ended", async () =>
        (await (await rig.client()).processes()).every(({ live }) => !live),
      );
      expect(await rig.cli("restart", rig.app)).toMatchObject({ code: 0 });
      await goesOn(rig);
      expect(rig.output("client")).not.toContain("got");
      expect(elsewhere.pids(), "it is back where it was").toHaveLength(1);

      for (const name of ["client", "db"])
        expect(await rig.cli("detach", rig.app, name)).toMatchObject({ code: 0 });
      await goesOn(rig);
      expect(elsewhere.pids()).toHaveLength(1);
      expect(attachedTo(rig.app)).toEqual([]);
      const gaps = (await rig.events()).filter((event) => event.type === "gap" && event.reason === "left");
      expect(gaps.map((gap) => gap.process).sort(), "what they do now is missing").toEqual(["client", "db"]);
      expect(await rig.json("compute", rig.app, "--failed", "db").catch(String)).toContain('"tainted"');
      expect(cgroupOf(client.pid!)).toBe(cgroupOf(process.pid));
      process.kill(client.pid!, "SIGKILL"); // restored, it is no child of ours
    }),
);

test.skipIf(missing !== undefined)(
  "there is no initial state to go back to: refused, by name, until a checkpoint",
  LIMIT,
  () =>
    withRig("attach-refused", async (rig) => {
      await rig.collect();
      const { redis, port } = await store(rig);
      const client = program(rig, "client", "perl", "-e", COUNTER, String(port));
      await goesOn(rig);
      for (const [name, { pid }] of [
        ["db", redis],
        ["client", client],
      ] as const)
        expect(await rig.cli("attach", rig.app, name, "--pid", String(pid), "--no-checkpoint")).toMatchObject(
          { code: 0 },
        );
      const refused = await rig.cli("compute", rig.app, "--failed", "db");
      expect(refused.code).toBe(4);
      expect(refused.err).toContain(
        "client, db would have to go back to a moment before it was recorded (attach)",
      );
      await goesOn(rig);
    }),
);

test.skipIf(missing !== undefined)(
  "what can't be attached is told, and nothing of it is touched",
  LIMIT,
  () =>
    withRig("attach-bad", async (rig) => {
      await rig.collect();
      await rig.run("known", "sleep", "1000");
      const known = rig.cgroup("known");
      const [pid] = known.pids();
      const { redis } = await store(rig);
      const elsewhere = new Elsewhere(rig);
      const inside = join(elsewhere.path, "below");
      mkdirSync(inside);
      onTestFinished(() => rmdirSync(inside));
      const refused: readonly (readonly [wanted: readonly string[], told: RegExp])[] = [
        [[], /one of --pid, --cgroup, --container, --pod and --unit/],
        [["--pid", String(redis.pid), "--cgroup", "/x"], /one of --pid/],
        [["--pid", "1"], /first of all/],
        [["--pid", "2"], /thread of the kernel|there is no process 2/],
        [["--pid", "4194303"], /there is no process 4194303/],
        [["--pid", String(process.pid)], /this command runs below it/],
        [["--pid", String(pid)], new RegExp(`recorded as process known of ${rig.app} already`)],
        [["--cgroup", "/nowhere-at-all"], /there is no cgroup \/nowhere-at-all/],
        [["--cgroup", "/"], /root cgroup holds the whole machine/],
        [["--cgroup", known.path], new RegExp(`it is, or lies in, process known of ${rig.app}`)],
        [["--cgroup", "/recovery-line"], /recovery-line's own cgroup/],
        [["--cgroup", elsewhere.path], /nothing runs in it/],
        [["--container", "no-such-container"], /knows a container "no-such-container"/],
        [["--unit", "no-such.service"], /not supported here: systemd does not run|does not run/],
      ];
      for (const [wanted, told] of refused) {
        const { code, err } = await rig.cli("attach", rig.app, "new", ...wanted);
        expect(err, wanted.join(" ")).toMatch(told);
        expect([1, 2], wanted.join(" ")).toContain(code);
      }
      elsewhere.take(redis);
      expect(
        (await rig.cli("attach", rig.app, "db", "--cgroup", elsewhere.path, "--no-checkpoint")).code,
      ).toBe(0);
      writeFileSync(join(inside, "cgroup.procs"), String(redis.pid));
      const twice = await rig.cli("attach", rig.app, "again", "--cgroup", inside);
      expect(twice.err).toMatch(new RegExp(`it is, or lies in, process db of ${rig.app}`));
      const again = await rig.cli("attach", rig.app, "db", "--pid", String(pid));
      expect(again.code).not.toBe(0);
      writeFileSync(join(elsewhere.path, "cgroup.procs"), String(redis.pid));
      expect(new ProcessCgroup(rig.app, "new").id, "nothing is left of what was refused").toBeUndefined();
      expect(known.freezing).toBe(false);
      expect(attachedTo(rig.app).map((one) => one.process)).toEqual(["db"]);
    }),
);
