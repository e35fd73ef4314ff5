/** The short way from a block's cells to reduced lines gives what the long way gives, and doubts the same cells. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeBlock } from "../../src/format/block.ts";
import { parseBlock, sha256 } from "../../src/format/block-header.ts";
import { readColumns } from "../../src/format/block-read.ts";
import { reduceBlock } from "../../src/graph/evidence/reduce-block.ts";
import { reduceColumns } from "../../src/graph/evidence/reduced-lines.ts";
import { hasCode } from "../../src/model/errors.ts";
import { anyEvents, columnsOf, firstPlace } from "./block-events.ts";

/** Blocks of sends and receives alone take the short way. */
const ranges = anyEvents
  .map((events) =>
    events.flatMap(({ node: _, ...event }) =>
      event.type === "send" || event.type === "receive" ? [event] : [],
    ),
  )
  .filter((events) => events.length > 0);
/** … and ranges that touch, which get joined. */
const streams = fc
  .array(fc.tuple(fc.nat(3), fc.boolean(), fc.nat(5), fc.nat(9)), { minLength: 1, maxLength: 80 })
  .map((steps) => {
    const next = new Map<string, number>();
    return steps.map(([to, sends, length, skip]) => {
      const key = `${to}${sends}`;
      const begin = (next.get(key) ?? 0) + (skip === 0 ? 3 : 0);
      next.set(key, begin + length);
      const type = sends ? ("send" as const) : ("receive" as const);
      return { type, process: "p", channel: `c${to}`, begin, end: begin + length };
    });
  });
const blocks = fc.oneof(anyEvents, ranges, streams).map((events) => {
  const columns = columnsOf(events, [3, 3, 8]);
  return encodeBlock(firstPlace(columns), columns);
});

test("short and long way agree on every block", () => {
  fc.assert(
    fc.property(blocks, fc.boolean(), (bytes, join) => {
      const parsed = parseBlock(bytes);
      expect(reduceBlock(parsed, join)).toEqual(reduceColumns(readColumns(parsed), join));
    }),
    { numRuns: 500 },
  );
});

test("whatever stands in a block with a right checksum: the same lines, or RL_BAD_BLOCK", () => {
  fc.assert(
    fc.property(blocks, fc.nat(), fc.integer({ min: 1, max: 255 }), (bytes, at, flip) => {
      const forged = Uint8Array.from(bytes);
      forged[at % (forged.length - 32)]! ^= flip;
      forged.set(sha256(forged.subarray(0, -32)), forged.length - 32);
      const attempt = (way: typeof reduceBlock): unknown => {
        try {
          return way(parseBlock(forged), true);
        } catch (error) {
          if (!hasCode(error, "RL_BAD_BLOCK")) throw error;
          return undefined;
        }
      };
      const long = attempt((parsed, join) => reduceColumns(readColumns(parsed), join));
      const short = attempt(reduceBlock);
      // The short way does not look at times and threads.
      if (long !== undefined) expect(short).toEqual(long);
    }),
    { numRuns: 2000 },
  );
});
