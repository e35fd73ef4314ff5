/** Bad policies and exactly what is said about them: bad/*.xml and bad/expected.txt. RL_REWRITE=1 writes the latter; read the diff. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { RecoveryLineError } from "../../src/model/errors.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import { xmlSchema } from "../../src/policy/schema.ts";
import { BOUNDS } from "../../src/policy/vocabulary.ts";
import { Schema } from "../../src/policy/xml.ts";
import { decodePolicy } from "../../src/policy/xml-places.ts";
import { wrongOf } from "./wrong.ts";

const folder = join(import.meta.dirname, "bad");
const list = join(folder, "expected.txt");
const names = readdirSync(folder).filter((name) => name.endsWith(".xml"));

function said(name: string, bytes: Uint8Array): string {
  const { code, message, advice } = wrongOf(() => buildPolicy(name, decodePolicy(name, bytes)));
  expect(code).toBe("RL_BAD_INPUT");
  return advice === "" ? message : `${message}\n    ${advice}`;
}

describe("bad policies", () => {
  if (process.env["RL_REWRITE"] === "1") {
    const blocks = names.map((name) => said(name, readFileSync(join(folder, name))));
    writeFileSync(list, `${blocks.join("\n\n")}\n`);
  }
  const expected = new Map(
    readFileSync(list, "utf8")
      .trimEnd()
      .split("\n\n")
      .map((block) => [block.slice(0, block.indexOf(":")), block]),
  );

  test("there are as many as expectations, and at least 40", () => {
    expect([...expected.keys()].sort()).toEqual([...names].sort());
    expect(names.length).toBeGreaterThanOrEqual(40);
  });

  test.each(names)("%s", (name) => {
    expect(said(name, readFileSync(join(folder, name)))).toBe(expected.get(name));
  });

  test("too large, not UTF-8", () => {
    const large = new Uint8Array(BOUNDS.fileBytes + 1).fill(32);
    expect(said("large.xml", large)).toBe(
      "large.xml:1:1: the file has 262145 bytes; at most 262144 are allowed",
    );
    expect(said("latin.xml", Uint8Array.of(60, 233, 62))).toBe("latin.xml:1:1: the file is not UTF-8");
  });

  test("the schema refuses what is wrong in structure", () => {
    const schema = new Schema(xmlSchema());
    const structural = [
      ...[
        "typo-element",
        "typo-attribute",
        "typo-event",
        "typo-who",
        "typo-type",
        "title-too-late",
        "two-titles",
      ],
      ...[
        "element-misplaced",
        "empty-handler",
        "empty-if",
        "else-before-statements",
        "loose-text",
        "no-version",
      ],
      ...[
        "nothing-in-checkpoint",
        "no-handler",
        "other-root",
        "restart-while-held",
        "version-zero",
        "log-neither",
      ],
    ];
    for (const name of structural)
      expect(schema.complaint(readFileSync(join(folder, `${name}.xml`), "utf8")), name).toBeDefined();
  });
});

test("an error is one of ours, with a place", () => {
  const error = wrongOf(() => buildPolicy("x.xml", "<policy/>"));
  expect(error).toBeInstanceOf(RecoveryLineError);
  expect(error.message).toMatch(/^x\.xml:1:1: /);
});
