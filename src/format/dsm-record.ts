/** The gateway of DSM records (native/include/recovery_ring.h, "Records of a DSM runtime"): a decoded row in, an event out. */

import { RecoveryLineError } from "../model/errors.ts";
import type { DsmEvent, PageVersion } from "../model/event.ts";
import { MAX_OFFSET } from "../model/limits.ts";
import { RingFlag, RingKind } from "./ring-layout.ts";
import type { RecordColumns } from "./ring-record.ts";

/** Entities of one DSM application, count: two a rank. */
const DSM_ENTITIES = 16;
const ENTITY = 2 ** 16;
const INTERVAL = 2 ** 32;

/** Made once: a name that is built for every record costs more than all the rest of the way to the log. */
const NAMES = Array.from(
  { length: DSM_ENTITIES },
  (_, n) => `${n % 2 === 0 ? "p" : "h"}${Math.floor(n / 2)}`,
);
const CHANNELS = NAMES.map((from) => NAMES.map((to) => `dsm:${from}-${to}`));

/** "p3" for entity 6, "h3" for entity 7. `entity` is below 16. */
export function entityName(entity: number): string {
  return NAMES[entity]!;
}

/** Entity that row `row` happened to. Throws RL_BAD_RECORD where the row is no DSM record of one of the entities of `rank`. */
export function dsmEntity(records: RecordColumns, row: number, rank: number): number {
  const entity = records.process[row]!;
  const own = records.local[row]! % ENTITY;
  if ((records.flags[row]! & RingFlag.DSM) === 0 || Math.floor(entity / 2) !== rank || own !== entity)
    throw badRecord(`a record of entity ${entity} (${own}) from the process of rank ${rank}`);
  return entity;
}

/** Row `row` as an event of `dsmEntity`. Throws RL_BAD_RECORD. */
export function dsmEvent(records: RecordColumns, row: number, entity: number): DsmEvent {
  const kind = records.kind[row]!;
  const flags = records.flags[row]!;
  const process = NAMES[entity]!;
  const time = records.time[row]!;
  const page = records.length[row]!;
  const writes = (flags & RingFlag.WRITE) !== 0;
  if (kind === RingKind.PAGE_FAULT)
    return { type: "page-fault", process, time, page, access: writes ? "write" : "read" };
  const source = (flags & RingFlag.SOURCE) !== 0;
  const other = records.remote[row]! % ENTITY;
  const begin = records.begin[row]!;
  if (other >= DSM_ENTITIES) throw badRecord(`entity ${other}`);
  if (begin >= MAX_OFFSET) throw badRecord(`message number ${begin}`);
  const channel = source ? CHANNELS[entity]![other]! : CHANNELS[other]![entity]!;
  const end = begin + 1;
  if (kind === RingKind.PAGE_COPY || kind === RingKind.PAGE_INVALIDATE) {
    const type = kind === RingKind.PAGE_COPY ? "page-copy" : "page-invalidate";
    const role = source ? "source" : "destination";
    const event: Written<DsmEvent> = { type, process, time, page, role, channel, begin, end };
    addVersion(event, records, row);
    if (writes && kind === RingKind.PAGE_COPY) event.owner = true;
    return event;
  }
  if (kind !== (source ? RingKind.SEND : RingKind.RECEIVE)) throw badRecord(`kind ${kind}`);
  const event: Written<DsmEvent> = { type: source ? "send" : "receive", process, time, channel, begin, end };
  if (writes) {
    event.page = page;
    addVersion(event, records, row);
    event.owner = true;
  }
  return event;
}

/** Filled in place, as spreading objects into each other was most of the collector's work. */
type Written<T> = { -readonly [K in keyof T]: T[K] };

function addVersion(event: Written<PageVersion>, records: RecordColumns, row: number): void {
  event.version = Math.floor(records.local[row]! / ENTITY);
  const interval = Math.floor(records.remote[row]! / INTERVAL);
  if (interval === 0) return;
  const writer = Math.floor(records.remote[row]! / ENTITY) % ENTITY;
  if (writer >= DSM_ENTITIES) throw badRecord(`writer ${writer}`);
  event.writer = NAMES[writer]!;
  event.interval = interval;
}

function badRecord(what: string): RecoveryLineError {
  return new RecoveryLineError("RL_BAD_RECORD", `a DSM record breaks recovery_ring.h: ${what}`);
}
