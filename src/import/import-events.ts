/** Events from outside → an application's log: everything or nothing (interchange.md, `import`). */

import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { open, readdir, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { decodeBlock } from "../format/block.ts";
import { HistoryCheck, printEvent } from "../format/interchange.ts";
import { makeFolders } from "../host/make-folders.ts";
import { EventLog } from "../log/event-log.ts";
import { appendStaged, finishImport } from "../log/import-journal.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";

export interface ImportCounts {
  readonly events: number;
  /** Events by type, only types that occur. */
  readonly types: Readonly<Record<string, number>>;
  /** Processes and channels the whole log names afterwards, count. */
  readonly processes: number;
  readonly channels: number;
}

/** Gives the events of the input in batches. Each must have passed `check`, which knows the log's history. */
export type ImportedEvents = (check: HistoryCheck) => AsyncIterable<readonly Event[]>;

/** Text collected before it is written, characters. */
const WRITE_CHARACTERS = 512 * 1024;

/**
 * Checks all events of the source against each other and against the log in `dir`, then appends them.
 *
 * Throws what the source throws (then nothing was imported and no log was made), RL_LOCKED, RL_CORRUPT_LOG, RL_LOG_WRITE. Streams:
 * memory is one batch, and an entry a channel and a checkpoint.
 */
export async function importEvents(
  dir: string,
  application: string,
  source: ImportedEvents,
): Promise<ImportCounts> {
  const existing = await openExisting(dir);
  let log = existing;
  const check = new HistoryCheck();
  const staged = await stagingFile(dir, application);
  try {
    if (existing !== undefined) await knowHistory(existing, check);
    const size = await stage(source(check), staged);
    log ??= await openNew(dir, application);
    await appendStaged(dir, log, staged, size);
    return { ...size, processes: check.processCount, channels: check.channelCount };
  } finally {
    await unlink(staged).catch(() => undefined); // moved or removed where all went well
    await log?.close();
  }
}

async function openExisting(dir: string): Promise<EventLog | undefined> {
  let log: EventLog;
  try {
    log = await EventLog.open(dir, { create: false });
  } catch (error) {
    if (hasCode(error, "RL_UNKNOWN_APP")) return undefined;
    throw error;
  }
  try {
    await finishImport(dir, log);
    return log;
  } catch (error) {
    await log.close();
    throw error;
  }
}

async function openNew(dir: string, application: string): Promise<EventLog> {
  const log = await EventLog.open(dir, { create: true, application });
  if (log.lastChain < log.firstChain) return log;
  await log.close();
  throw new RecoveryLineError(
    "RL_LOCKED",
    `somebody else wrote the log in ${dir} meanwhile`,
    "Nothing was imported; try again.",
  );
}

async function knowHistory(log: EventLog, check: HistoryCheck): Promise<void> {
  const place = { file: "the log", line: 0 };
  for await (const bytes of log.readBlocks())
    for (const event of decodeBlock(bytes).columns.events()) check.add(event, place);
}

/** A name for the canonical copy, on the log's file system. Those of imports that died are removed. */
async function stagingFile(dir: string, application: string): Promise<string> {
  const home = dirname(dir);
  makeFolders(home);
  const prefix = `.import-${application}-`;
  for (const name of await readdir(home))
    if (name.startsWith(prefix) && !isAlive(Number(name.slice(prefix.length).split("-", 1)[0])))
      await unlink(join(home, name)).catch(() => undefined);
  return join(home, `${prefix}${process.pid}-${randomUUID()}`);
}

function isAlive(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function stage(
  batches: AsyncIterable<readonly Event[]>,
  path: string,
): Promise<{ events: number; bytes: number; types: Record<string, number> }> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const file = await open(path, flags, 0o600);
  const types: Record<string, number> = {};
  let events = 0;
  let bytes = 0;
  let text = "";
  const flush = async (): Promise<void> => {
    const chunk = Buffer.from(text);
    text = "";
    bytes += chunk.length;
    await file.writeFile(chunk);
  };
  try {
    for await (const batch of batches) {
      for (const event of batch) {
        text += `${printEvent(event)}\n`;
        types[event.type] = (types[event.type] ?? 0) + 1;
        if (text.length >= WRITE_CHARACTERS) await flush();
      }
      events += batch.length;
    }
    await flush();
    await file.sync();
  } catch (error) {
    throw diskTrouble(path, error);
  } finally {
    await file.close();
  }
  return { events, bytes, types };
}

/** A full disk is no bug of ours. */
function diskTrouble(path: string, error: unknown): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall !== "write" && syscall !== "fsync") return error;
  return new RecoveryLineError(
    "RL_LOG_WRITE",
    `${path} cannot be written: ${code}`,
    "Nothing was imported. An import needs as much free space as its file, and the log's.",
    error,
  );
}
