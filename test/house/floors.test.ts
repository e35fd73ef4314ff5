/** The house as it is written down: floors, rooms, names. Each rule is seen to fail on a planted breach. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { aroundLibrary, brokenFloors, FLOORS, QUESTIONS, sourceFiles } from "./floors.ts";
import { namesTwice } from "./names.ts";

const ROOT = join(import.meta.dirname, "../..");
const SOURCE = join(ROOT, "src");
const made: string[] = [];
afterAll(() => {
  for (const folder of made) rmSync(folder, { recursive: true });
});

/** A small house: file name → text. */
function house(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), "recovery-line-house-"));
  made.push(folder);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

test("imports go downward only, and every file has a floor", () => {
  expect(brokenFloors(SOURCE)).toEqual([]);
});

test.each([
  [
    "upward",
    { "log/a.ts": 'import { b } from "../compute/b.ts";', "compute/b.ts": "" },
    "log/a.ts -> compute/b.ts: upward",
  ],
  [
    "sideways",
    { "restart/a.ts": 'export * from "../gc/b.ts";', "gc/b.ts": "" },
    "restart/a.ts -> gc/b.ts: sideways",
  ],
  [
    "through a nested ../",
    { "log/a.ts": 'import "../log/level/../../daemon/b.ts";', "log/level/c.ts": "", "daemon/b.ts": "" },
    "log/a.ts -> daemon/b.ts: upward",
  ],
  [
    "a type only",
    { "model/a.ts": 'import type { B } from "../format/b.ts";', "format/b.ts": "" },
    "model/a.ts -> format/b.ts: upward",
  ],
  [
    "dynamic",
    { "host/a.ts": 'await import("../cli/b.ts");', "cli/b.ts": "" },
    "host/a.ts -> cli/b.ts: upward",
  ],
  [
    "a worker",
    { "host/a.ts": 'new Worker(compiledFile("policy/b.js"));', "policy/b.ts": "" },
    "host/a.ts -> policy/b.ts: upward",
  ],
  [
    "the verifier's own code",
    {
      "graph/verify/a.ts": 'import "../../model/b.ts"; import "../../format/c.ts";',
      "model/b.ts": "",
      "format/c.ts": "",
    },
    "graph/verify/a.ts -> format/c.ts: graph/verify imports model alone",
  ],
  ["a folder without a floor", { "attic/a.ts": "" }, "attic/a.ts: its folder is on no floor"],
])("a breach is found: %s", (_what, files, found) => {
  expect(brokenFloors(house(files as Record<string, string>))).toEqual([found]);
});

test("a type's name is exported once in the whole tree", () => {
  expect(namesTwice(SOURCE)).toEqual([]);
});

test("a double name is found; the entries that hand names on are not counted", () => {
  const folder = house({
    "log/a.ts": "export interface Place { a: number }",
    "model/b.ts": "export type Place = string; type Other = 1;",
    "format/c.ts": "type Other = 2; export { type Kept } from '../model/d.ts';",
    "model/d.ts": "export class Kept {}",
    "index.ts": "export type { Kept } from './model/d.ts';",
  });
  expect(namesTwice(folder)).toEqual(["Place: log/a.ts model/b.ts"]);
});

test("the map names every folder, and only folders that exist", () => {
  const map = readFileSync(join(SOURCE, "README.md"), "utf8");
  const drawing = map.slice(map.indexOf("```"), map.indexOf("```", map.indexOf("```") + 3));
  for (const folder of FLOORS.flat().filter((name) => name !== "."))
    expect(drawing, `src/README.md draws ${folder}`).toContain(folder.split("/").at(-1));
  const folders = new Set(sourceFiles(SOURCE).map((file) => dirname(file)));
  for (const folder of FLOORS.flat()) expect([...folders], `the table has ${folder}`).toContain(folder);
});

/** Paths that stand in configuration, where no compiler looks. */
test("paths that are named outside of the code exist", () => {
  const tracked = new Set(execFileSync("git", ["ls-files"], { cwd: ROOT, encoding: "utf8" }).split("\n"));
  const text = (name: string): string => readFileSync(join(ROOT, name), "utf8");
  const knip = JSON.parse(text("knip.json")) as { entry: string[] };
  const manifest = JSON.parse(text("package.json")) as {
    bin: Record<string, string>;
    exports: Record<string, string | { types: string; default: string }>;
  };
  const compiled = [
    ...Object.values(manifest.bin),
    ...Object.values(manifest.exports).flatMap((entry) => (typeof entry === "string" ? [] : [entry.default])),
  ].map((path) => path.replace(/^(\.\/)?dist\//, "src/").replace(/\.js$/, ".ts"));
  const run = sourceFiles(SOURCE).flatMap((file) =>
    [...readFileSync(join(SOURCE, file), "utf8").matchAll(/compiledFile\("([^"]+)\.js"/g)].map(
      ([, name]) => `src/${name}.ts`,
    ),
  );
  const sources = [...text("binding.gyp").matchAll(/"(native\/[^"]+\.c)"/g)].map(
    ([, path]) => path as string,
  );
  expect(run.length, "files that are run by path").toBeGreaterThan(2);
  expect(sources.length, "C files of the addon").toBeGreaterThan(2);
  for (const path of [...knip.entry.filter((entry) => !entry.includes("*")), ...compiled, ...run, ...sources])
    expect(tracked.has(path) || existsSync(join(ROOT, path)), path).toBe(true);
  for (const document of [
    "README.md",
    "logs-format.md",
    "src/README.md",
    "CONTRIBUTING.md",
    "docs/glossary.md",
    "test/README.md",
  ])
    for (const [, path] of text(document).matchAll(
      /`((?:src|native|test|scripts|bench|docs)\/[a-z./_-]+\.[a-z]+)`/g,
    ))
      expect(
        [ROOT, SOURCE].some((folder) => existsSync(join(folder, path as string))),
        `${document}: ${path}`,
      ).toBe(true);
});

test("commands that answer questions compute with the library alone", () => {
  expect(aroundLibrary(SOURCE)).toEqual([]);
});

test.each([
  ['import type { Loss } from "../compute/losses.ts";', "compute/losses.ts"],
  ['export const f = () => import("../graph/questions/domino.ts");', "graph/questions/domino.ts"],
  ['import { openAppLogs } from "../logs/app-logs.ts";', "logs/app-logs.ts"],
])("a question that goes around the library is refused: %s", (text, target) => {
  const commands = QUESTIONS.map((name) => [`cli/${name}.ts`, name === "failures" ? text : ""]);
  const folder = house({ ...Object.fromEntries(commands), [target]: "" });
  expect(aroundLibrary(folder)).toEqual([`cli/failures.ts -> ${target}: around the library`]);
});
