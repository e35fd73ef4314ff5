/**
 * Bytes sent or received twice in one effective history, and channels with two senders or two receivers
 * (docs/semantics.md, 10). TCP ranges tile their stream, so a channel's set stays one range long.
 */
import { EVENT_KIND, type EventColumns, isRangeKind } from "../format/event-columns.ts";
import { firstWhere } from "../model/search.ts";
import type { Rollbacks } from "./verify-chain.ts";

export interface Overlap {
  readonly process: string;
  readonly channel: string;
  readonly direction: "send" | "receive";
  readonly begin: number;
  readonly end: number;
  /** The other process, if the bytes are not doubled by one but the channel has two ends of this kind. */
  readonly other?: string;
}

/** Sorted, disjoint, not touching: begins and ends. */
class Covered {
  readonly owner: string;
  readonly #begins: number[] = [];
  readonly #ends: number[] = [];

  constructor(owner: string) {
    this.owner = owner;
  }

  /** Adds [begin, end) and returns the part of it that was there already, as one range. */
  add(begin: number, end: number): readonly [number, number] | undefined {
    const last = this.#ends.length - 1;
    if (last < 0 || begin > this.#ends[last]!) {
      this.#begins.push(begin);
      this.#ends.push(end);
      return undefined;
    }
    if (begin === this.#ends[last]) {
      this.#ends[last] = end;
      return undefined;
    }
    return this.#insert(begin, end);
  }

  #insert(begin: number, end: number): readonly [number, number] | undefined {
    const first = firstAtLeast(this.#ends, begin);
    let beyond = first;
    while (beyond < this.#begins.length && this.#begins[beyond]! <= end) beyond += 1;
    let doubled: [number, number] | undefined;
    let [from, to] = [begin, end];
    for (let n = first; n < beyond; n += 1) {
      const common: [number, number] = [Math.max(begin, this.#begins[n]!), Math.min(end, this.#ends[n]!)];
      if (common[0] < common[1]) doubled = doubled === undefined ? common : [doubled[0], common[1]];
      from = Math.min(from, this.#begins[n]!);
      to = Math.max(to, this.#ends[n]!);
    }
    this.#begins.splice(first, beyond - first, from);
    this.#ends.splice(first, beyond - first, to);
    return doubled;
  }
}

/** Index of the first element ≥ `value` in a rising list. */
function firstAtLeast(list: readonly number[], value: number): number {
  return firstWhere(0, list.length, (at) => list[at]! >= value);
}

export class OverlapFinder {
  readonly #covered = new Map<string, Covered>();
  /** By process: rising sequences, and for each the least position kept by it or any later rollback. */
  readonly #limits = new Map<string, { sequences: number[]; kept: number[] }>();

  constructor(rollbacks: Rollbacks) {
    for (const [process, list] of rollbacks) {
      const kept = list.map(([, position]) => position);
      for (let n = kept.length - 2; n >= 0; n -= 1) kept[n] = Math.min(kept[n]!, kept[n + 1]!);
      this.#limits.set(process, { sequences: list.map(([sequence]) => sequence), kept });
    }
  }

  /** Adds a block's rows that no rollback undoes, in chain order. */
  *add(columns: EventColumns, sequence: number, position: number): Generator<Overlap> {
    const limit = this.#lastKept(columns.process, sequence);
    for (let row = 0; row < columns.count && position + row + 1 <= limit; row += 1) {
      const [begin, end] = [columns.begin[row]!, columns.end[row]!];
      const kind = columns.kind[row]!;
      // What was looked at is received later, and may be looked at again.
      if (!isRangeKind(kind) || kind === EVENT_KIND.peek || begin === end) continue;
      const direction = directionOf(columns, row);
      const channel = columns.channels[columns.channel[row]!]!;
      yield* this.#addRange(columns.process, channel, direction, begin, end);
    }
  }

  #lastKept(process: string, sequence: number): number {
    const limits = this.#limits.get(process);
    return limits?.kept[firstAtLeast(limits.sequences, sequence)] ?? Number.POSITIVE_INFINITY;
  }

  *#addRange(
    process: string,
    channel: string,
    direction: Overlap["direction"],
    begin: number,
    end: number,
  ): Generator<Overlap> {
    const key = `${direction} ${channel}`;
    let covered = this.#covered.get(key);
    if (covered === undefined) {
      covered = new Covered(process);
      this.#covered.set(key, covered);
    }
    const doubled = covered.add(begin, end);
    if (covered.owner !== process) yield { process, channel, direction, begin, end, other: covered.owner };
    else if (doubled !== undefined) yield { process, channel, direction, begin: doubled[0], end: doubled[1] };
  }
}

function directionOf(columns: EventColumns, row: number): Overlap["direction"] {
  if (columns.kind[row] === EVENT_KIND.receive) return "receive";
  const event = columns.extras.get(row);
  return event !== undefined && "role" in event && event.role === "destination" ? "receive" : "send";
}
