import { type Evidence, RECEIVER, SENDER } from "../../model/evidence-layout.ts";
import type { InTransitRange } from "../../model/recovery-line.ts";
import type { Matches } from "../evidence/match-ranges.ts";

/**
 * Maximal ranges sent inside a line and not received inside it, by channel then begin. `kept[p]` is the position of process p.
 * One pass over the matches.
 */
export function inTransitRanges(evidence: Evidence, matches: Matches, kept: Uint32Array): InTransitRange[] {
  const found: InTransitRange[] = [];
  for (let channel = 0; channel < evidence.channels.length; channel += 1) {
    const sender = evidence.processAt[channel * 2 + SENDER] as number;
    if (sender < 0) continue;
    const receiver = evidence.processAt[channel * 2 + RECEIVER] as number;
    const keptSent = kept[sender] as number;
    const keptReceived = receiver < 0 ? 0 : (kept[receiver] as number);
    const ends = {
      channel: evidence.channels[channel] as string,
      from: evidence.processes[sender] as string,
      to: receiver < 0 ? null : (evidence.processes[receiver] as string),
    };
    let begin = -1;
    let end = -1;
    const stop = matches.start[channel + 1] as number;
    for (let match = matches.start[channel] as number; match < stop; match += 1) {
      const sent = matches.sent[match] as number;
      const received = matches.received[match] as number;
      if (sent === 0 || sent > keptSent || (received !== 0 && received <= keptReceived)) continue;
      if (matches.begin[match] !== end) {
        if (begin >= 0) found.push({ ...ends, begin, end });
        begin = matches.begin[match] as number;
      }
      end = matches.end[match] as number;
    }
    if (begin >= 0) found.push({ ...ends, begin, end });
  }
  return found;
}
