/** Traces of native/dsm: interchange.md, and what the runtime knows about page versions beside it. */
import { open } from "node:fs/promises";
import { HistoryCheck, parseEvent } from "../../format/interchange.ts";
import type { DsmEvent, PageName, PageVersion } from "../../model/event.ts";

/**
 * All events of the files, file after file. Lines of one process must stand in one file.
 * Throws RL_BAD_INPUT and RL_CONTRADICTION like any import; page versions of the wrong type are left out.
 */
export async function readDsmTraces(files: readonly string[]): Promise<DsmEvent[]> {
  const events: DsmEvent[] = [];
  const check = new HistoryCheck();
  for (const file of files) {
    const handle = await open(file);
    let line = 0;
    for await (const text of handle.readLines()) {
      line += 1;
      if (text === "") continue;
      const event = parseEvent(text, { file, line });
      check.add(event, { file, line });
      events.push({ ...event, ...versionOf(JSON.parse(text)) });
    }
  }
  return events;
}

function versionOf({ page, version, writer, interval, owner }: Record<string, unknown>): PageVersion {
  return {
    ...(typeof page === "number" || typeof page === "string" ? { page: page as PageName } : {}),
    ...(Number.isSafeInteger(version) ? { version: version as number } : {}),
    ...(typeof writer === "string" ? { writer } : {}),
    ...(Number.isSafeInteger(interval) ? { interval: interval as number } : {}),
    ...(owner === true ? { owner: true } : {}),
  };
}
