import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { compile } from "../native/c-build.ts";

const SOURCES = ["test/dsm/c/memory_ring_test.c", "native/ring/memory_ring.c", "native/ring/ring_write.c"];
const seed = String(Date.now() % 1_000_000);

test(`memory ring against honest and hostile producers under ASan and UBSan, seed ${seed}`, () => {
  const program = compile("memory_ring_asan", SOURCES, [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-lpthread",
  ]);
  expect(execFileSync(program, [seed], { encoding: "utf8" })).toBe("ok\n");
});

test("memory ring under ThreadSanitizer: a live producer and its reader race on nothing", () => {
  const program = compile("memory_ring_tsan", SOURCES, [
    "-fsanitize=thread",
    "-fno-sanitize-recover=all",
    "-lpthread",
  ]);
  expect(execFileSync(program, { encoding: "utf8" })).toBe("ok\n");
});
