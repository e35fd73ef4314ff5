/** Sets of byte offsets as sorted, disjoint, maximal half-open ranges. */
import type { PayloadRange } from "../model/payload-store.ts";

/** Adds in place. Most ranges follow the last one. */
export function addRange(ranges: PayloadRange[], { begin, end }: PayloadRange): void {
  if (begin >= end) return;
  let from = ranges.length;
  while (from > 0 && (ranges[from - 1] as PayloadRange).end >= begin) from -= 1;
  let to = from;
  while (to < ranges.length && (ranges[to] as PayloadRange).begin <= end) to += 1;
  const first = ranges[from];
  const last = ranges[to - 1];
  const joined =
    to === from ? { begin, end } : { begin: Math.min(begin, first!.begin), end: Math.max(end, last!.end) };
  ranges.splice(from, to - from, joined);
}

export function subtractRange(ranges: readonly PayloadRange[], { begin, end }: PayloadRange): PayloadRange[] {
  return ranges.flatMap((range) =>
    range.end <= begin || range.begin >= end
      ? [range]
      : [
          { begin: range.begin, end: Math.min(range.end, begin) },
          { begin: Math.max(range.begin, end), end: range.end },
        ].filter((part) => part.begin < part.end),
  );
}
