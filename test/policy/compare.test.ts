/** The comparison as a whole: threads, refusals, what it can't decide. */
import { beforeAll, describe, expect, test } from "vitest";
import { EventColumns } from "../../src/format/event-columns.ts";
import type { Event } from "../../src/model/event.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import { type Compared, type CompareOptions, comparePolicies } from "../../src/policy/compare.ts";
import { METRICS } from "../../src/policy/measures.ts";
import { drawOrder, Recorder, type Recording } from "../../src/policy/recording.ts";
import { parseSettings } from "../../src/policy/settings.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";
import { build } from "../built.ts";
import { Random } from "../reference/random.ts";
import { COST, RULES, randomExecution, recordingOf } from "./executions.ts";
import { wrongOf } from "./wrong.ts";

const options: CompareOptions = { seeds: 3, instants: 10, cost: COST, rules: RULES, workers: 0 };

function policy(label: string): Compared {
  const [name = "", setting] = label.split(":");
  const { component } = loadPolicy(name);
  return { label, component, parameters: parseSettings(component, setting === undefined ? [] : [setting]) };
}

async function rejected(
  recording: Recording,
  policies: Compared[],
): Promise<{ code: string; message: string }> {
  const found = await comparePolicies(recording, policies, options).catch((error: unknown) => error);
  return wrongOf(() => {
    throw found;
  });
}

describe("recordings", () => {
  test("events and columns give the same one; recorded checkpoints, message logs and what was undone are left out", () => {
    const events: Event[] = [
      { type: "send", process: "a", channel: "ab", begin: 0, end: 4, time: 5e9 },
      { type: "checkpoint", process: "a", checkpoint: 1, usable: true, time: 6e9 },
      { type: "send", process: "a", channel: "ab", begin: 4, end: 9, time: 7e9 },
      { type: "rollback", process: "a", checkpoint: 1, time: 8e9 },
      { type: "send", process: "a", channel: "ab", begin: 4, end: 6, time: 9e9 },
      { type: "stable", process: "a", time: 9e9 },
      { type: "receive", process: "b", channel: "ab", begin: 0, end: 3, time: 1e9 },
      { type: "receive", process: "b", channel: "ab", begin: 3, end: 6, time: 4e9 },
    ];
    const recording = recordingOf(events);
    expect([...recording.start]).toEqual([0, 2, 4]);
    expect([...recording.clock]).toEqual([0, 4, 0, 3]);
    expect(recording.timed).toBe(true);
    expect([...recording.matchStart]).toEqual([0, 0, 0, 1, 3]);
    expect([...recording.matched]).toEqual([0, 0, 1]);
    const columns = new Map(["a", "b"].map((name) => [name, new EventColumns(name)]));
    for (const event of events) columns.get(event.process)?.push(event);
    const recorder = new Recorder();
    for (const one of columns.values()) recorder.addColumns(one);
    expect(recorder.build()).toEqual(recording);
  });

  test("an order holds every event once, and no receive before its send", () => {
    for (let seed = 1; seed < 50; seed += 1) {
      const recording = recordingOf(randomExecution(new Random(seed)));
      const order = drawOrder(recording, seed);
      const next = recording.start.slice();
      const done = new Set<number>();
      for (const p of order) {
        const event = next[p]!;
        next[p]! += 1;
        const sends = recording.matched.slice(recording.matchStart[event], recording.matchStart[event + 1]);
        for (const send of sends) expect(done.has(send), `seed ${seed}`).toBe(true);
        done.add(event);
      }
      expect(done.size).toBe(recording.kind.length);
    }
  });

  test("what was received before it could be sent has no order", () => {
    const recording = recordingOf([
      { type: "receive", process: "a", channel: "ba", begin: 0, end: 1 },
      { type: "send", process: "a", channel: "ab", begin: 0, end: 1 },
      { type: "receive", process: "b", channel: "ab", begin: 0, end: 1 },
      { type: "send", process: "b", channel: "ba", begin: 0, end: 1 },
    ]);
    expect(wrongOf(() => drawOrder(recording, 1)).code).toBe("RL_CONTRADICTION");
  });
});

describe("comparisons", () => {
  const recording = recordingOf(randomExecution(new Random(5), 5, 400));

  test("every metric in both columns, spread over the orders; the same each time", async () => {
    const policies = ["periodic:interval=5s", "fdas:interval=5s", "coordinated:interval=5s"].map(policy);
    const made = await comparePolicies(recording, policies, options);
    expect(made.policies.map(({ label }) => label)).toEqual(policies.map(({ label }) => label));
    for (const { frozen, pushed } of made.policies)
      for (const column of [frozen, pushed]) {
        expect(Object.keys(column)).toEqual(Object.keys(METRICS));
        for (const { mean, least, most } of Object.values(column)) {
          expect(least).toBeLessThanOrEqual(mean + 1e-9);
          expect(mean).toBeLessThanOrEqual(most + 1e-9);
        }
      }
    expect(await comparePolicies(recording, policies, options)).toEqual(made);
  });

  test("what a process's tasks send each other may stand behind its receipt", () => {
    const own = { process: "a", channel: "aa", begin: 0, end: 1 };
    const recording = recordingOf([
      { type: "receive", ...own },
      { type: "send", ...own },
    ]);
    expect([...drawOrder(recording, 1)]).toEqual([0, 0]);
  });

  test("what the columns or the orders rank differently is undecided; a policy is never better than itself", async () => {
    const same = await comparePolicies(recording, ["periodic", "periodic"].map(policy), options);
    expect(same.undecided).toEqual([]);
    const close = ["hmnr:interval=5s", "index-based:interval=5s", "fdas:interval=5s"].map(policy);
    const { undecided, policies } = await comparePolicies(recording, close, { ...options, seeds: 8 });
    expect(undecided.length).toBeGreaterThan(0);
    for (const { metric, policies: pair, why } of undecided) {
      const [a, b] = pair.map((label) => policies.find((one) => one.label === label)!);
      if (why === "delays")
        expect(Math.sign(a!.frozen[metric].mean - b!.frozen[metric].mean)).not.toBe(
          Math.sign(a!.pushed[metric].mean - b!.pushed[metric].mean),
        );
    }
  });

  test("gaps, nothing at all, and policies that can't be compared are refused", async () => {
    const gapped = recordingOf([...randomExecution(new Random(1)), { type: "gap", process: "p0" }]);
    expect((await rejected(gapped, [policy("periodic")])).code).toBe("RL_REFUSED");
    const tainted = await comparePolicies(gapped, [policy("periodic")], { ...options, tainted: true });
    expect(tainted.policies.length).toBe(1);
    expect((await rejected(recordingOf([]), [policy("periodic")])).code).toBe("RL_REFUSED");
    expect(loadPolicy("fdas").component.refused.live).toEqual(["event receiving", "message.news"]);
  });

  test("a policy that checkpoints whenever it hears of a checkpoint comes to an end", async () => {
    const xml = `<policy xmlns="urn:recovery-line:policy:1" name="echo" version="1">
      <on event="beat"><checkpoint who="all"/></on>
      <on event="checkpointed"><checkpoint who="all"/></on></policy>`;
    const { component } = buildPolicy("echo.xml", xml);
    const echo = { label: "echo", component, parameters: new Map<string, number>() };
    const { policies } = await comparePolicies(recording, [echo], options);
    expect(policies[0]!.frozen.basic.mean).toBeGreaterThan(100);
  });
});

describe("threads", () => {
  beforeAll(build, 120_000);

  test("find what one thread finds", async () => {
    const recording = recordingOf(randomExecution(new Random(9), 6, 60_000));
    const policies = ["periodic:interval=5min", "index-based:interval=5min"].map(policy);
    const one = await comparePolicies(recording, policies, { ...options, seeds: 1 });
    expect(await comparePolicies(recording, policies, { ...options, seeds: 1, workers: 2 })).toEqual(one);
  });
});
