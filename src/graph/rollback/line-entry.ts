import type { Evidence } from "../../model/evidence-layout.ts";
import type { LineEntry } from "../../model/recovery-line.ts";
import { baseSegment } from "../evidence/restore-points.ts";
import { NOTHING_UNDONE } from "./propagate-rollback.ts";

/** What a process does whose lines from `undone` on are undone (docs/semantics.md, 9). */
export function lineEntry(evidence: Evidence, process: number, undone: number): LineEntry {
  const name = evidence.processes[process] as string;
  if (undone === NOTHING_UNDONE) {
    const position = evidence.length[process] as number;
    return { process: name, checkpoint: null, position, action: "continue" };
  }
  const position = undone - 1;
  const base = baseSegment(evidence, process, position);
  const { line, index } = evidence.segments;
  const action = position === 0 ? "initial" : line[base] === position ? "restore" : "replay";
  return { process: name, checkpoint: index[base] as number, position, action };
}
