/** Without the native addon LevelDB's lock keeps two owners apart. The compiled tree stands where no addon is. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EventLog } from "../../src/log/event-log.ts";
import { readLog } from "../../src/log/segment-reader.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { builtCopy } from "../built.ts";
import { scratch } from "./log-rig.ts";

/** Opens the log, says how that went, and holds it until it is told to end. */
const PROGRAM = `
const root = process.argv[1];
const { native } = await import(root + "/dist/native/binding.js");
const { EventLog } = await import(root + "/dist/log/event-log.js");
const { readLog } = await import(root + "/dist/log/segment-reader.js");
const addon = await Promise.resolve().then(native).then(() => "addon", (error) => error.code);
const opened = await EventLog.open(process.argv[2], { create: true }).then(
  async (log) => {
    log.putState("x", 1);
    await log.commit();
    return "opened";
  },
  (error) => error.code,
);
const read = await readLog(process.argv[2]).next().then(() => "read", (error) => error.code);
process.stdout.write([addon, opened, read].join(" ") + "\\n");
setInterval(() => undefined, 1000);`;

async function tell(root: string, dir: string): Promise<{ child: ChildProcess; said: string }> {
  const child = spawn(process.execPath, ["--input-type=module", "-e", PROGRAM, root, dir], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [chunk] = (await once(child.stdout!, "data")) as [Buffer];
  return { child, said: chunk.toString().trim() };
}

async function end(child: ChildProcess): Promise<void> {
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await closed;
}

test("two owners and a reader are kept apart without the addon, too", async () => {
  const folder = scratch();
  builtCopy(folder.path);
  symlinkSync(join(packageRoot(), "node_modules"), join(folder.path, "node_modules"));
  writeFileSync(join(folder.path, "package.json"), '{"type":"module"}');
  const dir = join(folder.path, "app");
  const first = await tell(folder.path, dir);
  expect(first.said).toBe("RL_NOT_SUPPORTED opened RL_LOCKED");
  // Who has the addon reads without LevelDB, and sees its lock all the same.
  for (const use of [
    () => readLog(dir).next(),
    () => verifyLog(dir),
    () => EventLog.open(dir, { create: false }),
  ])
    await expect(use()).rejects.toMatchObject({ code: "RL_LOCKED" });
  const second = await tell(folder.path, dir);
  expect(second.said).toBe("RL_NOT_SUPPORTED RL_LOCKED RL_LOCKED");
  await end(second.child);
  await end(first.child);
  const third = await tell(folder.path, dir);
  expect(third.said).toBe("RL_NOT_SUPPORTED opened RL_LOCKED");
  await end(third.child);
  folder.remove();
}, 60_000);
