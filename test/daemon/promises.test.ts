/**
 * Shipped policies keep their promises on live processes: a server and clients that talk over TCP, recorded in the kernel, checkpointed by the real
 * commands with driver none; the policies' clock is played. RL_POLICY_SEED draws the moments of the kills.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { type Clocked, withClocked } from "./clocked.ts";
import { missing, type Rig } from "./rig.ts";

const live = test.skipIf(missing !== undefined);
const SEED = Number(process.env["RL_POLICY_SEED"] ?? 1);
/** Such that the line of each application is computed a dozen times meanwhile. */
const [BOUND_S, LINE_S] = sized([60, 5], [30, 2]);
const MTBF_S = sized(3600, 1800);
/** What budget may hold still, of the time; how far apart the others take checkpoints, s. */
const SHARE = sized(0.005, 0.01);
const APART_S = sized(30, 20);
/** Checkpoints of a process that garbage-driven keeps, and leaves as garbage. */
const KEPT = sized(2, 1);
/** Each decides until enough of it is seen: checkpoints that cost much on a busy machine are due later. */
const LONGEST_S = 600;
const BOTH = ["c0", "c1"];
const CLIENTS = sized(BOTH, ["c0"]);
const NAMES = ["server", ...CLIENTS];
/** Checkpoints that garbage-driven may leave: those that must be kept, and garbage that is not worth a collection yet. */
const GARBAGE = (2 * KEPT + 2) * NAMES.length;

/** Times between two checkpoints of a process, seconds. */
function intervals(world: Clocked, app: string, process: string): number[] {
  const at = world.takenOf(app, process).map(({ atMs }) => atMs);
  return at.slice(1).map((ms, index) => (ms - at[index]!) / 1000);
}

/** What the failure of one costs by the engine's line, in seconds of all who go back; times are those that the test saw. */
async function lossOf(world: Clocked, app: string, failed: string, startMs: number): Promise<number> {
  const { line, outcome } = await world.json<RecoveryLine>("compute", app, "--failed", failed);
  expect(outcome).toBe("clean");
  const back = line.filter(({ action }) => action !== "continue");
  expect(back.map(({ process }) => process)).toContain(failed);
  const at = ({ process, checkpoint }: RecoveryLine["line"][number]): number =>
    checkpoint === null
      ? startMs
      : world.takenOf(app, process).find((one) => one.checkpoint === checkpoint)!.atMs;
  return back.reduce((sum, entry) => sum + (world.nowMs - at(entry)) / 1000, 0);
}

live(
  "young-daly, budget, staggered, hybrid, garbage-driven; then bounded-loss under five kills",
  { timeout: 240_000 },
  () =>
    withClocked("promises", async (world, rig) => {
      const [daly, budget, staggered, hybrid, garbage] = [
        "daly",
        "budget",
        "staggered",
        "hybrid",
        "garbage",
      ].map((name) => `${name}-${rig.app}`) as [string, string, string, string, string];
      const apps = [daly, budget, staggered, hybrid, garbage];
      await Promise.all(
        apps.map((app) =>
          app === hybrid
            ? world.talkers(app, BOTH, (name) => (name === "c1" ? undefined : "pair"))
            : world.talkers(app, CLIENTS),
        ),
      );
      const startMs = world.nowMs;
      await world.plug(daly, "young-daly", [`mtbf=${MTBF_S}s`, "first=10s", "least=1s"]);
      await world.plug(budget, "budget", [`share=${SHARE}`, "least=8s"]);
      await world.plug(staggered, "staggered", [`interval=${APART_S}s`]);
      await world.plug(hybrid, "hybrid", [`interval=${APART_S}s`]);
      await world.plug(garbage, "garbage-driven", ["interval=7s", `kept=${KEPT}`], { allow: ["collect"] });
      const enough = new Map([
        [daly, () => dalyChecks(world, daly) >= NAMES.length],
        [budget, () => NAMES.every((name) => world.takenOf(budget, name).length >= 2)],
        [staggered, () => world.takenOf(staggered).length >= 2 * NAMES.length],
        [hybrid, () => world.takenOf(hybrid).length >= 2 * (1 + BOTH.length)],
        [garbage, () => world.takenOf(garbage).length > GARBAGE && collections(world, garbage).length >= 2],
      ]);
      await world.beats(LONGEST_S, async () => {
        for (const [app, isEnough] of enough) {
          if (!isEnough()) continue;
          await world.policies.unplug(app);
          enough.delete(app);
        }
        return enough.size > 0;
      });
      expect([...enough.keys()]).toEqual([]);
      expect(world.trouble).toEqual([]);
      expectBudget(world, budget, startMs);
      expectStaggered(world, staggered);
      expectHybrid(world, rig, hybrid);
      expectCollected(world, garbage);

      const terms = { allow: ["collect"], lineEvery: LINE_S } as const;
      for (const app of apps) // a real limit: a busy machine takes longer than its seconds
        await world.plug(app, "bounded-loss", [`bound=${BOUND_S}s`, "hold=60s"], terms);
      await world.beats(2 * LINE_S); // what the policies before left open is closed
      const random = new Random(SEED);
      const part = BOUND_S / apps.length;
      const victims = new Map(
        apps.map((app, at) => [1 + at * part + random.below(part), { app, name: random.pick(NAMES) }]),
      );
      let second = 0;
      const losses: number[] = [];
      await world.beats(BOUND_S, async () => {
        second += 1;
        const victim = victims.get(second);
        if (victim === undefined) return true;
        await world.kill(victim.app, victim.name);
        losses.push(await lossOf(world, victim.app, victim.name, startMs));
        await world.policies.unplug(victim.app);
        return true;
      });
      expect(losses.length).toBe(apps.length);
      for (const loss of losses)
        expect(loss, `seed ${SEED} (RL_POLICY_SEED): lost ${losses}`).toBeLessThan(BOUND_S);
      expect(Math.max(...losses), "there was something to lose").toBeGreaterThan(BOUND_S / 6);
    }),
);

/** Each interval is within 10 % of Daly's optimum for the cost that the policy had measured, and a beat. Returns how many there were. */
function dalyChecks(world: Clocked, app: string): number {
  let checked = 0;
  for (const { action, outcome, facts = {} } of world.log(app)) {
    const [cost, age] = [Number(facts["self.cost"]), Number(facts["self.age"])];
    if (action !== "checkpoint" || outcome !== "done" || cost === 0) continue;
    const ratio = cost / (2 * MTBF_S);
    const optimum = Math.sqrt(2 * cost * MTBF_S) * (1 + Math.sqrt(ratio) / 3 + ratio / 9) - cost; // Daly 2006, equation 37
    expect(age, `for a cost of ${cost} s Daly says ${optimum} s`).toBeGreaterThanOrEqual(0.9 * optimum);
    expect(age, `for a cost of ${cost} s Daly says ${optimum} s`).toBeLessThanOrEqual(1.1 * optimum + 1);
    checked += 1;
  }
  return checked;
}

/** What the checkpoints before the last one held it still is paid for, all but the dearest: that the cost has jumped is known afterwards. */
function expectBudget(world: Clocked, app: string, startMs: number): void {
  for (const name of NAMES) {
    const own = world.takenOf(app, name);
    expect(own.length).toBeGreaterThanOrEqual(2);
    const held = own.slice(0, -1).map(({ frozenMs: ms }) => ms);
    const frozenMs = held.reduce((sum, ms) => sum + ms, 0) - (held.length > 1 ? Math.max(...held) : 0);
    expect(
      frozenMs / (own.at(-1)!.atMs - startMs),
      `${name} stood still for ${frozenMs} ms`,
    ).toBeLessThanOrEqual(SHARE);
  }
}

/** Each after its interval, and never two of them within a good part of their share of it. */
function expectStaggered(world: Clocked, app: string): void {
  for (const name of NAMES)
    for (const seconds of intervals(world, app, name)) expect(Math.abs(seconds - APART_S)).toBeLessThan(2);
  const sorted = world
    .takenOf(app)
    .map(({ atMs }) => atMs)
    .sort((a, b) => a - b);
  expect(sorted.length).toBeGreaterThan(NAMES.length);
  for (let at = 1; at < sorted.length; at += 1)
    expect(sorted[at]! - sorted[at - 1]!).toBeGreaterThanOrEqual((0.4 * APART_S * 1000) / NAMES.length);
}

function expectHybrid(world: Clocked, rig: Rig, app: string): void {
  const commands = new Map<number, string[]>();
  for (const { command, process } of world.takenOf(app))
    commands.set(command, [...(commands.get(command) ?? []), process]);
  const sets = [...commands.values()].map((set) => set.sort().join(" "));
  expect(new Set(sets)).toEqual(new Set(["c1", "c0 server"]));
  expect(
    readdirSync(join(rig.home, app)).some((name) => name.startsWith("payload")),
    "what goes between them is kept",
  ).toBe(true);
}

/** What each collection found, count. */
const collections = (world: Clocked, app: string): number[] =>
  world
    .log(app)
    .filter(({ action, outcome }) => action === "collect" && outcome === "done")
    .map(({ detail = "" }) => Number(/^\d+/.exec(detail)?.[0]));

/** Without images nothing is freed; what would be is all but a few. */
function expectCollected(world: Clocked, app: string): void {
  expect(world.takenOf(app).length - collections(world, app).at(-1)!).toBeLessThanOrEqual(GARBAGE);
}

const policy = (name: string, body: string) =>
  buildPolicy(
    `${name}.xml`,
    `<policy xmlns="urn:recovery-line:policy:1" name="${name}" version="1">${body}</policy>`,
  );

live(
  "tell reaches the other policies of the node; what is held goes on at the deadline, unrecorded, also where one of them dies",
  { timeout: 120_000 },
  () =>
    withClocked("deadline", async (world, rig) => {
      const [told, held] = [`told-${rig.app}`, `held-${rig.app}`];
      await world.talkers(told, []);
      await world.talkers(held, ["c0"]);
      await world.plug(
        told,
        policy("listens", `<on event="told"><if test="told.value ge 7"><note text="seven"/></if></on>`),
      );
      const set = (within: string): string =>
        `<on event="beat" each="node"><tell who="node" value="app.processes + 5"/><synchronize who="all" within="${within}"><checkpoint/></synchronize></on>`;
      await world.plug(held, policy("hasty", set("1 ms")));
      await world.beats(2);
      expect(world.log(told)).toContainEqual(
        expect.objectContaining({ event: "told", action: "note", outcome: "done", detail: "seven" }),
      );
      expect(world.log(held)).toContainEqual(
        expect.objectContaining({
          action: "synchronize",
          outcome: "failed",
          detail: expect.stringContaining("within the time"),
        }),
      );
      expect(world.takenOf(held)).toEqual([]);
      for (const name of ["server", "c0"]) expect(new ProcessCgroup(held, name).freezing, name).toBe(false);

      await world.plug(held, policy("patient", set("30 s")));
      await world.beats(2);
      expect(new Set(world.takenOf(held).map(({ process }) => process))).toEqual(new Set(["c0", "server"]));
      await world.kill(held, "c0");
      await world.beats(3);
      expect(new ProcessCgroup(held, "server").freezing).toBe(false);
      expect(world.takenOf(held, "server").length, "who is left goes on being checkpointed").toBeGreaterThan(
        world.takenOf(held, "c0").length,
      );
    }),
);
