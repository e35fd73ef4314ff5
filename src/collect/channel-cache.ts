/**
 * (family, sender, receiver) → channel of the columns being filled, without an object a record.
 *
 * Open addressing in typed arrays. It is only a cache: names can always be derived again, so that a full table is
 * simply emptied and memory stays bounded however many connections a process makes.
 */

import { channelName } from "../model/channel-names.ts";
import { CHANNEL_CACHE_ENTRIES } from "../model/limits.ts";

const FREE = 0;
const TCP = 1;
const UNIX = 2;
const FIRST_SLOTS = 64;
const SLOT_BYTES = 33;
const NAME_BYTES = 48;

export class ChannelCache {
  readonly #bootId: string;
  readonly #limit: number;
  #family = new Uint8Array(FIRST_SLOTS);
  #sender = new Float64Array(FIRST_SLOTS);
  #receiver = new Float64Array(FIRST_SLOTS);
  /** Which columns `index` belongs to. */
  #epoch = new Uint32Array(FIRST_SLOTS);
  #index = new Uint32Array(FIRST_SLOTS);
  #names: string[] = new Array<string>(FIRST_SLOTS).fill("");
  #count = 0;
  #now = 1;

  constructor(bootId: string, limit: number = CHANNEL_CACHE_ENTRIES) {
    this.#bootId = bootId;
    this.#limit = limit;
  }

  /** Memory, about: a slot and, where it is taken, its name. */
  get bytes(): number {
    return this.#family.length * SLOT_BYTES + this.#count * NAME_BYTES;
  }

  /** New columns begin: every index is unknown again, names stay. */
  nextColumns(): void {
    this.#now += 1;
  }

  /** Index of the channel in the columns being filled; `add` makes one from the name the first time. */
  index(unix: boolean, sender: number, receiver: number, add: (name: string) => number): number {
    const slot = this.#find(unix ? UNIX : TCP, sender, receiver);
    if (this.#epoch[slot] === this.#now) return this.#index[slot]!;
    const index = add(this.#names[slot]!);
    this.#epoch[slot] = this.#now;
    this.#index[slot] = index;
    return index;
  }

  #find(family: number, sender: number, receiver: number): number {
    const slot = this.#probe(family, sender, receiver);
    if (this.#family[slot] !== FREE) return slot;
    return this.#insert(family, sender, receiver);
  }

  /** The slot that holds the key, or the free one where it belongs. */
  #probe(family: number, sender: number, receiver: number): number {
    const mask = this.#family.length - 1;
    let hash = Math.imul(sender, 0x9e3779b1) ^ Math.imul(receiver, 0x85ebca6b) ^ family;
    hash ^= hash >>> 15;
    let slot = hash & mask;
    while (this.#family[slot] !== FREE) {
      if (
        this.#sender[slot] === sender &&
        this.#receiver[slot] === receiver &&
        this.#family[slot] === family
      ) {
        return slot;
      }
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #insert(family: number, sender: number, receiver: number): number {
    if (this.#count >= this.#limit) this.#resize(FIRST_SLOTS, false);
    else if (this.#count * 2 >= this.#family.length) this.#resize(this.#family.length * 2, true);
    const slot = this.#probe(family, sender, receiver);
    this.#family[slot] = family;
    this.#sender[slot] = sender;
    this.#receiver[slot] = receiver;
    this.#epoch[slot] = 0;
    this.#names[slot] = channelName(family === UNIX, this.#bootId, sender, receiver);
    this.#count += 1;
    return slot;
  }

  #resize(slots: number, keep: boolean): void {
    const family = this.#family;
    const sender = this.#sender;
    const receiver = this.#receiver;
    const epoch = this.#epoch;
    const index = this.#index;
    const names = this.#names;
    this.#family = new Uint8Array(slots);
    this.#sender = new Float64Array(slots);
    this.#receiver = new Float64Array(slots);
    this.#epoch = new Uint32Array(slots);
    this.#index = new Uint32Array(slots);
    this.#names = new Array<string>(slots).fill("");
    if (!keep) this.#count = 0;
    for (let from = 0; keep && from < family.length; from += 1) {
      if (family[from] === FREE) continue;
      const to = this.#probe(family[from]!, sender[from]!, receiver[from]!);
      this.#family[to] = family[from]!;
      this.#sender[to] = sender[from]!;
      this.#receiver[to] = receiver[from]!;
      this.#epoch[to] = epoch[from]!;
      this.#index[to] = index[from]!;
      this.#names[to] = names[from]!;
    }
  }
}
