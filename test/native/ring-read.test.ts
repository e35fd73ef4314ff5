import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { compile } from "./c-build.ts";

const SOURCES = ["test/native/c/ring_read_test.c", "native/ring/ring_map.c", "native/ring/ring_read.c"];
const seed = String(Date.now() % 1_000_000);

test.each(["address,undefined", "thread"])(`ring reader under -fsanitize=%s, seed ${seed}`, (sanitizer) => {
  const name = `ring_read_${sanitizer.replace(",", "_")}`;
  const program = compile(name, SOURCES, [
    `-fsanitize=${sanitizer}`,
    "-fno-sanitize-recover=all",
    "-lpthread",
  ]);
  expect(execFileSync(program, [seed], { encoding: "utf8" })).toBe("ok\n");
});
