/** Single fields of an event line: each function returns a value that holds its invariant, or throws RL_BAD_INPUT. */
import type { Cut, PageName, PageVersion } from "../model/event.ts";
import { MAX_CHANNEL_NAME_BYTES, MAX_PROCESS_NAME_BYTES } from "../model/limits.ts";
import { badInput, type InputPlace, quoted } from "./interchange-error.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

const LONE_SURROGATE = /\p{Surrogate}/u;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Own fields only: a line can't inherit what it does not say. */
export function fieldOf(line: JsonObject, field: string, place: InputPlace): unknown {
  if (!Object.hasOwn(line, field)) throw badInput(place, field, "is missing");
  return line[field];
}

/** A non-empty string that UTF-8 can hold, within `maxBytes`. */
function nameField(line: JsonObject, field: string, maxBytes: number, place: InputPlace): string {
  const value = fieldOf(line, field, place);
  if (typeof value !== "string" || value === "")
    throw badInput(place, field, `must be a non-empty string, is ${quoted(value)}`);
  checkName(value, field, maxBytes, place);
  return value;
}

export function processField(line: JsonObject, place: InputPlace): string {
  return nameField(line, "process", MAX_PROCESS_NAME_BYTES, place);
}

export function channelField(line: JsonObject, place: InputPlace): string {
  return nameField(line, "channel", MAX_CHANNEL_NAME_BYTES, place);
}

export function reasonField(line: JsonObject, place: InputPlace): string {
  return nameField(line, "reason", MAX_CHANNEL_NAME_BYTES, place);
}

function checkName(name: string, field: string, maxBytes: number, place: InputPlace): void {
  // A UTF-16 unit makes at most 3 bytes: short names need no counting.
  if (name.length * 3 > maxBytes && Buffer.byteLength(name) > maxBytes)
    throw badInput(place, field, `is longer than ${maxBytes} bytes in UTF-8: ${quoted(name)}`);
  if (LONE_SURROGATE.test(name))
    throw badInput(place, field, `has half a surrogate pair, which UTF-8 can't hold: ${quoted(name)}`);
}

/** An integer least ≤ n ≤ 2^53-1. */
export function integerField(line: JsonObject, field: string, least: number, place: InputPlace): number {
  return checkedInteger(fieldOf(line, field, place), field, least, place);
}

function checkedInteger(value: unknown, field: string, least: number, place: InputPlace): number {
  if (!Number.isSafeInteger(value) || (value as number) < least)
    throw badInput(place, field, `must be an integer from ${least} to 2^53-1, is ${quoted(value)}`);
  return (value as number) + 0; // -0 becomes 0
}

/** One of a few words. */
export function wordField<T extends string>(
  line: JsonObject,
  field: string,
  words: readonly T[],
  place: InputPlace,
): T {
  const value = fieldOf(line, field, place);
  if (!words.includes(value as T))
    throw badInput(place, field, `must be ${words.map(quoted).join(" or ")}, is ${quoted(value)}`);
  return value as T;
}

/** A page's name: a non-empty string or an integer. */
export function pageField(line: JsonObject, place: InputPlace): PageName {
  const value = fieldOf(line, "page", place);
  if (typeof value === "string") return nameField(line, "page", MAX_CHANNEL_NAME_BYTES, place);
  if (Number.isSafeInteger(value)) return (value as number) + 0;
  throw badInput(place, "page", `must be a non-empty string or an integer, is ${quoted(value)}`);
}

/** The page where one is named as `pageField` demands, else undefined: it was an unknown field once, which is never an error. */
export function optionalPage(line: JsonObject): PageName | undefined {
  const page = Object.hasOwn(line, "page") ? line["page"] : undefined;
  if (isName(page, MAX_CHANNEL_NAME_BYTES)) return page;
  return Number.isSafeInteger(page) ? (page as number) + 0 : undefined;
}

/** Optional fields of page lines. What is not as it should be is left out, for the same reason. */
export function pageVersion(line: JsonObject): PageVersion {
  const own = (field: string): unknown => (Object.hasOwn(line, field) ? line[field] : undefined);
  const [version, writer, interval] = [own("version"), own("writer"), own("interval")];
  return {
    ...(isInteger(version, 0) ? { version: version + 0 } : {}),
    ...(isName(writer, MAX_PROCESS_NAME_BYTES) ? { writer } : {}),
    ...(isInteger(interval, 1) ? { interval } : {}),
    ...(own("owner") === true ? { owner: true } : {}),
  };
}

function isInteger(value: unknown, least: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= least;
}

function isName(value: unknown, maxBytes: number): value is string {
  return (
    typeof value === "string" &&
    value !== "" &&
    (value.length * 3 <= maxBytes || Buffer.byteLength(value) <= maxBytes) &&
    !LONE_SURROGATE.test(value)
  );
}

export function optionalString(line: JsonObject, field: string, place: InputPlace): string | undefined {
  if (!Object.hasOwn(line, field)) return undefined;
  const value = line[field];
  if (typeof value !== "string") throw badInput(place, field, `must be a string, is ${quoted(value)}`);
  checkName(value, field, MAX_CHANNEL_NAME_BYTES, place);
  return value;
}

export function optionalBoolean(
  line: JsonObject,
  field: string,
  otherwise: boolean,
  place: InputPlace,
): boolean {
  if (!Object.hasOwn(line, field)) return otherwise;
  const value = line[field];
  if (typeof value !== "boolean") throw badInput(place, field, `must be true or false, is ${quoted(value)}`);
  return value;
}

export function optionalNumber(line: JsonObject, field: string, place: InputPlace): number | undefined {
  if (!Object.hasOwn(line, field)) return undefined;
  const value = line[field];
  if (typeof value !== "number" || !Number.isFinite(value))
    throw badInput(place, field, `must be a number, is ${quoted(value)}`);
  return value + 0;
}

/** `cut`: maps of channel → offset; one that is not there is empty, but for `seen`. */
export function optionalCut(line: JsonObject, place: InputPlace): Cut | undefined {
  if (!Object.hasOwn(line, "cut")) return undefined;
  const cut = line["cut"];
  if (!isObject(cut)) throw badInput(place, "cut", `must be an object, is ${quoted(cut)}`);
  const [sent, received] = [offsets(cut, "sent", place), offsets(cut, "received", place)];
  if (!Object.hasOwn(cut, "seen")) return { sent, received };
  const seen = offsets(cut, "seen", place);
  for (const [channel, offset] of seen) {
    const taken = received.get(channel) ?? 0;
    if (offset < taken)
      throw badInput(place, `cut.seen.${channel}`, `${offset} is less than the ${taken} received`);
  }
  return { sent, received, seen };
}

function offsets(
  cut: JsonObject,
  side: "sent" | "received" | "seen",
  place: InputPlace,
): ReadonlyMap<string, number> {
  if (!Object.hasOwn(cut, side)) return new Map();
  const field = `cut.${side}`;
  const value = cut[side];
  if (!isObject(value))
    throw badInput(place, field, `must be an object of channel: offset, is ${quoted(value)}`);
  const result = new Map<string, number>();
  for (const [channel, offset] of Object.entries(value)) {
    if (channel === "") throw badInput(place, field, "has a channel without a name");
    checkName(channel, field, MAX_CHANNEL_NAME_BYTES, place);
    result.set(channel, checkedInteger(offset, `${field}.${channel}`, 0, place));
  }
  return result;
}
