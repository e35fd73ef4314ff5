/**
 * How much of a log its operator wants to keep. It says what is *wanted* gone; what is *safe* to remove is decided without it, and without
 * any clock (plan-prune.ts).
 */
import { stat } from "node:fs/promises";
import type { SegmentFacts } from "../format/log-anchor.ts";
import { segmentPath } from "./log-paths.ts";

/** At least one of the two. */
export interface Keep {
  /** Blocks beyond so many bytes go, the oldest first. */
  readonly bytes?: number;
  /** Segments that were sealed so many hours ago go. */
  readonly hours?: number;
}

const HOUR_MS = 3_600_000;

/** Segments are sealed by size; where hours are kept also at this age, ms: else a log that grows slowly would keep far more. */
export function sealAfterMs(hours: number): number {
  return (Math.max(hours, 1) * HOUR_MS) / 4;
}

/**
 * Number of the first block that is to be kept: a segment's first. 0 = all of the log is to be kept. The open segment always is.
 * `sealedMs(n)`: when segment n was sealed, ms of the epoch. `segments` oldest first, the last one open, with `openBytes` in it.
 */
export function keptFrom(
  segments: readonly SegmentFacts[],
  openBytes: number,
  keep: Keep,
  sealedMs: (index: number) => number,
  nowMs: number,
): number {
  let bytes = segments.reduce((sum, segment) => sum + segment.bytes, openBytes);
  let from = 0;
  for (let index = 0; index < segments.length - 1; index += 1) {
    const tooMuch = keep.bytes !== undefined && bytes > keep.bytes;
    const tooOld = keep.hours !== undefined && nowMs - sealedMs(index) > keep.hours * HOUR_MS;
    if (!tooMuch && !tooOld) break;
    bytes -= segments[index]!.bytes;
    from = segments[index + 1]!.firstChain;
  }
  return from;
}

/**
 * When each segment was sealed: its successor's folder was made then, which a file system remembers as its birth (a copy is born when it is
 * copied, so it keeps more). In order of `segments`, without the open one.
 */
export async function sealTimes(dir: string, segments: readonly SegmentFacts[]): Promise<number[]> {
  return Promise.all(
    segments.slice(1).map(async ({ number }) => (await stat(segmentPath(dir, number))).birthtimeMs),
  );
}
