/** One line of an events file → one `Event`. Every row of the table in interchange.md is one function here. */
import type { Event, PageVersion } from "../model/event.ts";
import { badInput, type InputPlace, quoted, shortened } from "./interchange-error.ts";
import {
  channelField,
  fieldOf,
  integerField,
  isObject,
  type JsonObject,
  optionalBoolean,
  optionalCut,
  optionalNumber,
  optionalPage,
  optionalString,
  pageField,
  pageVersion,
  processField,
  reasonField,
  wordField,
} from "./interchange-fields.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Reader = (line: JsonObject, process: string, place: InputPlace) => Mutable<Event>;

const ROLES = ["source", "destination"] as const;
const ACCESSES = ["read", "write"] as const;

const READERS = new Map<unknown, Reader>([
  ["send", (line, process, place) => ({ type: "send", process, ...range(line, place), ...grant(line) })],
  [
    "receive",
    (line, process, place) => ({ type: "receive", process, ...range(line, place), ...grant(line) }),
  ],
  ["page-fault", pageFault],
  ["page-copy", (line, process, place) => ({ type: "page-copy", process, ...pageMove(line, place) })],
  [
    "page-invalidate",
    (line, process, place) => ({ type: "page-invalidate", process, ...pageMove(line, place) }),
  ],
  ["checkpoint", checkpoint],
  ["stable", (_, process) => ({ type: "stable", process })],
  ["gap", gap],
  ["rollback", rollback],
  ["peek", (line, process, place) => ({ type: "peek", process, ...range(line, place) })],
  ["outside", (line, process, place) => ({ type: "outside", process, channel: channelField(line, place) })],
]);

/** Throws RL_BAD_INPUT that names file, line and field. Unknown fields are ignored. */
export function parseEvent(text: string, place: InputPlace): Event {
  const line = parseObject(text, place);
  const type = fieldOf(line, "type", place);
  const reader = READERS.get(type);
  if (reader === undefined) throw badInput(place, "type", `unknown type ${quoted(type)}`);
  const event = reader(line, processField(line, place), place);
  const time = optionalNumber(line, "time", place);
  if (time !== undefined) event.time = time;
  const node = optionalString(line, "node", place);
  if (node !== undefined) event.node = node;
  return event;
}

function parseObject(text: string, place: InputPlace): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badInput(place, undefined, `broken JSON: ${shortened((error as Error).message)}`);
  }
  if (!isObject(value)) throw badInput(place, undefined, `must be a JSON object, is ${quoted(value)}`);
  return value;
}

function range(line: JsonObject, place: InputPlace): { channel: string; begin: number; end: number } {
  const channel = channelField(line, place);
  const begin = integerField(line, "begin", 0, place);
  const end = integerField(line, "end", 0, place);
  if (end < begin) throw badInput(place, "end", `${end} is before begin ${begin}`);
  return { channel, begin, end };
}

function pageFault(line: JsonObject, process: string, place: InputPlace): Mutable<Event> {
  const page = pageField(line, place);
  return { type: "page-fault", process, page, access: wordField(line, "access", ACCESSES, place) };
}

function pageMove(line: JsonObject, place: InputPlace) {
  const page = pageField(line, place);
  const role = wordField(line, "role", ROLES, place);
  return { page, role, ...range(line, place), ...pageVersion(line) };
}

/** A message that ownership of a page comes with; of others page fields are unknown fields. */
function grant(line: JsonObject): PageVersion {
  if (!Object.hasOwn(line, "owner") || line["owner"] !== true) return {};
  const page = optionalPage(line);
  return { ...(page === undefined ? {} : { page }), ...pageVersion(line) };
}

function checkpoint(line: JsonObject, process: string, place: InputPlace): Mutable<Event> {
  const index = integerField(line, "checkpoint", 1, place);
  const usable = optionalBoolean(line, "usable", true, place);
  const image = optionalString(line, "image", place);
  const cut = optionalCut(line, place);
  return {
    type: "checkpoint",
    process,
    checkpoint: index,
    usable,
    ...(image === undefined ? {} : { image }),
    ...(cut === undefined ? {} : { cut }),
  };
}

function gap(line: JsonObject, process: string, place: InputPlace): Mutable<Event> {
  return {
    type: "gap",
    process,
    ...(Object.hasOwn(line, "lost") ? { lost: integerField(line, "lost", 0, place) } : {}),
    ...(Object.hasOwn(line, "reason") ? { reason: reasonField(line, place) } : {}),
  };
}

function rollback(line: JsonObject, process: string, place: InputPlace): Mutable<Event> {
  return { type: "rollback", process, checkpoint: integerField(line, "checkpoint", 0, place) };
}
