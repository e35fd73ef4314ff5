/**
 * Extras of page traffic, byte for byte as msgpack gives them (block-extras.ts): a DSM that is recorded has one for most of its events,
 * and an array for each, packed by the general packer and looked through again, was most of what a collector did.
 */
import type { Event, PageVersion } from "../model/event.ts";

/** Bytes of the longest entry that is written here: a head, five numbers of 5, two short strings, two single bytes. */
const MAX_ENTRY_BYTES = 128;
const NIL = 0xc0;
const FALSE = 0xc2;
const TRUE = 0xc3;
const FIRST_BYTES = 4096;
/** Strings of fewer bytes have a head of one byte. */
const SHORT_STRING = 32;

export class EntryWriter {
  #bytes = new Uint8Array(FIRST_BYTES);
  #at = 0;

  /** What was written, as a copy. */
  taken(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }

  /** Begins anew with the head of an array of `entries`. */
  begin(entries: number): void {
    this.#at = 0;
    if (entries < 16) this.#byte(0x90 | entries);
    else if (entries < 0x1_0000) this.#big(0xdc, entries, 2);
    else this.#big(0xdd, entries, 4);
  }

  raw(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /**
   * `[row, nil, page, access or role, …version]` of page events, `[row, nil, page, …version]` of a message that hands a page over.
   * Returns the count of its fields, or 0: this event is for the general packer, nothing was written.
   */
  page(row: number, event: Event): number {
    if (event.node !== undefined) return 0;
    const start = this.#at;
    this.#room(MAX_ENTRY_BYTES);
    const fields = this.#entry(row, event);
    if (fields === 0) this.#at = start;
    else this.#bytes[start] = 0x90 | fields;
    return fields;
  }

  /** Behind a byte for the head. */
  #entry(row: number, event: Event): number {
    this.#at += 1;
    if (!this.#number(row)) return 0;
    this.#byte(NIL);
    switch (event.type) {
      case "page-fault":
        if (!this.#number(event.page)) return 0;
        this.#byte(event.access === "write" ? 1 : 0);
        return 4;
      case "page-copy":
      case "page-invalidate":
        if (!this.#number(event.page)) return 0;
        this.#byte(event.role === "destination" ? 1 : 0);
        return this.#version(event, 4);
      case "send":
      case "receive":
        if (event.owner !== true || !this.#orNil(event.page)) return 0;
        return this.#version(event, 3);
      default:
        return 0;
    }
  }

  #version({ version, writer, interval, owner }: PageVersion, before: number): number {
    if (version === undefined && writer === undefined && interval === undefined && owner === undefined)
      return before;
    if (!this.#orNil(version) || !this.#name(writer) || !this.#orNil(interval)) return 0;
    this.#byte(owner === true ? TRUE : FALSE);
    return before + 4;
  }

  #orNil(value: number | string | undefined): boolean {
    if (value !== undefined) return this.#number(value);
    this.#byte(NIL);
    return true;
  }

  /** False: no integer of 32 bits. */
  #number(value: number | string): boolean {
    if (typeof value !== "number" || value >>> 0 !== value) return false;
    if (value < 0x80) this.#byte(value);
    else if (value < 0x100) this.#big(0xcc, value, 1);
    else if (value < 0x1_0000) this.#big(0xcd, value, 2);
    else this.#big(0xce, value, 4);
    return true;
  }

  /** False: long, or not ASCII. */
  #name(text: string | undefined): boolean {
    if (text === undefined) {
      this.#byte(NIL);
      return true;
    }
    if (text.length >= SHORT_STRING) return false;
    this.#byte(0xa0 | text.length);
    for (let n = 0; n < text.length; n += 1) {
      const code = text.charCodeAt(n);
      if (code >= 0x80) return false;
      this.#byte(code);
    }
    return true;
  }

  #byte(value: number): void {
    this.#bytes[this.#at] = value;
    this.#at += 1;
  }

  #big(head: number, value: number, size: number): void {
    this.#byte(head);
    for (let shift = size * 8 - 8; shift >= 0; shift -= 8) this.#byte((value >>> shift) & 0xff);
  }

  #room(more: number): void {
    if (this.#at + more <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at + more));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}
