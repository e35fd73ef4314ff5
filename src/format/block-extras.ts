/**
 * What the columns of a block can't hold, as one strict msgpack array (logs-format.md, "Extras"):
 * [[row, node | nil, …what the kind adds], …], rows rising. Kind, channel, range and time stand in the columns.
 */
import type { Cut, Event, PageName, PageVersion } from "../model/event.ts";
import { MAX_CHANNEL_NAME_BYTES, MAX_PROCESS_NAME_BYTES } from "../model/limits.ts";
import { badBlock } from "./block-header.ts";
import { VERSION_WITH_OUTSIDE } from "./block-layout.ts";
import { EVENT_KIND, type EventColumns } from "./event-columns.ts";
import { EntryWriter } from "./page-entries.ts";
import { packStrict, unpackStrict } from "./strict-msgpack.ts";

const ROLES = ["source", "destination"] as const;
const ACCESSES = ["read", "write"] as const;
type Entry = readonly unknown[];

/** Blocks of this version hold page versions, in entries that are longer than those of version 1. */
const VERSION_WITH_PAGES = 2;
const VERSION_BY_KIND: Readonly<Record<number, number>> = {
  [EVENT_KIND.checkpoint]: VERSION_WITH_OUTSIDE,
  [EVENT_KIND.gap]: VERSION_WITH_OUTSIDE,
};

export interface PackedExtras {
  readonly extras: Uint8Array;
  /** The least version of a block that they may stand in. */
  readonly version: number;
}

/** The extras of rows [from, to), or nothing. Throws `TypeError` for values that are no events. */
export function packExtras(columns: EventColumns, from: number, to: number): PackedExtras {
  const nothing = { extras: new Uint8Array(0), version: 1 };
  if (columns.extras.size === 0) return nothing;
  const rows = rowsWithin(columns.extras, from, to);
  if (rows.length === 0) return nothing;
  let version = 1;
  writer.begin(rows.length);
  for (const row of rows) {
    const event = columns.extras.get(row)!;
    const fields = writer.page(row - from, event) || writeAny(row - from, event);
    const kind = EVENT_KIND[event.type];
    if (fields > FIELDS[kind]!) version = Math.max(version, VERSION_BY_KIND[kind] ?? VERSION_WITH_PAGES);
  }
  return { extras: writer.taken(), version };
}

/** Kept for its memory. */
const writer = new EntryWriter();

function writeAny(row: number, event: Event): number {
  const entry = entryOf(row, event);
  writer.raw(packStrict(entry));
  return entry.length;
}

/** Rising; they nearly always are already. */
function rowsWithin(extras: ReadonlyMap<number, Event>, from: number, to: number): readonly number[] {
  const rows: number[] = [];
  let rising = true;
  let last = -1;
  for (const row of extras.keys()) {
    if (row < from || row >= to) continue;
    rising &&= row > last;
    last = row;
    rows.push(row);
  }
  return rising ? rows : rows.sort((a, b) => a - b);
}

function entryOf(row: number, event: Event): Entry {
  const node = event.node ?? null;
  switch (event.type) {
    case "page-fault":
      return [row, node, event.page, ACCESSES.indexOf(event.access)];
    case "page-copy":
    case "page-invalidate":
      return [row, node, event.page, ROLES.indexOf(event.role), ...versionEntry(event)];
    case "checkpoint":
      return [row, node, event.checkpoint, event.usable, event.image ?? null, ...cutEntry(event.cut)];
    case "gap":
      return [row, node, event.lost ?? null, ...(event.reason === undefined ? [] : [event.reason])];
    case "rollback":
      return [row, node, event.checkpoint];
    case "stable":
    case "peek":
    case "outside":
      return [row, node];
    default:
      return event.owner === true ? [row, node, event.page ?? null, ...versionEntry(event)] : [row, node];
  }
}

/** Fields of `versionEntry`, count. */
const VERSION_FIELDS = 4;

/** Nothing where nothing is known. */
function versionEntry({ version, writer, interval, owner }: PageVersion): Entry {
  if (version === undefined && writer === undefined && interval === undefined && owner === undefined)
    return [];
  return [version ?? null, writer ?? null, interval ?? null, owner === true];
}

function cutEntry(cut: Cut | undefined): Entry {
  if (cut === undefined) return [null, null];
  const { sent, received, seen, outside } = cut;
  const lists = [[...sent].flat(), [...received].flat()];
  if (seen === undefined && outside === undefined) return lists;
  return [...lists, seen === undefined ? null : [...seen].flat(), outsideBits(cut)];
}

/** The names of a cut in the order of its lists; a channel may come more than once. */
function namesOf({ sent, received, seen }: Cut): string[] {
  return [...sent.keys(), ...received.keys(), ...(seen?.keys() ?? [])];
}

/** One bit a name, least significant first: outside or not. As small as it gets, since cuts grow long. */
function outsideBits(cut: Cut): Uint8Array | null {
  if (cut.outside === undefined) return null;
  const names = namesOf(cut);
  const bits = new Uint8Array(Math.ceil(names.length / 8));
  for (const [at, name] of names.entries()) if (cut.outside.has(name)) bits[at >> 3]! |= 1 << (at & 7);
  return bits;
}

/** Fields of an entry by kind, count, without page versions. */
const FIELDS: Readonly<Record<number, number>> = {
  [EVENT_KIND.send]: 2,
  [EVENT_KIND.receive]: 2,
  [EVENT_KIND["page-fault"]]: 4,
  [EVENT_KIND["page-copy"]]: 4,
  [EVENT_KIND["page-invalidate"]]: 4,
  [EVENT_KIND.checkpoint]: 7,
  [EVENT_KIND.stable]: 2,
  [EVENT_KIND.gap]: 3,
  [EVENT_KIND.rollback]: 3,
  [EVENT_KIND.peek]: 2,
  [EVENT_KIND.outside]: 2,
};

/** The same with page versions (messages name the page, too), with a gap's reason, with what a cut has seen and what is outside. */
const LONG_FIELDS: Readonly<Record<number, number>> = {
  [EVENT_KIND.send]: 3 + VERSION_FIELDS,
  [EVENT_KIND.receive]: 3 + VERSION_FIELDS,
  [EVENT_KIND["page-copy"]]: 4 + VERSION_FIELDS,
  [EVENT_KIND["page-invalidate"]]: 4 + VERSION_FIELDS,
  [EVENT_KIND.checkpoint]: 9,
  [EVENT_KIND.gap]: 4,
};

/** Fills `columns.extras`, whose columns are checked already. Throws only RL_BAD_BLOCK. */
export function unpackExtras(bytes: Uint8Array, columns: EventColumns, version: number): void {
  let last = -1;
  for (const entry of entriesOf(bytes)) {
    const row = integer(entry[0], last + 1, "an extra's row");
    if (row >= columns.count) throw badBlock("an extra's row is beyond the block");
    last = row;
    columns.extras.set(row, eventOf(columns, row, entry, version));
  }
}

function entriesOf(bytes: Uint8Array): readonly Entry[] {
  if (bytes.length === 0) return [];
  let list: unknown;
  try {
    list = unpackStrict(bytes);
  } catch (cause) {
    throw badBlock(`extras: ${(cause as Error).message}`, cause);
  }
  if (!Array.isArray(list) || !list.every(Array.isArray)) throw badBlock("extras are no list of lists");
  return list as readonly Entry[];
}

function eventOf(columns: EventColumns, row: number, entry: Entry, version: number): Event {
  const kind = columns.kind[row]!;
  const least = VERSION_BY_KIND[kind] ?? VERSION_WITH_PAGES;
  const longer = version >= least && entry.length === LONG_FIELDS[kind];
  if (entry.length !== FIELDS[kind] && !longer) throw badBlock(`an extra of ${entry.length} fields`);
  const event = { ...columns.event(row) } as Event & Record<string, unknown>;
  const node = entry[1] === null ? undefined : string(entry[1], "node", true);
  Object.assign(event, addition(kind, entry), node === undefined ? {} : { node });
  return event;
}

function addition(kind: number, entry: Entry): object {
  switch (kind) {
    case EVENT_KIND["page-fault"]:
      return { page: pageName(entry[2]), access: word(ACCESSES, entry[3]) };
    case EVENT_KIND["page-copy"]:
    case EVENT_KIND["page-invalidate"]:
      return { page: pageName(entry[2]), role: word(ROLES, entry[3]), ...pageVersion(entry, 4) };
    case EVENT_KIND.checkpoint:
      return checkpoint(entry);
    case EVENT_KIND.gap:
      return {
        ...(entry[2] === null ? {} : { lost: integer(entry[2], 0, "lost") }),
        ...(entry.length === FIELDS[kind] ? {} : { reason: string(entry[3], "reason", false) }),
      };
    case EVENT_KIND.rollback:
      return { checkpoint: integer(entry[2], 0, "a rollback's checkpoint") };
    case EVENT_KIND.send:
    case EVENT_KIND.receive:
      return message(entry);
    default:
      return {};
  }
}

function message(entry: Entry): object {
  if (entry.length === FIELDS[EVENT_KIND.send]) return {};
  const version = pageVersion(entry, 3);
  if (version.owner === undefined) throw badBlock("a message with a page version that is no grant");
  return entry[2] === null ? version : { page: pageName(entry[2]), ...version };
}

/** What `versionEntry` wrote from field `at` on; the entry may end before it. */
function pageVersion(entry: Entry, at: number): PageVersion {
  if (entry.length === at) return {};
  const [version, writer, interval, owner] = entry.slice(at);
  if (typeof owner !== "boolean") throw badBlock("owner is no boolean");
  return {
    ...(version === null ? {} : { version: integer(version, 0, "a page's version") }),
    ...(writer === null ? {} : { writer: processName(writer) }),
    ...(interval === null ? {} : { interval: integer(interval, 1, "a writer's interval") }),
    ...(owner ? { owner } : {}),
  };
}

function processName(value: unknown): string {
  const name = string(value, "a writer", false);
  if (Buffer.byteLength(name) > MAX_PROCESS_NAME_BYTES) throw badBlock("a writer's name is too long");
  return name;
}

function checkpoint(entry: Entry): object {
  const [, , index, usable, image, sent, received] = entry;
  if (typeof usable !== "boolean") throw badBlock("usable is no boolean");
  if ((sent === null) !== (received === null)) throw badBlock("half a cut");
  if (sent === null && entry.length > FIELDS[EVENT_KIND.checkpoint]!) throw badBlock("half a cut");
  return {
    checkpoint: integer(index, 1, "a checkpoint's index"),
    usable,
    ...(image === null ? {} : { image: string(image, "image", true) }),
    ...(sent === null ? {} : { cut: cutOf(entry) }),
  };
}

/** What `cutEntry` wrote. */
function cutOf(entry: Entry): Cut {
  const [sent, received] = [offsets(entry[5]), offsets(entry[6])];
  const [looked, bits] = entry.length === FIELDS[EVENT_KIND.checkpoint] ? [null, null] : entry.slice(7);
  if (looked === null && bits === null) return { sent, received };
  const seen = looked === null ? undefined : offsets(looked);
  for (const [channel, offset] of seen ?? [])
    if (offset < (received.get(channel) ?? 0)) throw badBlock("a cut has seen less than it received");
  const cut: Cut = { sent, received, ...(seen === undefined ? {} : { seen }) };
  return bits === null ? cut : { ...cut, outside: outsideOf(bits, namesOf(cut)) };
}

function outsideOf(bits: unknown, names: readonly string[]): ReadonlySet<string> {
  if (!(bits instanceof Uint8Array) || bits.length !== Math.ceil(names.length / 8))
    throw badBlock("a cut's outside channels are not a bit a name");
  return new Set(names.filter((_, at) => ((bits[at >> 3]! >> (at & 7)) & 1) === 1));
}

function offsets(value: unknown): ReadonlyMap<string, number> {
  if (!Array.isArray(value) || value.length % 2 !== 0) throw badBlock("a cut is no list of pairs");
  const map = new Map<string, number>();
  for (let at = 0; at < value.length; at += 2)
    map.set(string(value[at], "a cut's channel", false), integer(value[at + 1], 0, "a cut's offset"));
  if (map.size * 2 !== value.length) throw badBlock("a cut names a channel twice");
  return map;
}

function integer(value: unknown, least: number, what: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < least) throw badBlock(`${what} is out of range`);
  return (value as number) + 0;
}

function string(value: unknown, what: string, mayBeEmpty: boolean): string {
  if (typeof value !== "string" || (value === "" && !mayBeEmpty)) throw badBlock(`${what} is no name`);
  if (value.length * 3 > MAX_CHANNEL_NAME_BYTES && Buffer.byteLength(value) > MAX_CHANNEL_NAME_BYTES)
    throw badBlock(`${what} is too long`);
  return value;
}

function pageName(value: unknown): PageName {
  return typeof value === "string"
    ? string(value, "page", false)
    : integer(value, Number.MIN_SAFE_INTEGER, "page");
}

function word<T>(words: readonly T[], value: unknown): T {
  const found = typeof value === "number" ? words[value] : undefined;
  if (found === undefined) throw badBlock("an unknown word");
  return found;
}
