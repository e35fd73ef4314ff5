/** LevelDB's WAL: each record is a batch that was written as one. */
import type { LevelRecords } from "./level-records.ts";
import { VarintReader } from "./level-records.ts";

const HEADER_BYTES = 12; // sequence number of the first entry u64, entries u32
const TYPE = { deleted: 0, value: 1 } as const;

/** Visits every entry; `at` is in `records.data`. False where a record is no batch: what its checksum vouches for was written so. */
export function walkBatches(
  { data, ends }: LevelRecords,
  visit: (key: Buffer, sequence: number, deleted: boolean, at: number, length: number) => void,
): boolean {
  let from = 0;
  for (const to of ends) {
    if (to - from < HEADER_BYTES) return false;
    const sequence = data.readUIntLE(from, 6) + data.readUInt16LE(from + 6) * 2 ** 48;
    const count = data.readUInt32LE(from + 8);
    const reader = new VarintReader(data, from + HEADER_BYTES, to);
    for (let n = 0; n < count && !reader.bad; n += 1) {
      const type = reader.byte();
      const key = reader.string();
      const value = type === TYPE.value ? reader.string() : { from: 0, length: 0 };
      if (reader.bad || type > TYPE.value) return false;
      const deleted = type === TYPE.deleted;
      visit(data.subarray(key.from, key.from + key.length), sequence + n, deleted, value.from, value.length);
    }
    if (reader.bad || reader.more) return false;
    from = to;
  }
  return true;
}
