/**
 * The gateway of ring records: drained bytes in, columns out. After it nothing doubts a record again.
 *
 * For every row of `RecordColumns`: `kind` is one of `RingKind`, `process`, `local`, `remote`, `begin`, `time` are
 * integers from 0 to 2^53-1, begin + length ≤ MAX_OFFSET, and `position` rises along the rows.
 */
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_OFFSET } from "../model/limits.ts";
import { RING_KIND_NAMES, SLOT_BYTES } from "./ring-layout.ts";

/** A batch of records as struct-of-arrays, made once and filled again and again. */
export interface RecordColumns {
  /** Rows that are valid. */
  count: number;
  /** Byte position in the ring of the record's slot. */
  readonly position: Float64Array;
  readonly kind: Uint8Array;
  readonly flags: Uint8Array;
  /** Memory rings: records of the same process missing right before this one, count. The kernel says 0. */
  readonly lostBefore: Uint32Array;
  /** Cgroup id. */
  readonly process: Float64Array;
  readonly local: Float64Array;
  readonly remote: Float64Array;
  readonly begin: Float64Array;
  /** Length of the range, in bytes. */
  readonly length: Uint32Array;
  /** Nanoseconds of CLOCK_BOOTTIME; in quick succession those of a record shortly before. */
  readonly time: Float64Array;
  /** The kernel's records: incarnation of the process; those of memory rings: the thread. */
  readonly thread: Uint32Array;
}

/** Columns for up to `rows` records. */
export function makeRecordColumns(rows: number): RecordColumns {
  return {
    count: 0,
    position: new Float64Array(rows),
    kind: new Uint8Array(rows),
    flags: new Uint8Array(rows),
    lostBefore: new Uint32Array(rows),
    process: new Float64Array(rows),
    local: new Float64Array(rows),
    remote: new Float64Array(rows),
    begin: new Float64Array(rows),
    length: new Uint32Array(rows),
    time: new Float64Array(rows),
    thread: new Uint32Array(rows),
  };
}

const WORDS = SLOT_BYTES / 4;
/** Kinds that there are: RING_KIND_COUNT leaves room for more. */
const KINDS = RING_KIND_NAMES.length;
const HIGH = 2 ** 32;
/** High words from here on would leave the exact integers of a double. */
const HIGH_LIMIT = 2 ** 21;

/**
 * Decodes rows `from` … `records` of a drained batch into `into`, from its row 0 on.
 *
 * `words` is a view on the drained bytes. Throws RL_BAD_RECORD at the first impossible record; then `into.count` rows
 * before it are valid, the bad one is record `from + into.count`, and the caller may go on after it.
 */
export function decodeRecords(words: Uint32Array, from: number, records: number, into: RecordColumns): void {
  const { position, kind, flags, lostBefore, process, local, remote, begin, length, time, thread } = into;
  let row = 0;
  for (let at = from * WORDS; row < records - from; at += WORDS, row += 1) {
    const head = words[at + 2]!;
    const high = words[at + 5]! | words[at + 7]! | words[at + 9]! | words[at + 11]! | words[at + 13]!;
    const first = words[at + 10]! + words[at + 11]! * HIGH;
    const bytes = words[at + 14]!;
    const recordKind = head & 0xff;
    // One comparison for five fields: any high word past the limit leaves a bit at or above it.
    if (recordKind === 0 || recordKind >= KINDS || high >>> 0 >= HIGH_LIMIT || first + bytes > MAX_OFFSET) {
      into.count = row;
      throw badRecord(from + row, recordKind);
    }
    position[row] = words[at]! + words[at + 1]! * HIGH;
    kind[row] = recordKind;
    flags[row] = head >>> 8;
    lostBefore[row] = words[at + 3]!;
    process[row] = words[at + 4]! + words[at + 5]! * HIGH;
    local[row] = words[at + 6]! + words[at + 7]! * HIGH;
    remote[row] = words[at + 8]! + words[at + 9]! * HIGH;
    begin[row] = first;
    time[row] = words[at + 12]! + words[at + 13]! * HIGH;
    length[row] = bytes;
    thread[row] = words[at + 15]!;
  }
  into.count = row;
}

function badRecord(index: number, kind: number): RecoveryLineError {
  return new RecoveryLineError(
    "RL_BAD_RECORD",
    `record ${index} of the batch (kind ${kind}) breaks the slot layout`,
    "Kernel programs and addon must come from the same build: unpin the capture and start it again.",
  );
}
