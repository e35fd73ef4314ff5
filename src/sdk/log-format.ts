/**
 * The records of a process's SDK log (docs/sdk.md has the layout as a picture; native/sdk/log.c writes the same).
 *
 *   file    "RLSDKLG1", then records
 *   record  u32 body bytes, u32 CRC-32 of the body, body = u8 kind and its fields; little endian
 */
import { crc32 } from "node:zlib";
import { getU64, setU64, viewOf } from "../format/u64.ts";
import { MAX_SDK_MESSAGE_BYTES } from "../model/limits.ts";

export const LOG_MAGIC = Buffer.from("RLSDKLG1", "latin1");
export const RECORD_HEADER_BYTES = 8;
/** Begins every STABLE record's fields, so that one can be found behind damage. */
export const STABLE_WORD = Buffer.from("RLSTABLE", "latin1");
/** Bytes of a SEND's body before its payload. */
export const SEND_FIELDS_BYTES = 17;
/** No body is longer: a whole message, or the cut of 65 536 channels. */
export const MAX_BODY_BYTES = MAX_SDK_MESSAGE_BYTES + 64;
const SHA256_BYTES = 32;
const OFFSET_BYTES = 12;

export const Kind = {
  BEGIN: 0,
  JOIN: 1,
  CHANNEL: 2,
  SEND: 3,
  DELIVER: 4,
  CHECKPOINT: 5,
  VALUE: 6,
  STABLE: 7,
} as const;

export type ChannelRole = "send" | "receive";

export interface BeginRecord {
  readonly kind: "begin";
  readonly application: string;
  readonly process: string;
}
/** The process was started; the first time is incarnation 1. */
export interface JoinRecord {
  readonly kind: "join";
  readonly incarnation: number;
}
/** From here on `number` stands for the channel; numbers rise from 0. */
export interface ChannelRecord {
  readonly kind: "channel";
  readonly number: number;
  readonly role: ChannelRole;
  readonly peer: string;
}
/** `sequence` of a channel rises from 0. `sum`: CRC-32 of the payload. */
export interface SendRecord {
  readonly kind: "send";
  readonly channel: number;
  readonly sequence: number;
  readonly sum: number;
  readonly payload: Uint8Array;
}
/** The determinant of a delivery. `order` counts the deliveries of the process from 0. */
export interface DeliverRecord {
  readonly kind: "deliver";
  readonly channel: number;
  readonly sequence: number;
  readonly order: number;
  readonly sum: number;
}
/** `offsets`: messages sent or delivered, by channel number: the cut. */
export interface CheckpointRecord {
  readonly kind: "checkpoint";
  readonly checkpoint: number;
  readonly sizeBytes: number;
  /** Of the state file, hexadecimal. */
  readonly sha256: string;
  /** Deliveries before it, count. */
  readonly delivered: number;
  readonly offsets: readonly (readonly [number, number])[];
}
/** What a nondeterministic call gave. */
export interface ValueRecord {
  readonly kind: "value";
  readonly payload: Uint8Array;
}
/** When this record was written, everything before file offset `offset` had been synced. */
export interface StableRecord {
  readonly kind: "stable";
  readonly offset: number;
}

export type LogRecord =
  | BeginRecord
  | JoinRecord
  | ChannelRecord
  | SendRecord
  | DeliverRecord
  | CheckpointRecord
  | ValueRecord
  | StableRecord;

/** The record with its header; a payload is copied. */
export function encodeRecord(record: LogRecord): Buffer {
  const body = bodyOf(record);
  const bytes = Buffer.allocUnsafe(RECORD_HEADER_BYTES + body.length);
  bytes.writeUInt32LE(body.length, 0);
  bytes.writeUInt32LE(crc32(body), 4);
  body.copy(bytes, RECORD_HEADER_BYTES);
  return bytes;
}

function bodyOf(record: LogRecord): Buffer {
  switch (record.kind) {
    case "begin":
      return Buffer.concat([Buffer.of(Kind.BEGIN), text(record.application), text(record.process)]);
    case "join":
      return fields(Kind.JOIN, [4, record.incarnation]);
    case "channel":
      return Buffer.concat([
        fields(Kind.CHANNEL, [4, record.number], [1, record.role === "send" ? 0 : 1]),
        text(record.peer),
      ]);
    case "send":
      return Buffer.concat([
        fields(Kind.SEND, [4, record.channel], [8, record.sequence], [4, record.sum]),
        record.payload,
      ]);
    case "deliver":
      return fields(
        Kind.DELIVER,
        [4, record.channel],
        [8, record.sequence],
        [8, record.order],
        [4, record.sum],
      );
    case "checkpoint":
      return checkpointBody(record);
    case "value":
      return Buffer.concat([Buffer.of(Kind.VALUE), record.payload]);
    case "stable":
      return Buffer.concat([Buffer.of(Kind.STABLE), STABLE_WORD, number(8, record.offset)]);
  }
}

function checkpointBody({ checkpoint, sizeBytes, sha256, delivered, offsets }: CheckpointRecord): Buffer {
  return Buffer.concat([
    fields(Kind.CHECKPOINT, [4, checkpoint], [8, sizeBytes]),
    Buffer.from(sha256, "hex"),
    number(8, delivered),
    number(4, offsets.length),
    ...offsets.flatMap(([channel, offset]) => [number(4, channel), number(8, offset)]),
  ]);
}

type Width = 1 | 4 | 8;

function fields(kind: number, ...values: readonly (readonly [Width, number])[]): Buffer {
  return Buffer.concat([Buffer.of(kind), ...values.map(([width, value]) => number(width, value))]);
}

function number(width: Width, value: number): Buffer {
  const bytes = Buffer.alloc(width);
  if (width === 8) setU64(viewOf(bytes), 0, value);
  else bytes.writeUIntLE(value, 0, width);
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(2);
  length.writeUInt16LE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** Takes fields off a body; `ok` turns false, for good, where it is too short or a number too large. */
class Fields {
  ok = true;
  readonly #body: Buffer;
  #at = 1;

  constructor(body: Buffer) {
    this.#body = body;
  }

  number(width: Width): number {
    if (!this.#has(width)) return 0;
    const at = this.#at;
    this.#at += width;
    if (width !== 8) return this.#body.readUIntLE(at, width);
    const value = getU64(viewOf(this.#body), at);
    this.ok &&= !Number.isNaN(value);
    return value;
  }

  bytes(length: number): Buffer {
    if (!this.#has(length)) return Buffer.alloc(0);
    this.#at += length;
    return this.#body.subarray(this.#at - length, this.#at);
  }

  text(): string {
    return this.bytes(this.number(1) + 256 * this.number(1)).toString();
  }

  rest(): Buffer {
    return this.bytes(this.#body.length - this.#at);
  }

  get ended(): boolean {
    return this.ok && this.#at === this.#body.length;
  }

  #has(length: number): boolean {
    this.ok &&= this.#at + length <= this.#body.length;
    return this.ok;
  }
}

/** A body whose checksum holds. Undefined: no record of this version. A payload is a view of the body. */
export function decodeBody(body: Buffer): LogRecord | undefined {
  const from = new Fields(body);
  const record = read(body[0], from);
  return from.ended ? record : undefined;
}

function read(kind: number | undefined, from: Fields): LogRecord | undefined {
  switch (kind) {
    case Kind.BEGIN:
      return { kind: "begin", application: from.text(), process: from.text() };
    case Kind.JOIN:
      return { kind: "join", incarnation: from.number(4) };
    case Kind.CHANNEL:
      return {
        kind: "channel",
        number: from.number(4),
        role: from.number(1) === 0 ? "send" : "receive",
        peer: from.text(),
      };
    case Kind.SEND:
      return {
        kind: "send",
        channel: from.number(4),
        sequence: from.number(8),
        sum: from.number(4),
        payload: from.rest(),
      };
    case Kind.DELIVER:
      return {
        kind: "deliver",
        channel: from.number(4),
        sequence: from.number(8),
        order: from.number(8),
        sum: from.number(4),
      };
    case Kind.CHECKPOINT:
      return readCheckpoint(from);
    case Kind.VALUE:
      return { kind: "value", payload: from.rest() };
    case Kind.STABLE:
      from.ok &&= from.bytes(STABLE_WORD.length).equals(STABLE_WORD);
      return { kind: "stable", offset: from.number(8) };
    default:
      return undefined;
  }
}

function readCheckpoint(from: Fields): CheckpointRecord {
  const [checkpoint, sizeBytes] = [from.number(4), from.number(8)];
  const sha256 = from.bytes(SHA256_BYTES).toString("hex");
  const [delivered, count] = [from.number(8), from.number(4)];
  from.ok &&= count * OFFSET_BYTES <= MAX_BODY_BYTES;
  const offsets: [number, number][] = [];
  for (let index = 0; index < count && from.ok; index += 1) offsets.push([from.number(4), from.number(8)]);
  return { kind: "checkpoint", checkpoint, sizeBytes, sha256, delivered, offsets };
}
