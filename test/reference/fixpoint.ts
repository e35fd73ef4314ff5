/**
 * Channel-count fixpoint (theory.md): while some cell is received but not sent, lower its receiver; under `logged`,
 * while some unreplayable cell is kept by its sender but not received, lower its sender.
 */
import type { Instance } from "./instance.ts";
import { cellAllows } from "./instance.ts";

/** The greatest point of the process strictly before `line`. */
function lastPointBefore(points: readonly number[], line: number): number {
  let low = 0;
  let high = points.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle]! < line) low = middle;
    else high = middle;
  }
  return points[low]!;
}

export function fixpointLine(instance: Instance): number[] {
  const vector = instance.processes.map((p) => p.points.at(-1)!);
  for (let changed = true; changed; ) {
    changed = false;
    for (const cell of instance.cells) {
      if (cellAllows(instance, cell, vector)) continue;
      const isSent = cell.sender >= 0 && cell.sent <= vector[cell.sender]!;
      const [who, line] = isSent ? [cell.sender, cell.sent] : [cell.receiver, cell.known];
      vector[who] = lastPointBefore(instance.processes[who]!.points, line);
      changed = true;
    }
  }
  return vector;
}
