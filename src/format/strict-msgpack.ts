/**
 * MessagePack without its surprises: nil, booleans, numbers, strings, binary, arrays, and maps where asked for.
 * Strings are well-formed UTF-8. No extension types, so no RegExp, no records, no functions, no shared structures; every length is checked against
 * the bytes that are there BEFORE msgpackr sees them, so that no claimed length can allocate.
 */
import { isUtf8 } from "node:buffer";
import { Packr, Unpackr } from "msgpackr";

const OPTIONS = {
  useRecords: false,
  moreTypes: false,
  encodeUndefinedAsNil: true,
  int64AsType: "number",
} as const;
const packr = new Packr({ ...OPTIONS, variableMapSize: true });
const unpackr = new Unpackr({ ...OPTIONS, mapsAsObjects: true });

const MAX_DEPTH = 16;

/** Packs plain data (undefined becomes null). Throws `TypeError` where the value holds anything else. */
export function packStrict(value: unknown, maps = false): Uint8Array {
  const bytes = Uint8Array.from(packr.pack(value));
  const wrong = findFault(bytes, maps);
  if (wrong !== undefined) throw new TypeError(`not plain data: ${wrong}`);
  return bytes;
}

/** The value, or throws an `Error` that says what is wrong. Never allocates more than a small multiple of the input. */
export function unpackStrict(bytes: Uint8Array, maps = false): unknown {
  const wrong = findFault(bytes, maps);
  if (wrong !== undefined) throw new Error(`bad msgpack: ${wrong}`);
  return unpackr.unpack(bytes);
}

/** Walks the structure; undefined if `bytes` hold exactly one allowed value. */
function findFault(bytes: Uint8Array, maps: boolean): string | undefined {
  const scan = new Scan(bytes, maps);
  scan.value(0);
  return scan.fault ?? (scan.at === bytes.length ? undefined : "bytes after the value");
}

/** Bytes that follow a head byte of fixed size: 0xca f32 … 0xd3 i64. */
const FIXED: Readonly<Record<number, number>> = {
  192: 0,
  194: 0,
  195: 0,
  202: 4,
  203: 8,
  204: 1,
  205: 2,
  206: 4,
  207: 8,
  208: 1,
  209: 2,
  210: 4,
  211: 8,
};

class Scan {
  at = 0;
  fault: string | undefined;
  readonly #bytes: Uint8Array;
  readonly #maps: boolean;

  constructor(bytes: Uint8Array, maps: boolean) {
    this.#bytes = bytes;
    this.#maps = maps;
  }

  value(depth: number): void {
    if (this.at >= this.#bytes.length || depth > MAX_DEPTH) {
      this.fault ??= depth > MAX_DEPTH ? "nested too deep" : "ends too early";
      return;
    }
    const head = this.#bytes[this.at]!;
    this.at += 1;
    if (head < 0x80 || head >= 0xe0) return;
    if (head < 0x90) this.#map(head & 0x0f, depth);
    else if (head < 0xa0) this.#items(head & 0x0f, depth);
    else if (head < 0xc0) this.#string(head & 0x1f);
    else if (head >= 0xc4 && head <= 0xc6) this.#skip(this.#length(1 << (head - 0xc4)));
    else if (head >= 0xd9 && head <= 0xdb) this.#string(this.#length(1 << (head - 0xd9)));
    else if (head === 0xdc || head === 0xdd) this.#items(this.#length(head === 0xdc ? 2 : 4), depth);
    else if (head === 0xde || head === 0xdf) this.#map(this.#length(head === 0xde ? 2 : 4), depth);
    else this.#fixed(head);
  }

  #fixed(head: number): void {
    const size = FIXED[head];
    if (size === undefined) this.fault ??= `type 0x${head.toString(16)} is not allowed`;
    else this.#skip(size);
  }

  #skip(size: number): void {
    this.at += size;
    if (this.at > this.#bytes.length) this.fault ??= "ends too early";
  }

  #string(size: number): void {
    const from = this.at;
    this.#skip(size);
    if (this.fault === undefined && !isUtf8(this.#bytes.subarray(from, this.at)))
      this.fault = "a string is not UTF-8";
  }

  #length(size: number): number {
    let length = 0;
    for (let n = 0; n < size; n += 1) length = length * 256 + (this.#bytes[this.at + n] ?? 0);
    this.#skip(size);
    return length;
  }

  #items(count: number, depth: number): void {
    if (count > this.#bytes.length - this.at) this.fault ??= "ends too early";
    for (let n = 0; n < count && this.fault === undefined; n += 1) this.value(depth + 1);
  }

  #map(count: number, depth: number): void {
    if (!this.#maps) this.fault ??= "a map is not allowed";
    else if (count * 2 > this.#bytes.length - this.at) this.fault ??= "ends too early";
    for (let n = 0; n < count && this.fault === undefined; n += 1) {
      if (!isStringHead(this.#bytes[this.at] ?? 0)) this.fault = "a map's key is no string";
      else {
        this.value(depth + 1);
        this.value(depth + 1);
      }
    }
  }
}

function isStringHead(head: number): boolean {
  return (head >= 0xa0 && head < 0xc0) || (head >= 0xd9 && head <= 0xdb);
}
