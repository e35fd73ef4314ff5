/** A service whose recorded processes sleep sleeps, too: no look at any of them where the kernel has told of nothing and nothing has run. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { cgroup2Root } from "../../src/host/cgroups.ts";
import { COLLECT_NICE } from "../../src/model/limits.ts";
import { missing, type Rig, until, withRig } from "./rig.ts";

/** Times that the main thread of a process has slept. */
function sleeps(pid: number): number {
  return Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]);
}

/** CAP_SYS_NICE. */
function mayTakePriority(): boolean {
  const rights = /^CapEff:\s+(.*)$/m.exec(readFileSync("/proc/self/status", "utf8"))![1];
  return ((BigInt(`0x${rights}`) >> 23n) & 1n) === 1n;
}

/** Of a thread or a process's first one, by its folder in /proc. */
function niceOf(task: string): number {
  return Number(readFileSync(`${task}/stat`, "utf8").split(") ")[1]!.split(" ")[16]);
}

/** Moves a task of a process that sleeps to a cgroup of its own. */
async function withOneElsewhere(rig: Rig, process: string, work: (pid: number) => Promise<void>) {
  const elsewhere = join(cgroup2Root(), `${rig.app}-elsewhere`);
  mkdirSync(elsewhere);
  try {
    const [, pid] = rig.cgroup(process).pids();
    writeFileSync(join(elsewhere, "cgroup.procs"), `${pid}`);
    await work(pid!);
  } finally {
    writeFileSync(join(elsewhere, "cgroup.kill"), "1");
    await until("it is empty", () =>
      /populated 0/.test(readFileSync(join(elsewhere, "cgroup.events"), "utf8")),
    );
    rmdirSync(elsewhere);
  }
}

test.skipIf(missing !== undefined)("it wakes seldom, and hears all the same", async () => {
  const WAKES_A_SECOND = 5; // it was 10 and more
  await withRig("idle", async (rig) => {
    const { child } = await rig.collect();
    const tasks = `/proc/${child.pid}/task`;
    const others = readdirSync(tasks).filter((task) => task !== `${child.pid}`);
    const nice = mayTakePriority() ? COLLECT_NICE : 0;
    expect(niceOf(`/proc/${child.pid}`), "the thread that takes records").toBe(nice);
    for (const task of others) expect(niceOf(`${tasks}/${task}`), "nobody else").toBe(0);
    for (const name of ["p", "q", "r"]) await rig.run(name, "sleep", "1000");
    await rig.run("parent", "sh", "-c", "sleep 1000 & sleep 1000");
    await until("its children sleep", () => rig.cgroup("parent").pids().length === 3);
    await until("the service is quiet", async () => {
      const before = sleeps(child.pid!);
      await sleep(2000);
      return (sleeps(child.pid!) - before) / 2 <= WAKES_A_SECOND;
    });
    await withOneElsewhere(rig, "parent", async (pid) => {
      await until("who was moved is told", async () => (await rig.known("parent"))?.left[0]?.pid === pid);
    });
    const client = await rig.client();
    rig.cgroup("p").kill();
    await until("its end is told", async () =>
      (await client.processes()).some(({ process, live }) => process === "p" && !live),
    );
    expect((await client.processes()).filter(({ live }) => live)).toHaveLength(3);
    client.close();
  });
});
