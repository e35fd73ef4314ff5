/**
 * Message-log entries that no replay can need any more: bytes that were received before the checkpoint from which the receiver restarts
 * at the worst (theory.md: `yr <= RL(all)_j`, taken at the base, since a replay from there needs all that follows it).
 */
import { type Evidence, RECEIVER } from "../../model/evidence-layout.ts";
import type { Matches } from "../evidence/match-ranges.ts";
import { RECEIVED_FROM_CUT } from "../evidence/match-ranges.ts";

/** A maximal range, by channel number. */
export interface PrunableRange {
  readonly channel: number;
  readonly begin: number;
  readonly end: number;
}

/** By channel, then begin. `oldestBase[p]` is the position of a checkpoint of p, or 0. */
export function prunableRanges(
  evidence: Evidence,
  matches: Matches,
  oldestBase: Uint32Array,
): PrunableRange[] {
  const found: PrunableRange[] = [];
  for (let channel = 0; channel < evidence.channels.length; channel += 1) {
    const receiver = evidence.processAt[channel * 2 + RECEIVER] as number;
    if (receiver < 0) continue;
    const base = oldestBase[receiver] as number;
    const toldByCut = cutOffsetAt(evidence, channel * 2 + RECEIVER, base);
    const stop = matches.start[channel + 1] as number;
    for (let match = matches.start[channel] as number; match < stop; match += 1) {
      const begin = matches.begin[match] as number;
      const end = matches.end[match] as number;
      const received = matches.received[match] as number;
      const byEvent = ((matches.flags[match] as number) & RECEIVED_FROM_CUT) === 0;
      const upTo = byEvent && received !== 0 && received <= base ? end : Math.min(end, toldByCut);
      if (upTo > begin) append(found, channel, begin, upTo);
    }
  }
  return found;
}

function append(found: PrunableRange[], channel: number, begin: number, end: number): void {
  const last = found.at(-1);
  if (last?.channel === channel && last.end === begin) found[found.length - 1] = { ...last, end };
  else found.push({ channel, begin, end });
}

/** The greatest offset that a cut at or before `position` names for this channel end. */
function cutOffsetAt({ cuts, segments }: Evidence, channelEnd: number, position: number): number {
  let greatest = 0;
  for (let cut = cuts.start[channelEnd] as number; cut < (cuts.start[channelEnd + 1] as number); cut += 1)
    if ((segments.line[cuts.segment[cut] as number] as number) <= position)
      greatest = Math.max(greatest, cuts.offset[cut] as number);
  return greatest;
}
