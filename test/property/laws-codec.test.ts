/** Law 14 of theory.md for the interchange format: decode(encode(x)) = x, and bad bytes throw nothing but the coded error. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseEvent, printEvent, readEventBatches } from "../../src/format/interchange.ts";
import { RecoveryLineError } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { anyEvents as wildEvents } from "../unit/block-events.ts";
import { anyEvents, numRuns } from "./cases.ts";

const place = { file: "events.jsonl", line: 1 };

test("law 14: an event printed and parsed is the same event, and prints the same", () => {
  fc.assert(
    fc.property(fc.oneof(wildEvents, anyEvents), (events) => {
      for (const event of events) {
        const text = printEvent(event);
        expect(text).not.toMatch(/\n/);
        expect(parseEvent(text, place)).toEqual(interchanged(event));
        expect(printEvent(parseEvent(text, place))).toBe(text);
      }
    }),
    { numRuns },
  );
});

/** Which channels of a cut are outside the log says to its own readers alone. */
function interchanged(event: Event): Event {
  if (event.type !== "checkpoint" || event.cut === undefined) return event;
  const { outside: _, ...cut } = event.cut;
  return { ...event, cut };
}

async function read(chunks: readonly Uint8Array[]): Promise<Event[]> {
  const events: Event[] = [];
  for await (const batch of readEventBatches(chunks, place.file)) events.push(...batch);
  return events;
}

/** The bytes cut at these places. */
function split(bytes: Uint8Array, at: readonly number[]): Uint8Array[] {
  const cuts = [...new Set(at.map((n) => n % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...cuts].map((from, i) => bytes.subarray(from, cuts[i] ?? bytes.length));
}

function fileOf(events: readonly Event[]): Uint8Array {
  return Buffer.from(events.map((event) => `${printEvent(event)}\n`).join(""));
}

test("law 14: a file of events comes back whole, wherever its chunks end", async () => {
  await fc.assert(
    fc.asyncProperty(anyEvents, fc.array(fc.nat()), async (events, at) => {
      expect(await read(split(fileOf(events), at))).toEqual(events);
    }),
    { numRuns },
  );
});

test("law 14: a damaged file gives events or a coded error that names the line, nothing else", async () => {
  const damage = fc.array(
    fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(...Buffer.from('{}[],:"0-e'))), fc.nat(2)),
    {
      minLength: 1,
      maxLength: 4,
    },
  );
  await fc.assert(
    fc.asyncProperty(anyEvents, damage, async (events, hits) => {
      let bytes = fileOf(events);
      for (const [where, value, how] of hits) {
        const at = where % (bytes.length + 1);
        const rest = bytes.subarray(how === 0 ? at + 1 : at);
        bytes = Buffer.concat([
          bytes.subarray(0, at),
          ...(how === 1 ? [] : [Uint8Array.of(value)]),
          how === 1 ? rest.subarray(1) : rest,
        ]);
      }
      try {
        await read([bytes]);
      } catch (error) {
        expect(error).toBeInstanceOf(RecoveryLineError);
        expect(["RL_BAD_INPUT", "RL_CONTRADICTION"]).toContain((error as RecoveryLineError).code);
        expect(String(error)).toMatch(/events\.jsonl, line \d+/);
      }
    }),
    { numRuns },
  );
});
