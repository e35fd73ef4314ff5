/** What the protocols promise, in random executions; and the figures of traces/chord.log. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { leastCut, volatilePlace } from "../../src/graph/questions/consistent-cuts.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import { readShivizTrace } from "../../src/import/shiviz.ts";
import type { Event } from "../../src/model/event.ts";
import type { Measures } from "../../src/policy/measures.ts";
import { daly } from "../../src/policy/program.ts";
import { drawOrder, type Recording } from "../../src/policy/recording.ts";
import { replay } from "../../src/policy/replay.ts";
import { parseSettings } from "../../src/policy/settings.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { COST, RULES, randomExecution, recordingOf } from "./executions.ts";

/** test/exhaustive/policies.test.ts takes 10 000. */
const RUNS = Number(process.env["RL_POLICY_RUNS"] ?? sized(1500, 600));
const FIRST = Number(process.env["RL_POLICY_SEED"] ?? 1);
const DEPENDENTS = join(import.meta.dirname, "policies", "dependents.xml");

function measured(recording: Recording, name: string, setting: string, seed: number, instants = 1): Measures {
  const { component } = loadPolicy(name);
  const parameters = parseSettings(component, [setting]);
  const options = { pushed: seed % 2 === 1, instants, cost: COST, rules: RULES };
  return replay(recording, drawOrder(recording, seed), component, parameters, options).measures;
}

const POLICIES = ["index-based", "hmnr", "fdas", "coordinated", DEPENDENTS, "periodic"].map((name) => ({
  name,
  component: loadPolicy(name).component,
}));

test("no useless checkpoint with index-based, hmnr, fdas, coordinated, dependents; periodic has some", () => {
  const useless = POLICIES.map(() => 0);
  const forced = POLICIES.map(() => 0);
  for (let seed = FIRST; seed < FIRST + RUNS; seed += 1) {
    const random = new Random(seed);
    const recording = recordingOf(randomExecution(random));
    const order = drawOrder(recording, seed);
    const interval = new Map([["interval", 1 + random.below(6)]]);
    const options = { pushed: random.oneIn(2), instants: 1, cost: COST, rules: RULES };
    // Each protocol has a third of the executions, the others a fifteenth.
    for (const at of seed % 5 === 0 ? [seed % 3, 3 + (seed % 3)] : [seed % 3]) {
      const { name, component } = POLICIES[at]!;
      const { measures } = replay(recording, order, component, interval, options);
      useless[at]! += measures.useless;
      forced[at]! += measures.forced;
      if (name !== "periodic") expect(measures.useless, `${name}, seed ${seed} (RL_POLICY_SEED)`).toBe(0);
    }
  }
  expect(useless[5]).toBeGreaterThan(RUNS / 100);
  for (const at of [0, 1, 2]) expect(forced[at]).toBeGreaterThan(RUNS / 10);
});

test("hmnr forces no more than index-based, in sum", () => {
  let [indexBased, hmnr] = [0, 0];
  for (let seed = FIRST; seed < FIRST + RUNS / 50; seed += 1) {
    const recording = recordingOf(randomExecution(new Random(seed), 5, 200));
    indexBased += measured(recording, "index-based", "interval=6s", seed).forced;
    hmnr += measured(recording, "hmnr", "interval=6s", seed).forced;
  }
  expect(hmnr).toBeLessThan(indexBased);
});

test("dependents are those whom the least consistent cut at the volatile end takes beyond their newest checkpoints", () => {
  const { component } = loadPolicy(DEPENDENTS);
  let checked = 0;
  for (let seed = FIRST; seed < FIRST + RUNS / 100; seed += 1) {
    const recording = recordingOf(randomExecution(new Random(seed)));
    const told: Event[] = [];
    const observe = (event: Event): number => told.push(event);
    const options = { pushed: false, instants: 1, cost: COST, rules: RULES, observe };
    replay(recording, drawOrder(recording, seed), component, new Map([["interval", 3]]), options);
    for (const { before, members } of synchronisations(told)) {
      expect(members, `seed ${seed}`).toEqual(neededBy(before));
      checked += 1;
    }
  }
  expect(checked).toBeGreaterThan(RUNS / 100);
});

/** Runs of checkpoints: what came before, and who took one. */
function* synchronisations(told: readonly Event[]): Generator<{ before: Event[]; members: string[] }> {
  for (let at = 1; at < told.length; at += 1) {
    if (told[at]?.type !== "checkpoint" || told[at - 1]?.type === "checkpoint") continue;
    let end = at;
    while (told[end]?.type === "checkpoint") end += 1;
    const members = told.slice(at, end).map(({ process }) => process);
    yield { before: told.slice(0, at), members: members.sort() };
  }
}

/** By the engine: the process of the newest event is the one that is due. */
function neededBy(before: readonly Event[]): string[] {
  const builder = new EvidenceBuilder();
  for (const event of before) builder.addEvent(event);
  const evidence = builder.build();
  const model = rollbackModel(evidence, RULES);
  const process = evidence.processes.indexOf(before.at(-1)!.process);
  const cut = leastCut(model, [{ process, place: volatilePlace(evidence, process) }]);
  if (!cut.feasible) throw new Error("the present is always consistent");
  return evidence.processes.filter((_, p) => cut.places[p] === volatilePlace(evidence, p)).sort();
}

const trace = join(dirname(join(import.meta.dirname, "..", "..")), "shared", "traces", "chord.log");

test("traces/chord.log: 115 of 119 checkpoints are useless if each process decides for itself, else 0", async (context) => {
  if (!existsSync(trace)) context.skip("RL_NOT_SUPPORTED: no folder ../shared/traces");
  async function* bytes(): AsyncGenerator<Uint8Array> {
    yield readFileSync(trace);
  }
  const events: Event[] = [];
  for await (const event of readShivizTrace(bytes, "chord.log")) events.push(event);
  const recording = recordingOf(events);
  const ten = (name: string): Measures => measured(recording, name, "interval=10s", 2);
  expect(ten("periodic")).toMatchObject({ basic: 119, forced: 0, useless: 115 });
  for (const name of ["index-based", "hmnr", "fdas", "coordinated", DEPENDENTS])
    expect(ten(name), name).toMatchObject({ useless: 0 });
});

test("young-daly: the interval is Daly's optimum for the cost, within a beat", () => {
  const events: Event[] = Array.from({ length: 2000 }, (_, at) => ({
    type: "send",
    process: "p",
    channel: "c",
    begin: at,
    end: at + 1,
  }));
  const { basic } = measured(recordingOf(events), "young-daly", "mtbf=2h", 2);
  const interval = daly(COST.checkpoint, 7200);
  expect(interval).toBeCloseTo(59.83, 1);
  expect(2000 / basic).toBeGreaterThan(interval * 0.95);
  expect(2000 / basic).toBeLessThan(interval * 1.1);
});

test("budget: the share of time frozen stays below it", () => {
  const events: Event[] = Array.from({ length: 3000 }, (_, at) => ({
    type: "send",
    process: "p",
    channel: "c",
    begin: at,
    end: at + 1,
  }));
  const { frozen, basic } = measured(recordingOf(events), "budget", "share=2%", 3);
  expect(basic).toBeGreaterThan(100);
  expect(frozen).toBeLessThanOrEqual(0.02);
  expect(frozen).toBeGreaterThan(0.01);
});

test("logs of the order of receipt: nothing is lost with pessimistic and causal, with optimistic what came since the beat", () => {
  let optimistic = 0;
  for (let seed = FIRST; seed < FIRST + RUNS / 200; seed += 1) {
    const recording = recordingOf(randomExecution(new Random(seed)));
    const run = (name: string): Measures => measured(recording, name, "interval=10s", seed, 10);
    const pessimistic = run("pessimistic");
    expect([pessimistic.lost, pessimistic.breadth], `seed ${seed}`).toEqual([0, 1]);
    const causal = run("causal");
    expect(causal.breadth, `seed ${seed}: nobody else goes back`).toBe(1);
    optimistic += run("optimistic").breadth - 1;
  }
  expect(optimistic).toBeGreaterThan(0);
});
