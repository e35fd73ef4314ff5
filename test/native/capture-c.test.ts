/** Every case of the C capture programs (test/native/c/capture_*.c), each a test of its own with real system calls. */
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../src/ring/binding.ts";

const SKIPPED = 77;
const native = join(packageRoot(), "native");
const programs = readdirSync(join(packageRoot(), "test/native/c"))
  .filter((name) => name.startsWith("capture_") && name.endsWith(".c"))
  .map((name) => name.slice(0, -2));

execFileSync("make", ["-s", "-C", native, ...programs.map((name) => `build/${name}`)], { stdio: "inherit" });

function cases(program: string): string[] {
  return execFileSync(join(native, "build", program), ["--list"], { encoding: "utf8" })
    .trim()
    .split("\n");
}

/** Output goes to a file: what Node calls a pipe is a socket, a channel that the capture would see. */
const scratch = mkdtempSync(join(tmpdir(), "capture-c-"));
afterAll(() => rmSync(scratch, { recursive: true }));

function run(program: string, name: string): { status: number | null; said: string } {
  const path = join(scratch, `${program}-${name}`);
  const out = openSync(path, "w");
  const { status } = spawnSync(join(native, "build", program), [name], {
    stdio: ["ignore", out, out],
    timeout: 50_000,
  });
  closeSync(out);
  return { status, said: readFileSync(path, "utf8").trim() };
}

describe.each(programs)("%s", (program) => {
  test.for(cases(program))("%s", (name, { skip }) => {
    const { status, said } = run(program, name);
    skip(status === SKIPPED, said);
    expect([status, said.split("\n").at(-1)], said).toEqual([0, "passed"]);
  });
});
