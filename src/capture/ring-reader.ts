/** Batch reader over one native ring handle: no allocation a batch, errors typed. */

import { SLOT_BYTES } from "../format/ring-layout.ts";
import { assert } from "../model/assert.ts";
import type { DrainResult } from "../model/event-source.ts";
import { call, type NativeAddon, type NativeHandle, type NativeState } from "../native/binding.ts";

export class RingReader {
  readonly #native: NativeAddon;
  readonly #handle: NativeHandle;
  readonly #status = new Float64Array(3);
  readonly #result: DrainResult = { records: 0, position: 0, foreign: 0 };

  constructor(native: NativeAddon, handle: NativeHandle) {
    this.#native = native;
    this.#handle = handle;
  }

  /** Reads ahead into `buffer`, 64 bytes a record. Throws RL_BAD_RECORD; the reader then stays where it was. */
  drain(buffer: Uint8Array): DrainResult {
    const result = this.#result;
    try {
      result.records = this.#native.drain(this.#handle, buffer, this.#status);
    } catch (error) {
      call("drain", () => {
        throw error;
      });
    }
    assert(result.records * SLOT_BYTES <= buffer.length, "no more records than their memory holds");
    result.position = this.#status[0]!;
    result.foreign = this.#status[1]!;
    return result;
  }

  /** Lets everything before `position` go. */
  commit(position: number): void {
    call("commit of the ring position", () => this.#native.commit(this.#handle, position));
  }

  /** Goes back to the last committed position. */
  rewind(): void {
    this.#native.rewind(this.#handle);
  }

  state(): NativeState {
    return this.#native.state(this.#handle);
  }

  /** Bytes held by the ring, read or not. */
  fillBytes(): number {
    return this.#native.fill(this.#handle);
  }

  /** Calls back when the kernel woke the ring's readers. Once a handle; it never keeps the process alive. */
  onWake(callback: () => void): void {
    call("wake-up", () => this.#native.onWake(this.#handle, callback));
  }
}
