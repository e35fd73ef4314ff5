/** What a plugged policy's host does, on a played clock: swap, states, faults, budgets, fallback, restarts, refusals. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { PolicyRecord } from "../../src/daemon/policy-record.ts";
import { RecoveryLineError } from "../../src/model/errors.ts";
import { PolicyProcesses } from "../../src/policy/host.ts";
import { PolicyProcess } from "../../src/policy/host-process.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";
import { APP, built, REAL_WAITS, withLiveRig } from "./live-rig.ts";

const EVERY = `<parameter name="interval" type="duration" default="10 s"/>
  <on event="beat"><if test="self.age ge interval"><checkpoint/></if></on>`;
const COUNTING = (more: string): string => `<state name="beats" type="number" initial="0" each="node"/>
  <state name="own" type="number" initial="5"/>
  <on event="beat"><set name="beats" value="beats + 1"/><set name="own" value="own + 1"/>${more}</on>
  <on event="leaving"><tell who="node" value="beats"/></on>`;

test("a checkpoint of each process after its interval, by one command; what it read and where it stands is noted", () =>
  withLiveRig(["a", "b"], async (rig) => {
    await rig.plug(built(EVERY));
    await rig.beats(9);
    expect(rig.ran).toEqual([]);
    await rig.beats(1);
    expect(rig.ran).toEqual([`checkpoint ${APP} a b --driver none`]);
    expect(rig.log.at(-1)).toMatchObject({
      epoch: 1,
      event: "beat",
      process: "b",
      line: 3,
      facts: { "self.age": 10 },
      action: "checkpoint",
      outcome: "done",
      detail: "b 1",
    });
    await rig.beats(10);
    expect(rig.ran).toHaveLength(2);
  }));

test("a swap: states of equal name, type and scope go over, the epoch rises, a killed collector finds the new one with its states", () =>
  withLiveRig(["a"], async (rig) => {
    await rig.plug(built(COUNTING("")));
    await rig.beats(3);
    const second = built(
      COUNTING(
        `<if test="beats ge 6"><note text="six"/></if><if test="own ge 11"><note text="eleven"/></if>`,
      ),
    );
    expect(await rig.plug(second)).toMatchObject({ epoch: 2, replaced: "test", would: [] });
    await rig.beats(2);
    expect(rig.outcomes).toEqual([]);
    await rig.killed(); // what was remembered is as old as the last commit: that of the swap, after 3 beats
    expect(await rig.status()).toMatchObject({ epoch: 2, state: "active" });
    await rig.beats(3);
    expect(rig.log.filter(({ action }) => action === "note").map(({ detail }) => detail)).toEqual([
      "six",
      "eleven",
    ]);
    expect(await rig.policies.unplug(APP)).toEqual({ policy: "test", epoch: 3 });
    await rig.killed();
    expect(await rig.status()).toBeUndefined();
    await expect(rig.policies.unplug(APP)).rejects.toMatchObject({ code: "RL_USAGE" });
  }));

test("shadow: what it would do now is told and not done; one that fails there is refused, and the old one goes on", () =>
  withLiveRig(["a"], async (rig) => {
    await rig.plug(built(EVERY));
    await rig.beats(5);
    const eager = built(`<on event="beat"><checkpoint/></on>`);
    const { would } = await rig.plug(eager, {}, { dryRun: true });
    expect(would).toMatchObject([
      { event: "beat", process: "a", line: 2, action: "checkpoint", outcome: "shadow" },
    ]);
    expect(rig.ran).toEqual([]);
    rig.fault = "crash";
    await expect(rig.plug(eager)).rejects.toMatchObject({
      code: "RL_REFUSED",
      message: expect.stringContaining("told to"),
    });
    rig.fault = undefined;
    expect(await rig.status()).toMatchObject({ epoch: 1 });
    await rig.beats(5);
    expect(rig.ran).toHaveLength(1);
  }));

test("a record that can't be written plugs nothing, and what is so is written again", () =>
  withLiveRig(["a"], async (rig) => {
    await rig.plug(built(EVERY));
    rig.refusesWrites = new RecoveryLineError("RL_LOG_WRITE", "the disk is full");
    await expect(rig.plug(built(COUNTING("")))).rejects.toMatchObject({ code: "RL_LOG_WRITE" });
    rig.stored = { record: "what came through", memory: undefined };
    rig.refusesWrites = undefined;
    await rig.beats(1);
    expect(rig.stored.record as PolicyRecord).toMatchObject({ epoch: 1 });
    await rig.beats(10);
    expect(rig.outcomes).toEqual(["checkpoint done"]);
  }));

test("crashes: their events' actions are dropped; the fourth in a minute, and the fallback decides, also after a kill; plug ends that", () =>
  withLiveRig(["a"], async (rig) => {
    const parameter = `<parameter name="held" type="duration" default="7 s"/>`;
    await rig.plug(built(`${parameter}<on event="beat"><checkpoint/></on>`), { fallback: { interval: 20 } });
    await rig.beats(1);
    rig.fault = "crash";
    await rig.beats(3);
    expect(await rig.status()).toMatchObject({ state: "active", faults: 3 });
    await rig.beats(1);
    const over = { state: "fallback", epoch: 2, over: { reason: "crash" }, parameters: { held: 7 } };
    expect(await rig.status()).toMatchObject(over);
    expect(rig.ran).toHaveLength(1);
    expect(rig.trouble[0]).toMatch(
      /decides no more \(crash: it was told to\); periodic checkpoints take over/,
    );
    rig.fault = undefined;
    rig.processes.get("a")!.changed = true;
    await rig.beats(10);
    await rig.killed();
    await rig.beats(5);
    expect(rig.ran).toHaveLength(1);
    await rig.beats(10);
    expect(rig.ran).toHaveLength(2);
    expect(rig.log.at(-1)).toMatchObject({
      event: "fallback",
      policy: "host",
      action: "checkpoint",
      outcome: "done",
    });
    expect(await rig.plug(built(EVERY))).toMatchObject({ epoch: 3 });
    expect(await rig.status()).toMatchObject({ state: "active", faults: 0 });
  }));

test("too eager: refused and counted, more than a minute of it ends it with reason budget; without a fallback nothing takes over", () =>
  withLiveRig(["a"], async (rig) => {
    rig.frozenMs = 3000;
    await rig.plug(built(`<on event="beat"><checkpoint/></on>`), { fallback: null });
    await rig.beats(60);
    expect(await rig.status()).toMatchObject({ state: "active" });
    const { actions } = (await rig.status())!;
    expect(actions["checkpoint refused"]).toBeGreaterThan(40);
    await rig.beats(20);
    expect(await rig.status()).toMatchObject({ state: "fallback", over: { reason: "budget" } });
    const ran = rig.ran.length;
    await rig.beats(100);
    expect(rig.ran).toHaveLength(ran);
  }));

test("a failure: restarted with back-off, five times in ten minutes; exit code 0 is none; not without --allow", () =>
  withLiveRig(["a", "b"], async (rig) => {
    const policy = built(`<on event="failed" each="node"><restart/></on>`);
    await expect(rig.plug(policy)).rejects.toMatchObject({
      code: "RL_REFUSED",
      advice: expect.stringContaining("--allow restart"),
    });
    await rig.plug(policy, { allow: [] });
    const a = rig.processes.get("a")!;
    Object.assign(a, { live: false, code: 0 });
    await rig.beats(1);
    expect(rig.outcomes).toEqual([]);
    Object.assign(a, { live: true, incarnation: 2 });
    await rig.beats(1);
    Object.assign(a, { live: false, code: 9 });
    await rig.beats(1);
    expect(rig.outcomes).toEqual(["restart refused"]);
    Object.assign(a, { live: true, incarnation: 3 });
    await rig.plug(policy, { allow: ["restart"] });
    await rig.beats(1);
    rig.answer = ([word, , , name]) => {
      if (word !== "restart") return undefined;
      Object.assign(rig.processes.get(name!)!, { live: true, incarnation: 4 });
      return { code: 0, answer: {}, why: "" };
    };
    Object.assign(a, { live: false, code: 9 });
    await rig.beats(2);
    expect(rig.ran).toEqual([`restart ${APP} --failed a`]);
    expect(await rig.status()).toMatchObject({ restarts: 1 });
    expect(rig.outcomes.at(-1)).toBe("restart done");
  }));

test("bytes in transit that are nowhere: it goes further back", () =>
  withLiveRig(["a"], async (rig) => {
    await rig.plug(built(`<on event="failed" each="node"><restart/></on>`), { allow: ["restart"] });
    rig.answer = (args) =>
      args.includes("--fall-back") ? undefined : { code: 4, answer: undefined, why: "refused" };
    Object.assign(rig.processes.get("a")!, { live: false, code: 1 });
    await rig.beats(1);
    expect(rig.ran).toEqual([`restart ${APP} --failed a`, `restart ${APP} --failed a --fall-back`]);
  }));

test("work that a failure could undo is counted from where a process goes on: neither what was undone already nor its time dead", () =>
  withLiveRig(["a"], async (rig) => {
    const a = rig.processes.get("a")!;
    await rig.plug(built(`<on event="beat"><if test="self.loss ge 10 s"><note text="much"/></if></on>`));
    const notesAfter = async (beats: number): Promise<number> => {
      await rig.beats(beats);
      return rig.outcomes.filter((one) => one === "note done").length;
    };
    const backAfter = async (beats: number): Promise<void> => {
      a.live = false;
      await rig.beats(beats);
      Object.assign(a, { live: true, incarnation: a.incarnation + 1 });
      await rig.beats(1);
    };
    expect(await notesAfter(8)).toBe(0);
    await backAfter(7); // to its start
    expect(await notesAfter(9)).toBe(0);
    a.newest = 1;
    expect(await notesAfter(9)).toBe(0);
    await backAfter(7); // to its checkpoint
    expect(await notesAfter(9)).toBe(0);
    expect(await notesAfter(2)).toBeGreaterThan(0);
  }));

test("a process that died while no collector ran has failed", () =>
  withLiveRig(["a", "b"], async (rig) => {
    await rig.plug(built(`<on event="failed" each="node"><restart/></on>`), { allow: ["restart"] });
    await rig.beats(6);
    Object.assign(rig.processes.get("a")!, { live: false, code: 1 });
    await rig.killed();
    await rig.beats(1);
    expect(rig.ran).toEqual([`restart ${APP} --failed a`]);
  }));

test("sets: group, node, dependents with their deadline; collect, payload log, leaving, told", () =>
  withLiveRig(["a", "b", "c"], async (rig) => {
    for (const name of ["a", "b"]) rig.processes.get(name)!.group = "g";
    const set = (who: string) => `<synchronize who="${who}" within="2 s"><checkpoint/></synchronize>`;
    await rig.plug(
      built(`<on event="plugged"><log payload="on"/></on>
      <on event="beat"><if test="self.turn eq 0 and self.age ge 5 s">${set("group")}</if></on>
      <on event="checkpointed"><if test="self.turn gt 0.5">${set("dependents")}</if></on>
      <on event="leaving">${set("node")}<collect/></on>`),
      { allow: ["collect"] },
    );
    await rig.settled();
    expect(rig.ran).toEqual(["payload on"]);
    await rig.beats(5);
    expect(rig.ran.at(-1)).toBe(`checkpoint ${APP} a b --driver none --coordinated --within 2000`);
    rig.processes.get("c")!.newest = 1; // somebody else took one
    await rig.beats(2);
    expect(rig.ran.at(-1)).toBe(`checkpoint ${APP} c --driver none --dependents --within 2000`);
    await rig.beats(2);
    rig.nowMs += 2000;
    await rig.policies.leaving(5);
    expect(rig.ran.slice(-2)).toEqual([
      `checkpoint ${APP} a b c --driver none --coordinated --within 2000`,
      `gc ${APP} --apply`,
    ]);
  }));

test("what can't run here is refused by name", () =>
  withLiveRig(
    ["a"],
    async (rig) => {
      const code = "RL_NOT_SUPPORTED";
      await expect(rig.plug(loadPolicy("periodic"))).rejects.toMatchObject({
        code,
        message: expect.stringContaining("checkpoint"),
      });
      await expect(rig.plug(loadPolicy("index-based"), { fallback: null })).rejects.toMatchObject({ code });
      const noting = built(`<on event="beat"><note text="one"/></on>`);
      await expect(rig.plug(noting)).rejects.toMatchObject({
        code,
        message: expect.stringContaining("--fallback"),
      });
      await rig.plug(noting, { fallback: null });
      await rig.beats(1);
      expect(rig.outcomes).toEqual(["note done"]);
    },
    { withoutRights: true },
  ));

test("output-commit decides what held output waits for; who is not held is named, before and after", () =>
  withLiveRig(["a", "b", "c"], async (rig) => {
    const plugged = loadPolicy("output-commit");
    const unheld = { code: "RL_REFUSED", message: expect.stringMatching(/output-commit .* that of b, c$/) };
    Object.assign(rig.processes.get("a")!, { held: true });
    await expect(rig.plug(plugged, { driver: "criu" })).rejects.toMatchObject(unheld);
    expect(await rig.policies.output(APP, ["a"]), "the collector takes the checkpoints").toBe(false);
    for (const one of rig.processes.values()) Object.assign(one, { held: true });
    await expect(rig.plug(plugged)).rejects.toMatchObject({ code: "RL_NOT_SUPPORTED" }); // driver none
    await rig.plug(plugged, { driver: "criu" });
    await expect(rig.policies.requireHeld(APP, "d")).rejects.toMatchObject({
      code: "RL_REFUSED",
      message: expect.stringMatching(/that of d$/),
    });
    rig.frozenMs = 10_000; // a tenth of the time is spent by one: output goes all the same
    expect(await rig.policies.output(APP, ["a", "b"])).toBe(true);
    expect(await rig.policies.output(APP, ["a"])).toBe(true);
    const set = (names: string) => `checkpoint ${APP} ${names} --driver criu --dependents --within 5000`;
    expect(rig.ran).toEqual([set("a b"), set("a")]);
    await rig.plug(loadPolicy("periodic"), { driver: "criu", set: [["interval", 3]] });
    for (const one of rig.processes.values()) one.changed = true;
    await rig.beats(4);
    expect(rig.ran.slice(2), "and the budget is not spent").toEqual([
      `checkpoint ${APP} a b --driver criu`,
      `checkpoint ${APP} c --driver criu`,
    ]);
    expect(await rig.policies.output(APP, ["a"])).toBe(false);
    await rig.policies.requireHeld(APP, "d");
  }));

test("a hook takes one process at a time: no sets", () =>
  withLiveRig(["a"], async (rig) => {
    const hook = { driver: "hook", hooks: "/etc/hooks.json" } as const;
    await expect(rig.plug(loadPolicy("coordinated"), hook)).rejects.toMatchObject({
      code: "RL_NOT_SUPPORTED",
    });
    await expect(rig.plug(loadPolicy("periodic"), { driver: "hook" })).rejects.toMatchObject({
      code: "RL_USAGE",
    });
    await rig.plug(loadPolicy("periodic"), { ...hook, set: [["interval", 3]] });
    await rig.beats(3);
    expect(rig.ran).toEqual([`checkpoint ${APP} a --driver hook --hooks /etc/hooks.json`]);
  }));

test("restarts that fail wait twice as long each time, and end after five within ten minutes", () =>
  withLiveRig(["a"], async (rig) => {
    await rig.plug(built(`<on event="failed" each="node"><restart/></on>`), { allow: ["restart"] });
    rig.answer = () => ({ code: 1, answer: undefined, why: "the image is gone" });
    Object.assign(rig.processes.get("a")!, { live: false, code: 1 });
    await rig.beats(1);
    expect(rig.waitedMs).toEqual([1000, 2000, 4000, 8000]);
    expect(rig.ran).toHaveLength(5);
    expect(rig.log.at(-1)).toMatchObject({ outcome: "refused", detail: "5 restarts within 10 minutes" });
    expect(rig.log.at(-2)).toMatchObject({ outcome: "failed", detail: "the image is gone" });
  }));

test("a restart that finds a gc or another restart at work is tried until it is let, and counts as none", () =>
  withLiveRig(["a"], async (rig) => {
    await rig.plug(built(`<on event="failed" each="node"><restart/></on>`), { allow: ["restart"] });
    const error = { code: "RL_LOCKED", message: "a gc is at work" };
    rig.answer = () => (rig.ran.length > 7 ? undefined : { code: 1, answer: { error }, why: error.message });
    Object.assign(rig.processes.get("a")!, { live: false, code: 1 });
    await rig.beats(1);
    expect(rig.waitedMs).toEqual([1000, 1000, 1000, 1000, 1000, 1000, 1000]);
    expect(rig.log.at(-2)).toMatchObject({ outcome: "failed", detail: "a gc is at work" });
    expect(rig.log.at(-1)).toMatchObject({ outcome: "done" });
    expect(await rig.status()).toMatchObject({ restarts: 1 });
  }));

test("a collector that ends waits for no further try of a restart, and begins none", () =>
  withLiveRig(
    ["a"],
    async (rig) => {
      await rig.plug(built(`<on event="failed" each="node"><restart/></on>`), { allow: ["restart"] });
      rig.answer = () => ({ code: null, answer: undefined, why: "the collector ends" });
      Object.assign(rig.processes.get("a")!, { live: false, code: 1 });
      await rig.beats(1);
      await rig.policies.close();
      await rig.settled();
      expect(rig.ran).toEqual([`restart ${APP} --failed a`]);
      expect(rig.log.at(-1)).toMatchObject({ outcome: "dropped", detail: "the collector ends" });
    },
    REAL_WAITS,
  ));

test("a collector that ends ends a shadow phase: what was to be plugged is not, and whoever plugs it is told", () =>
  withLiveRig(
    ["a"],
    async (rig) => {
      await rig.plug(built(EVERY));
      const told = rig.plug(built(COUNTING("")), {}, { shadowMs: 3_600_000 }).catch(({ code }) => code);
      await rig.settled();
      await rig.policies.close();
      expect(await Promise.race([told, rig.settled().then(() => "it waits")])).toBe("RL_NO_COLLECTOR");
      await rig.killed();
      expect(await rig.status()).toMatchObject({ epoch: 1, state: "active" });
    },
    REAL_WAITS,
  ));

test("a checkpoint that fails is tried again after 2, 4, 8, at most 30 seconds, however often it is asked for; one that is taken ends that", () =>
  withLiveRig(["a", "b"], async (rig) => {
    await rig.plug(built(`<on event="beat"><if test="self.age ge 3 s"><checkpoint/></if></on>`));
    rig.answer = () => ({ code: 1, answer: undefined, why: "no room" });
    await rig.beats(3 + 2 + 4 + 8 + 16 + 30 + 30 + 1);
    expect(rig.ran).toHaveLength(1 + 6);
    expect(rig.outcomes).toEqual(Array.from({ length: 14 }, () => "checkpoint failed"));
    rig.answer = () => undefined;
    await rig.beats(30);
    expect(rig.outcomes.slice(14, 16)).toEqual(["checkpoint done", "checkpoint done"]);
    rig.answer = () => ({ code: 1, answer: undefined, why: "no room" });
    const then = rig.ran.length;
    await rig.beats(7);
    expect(rig.ran.length - then).toBe(2);
  }));

test("what a policy asked for is dropped once another one decides", () =>
  withLiveRig(["a", "b"], async (rig) => {
    await rig.plug(built(`<on event="failed" each="node"><restart/></on>`), { allow: ["restart"] });
    rig.answer = ([word]) =>
      word === "restart" ? { code: 1, answer: undefined, why: "not yet" } : undefined;
    const swapped = rig.plug.bind(rig, built(EVERY));
    Object.assign(rig.processes.get("a")!, { live: false, code: 1 });
    let swap: Promise<unknown> | undefined;
    rig.waited = () => {
      swap ??= swapped();
      return swap;
    };
    await rig.beats(1);
    expect(rig.ran).toEqual([`restart ${APP} --failed a`]);
    expect(rig.log.at(-1)).toMatchObject({ epoch: 1, action: "restart", outcome: "dropped" });
    expect(await rig.status()).toMatchObject({ epoch: 2 });
  }));

test("too lazy: beyond --most-loss the host takes the checkpoints, and the third time the policy ends with reason stall", () =>
  withLiveRig(["a", "b"], async (rig) => {
    const answer = (back: number) => ({
      failures: [
        [
          "a",
          {
            depth: 0,
            breadth: 2,
            back: [
              ["a", back],
              ["b", back],
            ],
            peers: ["b"],
          },
        ],
      ] as const,
      checkpoints: 0,
      garbage: 0,
    });
    await rig.plug(built(`<on event="line"><if test="self.loss ge 1 h"><note text="late"/></if></on>`), {
      mostLoss: 60,
      lineEvery: 10,
      fallback: null,
    });
    rig.line = answer(0);
    await rig.beats(25); // both go back to their start: 2 · 25 s, and 10 s until somebody looks again
    expect(rig.ran).toEqual([]);
    await rig.beats(1);
    expect(rig.ran).toEqual([`checkpoint ${APP} a --driver none --dependents`]);
    await rig.beats(2);
    expect(await rig.status()).toMatchObject({ state: "fallback", over: { reason: "stall" }, stalls: 3 });
    expect(rig.log.some(({ event, policy }) => event === "most-loss" && policy === "host")).toBe(true);
  }));

test("a person's restart comes first: while one is under way nobody is told of deaths, no checkpoint begins, and who is back by then has not failed", () =>
  withLiveRig(["a", "b"], async (rig) => {
    await rig.plug(built(`${EVERY}<on event="failed" each="node"><restart/></on>`), { allow: ["restart"] });
    const folder = join(rig.home, APP, "restart");
    mkdirSync(folder);
    writeFileSync(join(folder, "journal.json"), "{}");
    for (const name of ["a", "b"]) Object.assign(rig.processes.get(name)!, { live: false, code: 137 });
    await rig.beats(5);
    Object.assign(rig.processes.get("a")!, { live: true, incarnation: 2 });
    await rig.beats(15);
    expect(rig.ran).toEqual([]);
    rmSync(folder, { recursive: true });
    await rig.beats(1);
    expect(rig.ran).toContain(`restart ${APP} --failed b`);
  }));

/** Answers that nothing is to be done, and every third time something else. */
const MISBEHAVING = (
  act: string,
): string => `import { Socket } from "node:net"; const s = new Socket({ fd: 3 }); let n = 0;
s.on("data", (text) => {
  if (n++ === 0) return s.write('{"ready":true}\\n');
  const { sequence, epoch, rows } = JSON.parse(text);
  if (n % 3 === 1) { ${act} }
  s.write(JSON.stringify({ sequence, epoch, rows: rows.map(() => [[], []]) }) + "\\n");
});`;

/** Below an eighth of a processor its wall time is up first. */
const LOOPS = /250 ms of its own time|no answer within 2000 ms/;

for (const [name, act, fault, why] of [
  ["hangs on its own time", "for (;;);", "hang", LOOPS],
  ["says nothing", "return;", "hang", /no answer within 2000 ms/],
  [
    "answers for another epoch",
    "return s.write(JSON.stringify({ sequence, epoch: 99, rows: [] }) + '\\n');",
    "bad-answer",
    /another request/,
  ],
] as const)
  test.concurrent(`a process that ${name} is started again, and the fourth time in a minute the fallback decides`, () =>
    withLiveRig(
      ["a"],
      async (rig) => {
        await rig.plug(built(`<on event="beat"><checkpoint/></on>`), { fallback: { interval: 20 } });
        for (let faults = 1; faults <= 3; faults += 1) {
          while (((await rig.status())?.faults ?? 0) < faults) await rig.beats(1);
          expect(await rig.status()).toMatchObject({ state: "active", faults });
        }
        while ((await rig.status())?.state === "active") await rig.beats(1);
        expect(await rig.status()).toMatchObject({
          state: "fallback",
          over: { reason: fault, why: expect.stringMatching(why) },
        });
        expect(rig.ran).toEqual([]);
        await rig.beats(21);
        expect(rig.ran).toEqual([`checkpoint ${APP} a --driver none`]);
      },
      { processes: new PolicyProcesses((one) => PolicyProcess.start(one, MISBEHAVING(act))) },
    ));

test("pressure is raised where disk or memory runs short, and again after half a minute while it does", () => {
  const room = { free: 100, size: 100, memory: 100, allMemory: 100 };
  return withLiveRig(
    ["a"],
    async (rig) => {
      await rig.plug(built(`<on event="pressure"><collect/></on>`), { allow: ["collect"] });
      await rig.beats(5);
      expect(rig.ran).toEqual([]);
      room.free = 4;
      await rig.beats(20);
      expect(rig.ran).toEqual([`gc ${APP} --apply`]);
      await rig.beats(20);
      expect(rig.ran).toHaveLength(2);
      room.free = 100;
      await rig.beats(40);
      expect(rig.ran).toHaveLength(2);
      room.memory = 1;
      await rig.beats(1);
      expect(rig.ran).toHaveLength(3);
    },
    { node: () => room },
  );
});

test("garbage-driven: too many that must be kept start a set, so much more garbage a collection", () =>
  withLiveRig(["a", "b"], async (rig) => {
    await rig.plug(loadPolicy("garbage-driven"), {
      allow: ["collect"],
      set: [
        ["interval", 1e6],
        ["kept", 3],
      ],
    });
    const looks = async (checkpoints: number, garbage: number): Promise<string[]> => {
      rig.line = { failures: [], checkpoints, garbage };
      rig.ran.length = 0;
      await rig.beats(1, 15);
      return rig.ran;
    };
    const set = `checkpoint ${APP} a b --driver none --coordinated --within 5000`;
    const collection = `gc ${APP} --apply`;
    expect(await looks(6, 0)).toEqual([]);
    expect(await looks(7, 0)).toEqual([set]);
    expect(await looks(9, 6)).toEqual([collection]);
    expect(await looks(11, 8)).toEqual([]); // the log still names what was collected
    expect(await looks(17, 12)).toEqual([collection]);
    expect(await looks(4, 2)).toEqual([]); // it was pruned
    expect(await looks(9, 6)).toEqual([collection]);
  }));
