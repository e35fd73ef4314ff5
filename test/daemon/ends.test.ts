/** How processes ended, what that means for lines and restarts, and processes that go on elsewhere (case 08-cgroup-left). */
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { dropOldEnds, endsFolder } from "../../src/host/process-end.ts";
import { startTicksOf } from "../../src/host/process-tree.ts";
import { CriuDriver } from "../../src/images/criu/driver-criu.ts";
import { findCriu } from "../../src/images/criu/driver-criu-find.ts";
import { ENDS_KEPT, ENDS_KEPT_MS } from "../../src/model/limits.ts";
import type { LineEntry } from "../../src/model/recovery-line.ts";
import { native } from "../../src/native/binding.ts";
import { LONG } from "../size.ts";
import { freePort, missing, type Rig, SMALL_ECHO, until, withRig, withSharedCollector } from "./rig.ts";
import { stranger } from "./strangers.ts";

const live = test.skipIf(missing !== undefined);
const criu = await findCriu();
const check = criu.found === undefined ? undefined : await new CriuDriver(criu.found).check();
const imaged = test.skipIf(missing !== undefined || check?.works !== true);
const together = withSharedCollector("ends");

interface Process {
  readonly process: string;
  readonly state: string;
  readonly exitCode?: number;
  readonly signal?: number;
  readonly pids: number[];
  readonly left: { readonly pid: number; readonly cgroup: string }[];
  readonly incarnation: number;
  readonly uncaptured: string[];
}

async function processOf(rig: Rig, name: string): Promise<Process> {
  const { processes } = await rig.json<{ processes: Process[] }>("status", rig.app);
  return processes.find(({ process }) => process === name)!;
}

async function told(rig: Rig, name: string): Promise<[string, number | undefined, number | undefined]> {
  const { state, exitCode, signal } = await processOf(rig, name);
  return [state, exitCode, signal];
}

interface Answer {
  readonly failed: string[];
  readonly outcome: string;
  readonly line: (LineEntry & { readonly ended?: { readonly state: string; readonly exitCode?: number } })[];
}

function entry({ line }: Answer, name: string): Answer["line"][number] {
  return line.find(({ process }) => process === name)!;
}

live("how a command ended is kept, waited for or detached, also over collectors", LONG, () =>
  withRig("ends", async (rig) => {
    const first = await rig.collect();
    await rig.cli("run", rig.app, "a", "--", "true");
    expect((await rig.cli("run", rig.app, "b", "--", "sh", "-c", "exit 3")).code).toBe(3);
    expect((await rig.cli("run", rig.app, "c", "--", "sh", "-c", "kill -9 $$")).code).toBe(137);
    const pid = await rig.run("d", "sh", "-c", "ps -o pid=,sid= -p $$; exit 0");
    await rig.run("e", "sh", "-c", "exit 3");
    await rig.run("f", "sleep", "600");
    process.kill((await processOf(rig, "f")).pids[0]!, "SIGKILL");
    await until("it is dead", () => !rig.cgroup("f").populated);
    const expected = async (): Promise<void> => {
      for (const [name, ...end] of [
        ["a", "finished", 0, undefined],
        ["b", "failed", 3, undefined],
        ["c", "killed", undefined, 9],
        ["d", "finished", 0, undefined],
        ["e", "failed", 3, undefined],
        ["f", "killed", undefined, 9],
      ] as const)
        await until(
          `${name} is ${end.join(" ")}`,
          async () => `${await told(rig, name)}` === `${end}`,
          10_000,
        );
    };
    await expected();
    expect(rig.output("d").trim().split(/\s+/).map(Number), "pid as printed, a session of its own").toEqual([
      pid,
      pid,
    ]);
    const { out } = await rig.cli("status", rig.app);
    expect(out).toMatch(/^\S+ +a +finished /m);
    expect(out).toMatch(/^\S+ +b +failed \(code 3\) /m);
    expect(out).toMatch(/^\S+ +f +killed \(signal 9\) /m);
    for (const name of "abcdef") await rig.hearsEnd(name);
    expect(readdirSync(endsFolder()!).filter((name) => name.startsWith(`${pid}-`))).toEqual([]);
    first.child.kill("SIGKILL");
    await first.ended;
    await rig.collect();
    await expected();
    const plan = await rig.cli("restart", rig.app, "--dry-run", "--json");
    expect((JSON.parse(plan.out) as Answer).failed.sort()).toEqual(["b", "c", "e", "f"]);
  }),
);

/** Whether the kernel tells how somebody else's child ended. */
async function tellsEnds(): Promise<boolean> {
  const child = spawn("sh", ["-c", "read _; exit 7"], { stdio: ["pipe", "ignore", "ignore"] });
  const fd = native().openProcess(child.pid!)!;
  child.stdin.end("go\n");
  await once(child, "close");
  const status = native().waitStatus(fd);
  closeSync(fd);
  return status === 7 << 8;
}

const toldEnds = missing === undefined && (await tellsEnds());

/** Goes on until the file is there, then ends with what stands in it. */
const UNTIL = 'until test -s "$0"; do sleep 0.05; done; exit "$(cat "$0")"';

(toldEnds ? imaged : test.skip)(
  `who came back from an image, or was attached, and ends with exit code 0 has finished: no restart does its work again${toldEnds ? "" : " (not supported here: Linux before 6.15 does not tell how others' children ended)"}`,
  () =>
    withRig("job-ends", async (rig) => {
      let collector = await rig.collect();
      for (const name of ["good", "bad"]) await rig.run(name, "sh", "-c", UNTIL, rig.path(name));
      const other = stranger("sh", ["-c", UNTIL, rig.path("other")]);
      expect((await rig.cli("attach", rig.app, "other", "--pid", `${other.pid}`)).code).toBe(0);
      await rig.json("checkpoint", rig.app, "good", "bad", "--driver", "criu");
      for (const name of ["good", "bad"]) {
        rig.cgroup(name).kill();
        await rig.hearsEnd(name);
      }
      await rig.json("restart", rig.app);
      collector.child.kill("SIGTERM");
      await collector.ended;
      collector = await rig.collect(); // it watches what it finds running
      for (const [name, code] of [
        ["good", 0],
        ["bad", 5],
        ["other", 0],
      ] as const)
        writeFileSync(rig.path(name), `${code}\n`);
      for (const name of ["good", "bad", "other"]) await rig.hearsEnd(name);
      expect(await Promise.all(["good", "bad", "other"].map((name) => told(rig, name)))).toEqual([
        ["finished", 0, undefined],
        ["failed", 5, undefined],
        ["finished", 0, undefined],
      ]);
      const plan = await rig.json<Answer>("restart", rig.app, "--dry-run");
      expect(plan.failed).toEqual(["bad"]);
    }),
);

/** Asks once, gets an answer, and ends. */
const JOB =
  'use Socket;socket(S,PF_INET,SOCK_STREAM,0);connect(S,pack_sockaddr_in($ARGV[0],INADDR_LOOPBACK))or die;syswrite(S,"job");sysread(S,$_,9)or die';

async function serverAndJob(rig: Rig): Promise<void> {
  const port = await freePort();
  await rig.run("server", ...SMALL_ECHO, `${port}`);
  await until("the server listens", () => rig.output("server").includes("listening"));
  ports.set(rig, port);
  await finishes(rig, "job");
}

const ports = new WeakMap<Rig, number>();

async function finishes(rig: Rig, name: string): Promise<void> {
  await rig.run(name, "perl", "-e", JOB, `${ports.get(rig)}`);
  expect((await rig.hearsEnd(name)).end).toMatchObject({ code: 0 });
}

imaged(
  "a finished job has not failed: where the line keeps its work it is left alone, else it goes back, and both is said",
  () =>
    together("jobs", async (rig) => {
      await serverAndJob(rig);
      expect(await rig.cli("restart", rig.app)).toMatchObject({
        code: 2,
        err: expect.stringContaining("is running or has finished: nothing has failed"),
      });
      await rig.json("checkpoint", rig.app, "server");
      const dies = async (): Promise<void> => {
        rig.cgroup("server").kill();
        await until("it is dead", () => !rig.cgroup("server").populated);
      };
      await dies();
      const kept = await rig.json<Answer>("compute", rig.app, "--failed", "server");
      expect(entry(kept, "job")).toMatchObject({
        action: "continue",
        ended: { state: "finished", exitCode: 0 },
      });
      expect(entry(kept, "server")).toMatchObject({ action: "restore", checkpoint: 1 });
      expect((await rig.cli("compute", rig.app, "--failed", "server")).out).toContain(
        "job runs no more (finished): it need not come back.",
      );
      const first = await rig.cli("restart", rig.app);
      expect([first.code, first.err, first.out]).toEqual([
        0,
        "",
        expect.stringContaining("job runs no more (finished)"),
      ]);
      expect(await rig.known("job")).toMatchObject({ live: false, incarnation: 1 });
      expect(await rig.known("server")).toMatchObject({ live: true, incarnation: 2 });

      await finishes(rig, "late"); // after the checkpoint
      await dies();
      const said = "late had finished; the line undoes what it sent or received, so it goes back, too.";
      const plan = await rig.json<Answer>("restart", rig.app, "--dry-run");
      expect(entry(plan, "late")).toMatchObject({ action: "initial", ended: { state: "finished" } });
      const second = await rig.cli("restart", rig.app);
      expect([second.code, second.out]).toEqual([0, expect.stringContaining(said)]);
      await until("the job has run again", async () => {
        const { live, incarnation } = (await rig.known("late"))!;
        return incarnation === 2 && !live;
      });
      expect(await told(rig, "late")).toEqual(["finished", 0, undefined]);
      expect(await processOf(rig, "job")).toMatchObject({ state: "finished", incarnation: 1 });
    }),
);

/** Sends a byte, another one once the file is there, and ends with exit code 3. */
const SENDS_TWICE = [
  ...["perl", "-e"],
  'use Socket;socket(S,PF_INET,SOCK_STREAM,0);connect(S,pack_sockaddr_in($ARGV[0],INADDR_LOOPBACK))or die;syswrite(S,"1");until(-e$ARGV[1]){select(undef,undef,undef,.02)}syswrite(S,"2");exit 3',
];

for (const [how, unpinned] of [
  ["", false],
  [" and was unpinned", true],
] as const)
  live(
    `a collector starts although the cgroup of a process went while none ran${how}: what it did and how it ended is on record as of one whose cgroup stayed`,
    () =>
      withRig("cgroup-went", async (rig) => {
        let received = "";
        const sink = createServer((socket) => socket.on("data", (bytes) => (received += bytes)));
        sink.listen(0, "127.0.0.1");
        onTestFinished(() => void sink.close());
        await once(sink, "listening");
        const command = [...SENDS_TWICE, `${(sink.address() as AddressInfo).port}`, rig.path("go")];
        const collector = await rig.collect();
        await rig.run("stays", ...command);
        const foreground = rig.background("run", rig.app, "goes", "--", ...command);
        await until("both have sent", () => received.length === 2);
        await rig.events(); // the log has it
        collector.child.kill("SIGKILL");
        await collector.ended;
        writeFileSync(rig.path("go"), "");
        expect(await foreground.ended).toMatchObject({ code: 3 });
        await until("both have ended", () => received.length === 4 && !rig.cgroup("stays").populated);
        expect([rig.cgroup("goes").id, rig.cgroup("stays").id]).toEqual([undefined, expect.any(Number)]);
        if (unpinned) await rig.cli("collect", "--unpin", "--pin-dir", rig.pinDir);

        await rig.collect();
        const known = await Promise.all(["goes", "stays"].map((name) => rig.hearsEnd(name)));
        const events = await rig.events();
        const [goes, stays] = known.map(({ process, end, failed, uncaptured }) => {
          const types = events.filter((event) => event.process === process).map(({ type }) => type);
          return { types, end, failed, uncaptured };
        });
        expect(goes).toEqual(stays);
        expect([goes?.end, goes?.types.includes("gap")]).toEqual([{ code: 3 }, unpinned]);
        expect(await told(rig, "goes")).toEqual(["failed", 3, undefined]);
      }),
  );

/** A cgroup outside of ours; gone at the end with all that is in it. */
async function withElsewhere(rig: Rig, work: (path: string) => Promise<void>): Promise<void> {
  const path = join(cgroup2Root(), `elsewhere-${rig.app}`);
  mkdirSync(path);
  const pids = (): number[] =>
    readFileSync(join(path, "cgroup.procs"), "utf8").split("\n").filter(Boolean).map(Number);
  try {
    await work(path);
  } finally {
    for (const pid of pids()) process.kill(pid, "SIGKILL");
    await until("nothing is in it", () => {
      try {
        rmdirSync(path); // a task that is dead counts until it has been buried
        return true;
      } catch {
        return false;
      }
    });
  }
  expect(existsSync(path)).toBe(false);
}

live(
  "a process that goes on in another cgroup has left: status, log and restart say so, no second copy",
  () =>
    withRig("left", (rig) =>
      withElsewhere(rig, async (path) => {
        const first = await rig.collect();
        const pid = await rig.run("p", "sh", "-c", `echo $$ > ${path}/cgroup.procs; exec sleep 300`);
        await until("the log has it", async () =>
          (await rig.events()).some((event) => event.type === "gap" && event.reason === "left"),
        );
        await rig.hearsEnd("p");
        const check = async (): Promise<void> => {
          const { out } = await rig.cli("status", rig.app);
          expect(out).toMatch(/^\S+ +p +left .* left$/m);
          expect(out).toContain(`p of ${rig.app} has left its cgroup`);
          const refused = await rig.cli("restart", rig.app);
          expect([refused.code, refused.err]).toEqual([
            4,
            expect.stringContaining(
              `p of ${rig.app} goes on outside of its cgroup, where nobody records it: process ${pid} is in /elsewhere-`,
            ),
          ]);
          const again = await rig.cli("run", rig.app, "p", "--fresh", "--detach", "--", "sleep", "300");
          expect([again.code, again.err]).toEqual([1, expect.stringContaining("goes on in another cgroup")]);
          expect(rig.cgroup("p").populated).toBe(false);
        };
        await check();
        const { state, left, uncaptured } = await processOf(rig, "p");
        expect([state, left, uncaptured]).toEqual([
          "left",
          [expect.objectContaining({ pid, cgroup: `/elsewhere-${rig.app}` })],
          ["left"],
        ]);
        expect((await rig.cli("compute", rig.app, "--failed", "p")).out).toContain("p has left its cgroup");
        first.child.kill("SIGKILL");
        await first.ended;
        await rig.collect();
        await check();
        process.kill(pid, "SIGKILL");
        await until("it is gone", () => startTicksOf(pid) === undefined);
        expect((await rig.cli("restart", rig.app)).code).toBe(0);
      }),
    ),
);

live(
  "one task that leaves a process that stays makes a gap of its own reason, and no checkpoint has a cut",
  LONG,
  () =>
    together("half-left", (rig) =>
      withElsewhere(rig, async (path) => {
        await rig.run("p", "sh", "-c", `sleep 300 & c=$!; sleep 2; echo $c > ${path}/cgroup.procs; wait`);
        await until("a task has left", async () => (await processOf(rig, "p")).left.length === 1);
        expect((await processOf(rig, "p")).state).toBe("running");
        await until("the log has it", async () =>
          (await rig.events()).some((event) => event.type === "gap" && event.reason === "left"),
        );
        const { checkpoints } = await rig.json<{ checkpoints: { cut: boolean; uncaptured: string[] }[] }>(
          "checkpoint",
          rig.app,
          "--driver",
          "none",
        );
        expect(checkpoints).toEqual([expect.objectContaining({ cut: false, uncaptured: ["left"] })]);
      }),
    ),
);

test("ends that nobody takes do not fill the folder: the oldest go, those of late stay", () => {
  const folder = mkdtempSync(join(tmpdir(), "ends-"));
  try {
    const nowMs = Date.now();
    const put = (name: string, agoMs: number) => {
      writeFileSync(join(folder, name), "exited 0\n");
      utimesSync(join(folder, name), (nowMs - agoMs) / 1000, (nowMs - agoMs) / 1000);
    };
    for (let n = 0; n < ENDS_KEPT; n += 1) put(`${n}-1`, 0);
    put("old-1", 2 * ENDS_KEPT_MS);
    put("late-1", ENDS_KEPT_MS / 2);
    dropOldEnds(folder, nowMs);
    const left = readdirSync(folder);
    expect([left.includes("old-1"), left.includes("late-1"), left.length]).toEqual([
      false,
      true,
      ENDS_KEPT + 1,
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
