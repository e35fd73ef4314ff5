/** The gateway of DSM records (native/include/recovery_ring.h, "Records of a DSM runtime"): a decoded row in, an event out. */

import { RecoveryLineError } from "../model/errors.ts";
import type { DsmEvent } from "../model/event.ts";
import { MAX_OFFSET } from "../model/limits.ts";
import { RingFlag, RingKind } from "./ring-layout.ts";
import type { RecordColumns } from "./ring-record.ts";

/** Entities of one DSM application, count: two a rank. */
const DSM_ENTITIES = 16;
const ENTITY = 2 ** 16;
const INTERVAL = 2 ** 32;

/** "p3" for entity 6, "h3" for entity 7. */
export function entityName(entity: number): string {
  return `${entity % 2 === 0 ? "p" : "h"}${Math.floor(entity / 2)}`;
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
  const common = { process: entityName(entity), time: records.time[row]! };
  const page = records.length[row]!;
  const writes = (records.flags[row]! & RingFlag.WRITE) !== 0;
  if (kind === RingKind.PAGE_FAULT)
    return { type: "page-fault", ...common, page, access: writes ? "write" : "read" };
  const source = (records.flags[row]! & RingFlag.SOURCE) !== 0;
  const moved = { ...common, ...range(records, row, entity, source) };
  const owner = writes ? { owner: true } : {};
  const role = source ? "source" : "destination";
  if (kind === RingKind.PAGE_COPY)
    return { type: "page-copy", ...moved, page, role, ...version(records, row), ...owner };
  if (kind === RingKind.PAGE_INVALIDATE)
    return { type: "page-invalidate", ...moved, page, role, ...version(records, row) };
  if (kind !== (source ? RingKind.SEND : RingKind.RECEIVE)) throw badRecord(`kind ${kind}`);
  return {
    type: source ? "send" : "receive",
    ...moved,
    ...(writes ? { page, ...version(records, row), ...owner } : {}),
  };
}

function range(records: RecordColumns, row: number, entity: number, source: boolean) {
  const other = records.remote[row]! % ENTITY;
  const begin = records.begin[row]!;
  if (other >= DSM_ENTITIES) throw badRecord(`entity ${other}`);
  if (begin >= MAX_OFFSET) throw badRecord(`message number ${begin}`);
  const [from, to] = source ? [entity, other] : [other, entity];
  return { channel: `dsm:${entityName(from)}-${entityName(to)}`, begin, end: begin + 1 };
}

function version(records: RecordColumns, row: number) {
  const version = Math.floor(records.local[row]! / ENTITY);
  const interval = Math.floor(records.remote[row]! / INTERVAL);
  const writer = Math.floor(records.remote[row]! / ENTITY) % ENTITY;
  if (interval === 0) return { version };
  if (writer >= DSM_ENTITIES) throw badRecord(`writer ${writer}`);
  return { version, writer: entityName(writer), interval };
}

function badRecord(what: string): RecoveryLineError {
  return new RecoveryLineError("RL_BAD_RECORD", `a DSM record breaks recovery_ring.h: ${what}`);
}
