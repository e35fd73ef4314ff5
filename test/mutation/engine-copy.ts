/** Copies of the engine with a fault in them, compiled and loaded in memory beside the real one. */
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, normalize } from "node:path";
import ts from "typescript";
import type { computeLine } from "../../src/compute/compute.ts";
import type { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import type { verifyLine } from "../../src/graph/verify/verify-line.ts";
import type { Fault } from "./faults.ts";

export interface Engine {
  readonly EvidenceBuilder: typeof EvidenceBuilder;
  readonly computeLine: typeof computeLine;
  readonly verifyLine: typeof verifyLine;
}

const nodeRequire = createRequire(import.meta.url);
const SOURCE = join(import.meta.dirname, "../../src");

function sourceOf(file: string): string {
  return readFileSync(join(SOURCE, file), "utf8");
}

function compile(text: string, fileName: string): string {
  return ts.transpileModule(text, {
    fileName,
    compilerOptions: {
      module: ts.ModuleKind.CommonJS,
      target: ts.ScriptTarget.ES2023,
      isolatedModules: true,
    },
  }).outputText;
}

/** The text with the fault in it. Throws where the text to replace is not there exactly once. */
function mutate(text: string, { file, what, find, replace }: Fault): string {
  const parts = text.split(find);
  if (parts.length !== 2)
    throw new Error(`fault "${what}": its text stands ${parts.length - 1} times in ${file}`);
  return parts.join(replace);
}

/** Files of the engine that a compiled one imports. */
function importsOf(file: string, code: string): string[] {
  return [...code.matchAll(/\brequire\("(\.[^"]+)"\)/g)].map(([, name]) =>
    normalize(join(dirname(file), name as string)),
  );
}

/** The file that runs the verifier on the engine's own answers. */
const NO_VERIFIER: Omit<Fault, "file"> = {
  what: "the verifier does not run",
  find: "  verifyLine(evidence, { failed,",
  replace: "  void verifyLine;\n  void (evidence, { failed,",
};

export class EngineCopies {
  readonly #clean = new Map<string, string>();
  /** Modules that no fault can reach, by file: one for all copies. */
  readonly #shared = new Map<string, object>();
  readonly #noVerifier: Fault;

  constructor() {
    const users = readdirSync(join(SOURCE, "compute"))
      .filter((name) => name.endsWith(".ts"))
      .map((name) => `compute/${name}`)
      .filter((file) => sourceOf(file).includes(NO_VERIFIER.find));
    if (users.length !== 1) throw new Error(`${users.length} files run the verifier`);
    this.#noVerifier = { ...NO_VERIFIER, file: users[0] as string };
  }

  /** An engine with these faults; `verifier` false: nothing checks its answers. */
  load(faults: readonly Fault[], verifier: boolean): Engine {
    const mutated = new Map<string, string>();
    for (const fault of verifier ? faults : [...faults, this.#noVerifier])
      mutated.set(fault.file, mutate(mutated.get(fault.file) ?? sourceOf(fault.file), fault));
    const reached = new Map<string, boolean>();
    /** It has a fault, or imports what has one. */
    const isReached = (file: string): boolean => {
      const known = reached.get(file);
      if (known !== undefined) return known;
      reached.set(file, false);
      const found = mutated.has(file) || importsOf(file, this.#compiled(file)).some(isReached);
      reached.set(file, found);
      return found;
    };
    const loaded = new Map<string, object>();
    const load = (file: string): object => {
      const modules = isReached(file) ? loaded : this.#shared;
      const known = modules.get(file);
      if (known !== undefined) return known;
      const exports = {};
      modules.set(file, exports);
      const mutant = mutated.get(file);
      const code = mutant === undefined ? this.#compiled(file) : compile(mutant, file);
      const require = (name: string): unknown =>
        name.startsWith(".") ? load(normalize(join(dirname(file), name))) : nodeRequire(name);
      new Function("require", "exports", code)(require, exports);
      return exports;
    };
    const engine = {
      ...load("graph/evidence/evidence-builder.ts"),
      ...load("compute/compute.ts"),
      ...load("graph/verify/verify-line.ts"),
    };
    for (const file of mutated.keys())
      if (!loaded.has(file)) throw new Error(`${file} is no part of the engine`);
    return engine as Engine;
  }

  #compiled(file: string): string {
    const known = this.#clean.get(file);
    if (known !== undefined) return known;
    const code = compile(sourceOf(file), file);
    this.#clean.set(file, code);
    return code;
  }
}
