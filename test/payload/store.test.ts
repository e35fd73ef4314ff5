/** Segments as the logger writes them, and everything that may happen to them: never a wrong byte. */
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { openPayloadStore, type PayloadLog } from "../../src/payload/payload-log.ts";
import { punchHoles } from "../../src/payload/payload-logger.ts";
import { sized } from "../size.ts";
import { pattern } from "./pattern.ts";
import { type Chunk, channelName as nameOf, writeSegments } from "./segments.ts";

execFileSync("make", ["-s", "-C", join(packageRoot(), "native/payload")], { stdio: "inherit" });

let dir = "";
let folder = "";
let store: PayloadLog | undefined;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "rl-payload-store-"));
  folder = join(dir, "payload");
  mkdirSync(folder);
});
afterEach(async () => {
  await store?.close();
  store = undefined;
  rmSync(dir, { recursive: true });
});

const same = (got: Uint8Array | undefined, wanted: Uint8Array): boolean =>
  got !== undefined && Buffer.compare(got, wanted) === 0;

const write = (chunks: readonly Chunk[], ...sizes: number[]): void => writeSegments(folder, chunks, ...sizes);

const files = (): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith(".payload"))
    .sort()
    .map((name) => join(folder, name));

function opened(): PayloadLog {
  store ??= openPayloadStore(dir)!;
  return store;
}

/** A stream in chunks of one size. */
function stream(channel: number, from: number, to: number, step: number, of = channel): Chunk[] {
  const chunks: Chunk[] = [];
  for (let begin = from; begin < to; begin += step)
    chunks.push({ channel, begin, end: Math.min(to, begin + step), stream: of });
  return chunks;
}

describe("what was written is read", () => {
  test("an application that keeps no payloads has no store", () => {
    rmSync(folder, { recursive: true });
    expect(openPayloadStore(dir)).toBeUndefined();
    mkdirSync(folder);
  });

  test("any chunks of any channels, against arrays of bytes", async () => {
    const chunk = fc.record({
      channel: fc.nat(3),
      begin: fc.oneof(fc.nat(400), fc.nat(40_000)),
      length: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 20_000 })),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(chunk, { maxLength: 40 }),
        fc.integer({ min: 2000, max: 90_000 }),
        async (wanted, segmentBytes) => {
          for (const file of files()) rmSync(file);
          const chunks = wanted.map(({ channel, begin, length }) => ({
            channel,
            begin,
            end: begin + length,
          }));
          write(chunks, segmentBytes);
          const log = openPayloadStore(dir)!;
          try {
            for (let channel = 0; channel < 4; channel += 1) {
              const there = new Uint8Array(62_000);
              for (const one of chunks) if (one.channel === channel) there.fill(1, one.begin, one.end);
              const ranges = await log.ranges(nameOf(channel));
              const found = new Uint8Array(62_000);
              for (const { begin, end } of ranges) found.fill(1, begin, end);
              expect(Buffer.compare(found, there)).toBe(0);
              for (const { begin, end } of ranges) {
                expect(same(await log.read(nameOf(channel), begin, end), pattern(channel, begin, end))).toBe(
                  true,
                );
                expect(await log.read(nameOf(channel), begin, end + 1)).toBeUndefined();
              }
            }
          } finally {
            await log.close();
          }
        },
      ),
      { numRuns: sized(20, 8) },
    );
  });

  test("offsets beyond 2^32, and up to the largest", async () => {
    const top = Number.MAX_SAFE_INTEGER;
    write([
      { begin: 2 ** 32 - 10, end: 2 ** 32 + 10 },
      { begin: top - 100, end: top },
    ]);
    expect(await opened().ranges(nameOf(0))).toEqual([
      { begin: 2 ** 32 - 10, end: 2 ** 32 + 10 },
      { begin: top - 100, end: top },
    ]);
    expect(await opened().read(nameOf(0), 2 ** 32 - 10, 2 ** 32 + 10)).toHaveLength(20);
  });

  test("a live logger's new bytes and segments are seen by an open store", async () => {
    write(stream(0, 0, 1000, 100));
    expect(await opened().read(nameOf(0), 0, 2000)).toBeUndefined();
    write(stream(0, 1000, 2000, 100));
    expect(await opened().read(nameOf(0), 0, 2000)).toEqual(pattern(0, 0, 2000));
  });

  test("records that disagree are believed neither", async () => {
    write([
      { begin: 0, end: 100, stream: 0 },
      { begin: 50, end: 150, stream: 7 },
    ]);
    expect(await opened().read(nameOf(0), 0, 100)).toBeUndefined();
    expect(await opened().read(nameOf(0), 0, 50)).toEqual(pattern(0, 0, 50));
    expect(await opened().read(nameOf(0), 100, 150)).toEqual(pattern(7, 100, 150));
  });

  test("an urgent byte stays a hole though it comes again without its mark", async () => {
    write([
      { begin: 0, end: 100, urgent: 51 },
      { begin: 40, end: 60 },
    ]);
    expect(await opened().ranges(nameOf(0))).toEqual([
      { begin: 0, end: 50 },
      { begin: 51, end: 100 },
    ]);
    expect(await opened().read(nameOf(0), 50, 51)).toBeUndefined();
  });

  test("a range that is none is a misuse", async () => {
    write([]);
    await expect(opened().read(nameOf(0), 5, 4)).rejects.toThrow(TypeError);
    await expect(opened().read(nameOf(0), 0, 2 ** 40)).rejects.toMatchObject({ code: "RL_LIMIT" });
  });
});

describe("damage is a hole", () => {
  const CHUNKS = [...stream(0, 0, 3000, 40), ...stream(1, 0, 60_000, 9000), { channel: 2, begin: 7, end: 8 }];
  const STREAMS = [3000, 60_000, 8] as const;

  /** All that can still be read is right. Returns how many bytes. */
  async function judged(): Promise<number> {
    const log = openPayloadStore(dir)!;
    let readable = 0;
    try {
      for (const [channel, end] of STREAMS.entries())
        for (const range of await log.ranges(nameOf(channel)))
          for (let begin = range.begin; begin < range.end; begin += 1000) {
            const until = Math.min(range.end, begin + 1000);
            expect(until).toBeLessThanOrEqual(end);
            const bytes = await log.read(nameOf(channel), begin, until);
            if (bytes === undefined) continue;
            expect(same(bytes, pattern(channel, begin, until))).toBe(true);
            readable += until - begin;
          }
    } finally {
      await log.close();
    }
    return readable;
  }

  test("any bytes overwritten in a segment", async () => {
    write(CHUNKS);
    const [file] = files() as [string];
    const whole = readFileSync(file);
    const all = await judged();
    expect(all).toBe(63_001);
    const place = fc.integer({ min: 64, max: whole.length - 1 });
    await fc.assert(
      fc.asyncProperty(place, fc.uint8Array({ minLength: 1, maxLength: 64 }), async (at, bytes) => {
        const damaged = Buffer.from(whole);
        damaged.set(bytes.subarray(0, whole.length - at), at);
        writeFileSync(file, damaged);
        const readable = await judged();
        if (!damaged.equals(whole)) expect(readable).toBeGreaterThan(all - 20_000); // the rest is found again
      }),
      { numRuns: sized(60, 10) },
    );
  });

  test("every bit of a record's header and of the segment's header", async () => {
    write(stream(0, 0, 100, 100));
    const [file] = files() as [string];
    const whole = readFileSync(file);
    for (let bit = 0; bit < (64 + 48) * 8; bit += sized(1, 7)) {
      const damaged = Buffer.from(whole);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      writeFileSync(file, damaged);
      expect([bit, await judged()]).toEqual([bit, 0]);
    }
  });

  test("cut off anywhere, and what the next logger writes then", async () => {
    write(CHUNKS);
    const [file] = files() as [string];
    const whole = readFileSync(file);
    for (let size = 0; size < whole.length; size += sized(1777, 5331)) {
      writeFileSync(file, whole.subarray(0, size));
      await judged();
    }
    truncateSync(file, 5000);
    write(stream(2, 0, 8, 8));
    const log = opened();
    expect(await log.read(nameOf(2), 0, 8)).toEqual(pattern(2, 0, 8));
  });

  test("a record moved to another place, or to another segment, is none", async () => {
    write(stream(0, 0, 100, 100));
    write(stream(1, 0, 100, 100));
    const [first, second] = files() as [string, string];
    const record = readFileSync(first).subarray(64);
    writeFileSync(second, Buffer.concat([readFileSync(second).subarray(0, 64), record]));
    expect(await opened().read(nameOf(0), 0, 100)).toEqual(pattern(0, 0, 100));
    expect(await opened().figures()).toMatchObject({ damagedBytes: 0 });
    appendFileSync(first, record);
    rmSync(second);
    writeFileSync(first, Buffer.concat([readFileSync(first).subarray(0, 64), Buffer.alloc(8), record]));
    const log = openPayloadStore(dir)!;
    expect(await log.ranges(nameOf(0))).toEqual([]);
    await log.close();
  });

  test("a damaged entry of what is forgotten: nothing is believed", async () => {
    write(stream(0, 0, 1000, 100));
    await opened().cutBack(nameOf(0), 500);
    const path = join(folder, "forgotten");
    const text = readFileSync(path, "utf8");
    writeFileSync(path, text.replace("500", "900"));
    await expect(opened().read(nameOf(0), 0, 100)).rejects.toMatchObject({ code: "RL_CORRUPT_LOG" });
    writeFileSync(path, `${text}a torn li`);
    expect(await opened().ranges(nameOf(0))).toEqual([{ begin: 0, end: 500 }]);
    await opened().cutBack(nameOf(0), 400);
    expect(await opened().ranges(nameOf(0))).toEqual([{ begin: 0, end: 400 }]);
  });
});

describe("files", () => {
  /** Files below the store's folder that this process has open. */
  const openFiles = (): string[] =>
    readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        const path = readlinkSync(`/proc/self/fd/${fd}`);
        return path.startsWith(folder) ? [path] : [];
      } catch {
        return []; // that of this look
      }
    });

  test("several who ask at once are answered one by one: each segment is opened once, and closed", async () => {
    write(stream(0, 0, 1000, 100));
    write(stream(0, 1000, 2000, 100));
    const log = opened();
    const asked = [log.ranges(nameOf(0)), log.read(nameOf(0), 500, 1500), log.ranges(nameOf(0))];
    const range = [{ begin: 0, end: 2000 }];
    expect(await Promise.all(asked)).toEqual([range, pattern(0, 500, 1500), range]);
    expect(openFiles().sort()).toEqual(files());
    await log.close();
    expect(openFiles()).toEqual([]);
  });

  test("a segment that can be opened and not read is closed again", async () => {
    const unreadable = join(folder, "000001.payload");
    for (let count = 0; count < 10; count += 1)
      mkdirSync(join(unreadable, String(count)), { recursive: true });
    await expect(opened().figures()).rejects.toMatchObject({ code: "EISDIR" });
    expect(openFiles()).toEqual([]);
  });
});

describe("what no longer counts", () => {
  test("cut back: the old bytes are gone, those that come later count, in any order of segments", async () => {
    write(stream(0, 0, 1000, 100));
    await opened().cutBack(nameOf(0), 450);
    expect(await opened().ranges(nameOf(0))).toEqual([{ begin: 0, end: 450 }]);
    write(stream(0, 450, 600, 50, 9));
    expect(await opened().ranges(nameOf(0))).toEqual([{ begin: 0, end: 600 }]);
    expect(await opened().read(nameOf(0), 440, 600)).toEqual(
      new Uint8Array([...pattern(0, 440, 450), ...pattern(9, 450, 600)]),
    );
    expect(await opened().read(nameOf(0), 590, 610)).toBeUndefined();
    await opened().cutBack(nameOf(0), 500);
    write(stream(0, 500, 1000, 100, 0));
    expect(await opened().read(nameOf(0), 500, 1000)).toEqual(pattern(0, 500, 1000));
  });

  test("pruned: holes for readers, room for the disk, dead segments gone, the rest stays", async () => {
    write(
      [...stream(0, 0, 600_000, 30_000), ...stream(1, 0, 100, 100), ...stream(0, 600_000, 1_000_000, 30_000)],
      300_000,
    );
    const before = files();
    const blocks = (): number => files().reduce((sum, file) => sum + statSync(file).blocks, 0);
    const blocksBefore = blocks();
    expect(before.length).toBeGreaterThan(3);
    await opened().prune([{ channel: nameOf(0), begin: 0, end: 700_000 }], punchHoles);
    expect(await opened().ranges(nameOf(0))).toEqual([{ begin: 700_000, end: 1_000_000 }]);
    expect(await opened().ranges(nameOf(1))).toEqual([{ begin: 0, end: 100 }]);
    expect(same(await opened().read(nameOf(0), 700_000, 1_000_000), pattern(0, 700_000, 1_000_000))).toBe(
      true,
    );
    expect(await opened().read(nameOf(1), 0, 100)).toEqual(pattern(1, 0, 100));
    expect(files().length).toBeLessThan(before.length);
    expect(blocksBefore - blocks()).toBeGreaterThan((600_000 - 100_000) / 512);
    const again = openPayloadStore(dir)!;
    expect(await again.ranges(nameOf(0))).toEqual([{ begin: 700_000, end: 1_000_000 }]);
    await again.close();
  });

  test("entries go with the segments they speak of", async () => {
    write(stream(0, 0, 1000, 100));
    write(stream(1, 0, 10, 10));
    await opened().prune([{ channel: nameOf(0), begin: 0, end: 1000 }], punchHoles);
    expect(files()).toHaveLength(1);
    write(stream(1, 10, 20, 10));
    await opened().prune([{ channel: nameOf(1), begin: 0, end: 10 }], punchHoles);
    await opened().prune([], punchHoles);
    expect(readFileSync(join(folder, "forgotten"), "utf8").split("\n").length).toBeLessThanOrEqual(2);
    expect(await opened().ranges(nameOf(1))).toEqual([{ begin: 10, end: 20 }]);
  });

  test("beyond the limit the oldest segments go, and numbers are never used twice", async () => {
    const limit = 400_000;
    write(stream(0, 0, 2_000_000, 20_000), 100_000, limit);
    const size = files().reduce((sum, file) => sum + statSync(file).blocks * 512, 0);
    expect(size).toBeLessThanOrEqual(limit);
    const [range, more] = await opened().ranges(nameOf(0));
    expect(more).toBeUndefined();
    expect(range).toMatchObject({ end: 2_000_000 });
    expect(range!.begin).toBeGreaterThan(1_500_000);
    expect(
      same(await opened().read(nameOf(0), range!.begin, 2_000_000), pattern(0, range!.begin, 2_000_000)),
    ).toBe(true);
    const newest = files().at(-1)!;
    write(stream(0, 0, 10, 10), 100_000, 1);
    expect(files().map((file) => file > newest)).toEqual([false, true]); // the newest stays: it keeps the number
  });
});
