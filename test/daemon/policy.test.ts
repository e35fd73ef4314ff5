/** Policies on live processes: plug, watch, swap under load, crash of the policy's process, kill of the collector, unplug; refusals. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readPolicyLog } from "../../src/daemon/policy-log.ts";
import type { PolicyLogLine, PolicyStatus } from "../../src/model/plugged-policy.ts";
import { restartable } from "../restart/restartable.ts";
import { freePort, missing, type Rig, type Running, SMALL_ASK, SMALL_ECHO, until, withRig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);

async function talk(rig: Rig): Promise<void> {
  const port = String(await freePort());
  await rig.run("server", ...SMALL_ECHO, port);
  await until("the server listens", () => rig.output("server").includes("listening"));
  await rig.run("client", ...SMALL_ASK, port);
}

const log = (rig: Rig): PolicyLogLine[] => readPolicyLog(join(rig.home, rig.app));

/** What was done of an action, under an epoch. */
const done = (rig: Rig, action: string, epoch: number): PolicyLogLine[] =>
  log(rig).filter((one) => one.action === action && one.epoch === epoch && one.outcome === "done");

async function shown(rig: Rig): Promise<PolicyStatus | undefined> {
  const client = await rig.client();
  const [status] = await client.policies();
  client.close();
  return status;
}

async function checkpoints(rig: Rig): Promise<Record<string, number>> {
  const client = await rig.client();
  const all = await client.processes();
  client.close();
  return Object.fromEntries(all.map((one) => [one.process, one.checkpoints]));
}

const plug = (rig: Rig, policy: string, ...flags: string[]) =>
  rig.json<{ epoch: number; replaced?: string; would: PolicyLogLine[] }>(
    "policy",
    "plug",
    rig.app,
    policy,
    "--driver",
    "none",
    ...flags,
  );

/** Spins: a hold without images is over in some milliseconds. Sends the signal while all of them stand still. */
function whileHeld(rig: Rig, { child }: Running, signal: NodeJS.Signals): void {
  const cgroups = ["client", "server"].map((name) => rig.cgroup(name));
  const deadlineMs = Date.now() + 30_000;
  while (!cgroups.every(({ frozen }) => frozen))
    if (Date.now() > deadlineMs) throw new Error("nothing was held within 30 s");
  child.kill(signal);
}

const allGoOn = (rig: Rig): Promise<void> =>
  until("all go on", () => ["client", "server"].every((name) => !rig.cgroup(name).freezing));

async function restarted(rig: Rig, collector: Running): Promise<Running> {
  whileHeld(rig, collector, "SIGKILL");
  await collector.ended;
  await allGoOn(rig);
  return rig.collect();
}

/** Processes of policies: children of the collector that run as nobody. */
function policyPids({ child }: Running): number[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const status = readFileSync(`/proc/${name}/status`, "utf8");
      const isOurs = status.includes(`PPid:\t${child.pid}\n`) && /^Uid:\t65534\t/m.test(status);
      return isOurs ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

live(
  "plugged it takes checkpoints; swapped under load, crashed and killed with the collector it goes on",
  () =>
    withRig("policy", async (rig) => {
      let collector = await rig.collect();
      await talk(rig);
      expect(await plug(rig, "periodic", "--set", "interval=1s")).toMatchObject({ epoch: 1 });
      await until(
        "both have one",
        () => new Set(done(rig, "checkpoint", 1).map((one) => one.process)).size === 2,
      );
      expect(Math.min(...Object.values(await checkpoints(rig)))).toBeGreaterThanOrEqual(1);
      expect(done(rig, "checkpoint", 1)).toContainEqual(
        expect.objectContaining({
          event: "beat",
          process: "client",
          line: 5,
          detail: expect.stringMatching(/^client \d+$/),
        }),
      );

      const swap = await plug(rig, "coordinated", "--set", "interval=1s", "--set", "hold=1s");
      expect(swap).toMatchObject({ epoch: 2, replaced: "periodic" });
      await until("a set is taken", () => done(rig, "synchronize", 2).length >= 1);
      expect(log(rig).some((one) => one.policy === "periodic" && one.epoch > 2)).toBe(false);

      const [pid] = policyPids(collector);
      process.kill(pid!, "SIGKILL");
      const before = done(rig, "synchronize", 2).length;
      await until("another process decides", () => done(rig, "synchronize", 2).length > before);
      expect(await shown(rig)).toMatchObject({ state: "active", faults: 1, epoch: 2 });

      whileHeld(rig, collector, "SIGSTOP"); // a partition: nobody answers those who hold
      const [sets, sinceMs] = [done(rig, "synchronize", 2).length, Date.now()];
      await allGoOn(rig);
      expect(Date.now() - sinceMs, "they go on at the deadline").toBeLessThan(10_000);
      collector.child.kill("SIGCONT");
      await until("sets are taken again", () => done(rig, "synchronize", 2).length > sets + 1);

      collector = await restarted(rig, collector);
      expect(await shown(rig)).toMatchObject({
        state: "active",
        policy: "coordinated",
        epoch: 2,
        parameters: { interval: 1, hold: 1 },
      });
      const then = done(rig, "synchronize", 2).length;
      await until("it goes on", () => done(rig, "synchronize", 2).length > then);

      expect(await rig.json("policy", "unplug", rig.app)).toMatchObject({ policy: "coordinated", epoch: 3 });
      expect(policyPids(collector)).toEqual([]);
      // What was under way ends; then nothing is taken any more: every second brought a set before.
      let last = "";
      await until("two seconds go by without a checkpoint", async () => {
        const before = last;
        last = JSON.stringify(await checkpoints(rig));
        if (last !== before) await new Promise((resolve) => setTimeout(resolve, 2_000));
        return last === before;
      });
    }),
);

const KEEP = `<policy xmlns="urn:recovery-line:policy:1" name="keep" version="1">
  <on event="beat"><if test="self.age ge 3 s">
    <synchronize who="dependents" within="30 s"><checkpoint/></synchronize></if></on>
  <on event="failed" each="node"><restart/></on>
</policy>`;

restartable("a policy takes sets of who depends on whom, and brings back what is killed", () =>
  withRig("policy-back", async (rig) => {
    await rig.collect();
    await talk(rig);
    const file = rig.path("keep.xml");
    writeFileSync(file, KEEP);
    const allow = ["--allow", "restart", "--driver", "criu"];
    expect(await rig.cli("policy", "plug", rig.app, file)).toMatchObject({
      code: 4,
      err: expect.stringContaining("--allow restart"),
    });
    await rig.json("policy", "plug", rig.app, file, ...allow);
    await until("a set is taken", () => done(rig, "synchronize", 1).length > 0);
    const { processes } = await rig.json<{ processes: { process: string; policy: object }[] }>(
      "status",
      rig.app,
    );
    expect(processes).toMatchObject(
      ["client", "server"].map((process) => ({ process, policy: { name: "keep", state: "active" } })),
    );

    rig.cgroup("server").kill();
    await until("it is brought back", () => done(rig, "restart", 1).length > 0);
    const client = await rig.client();
    const lines = async () =>
      (await client.processes()).find(({ process }) => process === "server")?.lines ?? 0;
    const then = await lines();
    await until("it answers again", async () => (await lines()) > then);
    const restarted = /policy_actions_total\{app="[^"]+",action="restart",outcome="done"\} 1/;
    await until("it is counted", async () => restarted.test(await client.metrics()));
    client.close();
  }),
);
