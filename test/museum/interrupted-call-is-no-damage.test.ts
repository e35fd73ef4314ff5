/**
 * LevelDB writes when it opens a folder. Where one of these calls failed with EINTR, the log was called damaged (RL_CORRUPT_LOG), and the
 * collector would have passed it over for ever; it is trouble of the disk, and the next try finds all of it. Found by campaign:log --faults.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EventLog } from "../../src/log/event-log.ts";
import { packageRoot } from "../../src/native/binding.ts";
import { commitOf, scratch, sends, storedEvents } from "../unit/log-rig.ts";

const OPEN = `const { EventLog } = await import(process.argv[1]);
try { await (await EventLog.open(process.argv[2], { create: false })).close(); console.log("open"); } catch (error) { console.log(error.code); }`;

test("opening a log on a disk that fails is told as such, whatever the disk says", async ({ skip }) => {
  const folder = scratch();
  const library = join(folder.path, "faulty_disk.so");
  const source = join(packageRoot(), "test/campaign/c/faulty_disk.c");
  if (spawnSync("cc", ["-shared", "-fPIC", "-o", library, source, "-ldl"]).status !== 0) skip(); // no compiler
  const dir = join(folder.path, "app");
  const log = await EventLog.open(dir, { create: true });
  await commitOf(log, sends("p", 0, 100));
  await log.close();
  const module = join(packageRoot(), "dist/log/event-log.js");
  for (const errno of [4, 5, 28]) {
    const env = {
      ...process.env,
      LD_PRELOAD: library,
      FAULT_DIR: dir,
      FAULT_RATE: "1",
      FAULT_ERRNO: String(errno),
    };
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", OPEN, module, dir], {
      env,
    });
    expect([errno, stdout.toString().trim(), stderr.toString()]).toEqual([errno, "RL_LOG_WRITE", ""]);
  }
  expect(await storedEvents(dir)).toHaveLength(100);
  folder.remove();
});
