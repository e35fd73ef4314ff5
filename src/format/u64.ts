/** Unsigned 64-bit fields that hold integers a double holds exactly: 0 … 2^53-1. */
import { assert } from "../model/assert.ts";

const HIGH = 2 ** 32;

/** Writes `value` at `at`. */
export function setU64(view: DataView, at: number, value: number, littleEndian = true): void {
  assert(Number.isSafeInteger(value) && value >= 0, "an unsigned number within 2^53");
  const [low, high] = [value % HIGH, Math.floor(value / HIGH)];
  view.setUint32(littleEndian ? at : at + 4, low, littleEndian);
  view.setUint32(littleEndian ? at + 4 : at, high, littleEndian);
}

/** The value at `at`, or NaN where it is beyond 2^53-1. */
export function getU64(view: DataView, at: number, littleEndian = true): number {
  const low = view.getUint32(littleEndian ? at : at + 4, littleEndian);
  const high = view.getUint32(littleEndian ? at + 4 : at, littleEndian);
  const value = low + high * HIGH;
  return Number.isSafeInteger(value) ? value : Number.NaN;
}

/** A view on exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
