/** Random policies, right and damaged ones: nothing but RL_BAD_INPUT, and the same bytes each time. */
import { expect, test } from "vitest";
import { hasCode } from "../../src/model/errors.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import { type BuiltPolicy, encodeComponent, hashOf } from "../../src/policy/component.ts";
import { printPolicy } from "../../src/policy/print-policy.ts";
import { Program } from "../../src/policy/program.ts";
import { xmlSchema } from "../../src/policy/schema.ts";
import { Schema } from "../../src/policy/xml.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { damaged, randomPolicy } from "./random-policy.ts";

/** test/exhaustive/policies.test.ts takes 10 000. */
const POLICIES = Number(process.env["RL_POLICY_RUNS"] ?? sized(1500, 500));
const FIRST = Number(process.env["RL_POLICY_SEED"] ?? 1);

function builtOr(seed: number, text: string): BuiltPolicy | undefined {
  try {
    return buildPolicy("random.xml", text);
  } catch (error) {
    if (hasCode(error, "RL_BAD_INPUT") && /^random\.xml:\d+:\d+: /.test(error.message)) return undefined;
    throw new Error(`seed ${seed} (RL_POLICY_SEED): ${String(error)}\n${text}`, { cause: error });
  }
}

test("components are the same each time, and what is wrong has a place", () => {
  let right = 0;
  const started = performance.now();
  for (let seed = FIRST; seed < FIRST + POLICIES; seed += 1) {
    const random = new Random(seed);
    const whole = randomPolicy(random);
    const text = random.oneIn(3) ? damaged(random, whole) : whole;
    const built = builtOr(seed, text);
    if (built === undefined) continue;
    right += 1;
    if (right % 4 !== 0) continue;
    const again = buildPolicy("other.xml", text);
    expect(
      Buffer.from(encodeComponent(again.component)).equals(encodeComponent(built.component)),
      `seed ${seed}`,
    ).toBe(true);
  }
  console.log(
    `${right} of ${POLICIES} right, seeds from ${FIRST}, ${Math.round(performance.now() - started)} ms`,
  );
  expect(right).toBeGreaterThan(POLICIES / 4);
});

test("the expansion of macros builds to the same component, and fits the schema as the policy does", () => {
  const schema = new Schema(xmlSchema());
  for (let seed = FIRST; seed < FIRST + POLICIES / 20; seed += 1) {
    const text = randomPolicy(new Random(seed));
    const built = builtOr(seed, text);
    expect(schema.complaint(text), `seed ${seed}`).toBeUndefined();
    if (built === undefined) continue;
    const printed = printPolicy(built.component);
    expect(schema.complaint(printed), `seed ${seed}`).toBeUndefined();
    expect(hashOf(buildPolicy("printed.xml", printed).component), `seed ${seed}`).toBe(
      hashOf(built.component),
    );
  }
});

test("handlers end, and every value is a number, whatever the facts are", () => {
  const odd = [0, 1, -1, 1e308, -1e308, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 5e-324];
  for (let seed = FIRST; seed < FIRST + POLICIES / 20; seed += 1) {
    const random = new Random(seed);
    const built = builtOr(seed, randomPolicy(random));
    if (built === undefined) continue;
    const program = new Program(built.component);
    let state = program.initialState();
    for (const { event, each } of built.component.handlers) {
      const facts = built.component.facts.map(() => random.pick(odd));
      const before = state.slice();
      const step = program.step(event, each, facts, state);
      expect(state, `seed ${seed}: the state given is not changed`).toEqual(before);
      for (const value of step.state) expect(value, `seed ${seed}`).not.toBeNaN();
      for (const action of step.actions)
        if (action.do === "tell") expect(action.value, `seed ${seed}`).not.toBeNaN();
      state = step.state;
    }
  }
});
