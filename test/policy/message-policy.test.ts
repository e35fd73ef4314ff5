/** What the communication-induced protocols promise where each message passes by its process's policy, as in the SDK: random executions, judged by the engine. */
import { expect, test } from "vitest";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { uselessCheckpoints } from "../../src/graph/questions/zigzag.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import { MessagePolicy } from "../../src/policy/message-policy.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { RULES } from "./executions.ts";

/** test/exhaustive/policies.test.ts takes 10 000. */
const RUNS = Number(process.env["RL_POLICY_RUNS"] ?? sized(500, 200));
const FIRST = Number(process.env["RL_POLICY_SEED"] ?? 1);
const STEPS = 80;
const PROTOCOLS = ["index-based", "hmnr", "fdas"];
const COMPONENTS = new Map([...PROTOCOLS, "periodic"].map((name) => [name, loadPolicy(name).component]));

interface Played {
  readonly useless: number;
  readonly forced: number;
  readonly basic: number;
}

/** Everybody sends to anybody, takes what has come, and hears a beat now and then; FIFO channels, as the SDK's. */
function play(random: Random, name: string): Played {
  const component = COMPONENTS.get(name)!;
  const processes = Array.from({ length: 2 + random.below(3) }, (_, at) => `p${at}`);
  const set = new Map([["interval", 6 + random.below(15)]]);
  let clock = 0;
  const now = (): number => clock;
  const policies = new Map(
    processes.map((process) => [process, new MessagePolicy({ component, set, processes, process, now })]),
  );
  const waiting = new Map<string, Buffer[]>();
  const counts = new Map<string, number>();
  const builder = new EvidenceBuilder();
  const took = { forced: 0, basic: 0 };
  const count = (key: string): number => {
    counts.set(key, (counts.get(key) ?? 0) + 1);
    return counts.get(key)! - 1;
  };
  const checkpoint = (process: string, why: number | undefined, forced: boolean): void => {
    if (why === undefined) return;
    policies.get(process)!.checkpointed(why);
    builder.addEvent({ type: "checkpoint", process, checkpoint: 1 + count(process), usable: true });
    took[forced ? "forced" : "basic"] += 1;
  };
  for (let step = 0; step < STEPS; step += 1) {
    clock += 1;
    const process = random.pick(processes);
    const policy = policies.get(process)!;
    const peer = random.pick(processes.filter((one) => one !== process));
    const into = `${peer}>${process}`;
    const message = random.below(4) > 0 ? waiting.get(into)?.shift() : undefined;
    checkpoint(process, policy.beat(), false);
    if (message !== undefined) {
      checkpoint(process, policy.receiving(message), true);
      expect(policy.delivered(message).toString()).toBe("hello");
      const begin = count(`received ${into}`);
      builder.addEvent({ type: "receive", process, channel: into, begin, end: begin + 1 });
    } else {
      const out = `${process}>${peer}`;
      const bytes = Buffer.concat([policy.outgoing(peer), Buffer.from("hello")]);
      waiting.set(out, [...(waiting.get(out) ?? []), bytes]);
      const begin = count(`sent ${out}`);
      builder.addEvent({ type: "send", process, channel: out, begin, end: begin + 1 });
    }
  }
  return { ...took, useless: uselessCheckpoints(rollbackModel(builder.build(), RULES)).length };
}

test(`${RUNS} random executions: no useless checkpoint with index-based, hmnr and fdas; independent ones have some`, () => {
  const sums = new Map([...PROTOCOLS, "periodic"].map((name) => [name, { useless: 0, forced: 0, basic: 0 }]));
  for (let seed = FIRST; seed < FIRST + RUNS; seed += 1) {
    const names = [PROTOCOLS[seed % 3]!, ...(seed % 4 === 0 ? ["periodic"] : [])];
    for (const name of names) {
      const one = play(new Random(seed), name);
      const sum = sums.get(name)!;
      for (const key of ["useless", "forced", "basic"] as const) sum[key] += one[key];
      if (name !== "periodic") expect(one.useless, `${name}, seed ${seed} (RL_POLICY_SEED)`).toBe(0);
    }
  }
  expect(sums.get("periodic")!.useless).toBeGreaterThan(0);
  for (const name of PROTOCOLS) expect(sums.get(name)!.forced, name).toBeGreaterThan(RUNS / 100);
});

test("what it remembers goes through a checkpoint's bytes", () => {
  for (const name of PROTOCOLS) {
    const { component } = loadPolicy(name);
    const of = (process: string) =>
      new MessagePolicy({ component, processes: ["a", "b"], process, now: () => 0 });
    const [a, b] = [of("a"), of("b")];
    a.checkpointed(0);
    a.outgoing("b");
    b.delivered(Buffer.from(a.outgoing("b")));
    const again = of("b");
    again.restore(JSON.parse(JSON.stringify(b.stored())));
    expect(again.stored(), name).toEqual(b.stored());
    expect(again.outgoing("a"), name).toEqual(b.outgoing("a"));
    const message = Buffer.from(a.outgoing("b"));
    expect(again.receiving(message), name).toBe(b.receiving(message));
  }
});

test("what a process of the SDK does not have is refused by name", () => {
  const make = (name: string) => () =>
    new MessagePolicy({
      component: loadPolicy(name).component,
      processes: ["a"],
      process: "a",
      now: () => 0,
    });
  expect(make("coordinated")).toThrow(/app\.age.*, which a process of the SDK does not have/);
  expect(make("hybrid")).toThrow(/who group/);
  expect(make("optimistic")).toThrow(/log order later/);
  for (const name of ["periodic", "young-daly", "budget", "pessimistic", "output-commit", "bounded-loss"])
    expect(make(name), name).not.toThrow();
});
