/**
 * Where elements, attributes and loose text stand: libxml2 keeps lines only. Also refuses what no policy needs before libxml2 sees it:
 * a document type, entities, processing instructions, deep nesting. Anything else that is not well-formed ends the walk early; libxml2
 * says what is wrong with it.
 */
import { type PolicyText, wrongAt } from "./policy-text.ts";
import { BOUNDS } from "./vocabulary.ts";

export interface AttributePlace {
  readonly name: number;
  /** First character of the value, behind the quote. */
  readonly value: number;
  readonly raw: string;
}

export interface ElementPlace {
  /** The `<`. */
  readonly at: number;
  readonly attributes: ReadonlyMap<string, AttributePlace>;
  /** First character of text that is more than space, -1 = none. */
  text: number;
}

const NAME = /[^\s=/><"'&]+/y;
const SPACE = /\s*/y;
const REFERENCE = /&(?:(?:lt|gt|amp|quot|apos)|#[0-9]+|#x[0-9a-fA-F]+);/y;

/** The elements in the order of the document. */
export function elementPlaces(source: PolicyText): ElementPlace[] {
  return new Walk(source).elements();
}

/** Offset in the text of character `index` of an attribute's decoded value. */
export function offsetInValue({ value, raw }: AttributePlace, index: number): number {
  let at = 0;
  for (let character = 0; character < index && at < raw.length; character += 1) {
    REFERENCE.lastIndex = at;
    const reference = REFERENCE.exec(raw);
    if (reference !== null) at += reference[0].length;
    else at += raw.startsWith("\r\n", at) ? 2 : 1;
  }
  return value + at;
}

const NAMED: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/** An attribute's value as XML reads it: references resolved, each line break or tab a space. */
export function decodedValue(raw: string): string {
  if (!/[&\t\n\r]/.test(raw)) return raw;
  return raw.replace(/&([^;]*);|\r\n|[\t\n\r]/g, (_, name?: string) => {
    if (name === undefined) return " ";
    if (!name.startsWith("#")) return NAMED[name] ?? "";
    return String.fromCodePoint(name[1] === "x" ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1)));
  });
}

class Walk {
  readonly #source: PolicyText;
  readonly #text: string;
  readonly #found: ElementPlace[] = [];
  readonly #open: ElementPlace[] = [];
  #at = 0;

  constructor(source: PolicyText) {
    this.#source = source;
    this.#text = source.text;
  }

  elements(): ElementPlace[] {
    const text = this.#text;
    while (this.#at < text.length) {
      const next = text.indexOf("<", this.#at);
      this.#loose(this.#at, next < 0 ? text.length : next);
      if (next < 0) break;
      this.#at = next;
      if (!this.#markup()) break;
    }
    return this.#found;
  }

  /** Text between markup. */
  #loose(from: number, to: number): void {
    this.#references(from, to);
    const first = this.#text.slice(from, to).search(/\S/);
    const parent = this.#open.at(-1);
    if (first >= 0 && parent !== undefined && parent.text < 0) parent.text = from + first;
  }

  #references(from: number, to: number): void {
    for (let at = this.#text.indexOf("&", from); at >= 0 && at < to; at = this.#text.indexOf("&", at + 1)) {
      REFERENCE.lastIndex = at;
      if (!REFERENCE.test(this.#text))
        throw this.#source.wrong(at, "entities are not allowed", [
          "&lt;",
          "&gt;",
          "&amp;",
          "&quot;",
          "&apos;",
        ]);
    }
  }

  /** One comment, section, tag; false where it is not well-formed. */
  #markup(): boolean {
    const { text } = this.#source;
    const at = this.#at;
    if (text.startsWith("<!--", at)) return this.#skip(4, "-->");
    if (text.startsWith("<![CDATA[", at)) return this.#section();
    if (text.startsWith("<?", at)) return this.#instruction();
    if (text.startsWith("<!", at)) throw this.#source.wrong(at, "a document type (DOCTYPE) is not allowed");
    if (!text.startsWith("</", at)) return this.#tag();
    this.#open.pop();
    return this.#skip(2, ">");
  }

  #skip(head: number, end: string): boolean {
    const found = this.#text.indexOf(end, this.#at + head);
    this.#at = found < 0 ? this.#text.length : found + end.length;
    return found >= 0;
  }

  #section(): boolean {
    const parent = this.#open.at(-1);
    if (parent !== undefined && parent.text < 0) parent.text = this.#at;
    return this.#skip(9, "]]>");
  }

  #instruction(): boolean {
    const declaration = /<\?xml\s[^?]*\?>/y;
    declaration.lastIndex = this.#at;
    const found = declaration.exec(this.#text)?.[0];
    if (found === undefined || this.#at !== 0)
      throw this.#source.wrong(this.#at, "processing instructions are not allowed");
    const encoding = /encoding\s*=\s*["']([^"']*)["']/.exec(found)?.[1] ?? "UTF-8";
    if (encoding.toUpperCase() !== "UTF-8")
      throw this.#source.wrong(this.#at, `the encoding ${encoding} is not allowed`, ["UTF-8"]);
    return this.#skip(2, "?>");
  }

  #tag(): boolean {
    const at = this.#at;
    this.#at += 1;
    if (this.#take(NAME) === "") return false;
    const attributes = new Map<string, AttributePlace>();
    const element = { at, attributes, text: -1 };
    this.#found.push(element);
    if (this.#open.length >= BOUNDS.nesting)
      throw this.#source.wrong(at, `elements stand more than ${BOUNDS.nesting} deep in one another`);
    for (;;) {
      this.#take(SPACE);
      if (this.#text.startsWith("/>", this.#at)) return this.#skip(2, "");
      if (this.#text.startsWith(">", this.#at)) {
        this.#open.push(element);
        return this.#skip(1, "");
      }
      if (!this.#attribute(attributes)) return false;
    }
  }

  #attribute(into: Map<string, AttributePlace>): boolean {
    const at = this.#at;
    const name = this.#take(NAME);
    this.#take(SPACE);
    if (name === "" || !this.#text.startsWith("=", this.#at)) return false;
    this.#at += 1;
    this.#take(SPACE);
    const quote = this.#text[this.#at];
    if (quote !== '"' && quote !== "'") return false;
    const value = this.#at + 1;
    const end = this.#text.indexOf(quote, value);
    if (end < 0) return false;
    this.#references(value, end);
    into.set(name, { name: at, value, raw: this.#text.slice(value, end) });
    this.#at = end + 1;
    return true;
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? "";
    this.#at += found.length;
    return found;
  }
}

/** The text of a file. Throws RL_BAD_INPUT for what is too large or not UTF-8. */
export function decodePolicy(file: string, bytes: Uint8Array): string {
  if (bytes.length > BOUNDS.fileBytes)
    throw wrongAt(file, 1, 1, `the file has ${bytes.length} bytes; at most ${BOUNDS.fileBytes} are allowed`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw wrongAt(file, 1, 1, "the file is not UTF-8");
  }
}
