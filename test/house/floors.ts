/**
 * The floors of `src`, from the ground up, and whatever breaks them. A file may import what stands on a lower floor or in its own folder;
 * sideways and upward nothing. Resolved by TypeScript itself, so that no way of writing a path gets by: static, type-only and dynamic
 * imports, re-exports, and files that threads and child processes run (`compiledFile("…")`).
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import ts from "typescript";

/** Folders below `src`; "." holds the library's entry. Those of one floor know nothing of each other. */
export const FLOORS: readonly (readonly string[])[] = [
  ["model"],
  ["format", "graph/verify"],
  ["graph/evidence"],
  ["graph/rollback"],
  ["graph/questions"],
  ["native"],
  ["host"],
  ["log/level", "capture"],
  ["log"],
  ["images/data", "payload", "client"],
  ["images"],
  ["images/criu", "images/hook", "images/none"],
  ["images/container"],
  ["collect", "import", "logs", "sdk"],
  ["checkpoint", "compute", "diagram"],
  ["restart", "gc"],
  ["policy"],
  ["daemon"],
  ["terminal"],
  ["."],
  ["demo"],
  ["cli"],
];

/** What stands on a lower floor and is refused all the same: the verifier shares no code with what it checks. */
const ONLY: Readonly<Record<string, readonly string[]>> = { "graph/verify": ["model"] };

/** Arrows that may be there, each with its reason. */
const LISTED: readonly string[] = [
  // Our own program, started as a child: by the demos, and by the collector that collects garbage by itself.
  "terminal/run-command.ts -> cli/main.ts",
];

const OPTIONS: ts.CompilerOptions = {
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  allowImportingTsExtensions: true,
};

/** Every arrow that breaks the table, "from -> to: why"; and every file in a folder that the table lacks. */
export function brokenFloors(source: string): string[] {
  const floorOf = new Map(
    FLOORS.flatMap((folders, floor) => folders.map((folder) => [folder, floor] as const)),
  );
  const broken: string[] = [];
  for (const file of sourceFiles(source)) {
    const from = dirname(file);
    if (!floorOf.has(from)) broken.push(`${file}: its folder is on no floor`);
    for (const target of importsOf(source, file)) {
      const to = dirname(target);
      const why = to === from ? undefined : wrong(from, to, floorOf);
      if (why !== undefined && !LISTED.includes(`${file} -> ${target}`))
        broken.push(`${file} -> ${target}: ${why}`);
    }
  }
  return broken;
}

/** Commands that answer questions about lines: the library (index.ts) is all they may compute with. */
export const QUESTIONS = [
  "compute",
  "cut",
  "evidence-options",
  "explain",
  "failures",
  "gc",
  "graph",
  "zcycles",
];
const ENGINE = /^(format|graph|compute|diagram|import|collect)\/|^gc\/gc\.ts$|^logs\/(app-|read-|closed-)/;
/** Reads an option's value. */
const OF_OPTIONS = ["logs/app-nodes.ts"];

/** What such commands import of the engine around the library. */
export function aroundLibrary(source: string): string[] {
  return QUESTIONS.flatMap((name) => {
    const file = `cli/${name}.ts`;
    return importsOf(source, file)
      .filter((target) => ENGINE.test(target) && !OF_OPTIONS.includes(target))
      .map((target) => `${file} -> ${target}: around the library`);
  });
}

function wrong(from: string, to: string, floorOf: ReadonlyMap<string, number>): string | undefined {
  const [high, low] = [floorOf.get(from) ?? Number.NaN, floorOf.get(to)];
  if (low === undefined) return "to no floor";
  if (ONLY[from]?.includes(to) === false) return `${from} imports ${ONLY[from].join(", ")} alone`;
  if (low < high) return undefined;
  return low === high ? "sideways" : "upward";
}

/** Files that `file` imports or runs, below `source`. */
function importsOf(source: string, file: string): string[] {
  const path = join(source, file);
  const text = readFileSync(path, "utf8");
  const named = ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName);
  const imported = named.flatMap((name) => {
    const found = ts.resolveModuleName(name, path, OPTIONS, ts.sys).resolvedModule?.resolvedFileName;
    return found === undefined || found.includes(`${sep}node_modules${sep}`) ? [] : [found];
  });
  const run = [...text.matchAll(/compiledFile\(\s*"([^"]+)\.js"/g)].map(([, name]) =>
    join(source, `${name}.ts`),
  );
  return [...imported, ...run]
    .map((target) => relative(source, resolve(target)))
    .filter((target) => !target.startsWith(".."));
}

export function sourceFiles(source: string): string[] {
  return readdirSync(source, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .sort();
}
