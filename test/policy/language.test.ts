/** The language: what ships, what is generated, macros, units, arithmetic without holes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { buildPolicy } from "../../src/policy/build.ts";
import { hashOf } from "../../src/policy/component.ts";
import { nearestWord } from "../../src/policy/nearest-word.ts";
import { palette } from "../../src/policy/palette.ts";
import { printPolicy } from "../../src/policy/print-policy.ts";
import { daly, Program } from "../../src/policy/program.ts";
import { referencePage } from "../../src/policy/reference.ts";
import { xmlSchema } from "../../src/policy/schema.ts";
import { parseSettings } from "../../src/policy/settings.ts";
import { loadPolicy, shippedPolicies, trialResults } from "../../src/policy/shipped.ts";
import { ELEMENTS, EVENTS, FACTS, NAMESPACE, TYPES } from "../../src/policy/vocabulary.ts";
import { Schema } from "../../src/policy/xml.ts";
import { wrongOf } from "./wrong.ts";

const root = join(import.meta.dirname, "..", "..");
const policyFile = (name: string): string => readFileSync(join(root, "policies", `${name}.xml`), "utf8");

function policy(body: string): string {
  return `<policy xmlns="${NAMESPACE}" name="t" version="1">${body}</policy>`;
}

/** The value that a policy tells when it is plugged. */
function told(expression: string, head = ""): number {
  const text = policy(`${head}<on event="plugged"><tell who="node" value="${expression}"/></on>`);
  const program = new Program(buildPolicy("t.xml", text).component);
  const [action] = program.step("plugged", "node", [], program.initialState()).actions;
  return action?.do === "tell" ? action.value : Number.NaN;
}

describe("shipped policies", () => {
  const schema = new Schema(xmlSchema());

  test("are those of the design", () => {
    expect(shippedPolicies()).toEqual(
      ["bounded-loss", "budget", "causal", "coordinated", "fdas", "garbage-driven", "hmnr", "hybrid"].concat([
        "index-based",
        "optimistic",
        "output-commit",
        "periodic",
        "pessimistic",
        "staggered",
        "young-daly",
      ]),
    );
  });

  test.each(shippedPolicies())(
    "%s: at most 40 lines, fits the schema, its expansion is the same component",
    (name) => {
      const text = policyFile(name);
      expect(text.trimEnd().split("\n").length).toBeLessThanOrEqual(40);
      expect(schema.complaint(text)).toBeUndefined();
      const { component } = loadPolicy(name);
      expect(component.name).toBe(name);
      expect(component.title).not.toBe("");
      const printed = printPolicy(component);
      expect(schema.complaint(printed)).toBeUndefined();
      expect(hashOf(buildPolicy("printed.xml", printed).component)).toBe(hashOf(component));
    },
  );

  test("what needs to hear of each message is refused on unmodified programs, with the words that need it", () => {
    const live = Object.fromEntries(
      shippedPolicies().map((name) => [name, loadPolicy(name).component.refused.live]),
    );
    expect(live).toMatchObject({
      periodic: [],
      "bounded-loss": [],
      hybrid: [],
      "index-based": ["event receiving", "message.index", "self.index"],
      hmnr: ["event receiving", "message.closes"],
      fdas: ["event receiving", "message.news"],
      pessimistic: ["log order before"],
      optimistic: ["log order later"],
      causal: ["log order carried"],
      "output-commit": [],
    });
  });
});

describe("generated from the vocabulary", () => {
  test("docs/policies.md is current: `recovery-line policy reference > docs/policies.md`", () => {
    const page = referencePage(shippedPolicies().map(loadPolicy), trialResults());
    expect(readFileSync(join(root, "docs", "policies.md"), "utf8")).toBe(page);
    for (const words of [ELEMENTS, EVENTS, FACTS, TYPES])
      for (const word of Object.keys(words)) expect(page).toContain(`\`${word}\``);
  });

  test("the palette holds every word, as plain JSON", () => {
    const made = JSON.parse(JSON.stringify(palette())) as Record<string, { name: string }[]>;
    const names = (key: string): string[] => made[key]!.map(({ name }) => name);
    expect(names("elements")).toEqual(Object.keys(ELEMENTS));
    expect(names("events")).toEqual(Object.keys(EVENTS));
    expect(names("facts")).toEqual(Object.keys(FACTS));
  });
});

describe("components", () => {
  test("layout, comments and entities for plain characters change nothing; meaning does", () => {
    const plain = policy('<on event="beat"><if test="self.age gt 1 min"><checkpoint/></if></on>');
    const hash = (text: string): string => hashOf(buildPolicy("t.xml", text).component);
    const spread = plain.replaceAll("><", ">\n  <!-- > & < -->\n<").replace("self.age", "s&#101;lf.age  ");
    expect(hash(spread)).toBe(hash(plain));
    expect(hash(plain.replace("1 min", "60s"))).toBe(hash(plain));
    expect(hash(plain.replace("1 min", "61 s"))).not.toBe(hash(plain));
  });

  test("lines say where each statement stands, also out of macros", () => {
    const { lines } = buildPolicy("bounded-loss.xml", policyFile("bounded-loss"));
    expect(lines.slice(0, 3)).toEqual([
      { line: 7, column: 5, macro: "every" },
      { line: 7, column: 54, macro: "every" },
      { line: 11, column: 5, macro: "below" },
    ]);
  });

  test("a place behind references and line breaks in an attribute is that of the file", () => {
    const text = policy(
      '<on event="beat"><if test="self.age&#10;  gt\r\n  1 min and sel.age gt 1 s"><checkpoint/></if></on>',
    );
    expect(wrongOf(() => buildPolicy("t.xml", text)).message).toBe("t.xml:2:13: nothing is called sel.age");
  });

  test("macros are hygienic: arguments mean what they mean to the caller", () => {
    const head = `<parameter name="x" type="number" default="1"/>
      <macro name="inner"><takes name="y" type="number"/><tell who="node" value="x + y"/></macro>
      <macro name="outer"><takes name="y" type="number"/><use macro="inner"><with name="y" value="y * 10"/></use></macro>`;
    const text = policy(
      `${head}<on event="plugged"><use macro="outer"><with name="y" value="x + 1"/></use></on>`,
    );
    const printed = printPolicy(buildPolicy("t.xml", text).component);
    expect(printed).toContain('<tell who="node" value="x + (x + 1) * 10"/>');
  });

  test("parameters are set in the units of the policy", () => {
    const { component } = loadPolicy("bounded-loss");
    expect([...parseSettings(component, ["bound=1min", "hold=500 ms"])]).toEqual([
      ["bound", 60],
      ["hold", 0.5],
    ]);
    expect(wrongOf(() => parseSettings(component, ["bound=64 MiB"])).message).toBe(
      "bound=64 MiB: a duration is expected, not a size",
    );
    expect(wrongOf(() => parseSettings(component, ["bond=1 s"])).message).toContain("no such parameter");
  });
});

describe("expressions", () => {
  test("every operation has a value", () => {
    expect(told("1 / 0")).toBe(Number.POSITIVE_INFINITY);
    expect(told("0 / 0")).toBe(0);
    expect(told("1 / 0 - 1 / 0")).toBe(0);
    expect(told("0 * (1 / 0)")).toBe(0);
    expect(told("(1 / 0) / (1 / 0)")).toBe(0);
    expect(told("daly(0 s, 1 d) / 1 s")).toBe(0);
    expect(told("young(-1 s, 1 d) / 1 s")).toBe(0);
  });

  test("binding strength, associativity, units", () => {
    expect(told("2 + 3 * 4 - 1")).toBe(13);
    expect(told("100 / 10 / 2")).toBe(5);
    expect(told("10 - (3 - 2)")).toBe(9);
    expect(told("-2 * -3")).toBe(6);
    expect(told("64 MiB / 1 KiB")).toBe(65_536);
    expect(told("1 d / 1min")).toBe(1440);
    expect(told("50 % * 3")).toBe(1.5);
    expect(told("min(2 h, 90 min) / 1 s")).toBe(5400);
  });

  test("Daly's optimum", () => {
    expect(daly(60, 86_400)).toBeCloseTo(3180.06, 1);
    expect(daly(200, 100)).toBe(100);
    expect(daly(0, 100)).toBe(0);
  });
});

test("the word that was meant", () => {
  const words = ["checkpoint", "synchronize", "restart", "set"];
  expect(nearestWord("chekcpoint", words)).toBe("checkpoint");
  expect(nearestWord("Restart", words)).toBe("restart");
  expect(nearestWord("synchronise", words)).toBe("synchronize");
  expect(nearestWord("banana", words)).toBeUndefined();
});
