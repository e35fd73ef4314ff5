/**
 * What goes over a connection between two processes (docs/sdk.md). The sender of a channel dials; it speaks HELLO and MESSAGE, the
 * receiver WELCOME, CHECKPOINTED and REFUSED. Little endian; a name is u16 n and n bytes; a body of another length is none of these.
 *
 *   frame             u32 length of what follows │ u8 type │ body
 *   1  HELLO          u32 protocol │ u32 incarnation │ name of the application │ name of the sender │ name of the receiver
 *   2  WELCOME        u64 sequence number it wants next │ u64 below which it needs nothing again
 *   3  MESSAGE        u64 sequence │ u32 CRC-32 of the payload │ payload
 *   4  CHECKPOINTED   u64 sequence below which it needs nothing again
 *   5  REFUSED        u16 reason │ text
 *
 * Protocol 1 (`rl-sdk-1`) had JSON in HELLO, WELCOME and REFUSED: a body that begins with `{` is of that one, and is answered in it.
 */
import { getU64, setU64, viewOf } from "../format/u64.ts";
import { MAX_SDK_MESSAGE_BYTES } from "../model/limits.ts";

export const PROTOCOL = 2;
export const Frame = { HELLO: 1, WELCOME: 2, MESSAGE: 3, CHECKPOINTED: 4, REFUSED: 5 } as const;
/** Why a connection is refused. */
export const Refusal = { PROTOCOL: 1, OTHER_PROCESS: 2, MALFORMED: 3 } as const;

const JSON_BEGIN = 0x7b; // "{"
const HELLO_FIELDS_BYTES = 8;
const WELCOME_BYTES = 16;
const LENGTH_BYTES = 4;
const MESSAGE_FIELDS_BYTES = 12;
const MAX_FRAME_BYTES = 1 + MESSAGE_FIELDS_BYTES + MAX_SDK_MESSAGE_BYTES;

export interface Hello {
  readonly protocol: number;
  readonly incarnation: number;
  readonly app: string;
  readonly from: string;
  readonly to: string;
}

export interface Welcome {
  readonly next: number;
  readonly checkpointed: number;
}

export interface WireFrame {
  readonly type: number;
  readonly body: Buffer;
}

function frame(type: number, body: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(LENGTH_BYTES + 1 + body.length);
  bytes.writeUInt32LE(1 + body.length, 0);
  bytes[LENGTH_BYTES] = type;
  bytes.set(body, LENGTH_BYTES + 1);
  return bytes;
}

function nameBytes(name: string): Buffer {
  const bytes = Buffer.from(name);
  const length = Buffer.alloc(2);
  length.writeUInt16LE(bytes.length);
  return Buffer.concat([length, bytes]);
}

export function helloFrame({ protocol, incarnation, app, from, to }: Hello): Buffer {
  const head = Buffer.alloc(HELLO_FIELDS_BYTES);
  head.writeUInt32LE(protocol, 0);
  head.writeUInt32LE(incarnation, 4);
  return frame(Frame.HELLO, Buffer.concat([head, nameBytes(app), nameBytes(from), nameBytes(to)]));
}

export function welcomeFrame({ next, checkpointed }: Welcome): Buffer {
  const body = Buffer.alloc(WELCOME_BYTES);
  setU64(viewOf(body), 0, next);
  setU64(viewOf(body), 8, checkpointed);
  return frame(Frame.WELCOME, body);
}

export function refusedFrame(reason: number, text: string): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16LE(reason);
  return frame(Frame.REFUSED, Buffer.concat([head, Buffer.from(text)]));
}

/** What one that speaks protocol 1 is told. */
export function oldRefusedFrame(text: string): Buffer {
  return frame(Frame.REFUSED, Buffer.from(JSON.stringify({ message: text })));
}

export function messageFrame(sequence: number, sum: number, payload: Uint8Array): Buffer {
  const head = Buffer.allocUnsafe(MESSAGE_FIELDS_BYTES);
  setU64(viewOf(head), 0, sequence);
  head.writeUInt32LE(sum, 8);
  return frame(Frame.MESSAGE, Buffer.concat([head, payload]));
}

export function checkpointedFrame(sequence: number): Buffer {
  const body = Buffer.alloc(8);
  setU64(viewOf(body), 0, sequence);
  return frame(Frame.CHECKPOINTED, body);
}

/** The payload is a copy of its own. Undefined where the body is no MESSAGE. */
export function readMessage(body: Buffer): { sequence: number; sum: number; payload: Buffer } | undefined {
  if (body.length < MESSAGE_FIELDS_BYTES) return undefined;
  const payload = Buffer.from(body.subarray(MESSAGE_FIELDS_BYTES));
  return { sequence: getU64(viewOf(body), 0), sum: body.readUInt32LE(8), payload };
}

/** The number of a CHECKPOINTED; NaN where it is none. */
export function readSequence(body: Buffer): number {
  return body.length === 8 ? getU64(viewOf(body), 0) : Number.NaN;
}

/** True for what protocol 1 says in HELLO, WELCOME or REFUSED. */
export function isOldProtocol(body: Buffer): boolean {
  return body[0] === JSON_BEGIN;
}

/** Undefined where the body is no HELLO of protocol 2 or a later one that begins alike. */
export function readHello(body: Buffer): Hello | undefined {
  if (isOldProtocol(body) || body.length < HELLO_FIELDS_BYTES) return undefined;
  const names: string[] = [];
  let at = HELLO_FIELDS_BYTES;
  while (names.length < 3) {
    if (at + 2 > body.length) return undefined;
    const end = at + 2 + body.readUInt16LE(at);
    if (end > body.length) return undefined;
    names.push(body.toString("utf8", at + 2, end));
    at = end;
  }
  if (at !== body.length) return undefined;
  const [app, from, to] = names as [string, string, string];
  return { protocol: body.readUInt32LE(0), incarnation: body.readUInt32LE(4), app, from, to };
}

/** Undefined where the body is no WELCOME. */
export function readWelcome(body: Buffer): Welcome | undefined {
  if (body.length !== WELCOME_BYTES) return undefined;
  const [next, checkpointed] = [getU64(viewOf(body), 0), getU64(viewOf(body), 8)];
  return Number.isNaN(next) || Number.isNaN(checkpointed) ? undefined : { next, checkpointed };
}

/** Why, in numbers and in words; protocol 1 has words alone. */
export function readRefused(body: Buffer): { reason: number; text: string } {
  if (isOldProtocol(body)) return { reason: Refusal.PROTOCOL, text: "it speaks protocol 1" };
  if (body.length < 2) return { reason: Refusal.MALFORMED, text: "it did not say why" };
  return { reason: body.readUInt16LE(0), text: body.toString("utf8", 2) };
}

/** Bytes of a stream → frames. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** The frames that are whole now; undefined where the stream is none of ours. Bodies are valid until the next call. */
  push(chunk: Buffer): WireFrame[] | undefined {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const frames: WireFrame[] = [];
    for (;;) {
      const length = this.#length();
      if (length === undefined) return frames;
      if (length < 1 || length > MAX_FRAME_BYTES) return undefined;
      if (this.#bytes < LENGTH_BYTES + length) return frames;
      const all = this.#joined();
      const body = all.subarray(LENGTH_BYTES + 1, LENGTH_BYTES + length);
      frames.push({ type: all[LENGTH_BYTES]!, body });
      this.#chunks = [all.subarray(LENGTH_BYTES + length)];
      this.#bytes -= LENGTH_BYTES + length;
    }
  }

  #length(): number | undefined {
    if (this.#bytes < LENGTH_BYTES) return undefined;
    const first = this.#chunks[0]!;
    return (first.length >= LENGTH_BYTES ? first : this.#joined()).readUInt32LE(0);
  }

  #joined(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]!;
  }
}
