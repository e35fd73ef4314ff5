/** Makes drained slots by the header's picture, with none of the decoder's code. */
import { RECORD_FIELDS, RECORD_OFFSET, SLOT_BYTES } from "../../src/format/ring-layout.ts";

export interface Slot {
  position: number;
  kind: number;
  flags: number;
  lostBefore: number;
  process: number;
  local: number;
  remote: number;
  begin: number;
  time: number;
  length: number;
  thread: number;
}

/** Fields left out are 0. */
export function encodeSlots(slots: readonly Partial<Slot>[]): Uint8Array {
  const bytes = new Uint8Array(slots.length * SLOT_BYTES);
  const view = new DataView(bytes.buffer);
  slots.forEach((slot, index) => {
    const at = index * SLOT_BYTES;
    const field = (name: keyof typeof RECORD_FIELDS) => at + RECORD_OFFSET + RECORD_FIELDS[name];
    const u64 = (where: number, value = 0) => view.setBigUint64(where, BigInt(value), true);
    u64(at, slot.position);
    view.setUint8(field("kind"), slot.kind ?? 0);
    view.setUint8(field("flags"), slot.flags ?? 0);
    view.setUint32(field("lost_before"), slot.lostBefore ?? 0, true);
    u64(field("process"), slot.process);
    u64(field("local"), slot.local);
    u64(field("remote"), slot.remote);
    u64(field("begin"), slot.begin);
    u64(field("time_ns"), slot.time);
    view.setUint32(field("length"), slot.length ?? 0, true);
    view.setUint32(field("thread"), slot.thread ?? 0, true);
  });
  return bytes;
}
