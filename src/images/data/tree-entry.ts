/**
 * What a saved tree says of each name below its root, and how that stands in `tree.jsonl`: a first line for the whole, then one line a name.
 *
 * Names and paths are strings of one character a byte (latin1): a name on Linux need not be UTF-8. `bytesOf` makes the path that system
 * calls take, `shown` the text that people read.
 */

import type { BigIntStats } from "node:fs";
import { join } from "node:path";

/** One character a byte. */
export type ByteString = string;

export type EntryKind = "file" | "folder" | "link" | "fifo" | "socket" | "character" | "block";

export interface TreeEntry {
  /** Below the root, which is "". A folder stands before what is in it. */
  readonly path: ByteString;
  readonly kind: EntryKind;
  /** Permissions and the three bits above them. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** ns since 1970, decimal. */
  readonly atime: string;
  readonly mtime: string;
  /** Extended attributes, ACLs among them; values in base64. */
  readonly attributes?: readonly (readonly [name: string, value: string])[];
  /** Another name of the entry with this number, of which it has all else. */
  readonly same?: number;
  /** Of a symbolic link. */
  readonly target?: ByteString;
  /** Of a device, as stat tells it. */
  readonly device?: number;
  /** Of a file; absent where it is empty. */
  readonly content?: StoredContent;
}

export interface StoredContent {
  /** Its file in the store. */
  readonly number: number;
  readonly sizeBytes: number;
  /** What is no hole: begin, end, begin, end, … */
  readonly extents: readonly number[];
  /** Of each chunk of CHUNK_BYTES with data in it, holes read as zeros, the last one as long as the file; hexadecimal. */
  readonly sha256: readonly string[];
  readonly source: ContentSource;
}

/** From which file it was copied, so that the next save sees whether that is still the same. */
export interface ContentSource {
  /** `device:inode` */
  readonly inode: string;
  /** ns; of the file before it was copied, and the clock when copying began. */
  readonly ctime: string;
  readonly begin: string;
  /** Somebody could write it through a mapping. */
  readonly mapped: boolean;
}

export interface TreeHeader {
  readonly format: 1;
  readonly root: ByteString;
  readonly entries: number;
}

/** Small enough that a database's scattered writes leave most of them as they were. */
export const CHUNK_BYTES = 1 << 16;

export function bytesOf(path: ByteString): Buffer {
  return Buffer.from(path, "latin1");
}

export function byteString(text: string): ByteString {
  return Buffer.from(text, "utf8").toString("latin1");
}

export function shown(path: ByteString): string {
  return bytesOf(path).toString("utf8");
}

/** `path` of an entry below `root`; the root itself is "". */
export function below(root: ByteString, path: ByteString): ByteString {
  return path === "" ? root : join(root, path);
}

export function inodeOf(stat: BigIntStats): string {
  return `${stat.dev}:${stat.ino}`;
}

/** The chunks that hold data, rising. */
export function chunksOf(extents: readonly number[]): number[] {
  const chunks: number[] = [];
  for (let at = 0; at < extents.length; at += 2) {
    const last = Math.ceil(extents[at + 1]! / CHUNK_BYTES);
    const first = Math.floor(extents[at]! / CHUNK_BYTES);
    for (let chunk = Math.max(first, (chunks.at(-1) ?? -1) + 1); chunk < last; chunk += 1) chunks.push(chunk);
  }
  return chunks;
}

export function treeText(header: TreeHeader, entries: readonly TreeEntry[]): string {
  return `${[header, ...entries].map((line) => JSON.stringify(line)).join("\n")}\n`;
}

/** Of a text whose checksum was right: it is as we wrote it. */
export function parseTree(text: string): { header: TreeHeader; entries: TreeEntry[] } {
  const [header, ...entries] = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  return { header, entries };
}
