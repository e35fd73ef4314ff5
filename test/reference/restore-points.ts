/**
 * Restore points, position by position, as docs/semantics.md, 3 words them.
 * Position n = the state after the first n lines of an effective history; line n is `history[n - 1]`.
 */
import type { CheckpointEvent } from "../../src/model/event.ts";
import type { History } from "./history.ts";

/** A gap among the first n lines that no later checkpoint with a cut among them has healed. */
function unhealedGap(history: History, n: number): boolean {
  let open = false;
  for (let line = 1; line <= n; line++) {
    const event = history[line - 1]!;
    if (event.type === "gap") open = true;
    else if (event.type === "checkpoint" && event.cut !== undefined) open = false;
  }
  return open;
}

/** The usable checkpoint that ends exactly at position n. */
export function usableCheckpoint(history: History, n: number): CheckpointEvent | undefined {
  const event = n === 0 ? undefined : history[n - 1];
  return event?.type === "checkpoint" && event.usable ? event : undefined;
}

/** Position of the latest usable and restorable checkpoint at or before n; 0 = initial state. */
export function basePosition(history: History, n: number): number {
  for (let m = n; m > 0; m--) if (usableCheckpoint(history, m) && !unhealedGap(history, m)) return m;
  return 0;
}

/** Position of the last `stable` line, 0 if there is none. */
export function lastStable(history: History): number {
  for (let n = history.length; n > 0; n--) if (history[n - 1]!.type === "stable") return n;
  return 0;
}

/** True if a gap line lies in (after, to]. */
function gapBetween(history: History, after: number, to: number): boolean {
  for (let line = after + 1; line <= to; line++) if (history[line - 1]!.type === "gap") return true;
  return false;
}

/** Restorable after the process died: the initial state, a checkpoint, or a base with a complete message log. */
function isRestorable(history: History, n: number): boolean {
  if (n === 0) return true;
  if (usableCheckpoint(history, n) && !unhealedGap(history, n)) return true;
  return n <= lastStable(history) && !gapBetween(history, basePosition(history, n), n);
}

/** The volatile end of a process that lives on. */
export function isVolatileEnd(history: History, n: number): boolean {
  return n === history.length && !unhealedGap(history, n);
}

function isRestorePoint(history: History, n: number, failed: boolean): boolean {
  return isRestorable(history, n) || (!failed && isVolatileEnd(history, n));
}

/** All restore points, rising. */
export function restorePoints(history: History, failed: boolean): number[] {
  const points: number[] = [];
  for (let n = 0; n <= history.length; n++) if (isRestorePoint(history, n, failed)) points.push(n);
  return points;
}
