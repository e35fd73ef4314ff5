/** Do the ranges of each channel and direction lie one behind the other, from 0 on, without hole or overlap? */
import { isUnit } from "../../src/log/complete-cut.ts";
import type { Event } from "../../src/model/event.ts";

export interface Tiling {
  /** Channel and direction → bytes covered from 0 on. */
  readonly covered: Map<string, number>;
  /** What breaks it, one line each. */
  readonly faults: string[];
}

/** Bytes only: openings and endings are channels of their own. Ranges of a direction stand in order. */
export function tile(events: Iterable<Event>): Tiling {
  const covered = new Map<string, number>();
  const faults: string[] = [];
  for (const event of events) {
    if (event.type === "gap") faults.push(`gap of ${event.process}, lost ${event.lost ?? "?"}`);
    if ((event.type !== "send" && event.type !== "receive") || isUnit(event.channel)) continue;
    const key = `${event.type} ${event.channel}`;
    const expected = covered.get(key) ?? 0;
    if (event.begin !== expected) faults.push(`${key}: ${event.begin}-${event.end} after ${expected}`);
    covered.set(key, event.end);
  }
  return { covered, faults };
}
