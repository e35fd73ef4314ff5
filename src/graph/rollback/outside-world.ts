/**
 * What a line undoes of the outside world (Elnozahy et al. 2002, 2.2), which never goes back: inputs that are lost and outputs that can't be
 * unsaid. They change no line. Ranges are told by the same lines as those of inside channels (first-lines.ts); what was only looked at is
 * still there.
 */

import { type Evidence, RECEIVER, SENDER } from "../../model/evidence-layout.ts";
import type { DsmModel, OutsideRange } from "../../model/recovery-line.ts";
import { FirstLines, LineRanges } from "../evidence/first-lines.ts";
import { Float64List, Uint32List } from "../evidence/growable.ts";
import { ignoredRanges } from "../evidence/match-ranges.ts";

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

/** An input or output as it stands in its process's history. */
export interface Exchange {
  readonly channel: number;
  readonly side: number;
  readonly line: number;
  readonly begin: number;
  readonly end: number;
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

  /** Nothing was exchanged with it. */
  get isEmpty(): boolean {
    return this.#inputs.line.length + this.#outputs.line.length === 0;
  }

  /** By channel then begin; inputs first. */
  *all(): Generator<Exchange> {
    for (const [side, { channel, line, begin, end }] of [
      [RECEIVER, this.#inputs],
      [SENDER, this.#outputs],
    ] as const)
      for (let at = 0; at < line.length; at += 1)
        yield {
          side,
          channel: channel.at(at),
          line: line.at(at),
          begin: begin.at(at),
          end: end.at(at),
        };
  }

  /** What is behind the positions, `keptOf(p)` of process p. */
  lossesAt(keptOf: (process: number) => number): OutsideLosses {
    return {
      lostInputs: this.#undone(this.#inputs, keptOf),
      unsayable: this.#undone(this.#outputs, keptOf),
    };
  }

  #undone(all: Exchanges, keptOf: (process: number) => number): OutsideRange[] {
    const { outside, channels, processes } = this.#evidence;
    const found: OutsideRange[] = [];
    for (let at = 0; at < all.line.length; at += 1) {
      const number = all.channel.at(at);
      const process = outside[number] as number;
      if (all.line.at(at) <= keptOf(process)) continue;
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
