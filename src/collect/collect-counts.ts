/** Running totals of one collector; `CollectorStats` is made from them. */
import { RING_KIND_COUNT } from "../format/ring-layout.ts";
import type { Pending } from "./app-log.ts";

export class CollectCounts {
  readonly events = new Float64Array(RING_KIND_COUNT);
  readonly bytes = new Float64Array(RING_KIND_COUNT);
  gaps = 0;
  lostDeclared = 0;
  unknown = 0;
  skipped = 0;
  stale = 0;
  bad = 0;
  commits = 0;
  batches = 0;
  logErrors = 0;
  /** Records that went by a log that could not be written. */
  missed = 0;
  lagMs = 0;

  /** What one application's commit made durable. */
  add(pending: Pending, batches: number, nowNs: number): void {
    for (let kind = 0; kind < RING_KIND_COUNT; kind += 1) {
      this.events[kind]! += pending.byKind[kind]!;
      this.bytes[kind]! += pending.bytesByKind[kind]!;
    }
    this.gaps += pending.gaps;
    this.lostDeclared += pending.lost;
    this.commits += 1;
    this.batches += batches;
    if (pending.since > 0) this.lagMs = Math.max(0, (nowNs - pending.since) / 1e6);
  }
}
