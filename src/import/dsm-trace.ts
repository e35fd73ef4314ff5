/** Traces of native/dsm: events as interchange.md has them, a file a process and its home. */
import { open } from "node:fs/promises";
import { HistoryCheck, parseEvent } from "../format/interchange.ts";
import type { DsmEvent } from "../model/event.ts";

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
      events.push(event);
    }
  }
  return events;
}
