/** Compiles small C programs for tests and benches, into build/test. */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { packageRoot } from "../../src/native/binding.ts";

/** The checkout. */
const ROOT = `${packageRoot()}/`;
const OUT = `${ROOT}build/test`;

/** Compiles with gcc (or clang for BPF objects); paths are relative to the checkout. Returns the program's path. */
export function compile(name: string, sources: readonly string[], flags: readonly string[] = []): string {
  mkdirSync(OUT, { recursive: true });
  const program = `${OUT}/${name}`;
  const inputs = sources.map((source) => `${ROOT}${source}`);
  execFileSync("gcc", ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-o", program, ...inputs, ...flags]);
  return program;
}

/** Compiles one BPF object. Returns its path. */
export function compileBpf(name: string, source: string): string {
  mkdirSync(OUT, { recursive: true });
  const object = `${OUT}/${name}`;
  const include = `-I/usr/include/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`;
  execFileSync("clang", ["-O2", "-g", "-target", "bpf", include, "-c", `${ROOT}${source}`, "-o", object]);
  return object;
}
