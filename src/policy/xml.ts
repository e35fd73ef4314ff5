/** The only file that knows libxml2: text in, a tree with places out; and validation against the schema. */
import { ParseOption, XmlDocument, XmlElement, XmlLibError, XmlText, XsdValidator } from "libxml2-wasm";
import { assert } from "../model/assert.ts";
import { type PolicyText, wrongAt } from "./policy-text.ts";
import { decodedValue, type ElementPlace, elementPlaces, offsetInValue } from "./xml-places.ts";

export interface Attribute {
  readonly name: string;
  readonly value: string;
  readonly nameAt: number;
  /** Offset of character `index` of the value. */
  at(index: number): number;
}

export interface Element {
  readonly name: string;
  readonly namespace: string;
  readonly at: number;
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly children: readonly Element[];
  /** All text directly in it, and where it starts. */
  readonly text: string;
  readonly textAt: number;
}

/** Throws RL_BAD_INPUT where the text is not well-formed or holds what no policy may. */
export function parseXml(source: PolicyText): Element {
  const places = elementPlaces(source);
  return withDocument(source.file, source.text, (document) => {
    const next = places.values();
    return convert(document.root, () => {
      const place = next.next().value;
      assert(place !== undefined, "the walk over places finds every element that libxml2 finds");
      return place;
    });
  });
}

function withDocument<T>(file: string, text: string, work: (document: XmlDocument) => T): T {
  let document: XmlDocument;
  try {
    document = XmlDocument.fromString(text, {
      option: ParseOption.XML_PARSE_NONET | ParseOption.XML_PARSE_NOCDATA,
    });
  } catch (error) {
    throw notWellFormed(file, error);
  }
  try {
    return work(document);
  } finally {
    document.dispose();
  }
}

/** The library throws a plain error for an empty text. */
function notWellFormed(file: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const [first] = error instanceof XmlLibError ? error.details : [];
  const why = first?.message.trim() ?? "there is no element";
  return wrongAt(file, first?.line || 1, first?.col || 1, `not well-formed XML: ${why}`);
}

function convert(element: XmlElement, nextPlace: () => ElementPlace): Element {
  const place = nextPlace();
  const children: Element[] = [];
  let text = "";
  for (let node = element.firstChild; node !== null; node = node.next)
    if (node instanceof XmlElement) children.push(convert(node, nextPlace));
    else if (node instanceof XmlText) text += node.content;
  return {
    name: element.name,
    namespace: element.namespaceUri,
    at: place.at,
    attributes: attributesOf(place),
    children,
    text,
    textAt: place.text < 0 ? place.at : place.text,
  };
}

/** From the walk over places: asking libxml2 for them takes longer than all else. It has found the text well-formed. */
function attributesOf(place: ElementPlace): Map<string, Attribute> {
  const found = new Map<string, Attribute>();
  for (const [name, at] of place.attributes) {
    if (name === "xmlns" || name.startsWith("xmlns:")) continue;
    const value = decodedValue(at.raw);
    found.set(name, { name, value, nameAt: at.name, at: (index) => offsetInValue(at, index) });
  }
  return found;
}

/** A schema, compiled once; lives as long as the program. */
export class Schema {
  readonly #validator: XsdValidator;

  constructor(schema: string) {
    this.#validator = withDocument("schema", schema, (document) => XsdValidator.fromDoc(document));
  }

  /** Why the text does not fit the schema, or undefined. */
  complaint(text: string): { line: number; message: string } | undefined {
    return withDocument("text", text, (document) => {
      try {
        this.#validator.validate(document);
        return undefined;
      } catch (error) {
        const [first] = error instanceof XmlLibError ? error.details : [];
        if (first === undefined) throw error;
        return { line: first.line, message: first.message.trim() };
      }
    });
  }
}
