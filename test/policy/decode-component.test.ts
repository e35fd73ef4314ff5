/** The gateway for components from disk: what the builder makes passes, whatever it is; anything else is refused, and as RL_BAD_INPUT. */
import { describe, expect, test } from "vitest";
import { RecoveryLineError } from "../../src/model/errors.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import { type Component, encodeComponent, hashOf } from "../../src/policy/component.ts";
import { decodeComponent } from "../../src/policy/decode-component.ts";
import { loadPolicy, shippedPolicies } from "../../src/policy/shipped.ts";
import { Random } from "../reference/random.ts";
import { randomPolicy } from "./random-policy.ts";

const { component } = loadPolicy("bounded-loss");
const bytesOf = (value: unknown): Uint8Array => new TextEncoder().encode(`${JSON.stringify(value)}\n`);
// biome-ignore lint/suspicious/noExplicitAny: what it makes of the copy is no component any more.
const edited = (edit: (copy: any) => void): Uint8Array => {
  const copy = structuredClone(component);
  edit(copy);
  return bytesOf(copy);
};

function refusalOf(bytes: Uint8Array, hash?: string): string {
  try {
    decodeComponent(bytes, hash);
  } catch (error) {
    if (error instanceof RecoveryLineError && error.code === "RL_BAD_INPUT") return error.message;
    throw error;
  }
  throw new Error("it was taken");
}

test("every shipped policy's component passes and is the same", () => {
  for (const name of shippedPolicies()) {
    const built = loadPolicy(name).component;
    expect(decodeComponent(encodeComponent(built), hashOf(built))).toEqual(built);
  }
});

test("components of random policies pass; with one byte changed they are refused or are another valid component", () => {
  const random = new Random(15);
  let built = 0;
  for (let trial = 0; trial < 400; trial += 1) {
    let made: Component;
    try {
      made = buildPolicy("random.xml", randomPolicy(random)).component;
    } catch {
      continue;
    }
    built += 1;
    const bytes = encodeComponent(made);
    expect(decodeComponent(bytes)).toEqual(made);
    const broken = bytes.slice();
    broken[random.below(broken.length)]! ^= 1 << random.below(7);
    try {
      expect(encodeComponent(decodeComponent(broken))).toEqual(broken);
    } catch (error) {
      expect((error as RecoveryLineError).code).toBe("RL_BAD_INPUT");
    }
  }
  expect(built).toBeGreaterThan(80);
});

describe("refused", () => {
  const cases: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ["no JSON", new TextEncoder().encode("{"), /no JSON/],
    ["not UTF-8", Uint8Array.of(0xff), /no JSON/],
    ["another format", edited((c) => (c.format = "2")), /not of format/],
    ["a field more", edited((c) => (c.more = 1)), /has the fields/],
    ["layout", new TextEncoder().encode(JSON.stringify(component, null, 1)), /normal form/],
    ["an unknown event", edited((c) => (c.handlers[0].event = "boot")), /no event "boot"/],
    ["an unknown fact", edited((c) => (c.facts[0] = "self.soul")), /no fact/],
    ["a fact twice", edited((c) => (c.facts[1] = c.facts[0])), /twice/],
    ["a handler twice", edited((c) => c.handlers.push(c.handlers[0])), /twice/],
    ["no handler", edited((c) => (c.handlers = [])), /no event/],
    ["an index outside", edited((c) => (c.handlers[0].body[0].test = ["fact", 99])), /index 99/],
    ["a name of the prototype", edited((c) => (c.handlers[0].body[0].do = "constructor")), /no statement/],
    ["size against duration", edited((c) => (c.parameters[0].type = "size")), /a duration where a size/],
    [
      "eval",
      edited((c) => (c.handlers[0].body[0].test = ["eval", ["fact", 0], ["fact", 0]])),
      /operator "eval"/,
    ],
    ["numbers out of order", edited((c) => (c.handlers[0].body[0].id = 7)), /number its statements/],
    ["a process's fact for the node", edited((c) => (c.handlers[0].each = "node")), /for the node|acts on/],
    [
      "a self that is nobody",
      edited(
        (c) =>
          (c.handlers.at(-1).body[0] = {
            ...c.handlers.at(-1).body[0],
            do: "checkpoint",
            who: "self",
            forced: false,
          }),
      ),
      /fields|acts on/,
    ],
  ];
  for (const [name, bytes, message] of cases)
    test(name, () => {
      expect(refusalOf(bytes)).toMatch(message);
    });

  test("another hash than was said", () => {
    expect(refusalOf(encodeComponent(component), "0".repeat(64))).toMatch(/has the hash/);
  });

  test("an expression that goes down for ever", () => {
    let term: unknown = ["constant", 1, "boolean"];
    for (let depth = 0; depth < 2000; depth += 1) term = ["not", term];
    expect(refusalOf(edited((c) => (c.handlers[0].body[0].test = term)))).toMatch(/too deep/);
  });
});
