/** Blocks as frames (protocol.ts): written no faster than the reader takes them, read no larger than a block may be. */
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { RecoveryLineError } from "../model/errors.ts";
import { BLOCK_READER_LIMIT_MS, MAX_EVENT_BLOCK_BYTES } from "../model/limits.ts";
import { ERROR_TRAILER, errorFromWire, FRAME_HEADER_BYTES, type WireError, wireError } from "./protocol.ts";

/** A block's frame holds a little more than its events. */
const MAX_FRAME_BYTES = MAX_EVENT_BLOCK_BYTES + (1 << 20);
/** Small frames go together: one by one each would cost a system call. */
const BATCH_BYTES = 1 << 16;

/**
 * Sends the blocks. Throws what the first block throws; a later failure goes into the trailer. A reader
 * that leaves ends it quietly; one that takes nothing for `limitMs` is cut off, and learns of that when it reads on.
 */
export async function sendBlocks(
  response: ServerResponse,
  blocks: AsyncIterable<Uint8Array>,
  limitMs = BLOCK_READER_LIMIT_MS,
): Promise<void> {
  const iterator = blocks[Symbol.asyncIterator]();
  let next = await iterator.next();
  response.writeHead(200, { "content-type": "application/octet-stream", trailer: ERROR_TRAILER });
  let batch: Uint8Array[] = [];
  let bytes = 0;
  try {
    for (; !next.done; next = await iterator.next()) {
      batch.push(header(next.value.length), next.value);
      bytes += FRAME_HEADER_BYTES + next.value.length;
      if (bytes < BATCH_BYTES) continue;
      if (!(await writeWhole(response, batch, limitMs))) {
        await iterator.return?.();
        return;
      }
      batch = [];
      bytes = 0;
    }
    response.end(Buffer.concat([...batch, header(0)]));
  } catch (error) {
    response.addTrailers({ [ERROR_TRAILER]: encodeURIComponent(JSON.stringify(wireError(error))) });
    response.end(Buffer.concat(batch));
  }
}

/** False: nobody reads any more. */
async function writeWhole(
  response: ServerResponse,
  frames: readonly Uint8Array[],
  limitMs: number,
): Promise<boolean> {
  if (!response.write(Buffer.concat(frames)) && !response.destroyed) {
    const gone = new AbortController();
    const close = once(response, "close", { signal: gone.signal });
    const timer = setTimeout(() => response.destroy(), limitMs);
    await Promise.race([once(response, "drain", { signal: gone.signal }), close]).finally(() => {
      clearTimeout(timer);
      gone.abort();
    });
  }
  return !response.destroyed;
}

function header(length: number): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
  bytes.writeUInt32LE(length);
  return bytes;
}

/** The blocks of an answer. Throws what the collector said went wrong, or RL_NO_COLLECTOR where the stream is cut off. */
export async function* receiveBlocks(response: IncomingMessage): AsyncGenerator<Uint8Array> {
  const reader = new FrameReader();
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      for (const block of reader.push(chunk)) yield block;
    }
  } catch (error) {
    if (error instanceof RecoveryLineError) throw error;
    throw truncated(error);
  }
  const told = response.trailers[ERROR_TRAILER];
  if (told !== undefined) throw errorFromWire(JSON.parse(decodeURIComponent(told)) as WireError);
  if (!reader.ended) throw truncated(undefined);
}

function truncated(cause: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_NO_COLLECTOR",
    `the collector's log was cut off in the middle: it went away, or nothing was read for ${BLOCK_READER_LIMIT_MS / 1000} s`,
    "Try again: without a collector the log is read from disk. For a pager write it to a file first (export --to FILE).",
    cause,
  );
}

/** Puts frames together; holds at most one frame and one chunk. */
class FrameReader {
  ended = false;
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** Bytes of the frame that is awaited; of its header while that is unknown. */
  #wanted = FRAME_HEADER_BYTES;
  #inHeader = true;

  *push(chunk: Buffer): Generator<Uint8Array> {
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    while (this.#heldBytes >= this.#wanted && !this.ended) {
      const bytes = this.#take(this.#wanted);
      if (this.#inHeader) this.#begin(bytes.readUInt32LE());
      else {
        this.#inHeader = true;
        this.#wanted = FRAME_HEADER_BYTES;
        yield new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
      }
    }
  }

  #begin(length: number): void {
    if (length > MAX_FRAME_BYTES)
      throw new RecoveryLineError("RL_BAD_BLOCK", `the collector sent a block of ${length} bytes`);
    this.ended = length === 0;
    this.#inHeader = false;
    this.#wanted = length;
  }

  #take(count: number): Buffer {
    const all = this.#held.length === 1 ? this.#held[0]! : Buffer.concat(this.#held);
    this.#held = all.length > count ? [all.subarray(count)] : [];
    this.#heldBytes = all.length - count;
    return Buffer.from(all.subarray(0, count)); // its own memory: a block's views want alignment, and chunks are reused
  }
}
