/**
 * Output commit (Elnozahy et al. 2002, 2.2): what has been sent inside a line. Of the line where everybody has failed it is what no failure
 * can undo any more, since that of fewer failures is never earlier (docs/semantics.md).
 */

import { type Evidence, SENDER } from "../../model/evidence-layout.ts";
import { FirstLines, LineRanges } from "../evidence/first-lines.ts";

/** By channel: the offset before which everything was sent at or before its sender's position, `keptOf(p)` of process p. */
export function committedOutput(
  evidence: Evidence,
  keptOf: (process: number) => number,
): ReadonlyMap<string, number> {
  const lines = new FirstLines(evidence);
  const ranges = new LineRanges();
  const committed = new Map<string, number>();
  evidence.channels.forEach((name, channel) => {
    const sender = evidence.processAt[2 * channel + SENDER] as number;
    if (sender < 0) return;
    lines.compute(2 * channel + SENDER, null, ranges);
    committed.set(name, keptPrefix(ranges, keptOf(sender)));
  });
  return committed;
}

/** Of ranges in rising offset order. */
function keptPrefix(ranges: LineRanges, kept: number): number {
  let end = 0;
  for (let at = 0; at < ranges.length; at += 1) {
    if (ranges.line.at(at) > kept) return end;
    end = ranges.end.at(at);
  }
  return end;
}
