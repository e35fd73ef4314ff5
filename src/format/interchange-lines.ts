/** Bytes → text lines, in bounded memory, with the line numbers that messages need. */
import { isUtf8 } from "node:buffer";
import { MAX_LINE_BYTES } from "../model/limits.ts";
import { badInput } from "./interchange-error.ts";

const NEWLINE = 10;
const BYTE_ORDER_MARK = "\ufeff";
const NOTHING = Buffer.alloc(0);

/**
 * Takes chunks of any size and hands out whole lines. Call `end` after the last chunk: a last line needs no newline.
 * Throws RL_BAD_INPUT for a line over MAX_LINE_BYTES, for bytes that are not UTF-8 and for a byte order mark.
 */
export class LineSplitter {
  readonly #file: string;
  /** Bytes of the line that no newline has ended yet. */
  #rest: Buffer[] = [];
  #restBytes = 0;
  #handedOut = 0;

  constructor(file: string) {
    this.#file = file;
  }

  /** Lines handed out so far: the next one has this number plus 1. */
  get handedOut(): number {
    return this.#handedOut;
  }

  /** The lines that this chunk completes, without their newlines. */
  push(chunk: Uint8Array): string[] {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const last = bytes.lastIndexOf(NEWLINE);
    if (last < 0) {
      this.#keep(bytes);
      return [];
    }
    const lines = this.#decode(this.#withRest(bytes.subarray(0, last)));
    this.#keep(bytes.subarray(last + 1));
    return lines;
  }

  /** The last line, if no newline ended it. */
  end(): string[] {
    return this.#restBytes === 0 ? [] : this.#decode(this.#withRest(NOTHING));
  }

  #keep(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#rest.push(Buffer.from(bytes)); // a copy: the reader may use its chunk again
    this.#restBytes += bytes.length;
    if (this.#restBytes > MAX_LINE_BYTES) throw this.#wrong(0, `is longer than ${MAX_LINE_BYTES} bytes`);
  }

  #withRest(bytes: Buffer): Buffer {
    if (this.#restBytes === 0) return bytes;
    const whole = Buffer.concat([...this.#rest, bytes], this.#restBytes + bytes.length);
    this.#rest = [];
    this.#restBytes = 0;
    return whole;
  }

  #decode(bytes: Buffer): string[] {
    if (!isUtf8(bytes)) this.#refuseBytes(bytes);
    const lines = bytes.toString("utf8").split("\n");
    if (bytes.length > MAX_LINE_BYTES) this.#refuseLong(lines);
    if (this.#handedOut === 0 && lines[0]?.startsWith(BYTE_ORDER_MARK))
      throw this.#wrong(0, "starts with a byte order mark; an events file is plain UTF-8 without one");
    this.#handedOut += lines.length;
    return lines;
  }

  #refuseBytes(bytes: Buffer): never {
    let index = 0;
    for (let from = 0; from <= bytes.length; index += 1) {
      const newline = bytes.indexOf(NEWLINE, from);
      const to = newline < 0 ? bytes.length : newline;
      if (!isUtf8(bytes.subarray(from, to))) break;
      from = to + 1;
    }
    throw this.#wrong(index, "is not UTF-8");
  }

  #refuseLong(lines: readonly string[]): void {
    const index = lines.findIndex((line) => Buffer.byteLength(line) > MAX_LINE_BYTES);
    if (index >= 0) throw this.#wrong(index, `is longer than ${MAX_LINE_BYTES} bytes`);
  }

  #wrong(index: number, what: string): Error {
    return badInput({ file: this.#file, line: this.#handedOut + index + 1 }, undefined, what);
  }
}
