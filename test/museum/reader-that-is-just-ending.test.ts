/** The attach helper ends a moment after its collector: whoever took over the ring at once was told that it is being read. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { lockHolder, lockReader, readerFolder } from "../../src/host/reader-lock.ts";
import { until } from "../daemon/rig.ts";

/** By a process that ends so many seconds later. */
async function held(pinDir: string, seconds: number): Promise<{ pid: number; ended: Promise<unknown> }> {
  const path = readerFolder(pinDir);
  mkdirSync(path, { recursive: true });
  const command = ["sh", "-c", `read line; exec sleep ${seconds}`];
  const child = spawn("flock", ["--no-fork", path, ...command], { stdio: ["pipe", "ignore", "ignore"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  await until("the lock is held", () => lockHolder(path) !== undefined);
  await new Promise((resolve) => child.stdin.end("\n", resolve as () => void));
  return { pid: child.pid!, ended: once(child, "exit") };
}

test("a reader that ends within two seconds is waited for, one that stays is named", async () => {
  const pinDir = mkdtempSync(join(tmpdir(), "rl-reader-"));
  try {
    const ending = await held(pinDir, 0.5);
    lockReader(pinDir)();
    await ending.ended;
    const staying = await held(pinDir, 1000);
    expect(() => lockReader(pinDir)).toThrow(`is being read by process ${staying.pid}`);
    process.kill(staying.pid, "SIGKILL");
    await staying.ended;
  } finally {
    rmSync(pinDir, { recursive: true, force: true });
  }
});

test("a capture that is taken out of the kernel while it is looked at has no reader: the look threw", () => {
  expect(lockHolder(readerFolder("/sys/fs/bpf/rl-taken-out"))).toBeUndefined();
});
