/** How much of a log is wanted: never more goes than was asked for, and never more than may. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { NO_HASH, type SegmentFacts } from "../../src/format/log-anchor.ts";
import { EventLog } from "../../src/log/event-log.ts";
import { type Keep, keptFrom } from "../../src/log/keep.ts";
import { columnsOf, commitOf, eventsOf, scratch } from "./log-rig.ts";

const HOUR_MS = 3_600_000;

test("the oldest segments beyond the bytes or the hours are not wanted, the open one always is", () => {
  const hours = fc.option(fc.nat(50), { nil: undefined });
  const bytes = fc.option(fc.nat(5000), { nil: undefined });
  const sealed = fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 1000 }), age: fc.nat(60) }));
  fc.assert(
    fc.property(sealed, fc.nat(1000), bytes, hours, (parts, openBytes, bytes, hours) => {
      const ages = parts.map(({ age }) => age).sort((a, b) => b - a); // older segments were sealed earlier
      const segments: SegmentFacts[] = [...parts, { bytes: 0 }].map((part, at) => ({
        number: at + 1,
        firstChain: at * 10 + 1,
        lastChain: at < parts.length ? at * 10 + 10 : 0,
        bytes: part.bytes,
        lastHash: NO_HASH,
      }));
      const keep: Keep = {
        ...(bytes === undefined ? {} : { bytes }),
        ...(hours === undefined ? {} : { hours }),
      };
      const nowMs = 1e12;
      const from = keptFrom(segments, openBytes, keep, (at) => nowMs - ages[at]! * HOUR_MS, nowMs);
      // The slow way: each suffix of the segments, the longest that is within both.
      const sizeFrom = (at: number) => parts.slice(at).reduce((sum, part) => sum + part.bytes, openBytes);
      let wanted = 0;
      while (
        wanted < parts.length &&
        (sizeFrom(wanted) > (bytes ?? Number.POSITIVE_INFINITY) || ages[wanted]! > (hours ?? 1e9))
      )
        wanted += 1;
      expect(from).toBe(wanted === 0 ? 0 : segments[wanted]!.firstChain);
    }),
  );
});

let folder: ReturnType<typeof scratch>;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => folder.remove());

test("a log that could lose all but one segment keeps what is wanted of it; asked again it keeps it still", async () => {
  const dir = join(folder.path, "app");
  const log = await EventLog.open(dir, { create: true });
  for (let n = 0; n < 6; n += 1) {
    const end = n * 100 + 100;
    const cut = { sent: new Map([["c", end]]), received: new Map() };
    await commitOf(
      log,
      columnsOf([
        { type: "send", process: "p", channel: "c", begin: n * 100, end },
        { type: "checkpoint", process: "p", checkpoint: n + 1, usable: true, cut },
      ]),
    );
    await log.rotate();
  }
  const oldest = new Map([["p", 12]]);
  const count = () => readdirSync(join(dir, "segments")).length;
  const bytesOf = async () => {
    let bytes = 0;
    for (let chain = log.firstChain; chain <= log.lastChain; chain += 1)
      bytes += (await log.block(chain)).length;
    return bytes;
  };
  const half = (await bytesOf()) / 2 + 50;
  const prune = async (keep: Keep) => {
    const { base } = await log.planPrune(oldest, keep);
    if (base !== undefined) await (await log.prune(base)).removed;
    return base !== undefined;
  };
  expect(await prune({ bytes: 1e9, hours: 1 })).toBe(false);
  expect(await prune({ bytes: half })).toBe(true);
  expect(count()).toBe(4);
  expect(await bytesOf()).toBeLessThanOrEqual(half);
  expect(await prune({ bytes: half })).toBe(false);
  expect(await prune({ hours: 0 })).toBe(true);
  expect(count()).toBe(1);
  const events = await eventsOf(log.readBlocks());
  expect(events).toMatchObject([{ type: "checkpoint", checkpoint: 6 }]);
  await log.close();
});
