/**
 * Where the clocks of a ShiViz log stand: text → host and clock of each event, as text (docs/shiviz.md).
 *
 * ShiViz itself asks its user for a regular expression; two layouts are known here without one:
 *
 *     <host> {"<host>":3, "<other>":7}                           a line of its own; the event's text stands on the line before or after
 *     … /<host>] {"<host>" : 3, "<other>" : 7} <text>            Akka's logger, all on one line
 *
 * Everything else is text, and text is passed over; so what looks like a clock in it is refused by name. An event that is lost in
 * silence is a message that no recovery line knows of.
 */
import { type InputPlace, quoted } from "../format/interchange-error.ts";
import { LineSplitter } from "../format/interchange-lines.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";

export interface FoundClock {
  readonly host: string;
  readonly clock: string;
  readonly place: InputPlace;
}

/** Layouts that need no `--pattern`. */
const OWN_LINE = /^[ \t]*(?<host>\S+)[ \t]+(?<clock>\{.*\})\s*$/;
const AKKA = /\/(?<host>[^/\]\s]+)\] (?<clock>\{[^}]*\})(?=\s|$)/;

/** A component of a clock, also of one that lost its braces: "name":3 */
const COMPONENT = /"(?:[^"\\]|\\.)*"\s*:\s*-?\d/;
/** A line that ends inside of the first one. A brace alone says as much only where a host may stand before it. */
const BEGUN = /\{\s*"(?:[^"\\]|\\.)*(?:"\s*(?::\s*-?)?)?$/;
const HOST_AND_BRACE = /(?:^\s*\S+|\/[^/\]\s]+\])\s+\{\s*$/;
/** A clock behind the host whose own component it has: no text looks like that by chance. */
const HOST_AND_CLOCK = /(?:^|[\s/])(?<host>[^\s/\]]+)\]?[ \t]+\{[^{}]*"\k<host>"\s*:/m;

/** With a pattern a log is matched as one text, as ShiViz does: patterns go over lines. Characters. */
const MAX_PATTERN_TEXT = 256 * 1024 * 1024;

const ADVICE =
  "Nothing was imported. Correct the line, or say with --pattern how the log is laid out (docs/shiviz.md).";

/** Wrong log by file, line and field; `field` is absent where the line as a whole is wrong. */
export function badLog(place: InputPlace, field: string | undefined, what: string): RecoveryLineError {
  const at = field === undefined ? "" : `, field ${JSON.stringify(field)}`;
  return new RecoveryLineError("RL_BAD_INPUT", `${place.file}, line ${place.line}${at}: ${what}`, ADVICE);
}

/** A pattern of the user's: must have the named groups `host` and `clock`. Throws `SyntaxError` where it is no pattern. */
export function shivizPattern(source: string): RegExp {
  const pattern = new RegExp(source, "dgm");
  if (isPattern(source)) return pattern;
  throw new SyntaxError("it needs the groups (?<host>…) and (?<clock>…)");
}

function isPattern(text: string): boolean {
  return text.includes("(?<host>") && text.includes("(?<clock>");
}

/**
 * The clocks of a log in the order of its lines. Without `pattern` the log's first line is taken for one if it has the groups (ShiViz
 * and GoVector write it there), else the known layouts. Throws RL_BAD_INPUT for a clock that fits neither, and for a last line that
 * may have been cut off.
 */
export async function* findClocks(
  chunks: AsyncIterable<Uint8Array>,
  file: string,
  pattern?: RegExp,
): AsyncGenerator<FoundClock> {
  const splitter = new LineSplitter(file);
  let scan: Scan | undefined = pattern === undefined ? undefined : new PatternScan(file, pattern);
  const take = function* (lines: string[], isCut: boolean): Generator<FoundClock> {
    const first = splitter.handedOut - lines.length + 1;
    const texts = lines.map((text) => (text.endsWith("\r") ? text.slice(0, -1) : text));
    const hole = texts.findIndex((text) => text.includes("\0"));
    if (hole >= 0) throw badLog({ file, line: first + hole }, undefined, NUL_BYTES);
    scan ??= scanFor(file, texts[0] ?? "");
    yield* scan.take(texts, first, isCut);
  };
  for await (const chunk of chunks) {
    const lines = ofLog(() => splitter.push(chunk));
    if (lines.length > 0) yield* take(lines, false);
  }
  const last = ofLog(() => splitter.end());
  if (last.length > 0) yield* take(last, true);
  if (scan !== undefined) yield* scan.end();
}

/** What is wrong with the bytes of a line is wrong in any format; only the advice is ours. */
function ofLog<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!hasCode(error, "RL_BAD_INPUT")) throw error;
    throw new RecoveryLineError(error.code, error.message, "Nothing was imported. Correct the line.", error);
  }
}

interface Scan {
  /** `isCut`: no newline ends the last line. */
  take(lines: string[], first: number, isCut: boolean): Iterable<FoundClock>;
  end(): Iterable<FoundClock>;
}

function scanFor(file: string, header: string): Scan {
  if (!isPattern(header)) return new LineScan(file);
  try {
    return new PatternScan(file, shivizPattern(header), true);
  } catch (error) {
    const place = { file, line: 1 };
    throw badLog(place, undefined, `has host and clock but is no pattern: ${(error as Error).message}`);
  }
}

/** The known layouts, line by line. */
class LineScan implements Scan {
  readonly #file: string;
  readonly #hosts = new Set<string>();
  /** The layout of the newest line, if it held a clock. */
  #layout: RegExp | undefined;
  /** Do texts stand behind their clocks: a text behind each clock so far, and no line before the first one? Undefined: nothing tells yet. */
  #textsBehind: boolean | undefined;

  constructor(file: string) {
    this.#file = file;
  }

  *take(lines: readonly string[], first: number, isCut: boolean): Generator<FoundClock> {
    for (const [index, text] of lines.entries()) {
      const place = { file: this.#file, line: first + index };
      const before = this.#layout;
      const found = this.#inLine(text, place);
      if (found !== undefined) yield found;
      else if (isCut && index === lines.length - 1 && this.#mayBeEvent(text.trim(), before))
        throw cutOff(place);
      if (before !== undefined)
        this.#textsBehind = this.#textsBehind !== false && found === undefined && text.trim() !== "";
      else if (this.#hosts.size === 0) this.#textsBehind = false;
    }
  }

  end(): Iterable<FoundClock> {
    return [];
  }

  #inLine(text: string, place: InputPlace): FoundClock | undefined {
    this.#layout = undefined;
    for (const layout of [OWN_LINE, AKKA]) {
      const match = layout.exec(text);
      if (match?.groups === undefined) continue;
      refuseClock(text.slice(match.index + match[0].length), place, NO_LAYOUT);
      const { host = "", clock = "" } = match.groups;
      this.#hosts.add(host);
      this.#layout = layout;
      return { host, clock, place };
    }
    refuseClock(text, place, NO_LAYOUT);
    return undefined;
  }

  /** False only for what must be the text of the clock on the line before. `before`: that line's layout. */
  #mayBeEvent(cut: string, before: RegExp | undefined): boolean {
    if (cut === "") return false;
    const isText = before === OWN_LINE && this.#textsBehind === true;
    return !isText || [...this.#hosts].some((host) => host.startsWith(cut));
  }
}

/** One pattern, over the whole text. */
class PatternScan implements Scan {
  readonly #file: string;
  readonly #pattern: RegExp;
  /** The first line is the pattern itself. */
  readonly #hasHeader: boolean;
  readonly #lines: string[] = [];
  #size = 0;
  #isCut = false;

  constructor(file: string, pattern: RegExp, hasHeader = false) {
    this.#file = file;
    this.#pattern = pattern;
    this.#hasHeader = hasHeader;
  }

  take(lines: readonly string[], first: number, isCut: boolean): Iterable<FoundClock> {
    for (const line of lines) {
      const isHeader = this.#lines.length === 0 && (this.#hasHeader || isPattern(line));
      this.#lines.push(isHeader ? "" : line);
      this.#size += line.length + 1;
    }
    if (this.#size > MAX_PATTERN_TEXT)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `${this.#file}, line ${first}: with a pattern a log may have ${MAX_PATTERN_TEXT} characters`,
        "Nothing was imported. Bring the log into a layout that needs no pattern (docs/shiviz.md).",
      );
    this.#isCut = isCut;
    return [];
  }

  *end(): Generator<FoundClock> {
    const text = this.#lines.join("\n") + (this.#isCut ? "" : "\n");
    const lines = new LineNumbers(text, this.#file);
    const newest = this.#isCut ? text.lastIndexOf("\n") + 1 : text.length;
    let rest = 0;
    for (const match of text.matchAll(this.#pattern)) {
      const end = match.index + match[0].length;
      refuseClocks(text, rest, match.index, lines);
      yield this.#event(text, match, newest, lines);
      rest = end;
    }
    refuseClocks(text, rest, text.length, lines);
    if (rest <= newest && text.slice(newest).trim() !== "") throw cutOff(lines.at(newest));
  }

  /** What else stands in the match is the event's text, whatever it looks like: unless it is an event itself. */
  #event(text: string, match: RegExpExecArray, newest: number, lines: LineNumbers): FoundClock {
    const [from, to] = match.indices?.groups?.["clock"] ?? [match.index, match.index];
    const end = match.index + match[0].length;
    const place = lines.at(from);
    for (const [begin, part] of [
      [match.index, text.slice(match.index, from)],
      [to, text.slice(to, end)],
    ] as const) {
      const inside = HOST_AND_CLOCK.exec(part);
      if (inside !== null)
        throw badLog(
          place,
          undefined,
          `the pattern takes an event of ${quoted(inside[1])} for this event's text`,
        );
      const last = Math.max(begin, newest);
      if (last < begin + part.length)
        refuseClock(text.slice(last, begin + part.length), lines.at(last), NO_MATCH);
    }
    const { host = "", clock = "" } = match.groups ?? {};
    return { host, clock, place };
  }
}

/** Line numbers of rising offsets. */
class LineNumbers {
  readonly #text: string;
  readonly #file: string;
  #line = 1;
  #counted = 0;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
  }

  at(offset: number): InputPlace {
    for (let next = this.#newline(); next >= 0 && next < offset; next = this.#newline()) {
      this.#line += 1;
      this.#counted = next + 1;
    }
    return { file: this.#file, line: this.#line };
  }

  #newline(): number {
    return this.#text.indexOf("\n", this.#counted);
  }
}

const NO_LAYOUT = "looks like a vector clock, but fits no known layout";
const NUL_BYTES = "holds NUL bytes: what stood there is lost, or this is no text in UTF-8";
const NO_MATCH = "looks like a vector clock, but the pattern does not match it";

function refuseClocks(text: string, from: number, to: number, lines: LineNumbers): void {
  for (let begin = from; begin < to; ) {
    const newline = text.indexOf("\n", begin);
    const end = newline < 0 || newline > to ? to : newline;
    refuseClock(text.slice(begin, end), lines.at(begin), NO_MATCH);
    begin = end + 1;
  }
}

function refuseClock(text: string, place: InputPlace, why: string): void {
  const found = COMPONENT.exec(text) ?? BEGUN.exec(text) ?? HOST_AND_BRACE.exec(text);
  if (found !== null) throw badLog(place, undefined, `${quoted(text.slice(found.index).trim())} ${why}`);
}

function cutOff(place: InputPlace): RecoveryLineError {
  return new RecoveryLineError(
    "RL_BAD_INPUT",
    `${place.file}, line ${place.line}: may be an event that was cut off: no newline ends it, and it has no clock`,
    "Nothing was imported. Complete the line, or end it with a newline if it is all there (docs/shiviz.md).",
  );
}
