/**
 * LevelDB, told to open a folder with a flipped bit in its WAL, drops that record, makes tables of the others and removes the WAL. The log
 * was called damaged all right, but the damage, and what could have been saved around it, was gone once somebody had looked.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EventLog } from "../../src/log/event-log.ts";
import { openLogReader } from "../../src/log/segment-reader.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { commitOf, scratch, sends } from "../unit/log-rig.ts";

test("whoever finds a log damaged leaves every file of it as it was", async () => {
  const folder = scratch();
  const dir = join(folder.path, "app");
  const log = await EventLog.open(dir, { create: true });
  for (let n = 0; n < 10; n += 1) await commitOf(log, sends("p", n * 100, 100));
  await log.close();
  const segment = join(dir, "segments/000001");
  const wal = join(segment, readdirSync(segment).find((name) => name.endsWith(".log"))!);
  const bytes = readFileSync(wal);
  bytes[bytes.length >> 1]! ^= 4;
  writeFileSync(wal, bytes);
  const found = () => readdirSync(segment).map((name) => [name, readFileSync(join(segment, name), "base64")]);
  const before = found();
  await expect(EventLog.open(dir, { create: true })).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
  await expect(openLogReader(dir)).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
  expect((await verifyLog(dir)).damages).not.toEqual([]);
  expect(found()).toEqual(before);
  folder.remove();
});
