/** A log that no collector holds. */
import { lockedBy } from "../host/wait-for-lock.ts";
import type { LogReader } from "../log/segment-reader.ts";
import { LOG_HANDOVER_MS } from "../model/limits.ts";

/** An import that a crash cut off is completed first. Throws what `openLogReader` throws. */
export async function openClosedLog(dir: string): Promise<LogReader> {
  const { isImportCutOff } = await import("../log/import-journal.ts");
  if (await isImportCutOff(dir)) {
    const { openEventLog } = await import("../log/append-log.ts");
    await (await openEventLog(dir, { create: false })).close();
  }
  const { openLogReader } = await import("../log/segment-reader.ts");
  return openLogReader(dir);
}

/**
 * For who asks the collector, and where there is none reads the log: a collector that starts has the log before it answers, and another
 * command lets go of it once it is done. Throws what `read` throws, RL_LOCKED only where that lasts.
 */
export function onceInReach<T>(read: () => Promise<T>): Promise<T> {
  return lockedBy(performance.now() + LOG_HANDOVER_MS, read);
}
