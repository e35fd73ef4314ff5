/** docs/threat-model.md names, for each line, a test that is there. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const rows = readFileSync(join(root, "docs/threat-model.md"), "utf8")
  .split("\n")
  .flatMap((line) => {
    const cited = /\| `(test\/[^`]+)`: (.+) \|$/.exec(line);
    return cited === null ? [] : [{ file: cited[1] as string, title: cited[2] as string }];
  });

/** The file's text, with that of the C programs that it runs. */
function textOf(file: string): string {
  const text = readFileSync(join(root, file), "utf8");
  const c = join(root, "test/native/c");
  if (!text.includes("test/native/c/")) return text;
  return [text, ...readdirSync(c).map((name) => readFileSync(join(c, name), "utf8"))].join("\n");
}

test("the table has its lines", () => {
  expect(rows.length).toBeGreaterThanOrEqual(25);
});

test.each(rows)("$file: $title", ({ file, title }) => {
  expect(existsSync(join(root, file))).toBe(true);
  expect(textOf(file)).toContain(title);
});
