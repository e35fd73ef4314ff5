/**
 * What goes over a connection between two processes (docs/sdk.md). The sender of a channel dials; it speaks HELLO and MESSAGE, the
 * receiver WELCOME, CHECKPOINTED and REFUSED.
 *
 *   frame         u32 length of what follows, u8 type, body; little endian
 *   HELLO         JSON {protocol, app, from, to, incarnation}
 *   WELCOME       JSON {next, checkpointed}    the sequence numbers it wants next, and needs never again below
 *   MESSAGE       u64 sequence, u32 CRC-32 of the payload, payload
 *   CHECKPOINTED  u64 sequence below which it needs nothing again
 *   REFUSED       JSON {message}
 */
import { getU64, setU64, viewOf } from "../format/u64.ts";
import { MAX_SDK_MESSAGE_BYTES } from "../model/limits.ts";

export const PROTOCOL = "rl-sdk-1";
export const Frame = { HELLO: 1, WELCOME: 2, MESSAGE: 3, CHECKPOINTED: 4, REFUSED: 5 } as const;

const LENGTH_BYTES = 4;
const MESSAGE_FIELDS_BYTES = 12;
const MAX_FRAME_BYTES = 1 + MESSAGE_FIELDS_BYTES + MAX_SDK_MESSAGE_BYTES;

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

export function jsonFrame(type: number, value: object): Buffer {
  return frame(type, Buffer.from(JSON.stringify(value)));
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

/** The JSON object in a body; undefined where there is none. */
export function readJson(body: Buffer): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(body.toString());
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
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
