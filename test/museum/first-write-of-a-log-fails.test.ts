/**
 * Making a log, LevelDB's first write failed: the error came out as LevelDB's own (LEVEL_IO_ERROR), so the collector took it for a bug of
 * ours and not for trouble of the disk, which it gets over. Found by campaign:log --fail.
 */
import { spawnSync } from "node:child_process";
import { constants } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EventLog } from "../../src/log/event-log.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { commitOf, scratch, sends, storedEvents } from "../unit/log-rig.ts";

const MAKE = `const { EventLog } = await import(process.argv[1]);
try { await (await EventLog.open(process.argv[2], { create: true })).close(); console.log("open"); } catch (error) { console.log(error.code); }`;

test("the first write of a new log fails: RL_LOG_WRITE, and the next owner makes it", async ({ skip }) => {
  const folder = scratch();
  const library = join(folder.path, "kill_point.so");
  const source = join(packageRoot(), "test/campaign/c/kill_point.c");
  if (spawnSync("cc", ["-shared", "-fPIC", "-o", library, source, "-ldl"]).status !== 0) skip(); // no compiler
  const module = join(packageRoot(), "dist/log/event-log.js");
  for (const errno of [constants.errno.EIO, constants.errno.ENOSPC, constants.errno.EINTR]) {
    const dir = join(folder.path, `app-${errno}`);
    const env = {
      ...process.env,
      LD_PRELOAD: library,
      KILL_DIR: dir,
      KILL_NAME: "before write /segments/N/N.log",
      FAIL_ERRNO: String(errno),
    };
    const made = spawnSync(process.execPath, ["--input-type=module", "-e", MAKE, module, dir], { env });
    expect([errno, made.stdout.toString().trim()]).toEqual([errno, "RL_LOG_WRITE"]);
    expect(made.stderr.toString()).toContain("before write"); // it did fail there
    const log = await EventLog.open(dir, { create: true });
    await commitOf(log, sends("p", 0, 10));
    await log.close();
    expect(await storedEvents(dir)).toHaveLength(10);
  }
  folder.remove();
});
