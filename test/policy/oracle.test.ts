/** Random policies over random executions: the lines that the comparison finds are those of the reference, which shares no code with it. */
import { expect, test } from "vitest";
import { hasCode } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import type { Component } from "../../src/policy/component.ts";
import { CONTINUES } from "../../src/policy/measures.ts";
import { drawOrder, type Recording } from "../../src/policy/recording.ts";
import { type ReplayResult, replay } from "../../src/policy/replay.ts";
import type { EventName } from "../../src/policy/vocabulary.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { buildInstance, continues } from "../reference/instance.ts";
import { Random } from "../reference/random.ts";
import { randomSetting, simulate } from "../reference/simulate.ts";
import { sized } from "../size.ts";
import { COST, RULES, randomExecution, recordingOf } from "./executions.ts";
import { randomPolicy } from "./random-policy.ts";

const RUNS = Number(process.env["RL_POLICY_RUNS"] ?? sized(4000, 1600)) / 10;
const FIRST = Number(process.env["RL_POLICY_SEED"] ?? 1);
const HEARD: readonly EventName[] = [
  "beat",
  "receiving",
  "received",
  "sent",
  "line",
  "plugged",
  "checkpointed",
];

function randomComponent(random: Random): Component {
  for (;;)
    try {
      const { component } = buildPolicy("random.xml", randomPolicy(random, HEARD));
      if (component.refused.comparison.length === 0) return component;
    } catch (error) {
      if (!hasCode(error, "RL_BAD_INPUT")) throw error;
    }
}

/** True executions of the reference's simulator have datagrams, pages, loops, rollbacks; their own checkpoints are left out. */
function randomRecording(random: Random, seed: number): Recording {
  if (random.oneIn(2)) return recordingOf(randomExecution(random));
  return recordingOf(simulate(seed, { ...randomSetting(random, 4, 60), rollbacks: false }));
}

/** By failure, per process: checkpoints that are kept, and whether it goes on. */
function judged(told: readonly Event[], names: readonly string[], inTransit: "any" | "logged"): string[] {
  return names.map((failed) => {
    const instance = buildInstance(told, { dsm: "sequential", inTransit, failed: [failed] });
    const line = fixpointLine(instance);
    return names
      .map((name) => {
        const at = instance.processes.findIndex((one) => one.name === name);
        const process = instance.processes[at];
        if (process === undefined) return name === failed ? "0" : "on"; // it did nothing
        if (continues(process, line[at]!)) return "on";
        return String(process.history.slice(0, line[at]).filter(({ type }) => type === "checkpoint").length);
      })
      .join(" ");
  });
}

function found({ lines, evidence }: ReplayResult): string[] {
  return lines.map((line) =>
    [...line]
      .map((kept, p) => (kept === CONTINUES ? "on" : String(evidence.checkpointsAt(p, kept))))
      .join(" "),
  );
}

test("every single failure's line is the reference's, whatever the policy does", () => {
  let checkpoints = 0;
  for (let seed = FIRST; seed < FIRST + RUNS; seed += 1) {
    const random = new Random(seed);
    const component = randomComponent(random);
    const recording = randomRecording(random, seed);
    const told: Event[] = [];
    const inTransit = random.pick(["any", "logged"] as const);
    const result = replay(recording, drawOrder(recording, seed), component, new Map(), {
      pushed: random.oneIn(2),
      instants: 1 + random.below(20),
      leastDropped: 1 + random.below(30),
      cost: COST,
      rules: { ...RULES, inTransit },
      observe: (event) => told.push(event),
    });
    expect(found(result), `seed ${seed} (RL_POLICY_SEED)`).toEqual(
      judged(told, recording.processes, inTransit),
    );
    checkpoints += result.measures.basic + result.measures.forced;
  }
  expect(checkpoints).toBeGreaterThan(RUNS);
});

test("collapsing what lies below every line changes no measure", () => {
  for (let seed = FIRST; seed < FIRST + RUNS / 4; seed += 1) {
    const random = new Random(seed);
    const component = randomComponent(random);
    const recording = randomRecording(random, seed);
    const order = drawOrder(recording, seed);
    const run = (leastDropped: number) =>
      replay(recording, order, component, new Map(), {
        pushed: false,
        instants: 12,
        leastDropped,
        cost: COST,
        rules: RULES,
      }).measures;
    expect(run(1), `seed ${seed} (RL_POLICY_SEED)`).toEqual(run(Number.POSITIVE_INFINITY));
  }
});
