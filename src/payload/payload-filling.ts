/** Bytes of one range, put together from records that may overlap: retransmissions, which must agree. */

import type { PayloadRange } from "../model/payload-store.ts";
import { addRange } from "./payload-ranges.ts";

export class Filling {
  readonly bytes: Uint8Array;
  readonly #wanted: PayloadRange;
  readonly #filled: PayloadRange[] = [];

  constructor(wanted: PayloadRange) {
    this.bytes = new Uint8Array(wanted.end - wanted.begin);
    this.#wanted = wanted;
  }

  get whole(): boolean {
    const [first] = this.#filled;
    return first !== undefined && first.begin <= this.#wanted.begin && first.end >= this.#wanted.end;
  }

  /** `part` lies in the range; `source` begins at offset `from`. False where it differs from what is there. */
  take(part: PayloadRange, source: Uint8Array, from: number): boolean {
    const bytes = source.subarray(part.begin - from, part.end - from);
    for (const known of this.#filled) {
      const begin = Math.max(part.begin, known.begin);
      const end = Math.min(part.end, known.end);
      const again = bytes.subarray(begin - part.begin, Math.max(end, begin) - part.begin);
      if (begin < end && Buffer.compare(this.#own(begin, end), again) !== 0) return false;
    }
    this.#own(part.begin, part.end).set(bytes);
    addRange(this.#filled, part);
    return true;
  }

  #own(begin: number, end: number): Uint8Array {
    return this.bytes.subarray(begin - this.#wanted.begin, end - this.#wanted.begin);
  }
}
