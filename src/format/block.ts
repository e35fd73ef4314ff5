/**
 * A log block: a header that says where it belongs, columns of the events of one process, a SHA-256 over both.
 * Layout: `block-layout.ts` and logs-format.md. Decoding is a gateway: what comes out holds the invariants of
 * `EventColumns`, and any bytes whatever throw nothing but RL_BAD_BLOCK.
 */
import { assert } from "../model/assert.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_EVENT_BLOCK_BYTES, MAX_PROCESS_NAME_BYTES } from "../model/limits.ts";
import { type BlockHeader, type BlockPlace, parseBlock, sha256 } from "./block-header.ts";
import {
  AT,
  BLOCK_FLAG,
  BLOCK_MAGIC,
  signedView,
  unsignedView,
  VERSION_WITH_OUTSIDE,
} from "./block-layout.ts";
import { type BlockPlan, measure, nameLength } from "./block-measure.ts";
import { readColumns } from "./block-read.ts";
import type { EventColumns } from "./event-columns.ts";

/**
 * Rows [from, to) of `columns` as one block. The caller keeps it within limits (`planBlock` does).
 * Throws RL_LIMIT where one event is larger than MAX_EVENT_BLOCK_BYTES.
 */
export function encodeBlock(
  place: BlockPlace,
  columns: EventColumns,
  from = 0,
  to = columns.count,
): Uint8Array {
  const leading = nameLength(place.application) + nameLength(columns.process);
  return writeBlock(place, measure(columns, from, to, leading));
}

/** The planned block at its place. Throws RL_LIMIT as `encodeBlock` does. */
export function writeBlock(place: BlockPlace, plan: BlockPlan): Uint8Array {
  const { sections, shape } = plan;
  if (sections.size > MAX_EVENT_BLOCK_BYTES)
    throw new RecoveryLineError(
      "RL_LIMIT",
      `an event of "${plan.columns.process}" takes ${sections.size} bytes, more than ${MAX_EVENT_BLOCK_BYTES}`,
      "A checkpoint's cut vector is too long: split the process.",
    );
  assert(plan.rollbackTo !== undefined || place.positionAfter === place.position + shape.rows, "positions");
  const bytes = new Uint8Array(sections.size);
  writeHeader(bytes, place, plan);
  writeNames(bytes, place, plan);
  writeRanges(bytes, plan);
  writeTimes(bytes, plan);
  writeThreads(bytes, plan);
  bytes.set(plan.extras, sections.extras);
  bytes.set(sha256(bytes.subarray(0, sections.trailer)), sections.trailer);
  return bytes;
}

function writeHeader(bytes: Uint8Array, place: BlockPlace, plan: BlockPlan): void {
  const view = new DataView(bytes.buffer);
  const u64 = (at: number, value: number): void => {
    assert(Number.isSafeInteger(value) && value >= 0, "a header's number is in range");
    view.setUint32(at, value % 2 ** 32, true);
    view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
  };
  const { shape } = plan;
  const back = place.previousIrregular ? place.chain - place.previousIrregular : 0;
  assert(back >= 0 && back < 2 ** 32, "the irregular block before is within reach");
  view.setUint32(AT.irregularBack, back, true);
  view.setUint32(AT.magic, BLOCK_MAGIC, true);
  view.setUint8(AT.version, saysOutside(place, plan) ? VERSION_WITH_OUTSIDE : plan.version);
  view.setUint8(AT.flags, flagsOf(place, plan));
  view.setUint32(AT.size, bytes.length, true);
  for (const field of [
    "chain",
    "sequence",
    "previousBlock",
    "previousControl",
    "position",
    "positionAfter",
    "greatestCheckpoint",
  ] as const)
    u64(AT[field], place[field]);
  for (const field of [
    "rows",
    "channels",
    "threads",
    "beginExceptions",
    "timeExceptions",
    "nameBytes",
    "extraBytes",
  ] as const)
    view.setUint32(AT[field], shape[field], true);
  for (const field of ["sends", "receives", "controls"] as const)
    view.setUint32(AT[field], plan[field], true);
  for (const field of ["channelWidth", "lengthWidth", "timeWidth", "threadWidth", "beginWidth"] as const)
    view.setUint8(AT[field], shape[field]);
  bytes.set(place.previousHash, AT.previousHash);
  view.setFloat64(AT.timeBase, plan.timeBase, true);
}

function saysOutside({ outside }: BlockPlace, plan: BlockPlan): boolean {
  return outside === true && (plan.hasCut || plan.rollbackTo !== undefined);
}

function cutFlags({ covers, forgets }: BlockPlace): number {
  return (covers === true ? BLOCK_FLAG.covers : 0) | (forgets === true ? BLOCK_FLAG.forgets : 0);
}

function flagsOf(place: BlockPlace, plan: BlockPlan): number {
  return (
    (plan.hasCut ? cutFlags(place) : 0) |
    (saysOutside(place, plan) ? BLOCK_FLAG.outside : 0) |
    (plan.controls > 0 ? BLOCK_FLAG.control : 0) |
    (plan.hasCut ? BLOCK_FLAG.cut : 0) |
    (plan.extras.length > 0 ? BLOCK_FLAG.extras : 0) |
    (plan.rollbackTo !== undefined ? BLOCK_FLAG.rollback : 0) |
    (plan.irregular ? BLOCK_FLAG.irregular : 0)
  );
}

function writeNames(bytes: Uint8Array, place: BlockPlace, plan: BlockPlan): void {
  const { sections, shape } = plan;
  const leading = [place.application, plan.columns.process];
  for (const name of leading) {
    const length = nameLength(name);
    assert(length > 0 && length <= MAX_PROCESS_NAME_BYTES, "names are within their limit");
  }
  const names = [...leading, ...plan.channelNames];
  const lengths = unsignedView(bytes, sections.nameLengths, names.length, 2);
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = sections.names;
  for (const [index, name] of names.entries()) {
    const length = text.write(name, at);
    lengths[index] = length;
    at += length;
  }
  assert(at === sections.names + shape.nameBytes, "the names fill their section");
}

function writeRanges(bytes: Uint8Array, plan: BlockPlan): void {
  const { columns, from, to, sections, shape, beginExceptionRows } = plan;
  const { begin, end, kind } = columns;
  const { rows } = shape;
  bytes.set(kind.subarray(from, to), sections.kind);
  unsignedView(bytes, sections.channel, rows, shape.channelWidth).set(plan.localChannel);
  const length = unsignedView(bytes, sections.length, rows, shape.lengthWidth);
  for (let row = 0; row < rows; row += 1) length[row] = end[from + row]! - begin[from + row]!;
  const exceptions = beginExceptionRows.length;
  unsignedView(bytes, sections.beginExceptionRows, exceptions, 4).set(beginExceptionRows);
  const values = unsignedView(bytes, sections.beginExceptionValues, exceptions, shape.beginWidth);
  for (let n = 0; n < exceptions; n += 1) values[n] = begin[from + beginExceptionRows[n]!]!;
}

/** Greatest step that a signed cell holds, by width; steps of 8 bytes are f64. */
const GREATEST_STEP: Readonly<Record<number, number>> = {
  0: -1,
  1: 0x7f,
  2: 0x7fff,
  4: 0x7fff_ffff,
  8: Number.POSITIVE_INFINITY,
};

function writeTimes(bytes: Uint8Array, plan: BlockPlan): void {
  const { columns, from, sections, shape, delta } = plan;
  const { rows, timeWidth, timeExceptions } = shape;
  const cells = timeWidth === 0 ? undefined : signedView(bytes, sections.time, rows, timeWidth);
  const exceptionRows = unsignedView(bytes, sections.timeExceptionRows, timeExceptions, 4);
  const exceptionValues = unsignedView(bytes, sections.timeExceptionValues, timeExceptions, 8);
  const greatest = GREATEST_STEP[timeWidth]!;
  let exceptions = 0;
  for (let row = 0; row < rows; row += 1) {
    const step = delta[row]!;
    if (cells !== undefined && step <= greatest && step >= -greatest - 1) {
      cells[row] = step;
      continue;
    }
    const time = columns.time[from + row]!;
    if (cells === undefined && Number.isNaN(time)) continue;
    exceptionRows[exceptions] = row;
    exceptionValues[exceptions] = time;
    exceptions += 1;
  }
  assert(exceptions === timeExceptions, "as many exceptions as were counted");
}

function writeThreads(bytes: Uint8Array, plan: BlockPlan): void {
  const { sections, shape } = plan;
  unsignedView(bytes, sections.threadValues, shape.threads, 4).set(plan.threads);
  if (shape.threadWidth > 0)
    unsignedView(bytes, sections.thread, shape.rows, shape.threadWidth).set(plan.threadIndex);
}

export interface Block {
  readonly header: BlockHeader;
  readonly columns: EventColumns;
}

/** Checks everything and returns header and events. Throws only RL_BAD_BLOCK. */
export function decodeBlock(bytes: Uint8Array): Block {
  const parsed = parseBlock(bytes);
  return { header: parsed.header, columns: readColumns(parsed) };
}
