import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { compile } from "./c-build.ts";

test("64-bit offsets from 32-bit sequence numbers, around every wrap", () => {
  const program = compile(
    "epoch",
    ["test/native/c/epoch_test.c"],
    ["-fsanitize=undefined", "-fno-sanitize-recover"],
  );
  expect(execFileSync(program, { encoding: "utf8" })).toBe("ok\n");
});
