/** The host against real processes of policies: faults drop that event's actions, three restarts keep the state, the fourth fault is the last; budgets; epochs. */
import { expect, test } from "vitest";
import { buildPolicy } from "../../src/policy/build.ts";
import type { Component } from "../../src/policy/component.ts";
import { Guard, PluggedPolicy, PolicyProcesses } from "../../src/policy/host.ts";
import { PolicyFault, PolicyProcess } from "../../src/policy/host-process.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";

const built = (name: string): Component =>
  buildPolicy(
    "test.xml",
    `<policy xmlns="urn:recovery-line:policy:1" name="${name}" version="1">
  <parameter name="interval" type="duration" default="1 min"/>
  <state name="beats" type="number" initial="0" each="node"/>
  <state name="own" type="number" initial="0"/>
  <on event="beat"><set name="beats" value="beats + 1"/><set name="own" value="own + 1"/>
    <if test="self.age ge interval"><checkpoint/></if></on>
</policy>`,
  ).component;
const rows = (...ages: number[]) => ages.map((age, at) => ({ process: `p${at}`, facts: [age] }));
const CRASHING = `import { Socket } from "node:net"; const s = new Socket({ fd: 3 }); let n = 0;
s.on("data", () => { if (n++ === 0) s.write('{"ready":true}\\n'); else throw new Error("no more"); });`;

test("it acts by its parameters, keeps its state, and two applications share one process", async () => {
  const component = built("shared");
  let starts = 0;
  const processes = new PolicyProcesses((one) => {
    starts += 1;
    return PolicyProcess.start(one);
  });
  const slow = await PluggedPolicy.plug(component, processes, { epoch: 1 });
  const quick = await PluggedPolicy.plug(component, processes, { epoch: 2, set: new Map([["interval", 5]]) });
  expect(await slow.handle("beat", "process", rows(6, 7))).toEqual([]);
  expect(await quick.handle("beat", "process", rows(6, 4))).toMatchObject([
    { process: "p0", epoch: 2, action: { do: "checkpoint", who: "self" } },
  ]);
  expect([...quick.state("p0")]).toEqual([2, 1]);
  expect([...quick.state("new")]).toEqual([2, 0]);
  expect(await quick.handle("line", "process", rows(6))).toEqual([]);
  await slow.end("unplugged", "asked");
  expect(await quick.handle("beat", "process", rows(1))).toEqual([]);
  expect([...quick.state("p0")]).toEqual([3, 2]);
  await quick.end("unplugged", "asked");
  expect(starts).toBe(1);
});

test("each fault drops its event's actions; a new process goes on with the state; the fourth in a minute is the last", async () => {
  let code: string | undefined;
  const processes = new PolicyProcesses((one) => PolicyProcess.start(one, code));
  let now = 0;
  const policy = await PluggedPolicy.plug(built("faulty"), processes, { epoch: 1, now: () => now });
  expect(await policy.handle("beat", "process", rows(90))).toHaveLength(1);
  const process = await processes.running(policy.component);
  globalThis.process.kill(process.pid, "SIGKILL");
  expect(await policy.handle("beat", "process", rows(90)).catch(() => "thrown")).toEqual([]);
  expect(policy.faults).toBe(1);
  expect(await policy.handle("beat", "process", rows(90))).toHaveLength(1);
  expect([...policy.state("p0")]).toEqual([2, 2]);
  now = 61_000; // the first is forgotten
  code = CRASHING;
  (await processes.running(policy.component)).close(); // between two events: the first fault
  for (let fault = 2; fault <= 3; fault += 1) {
    expect(await policy.handle("beat", "process", rows(90))).toEqual([]);
    expect(policy.over).toBeUndefined();
  }
  expect(await policy.handle("beat", "process", rows(90))).toEqual([]);
  expect(policy.over).toMatchObject({ reason: "crash", why: expect.stringContaining("no more") });
  expect([...policy.state("p0")]).toEqual([2, 2]);
});

test("sixteen components run, the seventeenth is refused, and one unplugged makes room", async () => {
  const processes = new PolicyProcesses();
  const plugged: PluggedPolicy[] = [];
  try {
    for (let count = 0; count < 16; count += 1)
      plugged.push(await PluggedPolicy.plug(built(`n${count}`), processes, { epoch: count }));
    const late = () => PluggedPolicy.plug(built("late"), processes, { epoch: 99 });
    await expect(late()).rejects.toMatchObject({ code: "RL_LIMIT" });
    await plugged.pop()!.end("unplugged", "asked");
    plugged.push(await late());
  } finally {
    for (const one of plugged) await one.end("unplugged", "asked");
  }
});

test("what unprogrammed streams can't carry is refused by name", async () => {
  const refusal = PluggedPolicy.plug(loadPolicy("index-based").component, new PolicyProcesses(), {
    epoch: 1,
  });
  await expect(refusal).rejects.toMatchObject({
    code: "RL_NOT_SUPPORTED",
    message: expect.stringContaining("receiving"),
  });
});

test("what it asked before it was unplugged comes to nothing", async () => {
  const policy = await PluggedPolicy.plug(built("late-answer"), new PolicyProcesses(), { epoch: 1 });
  const asked = policy.handle("beat", "process", rows(90));
  await policy.end("unplugged", "asked");
  expect(await asked).toEqual([]);
});

test("the last one who is unplugged while the process fails to start again leaves none behind", async () => {
  const component = built("left-behind");
  const dead = { running: false, close: async () => undefined } as unknown as PolicyProcess;
  let fail: (error: Error) => void = () => undefined;
  const failing = new Promise<PolicyProcess>((_, reject) => {
    fail = reject;
  });
  const starts = [Promise.resolve(dead), failing];
  let count = 0;
  const processes = new PolicyProcesses(async () => starts[count++] ?? dead);
  const policy = await PluggedPolicy.plug(component, processes, { epoch: 1 });
  const ask = () => policy.handle("beat", "process", rows(90));
  const asked = [ask()];
  await new Promise((resolve) => setImmediate(resolve)); // it is found dead, and started again
  asked.push(ask());
  const ended = policy.end("unplugged", "asked");
  fail(new PolicyFault("crash", "no memory"));
  await ended;
  expect(await Promise.all(asked)).toEqual([[], []]);
  expect(count).toBe(2);
  expect(policy.total).toBe(0);
});

test("budget: one checkpoint a second a process, a tenth of the time frozen, a minute of asking for more is too eager", () => {
  const guard = new Guard();
  expect([0, 999, 1000].map((ms) => guard.allows("a", ms))).toEqual([true, false, true]);
  expect(guard.allows("b", 1000)).toBe(true);
  guard.held("b", 6_001, 2_000);
  expect(guard.allows("b", 3_000)).toBe(false);
  expect(guard.allows("b", 62_001)).toBe(true);
  const eager = new Guard();
  for (let ms = 0; ms <= 60_000; ms += 500) eager.allows("a", ms);
  expect(eager.isTooEager(60_000)).toBe(false);
  eager.allows("a", 60_500);
  expect(eager.isTooEager(60_500)).toBe(true);
  expect(eager.isTooEager(121_000)).toBe(false);
});

/** Plays a policy that asks every second while it wants to, each checkpoint holding so long; returns when it is found too eager, seconds. */
function foundEager(wants: (second: number) => boolean, heldS: number): number | undefined {
  const guard = new Guard();
  for (let second = 0; second < 1800; ) {
    const taken = wants(second) && guard.allows("a", second * 1000);
    second += taken ? heldS : 1;
    if (taken) guard.held("a", heldS * 1000, second * 1000);
    if (guard.isTooEager(second * 1000)) return second;
  }
  return undefined;
}

test("too eager in bursts: while it spends its share nothing is refused, for longer than any pause; who asks for too much now and then goes on", () => {
  expect(foundEager(() => true, 8)).toBeLessThan(100);
  expect(foundEager((second) => second % 60 < 50, 8)).toBeLessThan(150);
  expect(foundEager((second) => second % 60 < 5, 3)).toBeUndefined();
});
