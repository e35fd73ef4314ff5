import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { lockCollection } from "../../src/log/log-lock.ts";
import { native } from "../../src/native/binding.ts";
import { scratch } from "./log-rig.ts";

test("a restart waits for a gc that is at work, and is told of it where it does not end", async () => {
  const folder = scratch();
  const dir = join(folder.path, "shop");
  mkdirSync(join(dir, "gc"), { recursive: true });
  const gc = spawn("flock", [join(dir, "gc", "lock"), "sh", "-c", "echo; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await once(gc.stdout, "data");
  await expect(lockCollection(dir)).rejects.toMatchObject({
    code: "RL_LOCKED",
    message: `a gc or a restart of shop is at work (process ${gc.pid})`,
  });
  const tries = vi.spyOn(native(), "lock");
  const held = lockCollection(dir, 60_000);
  await vi.waitUntil(() => tries.mock.results.filter(({ type }) => type === "throw").length > 2, 30_000);
  gc.stdin.end();
  (await held)();
  tries.mockRestore();
  folder.remove();
});
