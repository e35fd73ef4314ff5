/**
 * When to look into memory rings next. They say nothing while they fill up to half (a runtime calls only then: `ring_wants_reader`), and
 * every look costs as much as a few hundred records; so they are looked at as seldom as what was in them allows.
 */
import { MIN_POLL_MS, RING_LOOK_MS } from "../model/limits.ts";

/** A ring should not be fuller than this when it is looked at: the call at half full is for bursts. */
const WANTED_FILL = 0.25;

/** `fill`: what the fullest ring had gathered in the `sinceMs` since the last look, as a share of it. Returns ms until the next look. */
export function nextLookMs(fill: number, sinceMs: number): number {
  if (fill <= 0) return RING_LOOK_MS;
  const wanted = (Math.max(sinceMs, MIN_POLL_MS) * WANTED_FILL) / fill;
  return Math.min(Math.max(wanted, MIN_POLL_MS), RING_LOOK_MS);
}
