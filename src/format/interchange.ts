/**
 * The gateway for JSON Lines (interchange.md): bytes in, `Event`s out that nothing doubts afterwards.
 *
 * Throws nothing but RL_BAD_INPUT and RL_CONTRADICTION (and what the source of bytes throws). Memory: one chunk, one line, and
 * what `HistoryCheck` holds.
 */
import type { Event } from "../model/event.ts";
import { HistoryCheck } from "./interchange-history.ts";
import { LineSplitter } from "./interchange-lines.ts";
import { parseEvent } from "./interchange-parse.ts";

export { HistoryCheck } from "./interchange-history.ts";
export { parseEvent } from "./interchange-parse.ts";
export { printEvent } from "./interchange-print.ts";

/** Bytes parsed at a time: bounds the events held at once, whatever the source's chunks are. */
const PIECE_BYTES = 256 * 1024;
const BLANK = /^[ \t\r]*$/;

/** Takes each event with its place and throws where it does not fit what came before. */
export type EventCheck = Pick<HistoryCheck, "add">;

/**
 * The events of one file, in file order, a batch at a time (one event at a time would cost more than parsing it). `check` may know
 * earlier history, that of a log the events go to; without it the file stands alone.
 */
export async function* readEventBatches(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  file: string,
  check: EventCheck = new HistoryCheck(),
): AsyncGenerator<Event[]> {
  const splitter = new LineSplitter(file);
  for await (const chunk of chunks)
    for (let from = 0; from < chunk.length; from += PIECE_BYTES) {
      const first = splitter.handedOut + 1;
      const events = parseLines(splitter.push(chunk.subarray(from, from + PIECE_BYTES)), first, file, check);
      if (events.length > 0) yield events;
    }
  const first = splitter.handedOut + 1;
  const events = parseLines(splitter.end(), first, file, check);
  if (events.length > 0) yield events;
}

function parseLines(lines: readonly string[], first: number, file: string, check: EventCheck): Event[] {
  const events: Event[] = [];
  lines.forEach((text, index) => {
    if (BLANK.test(text)) return;
    const place = { file, line: first + index };
    const event = parseEvent(text, place);
    check.add(event, place);
    events.push(event);
  });
  return events;
}
