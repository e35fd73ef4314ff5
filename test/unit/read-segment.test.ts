/** A segment read without LevelDB holds what LevelDB says it holds, whatever was done to it. */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { sha256 } from "../../src/format/block-header.ts";
import { blockKey, COMMIT_KEY, headKey, stateKey } from "../../src/format/log-key.ts";
import { crc32c, unmasked } from "../../src/log/level/crc32c.ts";
import { readRecords } from "../../src/log/level/level-records.ts";
import { ReadSegment } from "../../src/log/read-segment.ts";
import { type ReadableSegment, Segment, type Write } from "../../src/log/segment.ts";
import { sized } from "../size.ts";

let folder: string;
let dir: string;
beforeEach(() => {
  folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "recovery-line-segment-"));
  dir = join(folder, "segment");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const hash = (bytes: Uint8Array | undefined): string | undefined =>
  bytes && Buffer.from(sha256(bytes)).toString("hex");

async function content(segment: ReadableSegment) {
  const list = async (entries: AsyncIterable<[Uint8Array, Uint8Array]>) => {
    const found: string[] = [];
    for await (const [key, value] of entries)
      found.push(`${Buffer.from(key).toString("hex")} ${hash(value)}`);
    return found;
  };
  const commit = await segment.commitRecord();
  const gets: unknown[] = [];
  for (const chain of [1, 2, 7, 40]) gets.push(hash(await segment.block(chain)));
  return {
    commit: hash(commit),
    gets,
    all: await list(segment.blocks(0, Number.MAX_SAFE_INTEGER)),
    some: await list(segment.blocks(3, 30)),
    states: await list(segment.stateEntries()),
  };
}

/** Compares in a copy: LevelDB writes when it opens a folder. */
async function agree(): Promise<void> {
  const before = readdirSync(dir).map((name) => [name, hash(readFileSync(join(dir, name)))]);
  const mine = await ReadSegment.open(dir, dir);
  const read = await content(mine);
  await mine.close();
  expect(readdirSync(dir).map((name) => [name, hash(readFileSync(join(dir, name)))])).toEqual(before);
  const copy = join(folder, "copy");
  cpSync(dir, copy, { recursive: true, mode: 0 });
  const level = await Segment.open(copy, copy, false);
  expect(read).toEqual(await content(level));
  await level.close();
  rmSync(copy, { recursive: true });
}

const value = (size: number, fill: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, n) => (n * 31 + fill) & 0xff);

const key = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 60 }).map(blockKey) },
  fc.constant(COMMIT_KEY),
  fc.constantFrom("p", "q", "é", "p\0").map(headKey),
  fc.constantFrom("ring", "base", "s").map(stateKey),
);
const size = fc.oneof(
  fc.nat(300),
  fc.constantFrom(0, 4096, 32_768 - 7, 32_768, 70_000),
  fc.constantFrom(300_000),
);
const write = fc.record({ key, size: fc.option(size, { nil: undefined, freq: 6 }), fill: fc.nat(255) });
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ batch: fc.array(write, { minLength: 1, maxLength: 12 }) }) },
  { weight: 1, arbitrary: fc.constant("reopen" as const) },
  { weight: 1, arbitrary: fc.constant("compare" as const) },
);

test("any history of batches, deletions and reopenings is read as LevelDB reads it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 30 }), async (steps) => {
      rmSync(dir, { recursive: true, force: true });
      let segment = await Segment.open(dir, dir, true);
      for (const one of steps) {
        if (typeof one === "object")
          await segment.write(
            one.batch.map((w): Write => [w.key, w.size === undefined ? undefined : value(w.size, w.fill)]),
          );
        else {
          await segment.close();
          if (one === "compare") await agree();
          segment = await Segment.open(dir, dir, false);
        }
      }
      await segment.close();
      await agree();
    }),
    { numRuns: sized(40, 12) },
  );
});

test("tables that LevelDB has merged, and many of them", async () => {
  let segment = await Segment.open(dir, dir, true);
  for (let n = 1; n <= 200; n += 1) {
    await segment.write([
      [blockKey(n), value(60_000, n)],
      [COMMIT_KEY, value(128, n)],
      [headKey(`p${n % 9}`), value(48, n)],
    ]);
    if (n % 50 !== 0) continue;
    await segment.close();
    await agree();
    segment = await Segment.open(dir, dir, false);
  }
  await segment.close();
  expect(readdirSync(dir).filter((name) => name.endsWith(".ldb")).length).toBeGreaterThan(2);
  await agree();
});

test("CRC-32C: the check value of its definition, and LevelDB's mask", () => {
  expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
  const bytes = value(1000, 3);
  const slow = (from: number, to: number): number => {
    let crc = -1;
    for (let at = from; at < to; at += 1) {
      crc ^= bytes[at]!;
      for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return (crc ^ -1) >>> 0;
  };
  for (const [from, to] of [
    [0, 0],
    [1, 2],
    [3, 10],
    [0, 1000],
    [5, 998],
  ] as const)
    expect(crc32c(bytes, from, to)).toBe(slow(from, to));
  const crc = 0x12345678;
  const masked = (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
  expect(unmasked(masked)).toBe(crc);
});

/** LevelDB does the same: https://github.com/google/leveldb/blob/v1.20/doc/log_format.md */
test("records: what was never written or is cut off ends them; anything else is damage", async () => {
  const segment = await Segment.open(dir, dir, true);
  for (let n = 1; n < 30; n += 1) await segment.write([[blockKey(n), value(5000, n)]]);
  await segment.close();
  const name = readdirSync(dir).find((one) => one.endsWith(".log"))!;
  const bytes = readFileSync(join(dir, name));
  const whole = readRecords(bytes);
  expect([whole.ends.length, whole.damaged]).toEqual([29, false]);
  for (let cut = 0; cut < bytes.length; cut += 1009) {
    const { ends, damaged, data } = readRecords(bytes.subarray(0, cut));
    expect(damaged).toBe(false);
    expect(ends).toEqual(whole.ends.slice(0, ends.length));
    expect(Buffer.compare(data.subarray(0, ends.at(-1) ?? 0), whole.data.subarray(0, ends.at(-1) ?? 0))).toBe(
      0,
    );
    const zeros = readRecords(Buffer.concat([bytes.subarray(0, cut), Buffer.alloc(40_000)]));
    expect(zeros.ends.length).toBeLessThanOrEqual(ends.length + 1);
  }
  for (let bit = 0; bit < bytes.length * 8; bit += 4999) {
    const flipped = Buffer.from(bytes);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    const { ends } = readRecords(flipped);
    expect(ends.length).toBeLessThan(29);
  }
});
