/** What goes by a log that was given up: per process how many events, and which kinds of communication nobody can match. */
import { RingKind, UNMATCHED_REASONS } from "../format/ring-layout.ts";
import type { RecordColumns } from "../format/ring-record.ts";

interface MissedEvents {
  count: number;
  readonly reasons: Set<string>;
}

export class Missed {
  readonly byProcess = new Map<string, MissedEvents>();

  /** Returns the events that one record stands for: itself, and the losses it tells of. */
  add(process: string, records: RecordColumns, row: number): number {
    let missed = this.byProcess.get(process);
    if (missed === undefined) {
      missed = { count: 0, reasons: new Set() };
      this.byProcess.set(process, missed);
    }
    const events = 1 + records.lostBefore[row]!;
    missed.count += events;
    if (records.kind[row] === RingKind.UNMATCHED)
      missed.reasons.add(UNMATCHED_REASONS[records.local[row]!] ?? UNMATCHED_REASONS[0]!);
    return events;
  }
}
