/** Evidence of a log that grows: the same as that of the whole log, each time, and no block is read twice. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { buildEvidence } from "../../src/compute/build-evidence.ts";
import { GrowingEvidence } from "../../src/compute/growing-evidence.ts";
import { parseBlock } from "../../src/format/block-header.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import { anyEvents, numRuns } from "../property/cases.ts";
import { checkpoint, receive, send } from "./graph-events.ts";
import { MemoryLog, memoryLog } from "./memory-log.ts";

/** Hands out the blocks of what is a log's memory now, and counts them. */
class Reader {
  readonly name = "memory";
  firstChain = 1;
  given = 0;
  log: MemoryLog;

  constructor(log: MemoryLog) {
    this.log = log;
  }

  async *blocks(since: number): AsyncGenerator<Uint8Array> {
    for (const [chain, bytes] of this.log.bytes) {
      if (chain <= since) continue;
      this.given += 1;
      yield Uint8Array.from(bytes);
    }
  }

  whole(): Promise<Evidence> {
    return buildEvidence([{ name: this.name, blocks: () => this.log.blocks() }], { workers: 0 });
  }
}

const thrown = async (work: Promise<Evidence>): Promise<Evidence | string> =>
  work.catch((error: Error) => error.message.replace(/block \d+/, "block"));

test("asked at any moments it is the evidence of the whole log", async () => {
  const seed = Date.now() % 1_000_000_000;
  let stable = 0;
  await fc.assert(
    fc.asyncProperty(
      anyEvents,
      fc.array(fc.nat(6), { minLength: 1, maxLength: 6 }),
      async (events, sizes) => {
        const reader = new Reader(new MemoryLog());
        const growing = new GrowingEvidence();
        let turn = 0;
        for (let at = 0; at < events.length; turn += 1) {
          const size = sizes[turn % sizes.length] as number;
          for (const event of events.slice(at, at + size + 1)) await reader.log.appendEvent(event);
          at += size + 1;
          expect(await thrown(growing.of(reader))).toEqual(await thrown(reader.whole()));
        }
        if (events.some(({ type }) => type === "stable")) stable += 1;
      },
    ),
    { seed, numRuns },
  );
  console.log(`seed ${seed}: ${stable} with message logs`);
  expect(stable).toBeGreaterThan(0);
});

const first = [send("a", "ab", 0, 3), receive("b", "ab", 0, 3), checkpoint("a", 1)];

test("each block is read once; the newest again, as the sign that it is the same log", async () => {
  const reader = new Reader(await memoryLog(first, [1]));
  const growing = new GrowingEvidence();
  await growing.of(reader);
  expect(reader.given).toBe(3);
  await growing.of(reader);
  expect(reader.given).toBe(4);
  await reader.log.appendEvent(checkpoint("b", 1));
  expect(await growing.of(reader)).toEqual(await reader.whole());
  expect(reader.given).toBe(6);
});

test("another log of the same length or a longer one, a shorter one, and one that was pruned are read from the beginning", async () => {
  const growing = new GrowingEvidence();
  const reader = new Reader(await memoryLog(first, [1]));
  await growing.of(reader);
  const other = [send("a", "ac", 0, 5), receive("c", "ac", 0, 4), checkpoint("c", 1), checkpoint("a", 2)];
  for (const events of [other.slice(0, 3), other, other.slice(0, 1), []]) {
    reader.log = await memoryLog(events, [1]);
    expect(await growing.of(reader)).toEqual(await reader.whole());
  }
  reader.log = await memoryLog(first, [1]);
  await growing.of(reader);
  const before = reader.given;
  reader.firstChain = 2;
  await growing.of(reader);
  expect(reader.given - before).toBe(3);
});

test("a log that is pruned while it is read on: what does not hang on what was read before is not taken for its continuation", async () => {
  const growing = new GrowingEvidence();
  const reader = new Reader(await memoryLog(first, [1]));
  await growing.of(reader);
  for (const index of [2, 3, 4]) await reader.log.appendEvent(checkpoint("a", index));
  let readAgain = 0;
  const pruned = async function* (since: number): AsyncGenerator<Uint8Array> {
    if (since === 0) readAgain += 1;
    for await (const block of reader.blocks(since))
      if (since === 0 || parseBlock(block).header.chain !== 4) yield block; // collapsed into the next one
  };
  expect(await growing.of({ name: "pruned", firstChain: 1, blocks: pruned })).toEqual(await reader.whole());
  expect(readAgain).toBe(1);
});

test("after a failure all is read again", async () => {
  const reader = new Reader(await memoryLog(first, [1]));
  const growing = new GrowingEvidence();
  await growing.of(reader);
  const failing = { name: "gone", firstChain: 1, blocks: () => reader.blocks(99) };
  expect((await growing.of(failing)).processes, "nothing is there").toEqual([]);
  const broken = async function* (): AsyncGenerator<Uint8Array> {
    yield* reader.blocks(2);
    throw new Error("the collector went away");
  };
  await growing.of(reader);
  await expect(growing.of({ name: "broken", firstChain: 1, blocks: broken })).rejects.toThrow("went away");
  const before = reader.given;
  expect(await growing.of(reader)).toEqual(await reader.whole());
  expect(reader.given - before).toBe(3);
});
