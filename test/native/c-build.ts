/** Compiles small C programs for tests and benches, into build/test. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { packageRoot } from "../../src/native/binding.ts";

/** The checkout. */
const ROOT = `${packageRoot()}/`;
const OUT = `${ROOT}build/test`;

/** Compiles with gcc (or clang for BPF objects); paths are relative to the checkout. Returns the program's path. */
export function compile(name: string, sources: readonly string[], flags: readonly string[] = []): string {
  const inputs = sources.map((source) => `${ROOT}${source}`);
  const warnings = ["-Wall", "-Wextra"];
  return builtOnce(name, (made) =>
    execFileSync("gcc", ["-std=gnu11", "-g", "-O1", ...warnings, "-o", made, ...inputs, ...flags]),
  );
}

/** Another lane may start it, or run it, at this moment: under its name the file is always whole, and stays where it would be the same. */
export function builtOnce(name: string, build: (made: string) => void): string {
  mkdirSync(OUT, { recursive: true });
  const program = `${OUT}/${name}`;
  const made = `${program}.${process.pid}`;
  build(made);
  if (existsSync(program) && readFileSync(program).equals(readFileSync(made))) rmSync(made);
  else renameSync(made, program);
  return program;
}

/** Compiles one BPF object. Returns its path. */
export function compileBpf(name: string, source: string): string {
  const include = `-I/usr/include/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`;
  return builtOnce(name, (made) =>
    execFileSync("clang", ["-O2", "-g", "-target", "bpf", include, "-c", `${ROOT}${source}`, "-o", made]),
  );
}
