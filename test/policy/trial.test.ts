/** The table of a trial: what was predicted stands beside what was seen, in the same units. */
import { expect, test } from "vitest";
import { trialText } from "../../src/cli/policy-trial.ts";
import { comparePolicies } from "../../src/policy/compare.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";
import { EffectiveTimes } from "../../src/terminal/policy-trial.ts";
import { run } from "../cli/cli.ts";
import { Random } from "../reference/random.ts";
import { COST, RULES, randomExecution, recordingOf } from "./executions.ts";

test("rates are a process's a minute, shares of all processes' time, losses in seconds of all who go back", async () => {
  const recording = recordingOf(randomExecution(new Random(5), 5, 400));
  const label = "periodic:interval=5s";
  const policy = {
    label,
    component: loadPolicy("periodic").component,
    parameters: new Map([["interval", 5]]),
  };
  const options = { seeds: 1, instants: 10, cost: COST, rules: RULES, workers: 0 };
  const { policies } = await comparePolicies(recording, [policy], options);
  const kills = [
    { process: "a", breadth: 1, lost: 2, recovery: 1 },
    { process: "b", breadth: 2, lost: 7, recovery: 1 },
  ];
  const observed = { checkpoints: 12, frozenSeconds: 1.2, processes: 2, seconds: 60, kills };
  const text = trialText(
    {
      rows: [{ label, observed, predicted: policies[0]! }],
      recorded: 60,
      cost: { checkpoint: 0.1, restart: 1 },
    },
    7,
  );
  const seen = (metric: string) =>
    text
      .split("\n")
      .find((line) => line.startsWith(metric))
      ?.trim()
      .split(/\s+/)
      .at(-1);
  expect(seen("checkpoints of a process a minute")).toBe("6.0");
  expect(seen("share of time frozen, %")).toBe("1.00");
  expect(seen("work lost a failure, s")).toBe("4.5");
  expect(seen("most work lost by one failure, s")).toBe("7.0");
  expect(seen("processes rolled back")).toBe("1.50");
  expect(text).toContain("Seed 7, 2 kills, each brought back.");
});

test("a script that can't be started, and policies that can't run on unmodified programs, are refused before anything starts", async () => {
  expect(await run(["policy", "trial", "/nowhere", "periodic"])).toMatchObject({ code: 2, stdout: "" });
  const fdas = await run(["policy", "trial", "docs/trial-nats.sh", "fdas"]);
  expect(fdas.stderr).toContain("unmodified programs do not have event receiving");
  expect(fdas.code).not.toBe(0);
});

test("what is undone begins after a position of the effective history: what rollbacks undid is in it no more", () => {
  const times = new EffectiveTimes();
  const line = (time: number): void =>
    times.add({ type: "send", process: "a", channel: "a>b", begin: time, end: time + 1, time });
  const checkpoint = (index: number): void =>
    times.add({ type: "checkpoint", process: "a", checkpoint: index, usable: true });
  line(1);
  checkpoint(1);
  line(3);
  checkpoint(2);
  expect([0, 1, 2, 3, 4].map((position) => times.after(position))).toEqual([1, 3, 3, undefined, undefined]);
  for (const time of [10, 20]) {
    times.add({ type: "rollback", process: "a", checkpoint: 1 });
    line(time);
    expect([0, 2, 3, 4].map((position) => times.after(position))).toEqual([1, time, time, undefined]);
  }
  times.add({ type: "rollback", process: "a", checkpoint: 0 });
  line(40);
  expect(times.after(0)).toBe(40);
});
