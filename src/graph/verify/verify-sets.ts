import type { Evidence } from "../../model/evidence-layout.ts";
import type { DsmModel } from "../../model/recovery-line.ts";
import type { Histories } from "./verify-histories.ts";

/** A set of offsets: begin, end, begin, end, …, rising, disjoint, not touching. */
export type Offsets = readonly number[];

/** The set of these begin/end pairs, in any order. */
export function setOf(pairs: number[]): number[] {
  let sorted = true;
  for (let i = 2; i < pairs.length && sorted; i += 2)
    sorted = (pairs[i] as number) >= (pairs[i - 2] as number);
  const places = sorted ? null : sortedPlaces(pairs);
  const set: number[] = [];
  for (let k = 0; k * 2 < pairs.length; k += 1) {
    const place = places === null ? k * 2 : (places[k] as number);
    const begin = pairs[place] as number;
    const end = pairs[place + 1] as number;
    const last = set.length - 1;
    if (last > 0 && begin <= (set[last] as number)) set[last] = Math.max(set[last] as number, end);
    else if (begin < end) set.push(begin, end);
  }
  return set;
}

function sortedPlaces(pairs: readonly number[]): number[] {
  const places: number[] = [];
  for (let i = 0; i < pairs.length; i += 2) places.push(i);
  return places.sort((a, b) => (pairs[a] as number) - (pairs[b] as number));
}

/** a without b. */
export function subtract(a: Offsets, b: Offsets): number[] {
  const left: number[] = [];
  let j = 0;
  for (let i = 0; i < a.length; i += 2) {
    let begin = a[i] as number;
    const end = a[i + 1] as number;
    while (j < b.length && (b[j + 1] as number) <= begin) j += 2;
    for (let k = j; k < b.length && (b[k] as number) < end; k += 2) {
      if ((b[k] as number) > begin) left.push(begin, b[k] as number);
      begin = Math.max(begin, b[k + 1] as number);
    }
    if (begin < end) left.push(begin, end);
  }
  return left;
}

/** What a process has sent and received at a position, as sets, straight from docs/semantics.md, 4 and 7. */
export class OffsetSets {
  readonly #evidence: Evidence;
  readonly #histories: Histories;
  readonly #skipInvalidates: boolean;

  constructor(evidence: Evidence, histories: Histories, dsm: DsmModel) {
    this.#evidence = evidence;
    this.#histories = histories;
    this.#skipInvalidates = dsm === "transfers";
  }

  sentAt(channel: number, position: number): Offsets {
    const end = channel * 2;
    return setOf([...this.#rows(end, position), ...this.#cuts(channel, end, position)]);
  }

  receivedAt(channel: number, position: number): Offsets {
    const end = channel * 2 + 1;
    return setOf([
      ...this.#rows(end, position),
      ...this.#cuts(channel, end, position),
      ...this.#nextCut(channel, end, position),
    ]);
  }

  /** What the receiver knows: received, or looked at, by the same rules. */
  seenAt(channel: number, position: number): Offsets {
    const received = this.receivedAt(channel, position);
    const { seen } = this.#evidence;
    const looked = this.#peeks(channel, position);
    if (looked.length === 0 && seen.start[channel] === seen.start[channel + 1]) return received;
    const pairs = [...received, ...looked];
    const lines = this.#evidence.segments.line;
    let reach = 0;
    for (let cut = seen.start[channel] as number; cut < (seen.start[channel + 1] as number); cut += 1) {
      const s = seen.segment[cut] as number;
      const line = lines[s] as number;
      if (line <= position) {
        reach = Math.max(reach, seen.offset[cut] as number);
        continue;
      }
      if (this.#histories.cutFrom(s) <= position) {
        const told = setOf([...this.#rows(channel * 2 + 1, line), ...this.#peeks(channel, line)]);
        pairs.push(...subtract(this.#withoutInvalidates(channel, seen.offset[cut] as number), told));
      }
      break;
    }
    pairs.push(...this.#withoutInvalidates(channel, reach));
    return setOf(pairs);
  }

  /** Sent bytes that the sender's message log can replay (docs/semantics.md, 6). */
  logged(channel: number, sender: number): Offsets {
    return this.sentAt(channel, this.#histories.lastStable(sender));
  }

  /** Ranges of the rows up to a position. */
  #rows(end: number, position: number): number[] {
    const rows = this.#evidence.rows;
    const pairs: number[] = [];
    for (let row = rows.start[end] as number; row < (rows.start[end + 1] as number); row += 1) {
      if ((rows.line[row] as number) > position) break;
      if (this.#skipInvalidates && rows.invalidate[row] === 1) continue;
      const begin = rows.begin[row] as number;
      if (begin === pairs[pairs.length - 1]) pairs[pairs.length - 1] = rows.end[row] as number;
      else pairs.push(begin, rows.end[row] as number);
    }
    return pairs;
  }

  /** What was looked at up to a position. */
  #peeks(channel: number, position: number): number[] {
    const { start, line, begin, end } = this.#evidence.peeks;
    const pairs: number[] = [];
    for (let row = start[channel] as number; row < (start[channel + 1] as number); row += 1)
      if ((line[row] as number) <= position) pairs.push(begin[row] as number, end[row] as number);
    return pairs;
  }

  /** [0, offset) of the greatest cut up to a position. */
  #cuts(channel: number, end: number, position: number): number[] {
    const { start, segment, offset } = this.#evidence.cuts;
    let reach = 0;
    for (let cut = start[end] as number; cut < (start[end + 1] as number); cut += 1) {
      if ((this.#evidence.segments.line[segment[cut] as number] as number) > position) break;
      reach = Math.max(reach, offset[cut] as number);
    }
    return this.#withoutInvalidates(channel, reach);
  }

  /** What the first cut after a position says was received, no event before it names, and may thus have come already. */
  #nextCut(channel: number, end: number, position: number): number[] {
    const { start, segment, offset } = this.#evidence.cuts;
    const lines = this.#evidence.segments.line;
    for (let cut = start[end] as number; cut < (start[end + 1] as number); cut += 1) {
      const s = segment[cut] as number;
      const line = lines[s] as number;
      if (line <= position) continue;
      if (this.#histories.cutFrom(s) > position) return [];
      const named = setOf(this.#rows(end, line));
      return subtract(this.#withoutInvalidates(channel, offset[cut] as number), named);
    }
    return [];
  }

  #withoutInvalidates(channel: number, reach: number): number[] {
    if (reach === 0) return [];
    return subtract([0, reach], this.#invalidates(channel));
  }

  /** What page-invalidates of either end name, where those are no messages. */
  #invalidates(channel: number): Offsets {
    if (!this.#skipInvalidates) return [];
    const rows = this.#evidence.rows;
    const pairs: number[] = [];
    for (let row = rows.start[channel * 2] as number; row < (rows.start[channel * 2 + 2] as number); row += 1)
      if (rows.invalidate[row] === 1) pairs.push(rows.begin[row] as number, rows.end[row] as number);
    return setOf(pairs);
  }
}
