/** Logs in scratch folders, and events whose content tells where they belong. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeBlock } from "../../src/format/block.ts";
import { EventColumns } from "../../src/format/event-columns.ts";
import type { EventLog } from "../../src/log/event-log.ts";
import { readLog } from "../../src/log/segment-reader.ts";
import type { Event } from "../../src/model/event.ts";

/** A folder that is removed with everything in it. */
export function scratch(): { readonly path: string; readonly remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "recovery-line-log-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** `count` sends of one byte each from `first` on: holes and doubles show. */
export function sends(process: string, first: number, count: number): EventColumns {
  const columns = new EventColumns(process);
  for (let n = first; n < first + count; n += 1)
    columns.push({
      type: "send",
      process,
      channel: `from-${process}`,
      begin: n,
      end: n + 1,
      time: 1e15 + n * 1000,
    });
  return columns;
}

export function columnsOf(events: readonly Event[]): EventColumns {
  const columns = new EventColumns(events[0]!.process);
  for (const event of events) columns.push(event);
  return columns;
}

export async function eventsOf(blocks: AsyncIterable<Uint8Array>): Promise<Event[]> {
  const events: Event[] = [];
  for await (const block of blocks)
    for (const event of decodeBlock(block).columns.events()) events.push(event);
  return events;
}

export function storedEvents(dir: string): Promise<Event[]> {
  return eventsOf(readLog(dir));
}

export async function commitOf(log: EventLog, ...batches: readonly EventColumns[]): Promise<void> {
  for (const columns of batches) await log.append(columns);
  await log.commit();
}
