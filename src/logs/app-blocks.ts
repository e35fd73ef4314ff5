/** An application's log, block by block, whoever holds it: the live collector, or nobody. */
import type { LogReader } from "../log/segment-reader.ts";
import { hasCode } from "../model/errors.ts";
import { appDirectory } from "./home.ts";

/**
 * Committed blocks in chain order. Throws RL_UNKNOWN_APP where neither the collector nor the home knows the application, RL_LOCKED where
 * somebody else holds the log, RL_CORRUPT_LOG.
 */
export async function* appBlocks(home: string, app: string): AsyncGenerator<Uint8Array> {
  const dir = appDirectory(home, app);
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  if (collector === undefined) {
    yield* logBlocks(dir);
    return;
  }
  try {
    yield* collector.blocks(app);
  } catch (error) {
    if (!hasCode(error, "RL_UNKNOWN_APP")) throw error;
    yield* logBlocks(dir); // imported beside the collector
  } finally {
    collector.close();
  }
}

/** The blocks of a log that no collector holds. */
async function* logBlocks(dir: string): AsyncGenerator<Uint8Array> {
  const reader = await openLog(dir);
  try {
    for await (const { bytes } of reader.blocks()) yield bytes;
  } finally {
    await reader.close();
  }
}

/** A log that no collector holds. An import that a crash cut off is completed first. Throws what `openLogReader` throws. */
export async function openLog(dir: string): Promise<LogReader> {
  const { isImportCutOff } = await import("../log/import-journal.ts");
  if (await isImportCutOff(dir)) {
    const { openEventLog } = await import("../log/append-log.ts");
    await (await openEventLog(dir, { create: false })).close();
  }
  const { openLogReader } = await import("../log/segment-reader.ts");
  return openLogReader(dir);
}
