/** Builds native/sdk and its test programs, under sanitizers. */
import { execFileSync } from "node:child_process";
import { packageRoot } from "../../src/native/binding.ts";

const SANITIZE = "address,undefined";

/** Compiles `test/sdk/c/<name>.c` against the library; returns the program's path. */
export function buildSdkProgram(name: string): string {
  const root = packageRoot();
  const folder = `${root}/build/sdk-${SANITIZE.replaceAll(",", "-")}`;
  execFileSync("make", ["-s", "-C", `${root}/native/sdk`, `SANITIZE=${SANITIZE}`]);
  const program = `${folder}/${name}`;
  const flags = ["-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", `-fsanitize=${SANITIZE}`];
  const sources = [`${root}/test/sdk/c/${name}.c`, `${root}/native/dsm/sha256.c`];
  const inputs = [...sources, `${folder}/librecovery_sdk.a`];
  execFileSync("gcc", [...flags, "-fno-sanitize-recover=all", "-o", program, ...inputs]);
  return program;
}
