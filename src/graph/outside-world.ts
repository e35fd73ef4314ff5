/**
 * What a line undoes of the outside world (Elnozahy et al. 2002, 2.2), which never goes back: inputs that are lost and outputs that can't be
 * unsaid. They change no line. Ranges are told by the same lines as those of inside channels (first-lines.ts); what was only looked at is
 * still there.
 */
import type { DsmModel, OutsideRange } from "../model/recovery-line.ts";
import { type Evidence, RECEIVER, SENDER } from "./evidence-layout.ts";
import { FirstLines, LineRanges } from "./first-lines.ts";
import { Float64List, Uint32List } from "./growable.ts";
import { ignoredRanges } from "./match-ranges.ts";

export interface OutsideLosses {
  readonly lostInputs: OutsideRange[];
  readonly unsayable: OutsideRange[];
}

/** Ranges of outside channels, by channel then begin, and the line of its process at which each was sent or received. */
class Exchanges {
  readonly channel = new Uint32List();
  readonly line = new Uint32List();
  readonly begin = new Float64List();
  readonly end = new Float64List();
}

/** All inputs and outputs of an evidence: built once, asked for many lines. */
export class OutsideWorld {
  readonly #evidence: Evidence;
  readonly #inputs: Exchanges;
  readonly #outputs: Exchanges;

  constructor(evidence: Evidence, dsm: DsmModel) {
    this.#evidence = evidence;
    this.#inputs = exchanges(evidence, dsm, RECEIVER);
    this.#outputs = exchanges(evidence, dsm, SENDER);
  }

  /** What is behind the positions, `kept[p]` of process p. */
  lossesAt(kept: ArrayLike<number>): OutsideLosses {
    return { lostInputs: this.#undone(this.#inputs, kept), unsayable: this.#undone(this.#outputs, kept) };
  }

  #undone(all: Exchanges, kept: ArrayLike<number>): OutsideRange[] {
    const { outside, channels, processes } = this.#evidence;
    const found: OutsideRange[] = [];
    for (let at = 0; at < all.line.length; at += 1) {
      const number = all.channel.at(at);
      const process = outside[number] as number;
      if (all.line.at(at) <= (kept[process] as number)) continue;
      const [channel, begin, end] = [channels[number] as string, all.begin.at(at), all.end.at(at)];
      const last = found.at(-1);
      if (last !== undefined && last.channel === channel && last.end === begin)
        found[found.length - 1] = { ...last, end };
      else found.push({ channel, process: processes[process] as string, begin, end });
    }
    return found;
  }
}

function exchanges(evidence: Evidence, dsm: DsmModel, side: number): Exchanges {
  const lines = new FirstLines(evidence);
  const ranges = new LineRanges();
  const found = new Exchanges();
  evidence.outside.forEach((process, channel) => {
    if (process === -1) return;
    lines.compute(channel * 2 + side, ignoredRanges(evidence, channel, dsm), ranges);
    for (let range = 0; range < ranges.length; range += 1) {
      found.channel.push(channel);
      found.line.push(ranges.line.at(range));
      found.begin.push(ranges.begin.at(range));
      found.end.push(ranges.end.at(range));
    }
  });
  return found;
}
