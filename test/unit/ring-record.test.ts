import fc from "fast-check";
import { expect, test } from "vitest";
import { RECORD_FIELDS, RECORD_OFFSET, RingKind, SLOT_BYTES } from "../../src/format/ring-layout.ts";
import { decodeRecords, makeRecordColumns } from "../../src/format/ring-record.ts";
import { RecoveryLineError } from "../../src/model/errors.ts";
import { MAX_OFFSET } from "../../src/model/limits.ts";
import { encodeSlots, type Slot } from "./ring-slots.ts";

const u32 = fc.nat(0xffffffff);
const offset = fc.oneof(fc.maxSafeNat(), fc.nat(10_000));
const slot: fc.Arbitrary<Slot> = fc.record({
  position: offset,
  kind: fc.integer({ min: 1, max: 8 }),
  flags: fc.nat(255),
  lostBefore: u32,
  process: offset,
  local: offset,
  remote: offset,
  begin: fc.oneof(fc.nat(1e9), fc.maxSafeNat()),
  time: offset,
  length: u32,
  thread: u32,
});
const seed = Date.now() % 1_000_000_000;

/** The slow obvious reading of one slot. */
function readSlot(bytes: Uint8Array, index: number): Slot {
  const view = new DataView(bytes.buffer, index * SLOT_BYTES + RECORD_OFFSET);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  return {
    position: Number(new DataView(bytes.buffer).getBigUint64(index * SLOT_BYTES, true)),
    kind: view.getUint8(RECORD_FIELDS.kind),
    flags: view.getUint8(RECORD_FIELDS.flags),
    lostBefore: view.getUint32(RECORD_FIELDS.lost_before, true),
    process: u64(RECORD_FIELDS.process),
    local: u64(RECORD_FIELDS.local),
    remote: u64(RECORD_FIELDS.remote),
    begin: u64(RECORD_FIELDS.begin),
    time: u64(RECORD_FIELDS.time_ns),
    length: view.getUint32(RECORD_FIELDS.length, true),
    thread: view.getUint32(RECORD_FIELDS.thread, true),
  };
}

test(`columns equal the slow reading, and a range past the largest offset is refused (seed ${seed})`, () => {
  fc.assert(
    fc.property(fc.array(slot, { maxLength: 20 }), (slots) => {
      const bytes = encodeSlots(slots);
      const columns = makeRecordColumns(20);
      const bad = slots.findIndex(({ begin, length }) => begin + length > MAX_OFFSET);
      const decode = () => decodeRecords(new Uint32Array(bytes.buffer), 0, slots.length, columns);
      if (bad >= 0) expect(decode).toThrow(RecoveryLineError);
      else decode();
      expect(columns.count).toBe(bad >= 0 ? bad : slots.length);
      for (let row = 0; row < columns.count; row += 1) {
        const got = Object.fromEntries(
          Object.entries(columns)
            .filter(([name]) => name !== "count")
            .map(([name, values]) => [name, (values as Float64Array)[row]]),
        );
        expect(got).toEqual(readSlot(bytes, row));
      }
    }),
    { seed },
  );
});

test(`any bytes: valid rows or RL_BAD_RECORD, never anything else (seed ${seed})`, () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 256, maxLength: 256 }), (random) => {
      const columns = makeRecordColumns(4);
      const words = new Uint32Array(random.slice().buffer);
      try {
        decodeRecords(words, 0, 4, columns);
        expect(columns.count).toBe(4);
      } catch (error) {
        expect((error as RecoveryLineError).code).toBe("RL_BAD_RECORD");
        expect(columns.count).toBeLessThan(4);
      }
      for (let row = 0; row < columns.count; row += 1) {
        expect(columns.kind[row]).toBeGreaterThan(0);
        expect(columns.kind[row]).toBeLessThan(9);
        expect(columns.begin[row]! + columns.length[row]!).toBeLessThanOrEqual(MAX_OFFSET);
        expect(Number.isSafeInteger(columns.process[row])).toBe(true);
      }
    }),
    { seed, numRuns: 2000 },
  );
});

test("after a bad record the caller goes on behind it", () => {
  const unknown = Math.max(...Object.values(RingKind)) + 1;
  const slots = [1, 0, 2, unknown, 1].map((kind, index) => ({ kind, begin: index }));
  const words = new Uint32Array(encodeSlots(slots).buffer);
  const columns = makeRecordColumns(5);
  const seen: number[] = [];
  for (let from = 0; from < 5; ) {
    let skip = 0;
    try {
      decodeRecords(words, from, 5, columns);
    } catch {
      skip = 1;
    }
    seen.push(...columns.begin.subarray(0, columns.count));
    from += columns.count + skip;
  }
  expect(seen).toEqual([0, 2, 4]);
});
