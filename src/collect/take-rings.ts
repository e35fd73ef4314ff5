/** Events of instrumented runtimes (capture/memory-rings.ts) into the log that also holds what the kernel recorded of their application. */
import type { MemoryBatch } from "../capture/memory-rings.ts";
import { RingKind } from "../format/ring-layout.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Event, EventType } from "../model/event.ts";
import type { AppLog } from "./app-log.ts";
import type { ProcessBuffer } from "./process-buffer.ts";

/** Kinds that are counted as records are. */
const KINDS: Readonly<Partial<Record<EventType, number>>> = {
  send: RingKind.SEND,
  receive: RingKind.RECEIVE,
  "page-fault": RingKind.PAGE_FAULT,
  "page-copy": RingKind.PAGE_COPY,
  "page-invalidate": RingKind.PAGE_INVALIDATE,
};

/** Throws RL_USAGE for an entity that the kernel records, RL_CONTRADICTION for checkpoints that do not rise. */
export function takeRingBatch(app: AppLog, { entities, events, ended }: MemoryBatch): void {
  for (const name of entities) if (!app.rings.has(name)) begin(app, name);
  let process: ProcessBuffer | undefined;
  for (const event of events) {
    if (process?.name !== event.process) process = app.process(event.process);
    process.event(event);
    count(app, event);
  }
  if (ended) app.rings = new Set([...app.rings].filter((name) => !entities.includes(name)));
}

function begin(app: AppLog, name: string): void {
  const process = app.process(name);
  if (process.state.live)
    throw new RecoveryLineError(
      "RL_USAGE",
      `process ${name} of ${app.name} is recorded by the kernel already`,
      "Give one of the two another name: no order is known between what both record.",
    );
  // The log may have been written by others, whose state says nothing of lines.
  const known = process.state.lines > 0 || app.committed().heads.has(name) === true;
  if (known) process.control({ type: "rollback", process: name, checkpoint: 0 });
  process.state.incarnation += 1;
  process.state.changed = true;
  app.rings = new Set([...app.rings, name]);
}

function count({ pending }: AppLog, event: Event): void {
  pending.events += 1;
  const kind = KINDS[event.type];
  if (kind !== undefined) pending.byKind[kind]! += 1;
  if (event.type !== "gap") return;
  pending.gaps += 1;
  pending.lost += event.lost ?? 0;
}
