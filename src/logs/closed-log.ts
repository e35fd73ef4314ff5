/** A log that no collector holds. */
import type { LogReader } from "../log/segment-reader.ts";

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
