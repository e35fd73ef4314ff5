import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { sized } from "../size.ts";
import { compile } from "./c-build.ts";

const SOURCES = ["test/native/c/ring_fuzz_helper.c", "native/ring/ring_read.c"];
const SECONDS = sized(3, 1);
const seed = Date.now() % 1_000_000;

/** Why clang cannot build a libFuzzer target here; undefined where it can. */
function noLibFuzzer(): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), "libfuzzer-"));
  writeFileSync(
    join(folder, "probe.c"),
    "int LLVMFuzzerTestOneInput(const void *d, long n) { return !d && n; }",
  );
  const { status, error } = spawnSync("clang", ["-fsanitize=fuzzer", "probe.c", "-o", "probe"], {
    cwd: folder,
  });
  rmSync(folder, { recursive: true });
  if (error !== undefined) return `RL_NOT_SUPPORTED: clang does not run: ${error.message}`;
  return status === 0
    ? undefined
    : "RL_NOT_SUPPORTED: clang has no fuzzer runtime (Debian: libclang-rt-14-dev)";
}

test(`${SECONDS} s of made-up rings under ASan and UBSan, seed ${seed}`, () => {
  const program = compile("ring_fuzz", SOURCES, [
    "-DSTANDALONE",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
  ]);
  const runs = Number.parseInt(
    execFileSync(program, [String(seed), String(SECONDS)], { encoding: "utf8" }),
    10,
  );
  expect(runs).toBeGreaterThan(1000);
});

test(`${SECONDS} s of libFuzzer, seed ${seed}`, ({ skip }) => {
  const reason = noLibFuzzer();
  skip(reason !== undefined, reason);
  const out = join(packageRoot(), "build/test");
  mkdirSync(out, { recursive: true });
  const program = join(out, "ring_libfuzzer");
  const flags = [
    "-g",
    "-O1",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=all",
    "-o",
    program,
  ];
  execFileSync("clang", [...flags, ...SOURCES.map((source) => join(packageRoot(), source))]);
  const crash = join(out, "ring-crash-");
  const { status, stderr } = spawnSync(
    program,
    [`-seed=${seed}`, `-max_total_time=${SECONDS}`, "-max_len=1030", `-artifact_prefix=${crash}`],
    { encoding: "utf8" },
  );
  expect(status, stderr.slice(-3000)).toBe(0);
  expect(Number(/Done (\d+) runs/.exec(stderr)?.[1])).toBeGreaterThan(1000);
  expect(existsSync(crash)).toBe(false);
});
