import type { Evidence } from "../../model/evidence-layout.ts";
import type { DsmModel, InTransitPolicy, WitnessLink } from "../../model/recovery-line.ts";
import type { Histories } from "./verify-histories.ts";

/** What the evidence says about one byte of a channel. Lines are null where it never happened. */
export interface ByteFacts {
  readonly sender: number;
  readonly receiver: number;
  readonly sent: number | null;
  readonly received: number | null;
  /** When the receiver knew it: received it or looked at it. */
  readonly known: number | null;
  /** True unless the in-transit policy is "logged" and no log is sure to hold it. */
  readonly logged: boolean;
}

interface Asked {
  readonly byte: number;
  readonly step: number;
}

interface FirstEvent {
  line: number;
}

/**
 * Answers, for the first byte of each link that names one, when it was sent and received. All links of a channel are answered together:
 * one pass over the channel's rows and a binary search in the bytes asked for.
 */
export class ByteLookup {
  readonly #evidence: Evidence;
  readonly #histories: Histories;
  readonly #transfers: boolean;
  readonly #logged: boolean;
  readonly #facts: (ByteFacts | undefined)[] = [];

  constructor(
    evidence: Evidence,
    histories: Histories,
    rules: { readonly dsm: DsmModel; readonly inTransit: InTransitPolicy },
    links: readonly WitnessLink[],
  ) {
    this.#evidence = evidence;
    this.#histories = histories;
    this.#transfers = rules.dsm === "transfers";
    this.#logged = rules.inTransit === "logged";
    const numbers = new Map(evidence.channels.map((name, channel) => [name, channel]));
    const asked = new Map<number, Asked[]>();
    links.forEach((link, step) => {
      const channel = link.channel === undefined ? undefined : numbers.get(link.channel);
      if (channel === undefined || evidence.outside[channel] !== -1) return;
      if (link.begin === undefined || link.end === undefined) return;
      if (link.begin >= link.end) return;
      const list = asked.get(channel);
      if (list === undefined) asked.set(channel, [{ byte: link.begin, step }]);
      else list.push({ byte: link.begin, step });
    });
    for (const [channel, list] of asked) this.#answer(channel, list);
  }

  /** The facts for the link at this step; undefined where it names no known channel or no byte. */
  at(step: number): ByteFacts | undefined {
    return this.#facts[step];
  }

  #answer(channel: number, asked: Asked[]): void {
    asked.sort((a, b) => a.byte - b.byte);
    const bytes = Float64Array.from(asked, ({ byte }) => byte);
    const invalid = this.#invalidated(channel, bytes);
    const sent = this.#firstEvents(channel * 2, bytes);
    const received = this.#firstEvents(channel * 2 + 1, bytes);
    const looked = this.#firstPeeks(channel, bytes);
    const sender = this.#evidence.processAt[channel * 2] as number;
    const receiver = this.#evidence.processAt[channel * 2 + 1] as number;
    const stable = sender < 0 ? 0 : this.#histories.lastStable(sender);
    const sentCuts = this.#cuts(this.#evidence.cuts, channel * 2);
    const receivedCuts = this.#cuts(this.#evidence.cuts, channel * 2 + 1);
    const seenCuts = this.#cuts(this.#evidence.seen, channel);
    const lines = this.#evidence.segments.line;
    asked.forEach(({ byte, step }, place) => {
      const ignoreCuts = invalid[place] === 1;
      const sentCut = ignoreCuts ? undefined : firstCut(sentCuts, byte);
      const receivedCut = ignoreCuts ? undefined : firstCut(receivedCuts, byte);
      let sentLine = (sent[place] as FirstEvent).line;
      let receivedLine = (received[place] as FirstEvent).line;
      let knownLine = Math.min(receivedLine, looked[place] as number);
      const seenCut = ignoreCuts ? undefined : firstCut(seenCuts, byte);
      if (seenCut !== undefined && knownLine > (lines[seenCut] as number))
        knownLine = this.#histories.cutFrom(seenCut);
      if (sentCut !== undefined) sentLine = Math.min(sentLine, lines[sentCut] as number);
      if (receivedCut !== undefined && receivedLine > (lines[receivedCut] as number))
        receivedLine = this.#histories.cutFrom(receivedCut);
      knownLine = Math.min(knownLine, receivedLine);
      this.#facts[step] = {
        sender,
        receiver,
        sent: Number.isFinite(sentLine) ? sentLine : null,
        received: Number.isFinite(receivedLine) ? receivedLine : null,
        known: Number.isFinite(knownLine) ? knownLine : null,
        logged: !this.#logged || sentLine <= stable,
      };
    });
  }

  /** Per byte: the least line of a row that holds it, infinite = none. */
  #firstEvents(end: number, bytes: Float64Array): FirstEvent[] {
    const rows = this.#evidence.rows;
    const first = Array.from(bytes, () => ({ line: Number.POSITIVE_INFINITY }));
    for (let row = rows.start[end] as number; row < (rows.start[end + 1] as number); row += 1) {
      if (this.#transfers && rows.invalidate[row] === 1) continue;
      const stop = rows.end[row] as number;
      for (let i = atOrAfter(bytes, rows.begin[row] as number); i < bytes.length; i += 1) {
        if ((bytes[i] as number) >= stop) break;
        const found = first[i] as FirstEvent;
        found.line = Math.min(found.line, rows.line[row] as number);
      }
    }
    return first;
  }

  /** Per byte: the least line of a peek that holds it, infinite = none. */
  #firstPeeks(channel: number, bytes: Float64Array): number[] {
    const { start, line, begin, end } = this.#evidence.peeks;
    const first = Array.from(bytes, () => Number.POSITIVE_INFINITY);
    for (let row = start[channel] as number; row < (start[channel + 1] as number); row += 1)
      for (let i = atOrAfter(bytes, begin[row] as number); i < bytes.length; i += 1) {
        if ((bytes[i] as number) >= (end[row] as number)) break;
        first[i] = Math.min(first[i] as number, line[row] as number);
      }
    return first;
  }

  /** 1 for each byte that a page-invalidate of either end names, where those are no messages. */
  #invalidated(channel: number, bytes: Float64Array): Uint8Array {
    const rows = this.#evidence.rows;
    const hit = new Uint8Array(bytes.length);
    if (!this.#transfers) return hit;
    for (
      let row = rows.start[channel * 2] as number;
      row < (rows.start[channel * 2 + 2] as number);
      row += 1
    ) {
      if (rows.invalidate[row] === 0) continue;
      const stop = rows.end[row] as number;
      for (let i = atOrAfter(bytes, rows.begin[row] as number); i < bytes.length; i += 1) {
        if ((bytes[i] as number) >= stop) break;
        hit[i] = 1;
      }
    }
    return hit;
  }

  /** The cuts of a channel end (`seen`: of a channel) that rise above all before them: offsets and segments, both rising. */
  #cuts(rows: Evidence["cuts"], end: number): { offsets: number[]; segments: number[] } {
    const { start, segment, offset } = rows;
    const rising = { offsets: [] as number[], segments: [] as number[] };
    let reach = 0;
    for (let cut = start[end] as number; cut < (start[end + 1] as number); cut += 1) {
      if ((offset[cut] as number) <= reach) continue;
      reach = offset[cut] as number;
      rising.offsets.push(reach);
      rising.segments.push(segment[cut] as number);
    }
    return rising;
  }
}

/** The segment of the first cut above `byte`. */
function firstCut(cuts: { offsets: number[]; segments: number[] }, byte: number): number | undefined {
  return cuts.segments[atOrAfter(cuts.offsets, byte + 1)];
}

/** Index of the first value at or above `bound`, in a rising list. */
function atOrAfter(values: ArrayLike<number>, bound: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if ((values[middle] as number) >= bound) high = middle;
    else low = middle + 1;
  }
  return low;
}
