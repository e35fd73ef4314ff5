/**
 * CRIU image files, as far as a restart reads and edits them: two magic numbers, then entries (u32 LE length, protobuf message).
 * Only the wire format is known here; every field that we do not edit goes through byte by byte.
 */
import { RecoveryLineError } from "../../model/errors.ts";

const IMAGE_MAGIC = 0x54564319;
export const IMAGE_HEADER_BYTES = 8;
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
/** Of one varint, as protobuf says. */
const MAX_VARINT_BYTES = 10;

/** One field of a message. */
export interface WireField {
  readonly number: number;
  readonly type: number;
  /** Of a varint field. */
  readonly value: bigint;
  /** Of a field with bytes (strings, messages, packed lists). */
  readonly bytes: Uint8Array;
}

const NONE = new Uint8Array();

/** Checks the header; entries begin at `IMAGE_HEADER_BYTES`. Throws RL_REFUSED. */
export function checkImage(image: Uint8Array, magic: number, name: string): void {
  const view = viewOf(image);
  if (image.length < IMAGE_HEADER_BYTES || view.getUint32(0, true) !== IMAGE_MAGIC)
    throw foreign(name, "no CRIU image");
  if (view.getUint32(4, true) !== magic) throw foreign(name, "another kind of CRIU image than its name says");
}

/** The entry at `offset`, and where the next one begins. Throws RL_REFUSED. */
export function entryAt(image: Uint8Array, offset: number, name: string): { entry: Uint8Array; end: number } {
  if (offset + 4 > image.length) throw foreign(name, "cut off in front of an entry");
  const begin = offset + 4;
  const end = begin + viewOf(image).getUint32(offset, true);
  if (end > image.length) throw foreign(name, "cut off inside an entry");
  return { entry: image.subarray(begin, end), end };
}

/** All fields in their order. Throws RL_REFUSED where the bytes are no message. */
export function parseMessage(message: Uint8Array, name: string): WireField[] {
  const fields: WireField[] = [];
  const reader = new Reader(message, name);
  while (!reader.done) fields.push(reader.field());
  return fields;
}

class Reader {
  readonly #bytes: Uint8Array;
  readonly #name: string;
  #at = 0;

  constructor(bytes: Uint8Array, name: string) {
    this.#bytes = bytes;
    this.#name = name;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  field(): WireField {
    const key = this.varint();
    const type = Number(key & 7n);
    const number = Number(key >> 3n);
    if (type === VARINT) return { number, type, value: this.varint(), bytes: NONE };
    if (type === BYTES) return { number, type, value: 0n, bytes: this.#take(Number(this.varint())) };
    if (type === FIXED64) return { number, type, value: 0n, bytes: this.#take(8) };
    if (type === FIXED32) return { number, type, value: 0n, bytes: this.#take(4) };
    throw foreign(this.#name, "no protobuf message");
  }

  varint(): bigint {
    let value = 0n;
    for (let count = 0; count < MAX_VARINT_BYTES; count += 1) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) break;
      this.#at += 1;
      value |= BigInt(byte & 0x7f) << BigInt(7 * count);
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw foreign(this.#name, "no protobuf message");
  }

  #take(count: number): Uint8Array {
    if (this.#at + count > this.#bytes.length) throw foreign(this.#name, "no protobuf message");
    const bytes = this.#bytes.subarray(this.#at, this.#at + count);
    this.#at += count;
    return bytes;
  }
}

/** The reverse of `parseMessage`: the same bytes, where varints were written in their shortest form. */
export function writeMessage(fields: readonly WireField[]): Uint8Array {
  const out: number[] = [];
  for (const { number, type, value, bytes } of fields) {
    pushVarint(out, (BigInt(number) << 3n) | BigInt(type));
    if (type === VARINT) pushVarint(out, value);
    if (type === BYTES) pushVarint(out, BigInt(bytes.length));
    for (const byte of bytes) out.push(byte);
  }
  return Uint8Array.from(out);
}

function pushVarint(out: number[], value: bigint): void {
  let left = value;
  for (; left > 0x7fn; left >>= 7n) out.push(Number(left & 0x7fn) | 0x80);
  out.push(Number(left));
}

/** A varint field as a number below 2^32; `absent` where it is not there. */
export function u32Field(fields: readonly WireField[], number: number, absent = 0): number {
  const field = fields.find((one) => one.number === number && one.type === VARINT);
  return field === undefined ? absent : Number(BigInt.asUintN(32, field.value));
}

/** A list of varints, packed or not. */
export function u32List(fields: readonly WireField[], number: number, name: string): number[] {
  return fields
    .filter((one) => one.number === number)
    .flatMap(({ type, value, bytes }) => {
      if (type === VARINT) return [Number(BigInt.asUintN(32, value))];
      const values: number[] = [];
      const reader = new Reader(bytes, name);
      while (!reader.done) values.push(Number(BigInt.asUintN(32, reader.varint())));
      return values;
    });
}

/** The fields with one varint field set; its place in the order stays, a new one comes last. */
export function withU32(fields: readonly WireField[], number: number, value: number): WireField[] {
  const field = { number, type: VARINT, value: BigInt(value >>> 0), bytes: NONE };
  const at = fields.findIndex((one) => one.number === number);
  return at < 0 ? [...fields, field] : fields.with(at, field);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function foreign(name: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `${name}: ${why}`,
    "It was written by a CRIU that this version does not know. Nothing was killed or restored.",
  );
}
