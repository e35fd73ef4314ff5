/**
 * The content of one file, into the store or out of it, holes kept: as a clone that shares its blocks where the file system can
 * (FICLONE), else chunk by chunk.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { firstWhere } from "../../model/search.ts";
import { native } from "../../native/binding.ts";
import { type ByteString, bytesOf, CHUNK_BYTES, chunksOf, type StoredContent } from "./tree-entry.ts";

export type Content = Pick<StoredContent, "sizeBytes" | "extents" | "sha256">;

const BLOCK_BYTES = 4096;

/** What can't be cloned says so in one of these ways. */
const NO_CLONE = new Set([
  "EOPNOTSUPP",
  "ENOTSUP",
  "EXDEV",
  "EINVAL",
  "ENOTTY",
  "ENOSYS",
  "EPERM",
  "ETXTBSY",
]);

/** Counts bytes that are copied, not cloned; may throw to end it. */
export type Copied = (bytes: number) => void;

/** Reads without moving the time of last access, where we may. */
export function openToRead(path: ByteString): number {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOATIME } = constants;
  const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
  try {
    return openSync(bytesOf(path), flags | O_NOATIME);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") throw error;
    return openSync(bytesOf(path), flags);
  }
}

/** Copies an open file to a path that is not there yet. */
export function copyContent(from: number, to: ByteString, copied: Copied): Content {
  const isClone = clone(from, to);
  const target = openSync(bytesOf(to), isClone ? "r" : "wx", 0o600);
  try {
    const sizeBytes = fstatSync(isClone ? target : from).size;
    const extents = native().fileExtents(isClone ? target : from, sizeBytes);
    if (!isClone) ftruncateSync(target, sizeBytes);
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const sha256 = chunksOf(extents).map((number) => {
      const bytes = readChunk(isClone ? target : from, number, { sizeBytes, extents }, chunk);
      if (!isClone) copied(writeChunk(target, number, bytes, extents));
      return hashOf(bytes);
    });
    return { sizeBytes, extents, sha256 };
  } finally {
    closeSync(target);
  }
}

/**
 * Makes a copy that was taken of an earlier state of the file equal to it; only what differs is written.
 * `before`: what the copy holds.
 */
export function patchContent(from: number, to: ByteString, before: Content, copied: Copied): Content {
  const sizeBytes = fstatSync(from).size;
  const extents = native().fileExtents(from, sizeBytes);
  const now = { sizeBytes, extents };
  const known = new Map(chunksOf(before.extents).map((number, at) => [number, before.sha256[at]!]));
  const target = openSync(bytesOf(to), "r+");
  try {
    if (sizeBytes !== before.sizeBytes) ftruncateSync(target, sizeBytes);
    const [live, stored] = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)];
    const sha256: string[] = [];
    const data = new Set(chunksOf(extents));
    for (const number of [...new Set([...data, ...known.keys()])].sort((a, b) => a - b)) {
      if (number * CHUNK_BYTES >= sizeBytes) continue;
      const bytes = readChunk(from, number, now, live);
      readWhole(target, number * CHUNK_BYTES, stored.subarray(0, bytes.length));
      const same = bytes.equals(stored.subarray(0, bytes.length));
      if (!same) copied(writeBlocks(target, bytes, stored, number * CHUNK_BYTES));
      if (!data.has(number)) continue;
      const hash =
        same && bytes.length === lengthOf(number, before.sizeBytes) ? known.get(number) : undefined;
      sha256.push(hash ?? hashOf(bytes));
    }
    return { sizeBytes, extents, sha256 };
  } finally {
    closeSync(target);
  }
}

/** Out of the store: `content` says where the holes are. */
export function restoreContent(from: number, to: ByteString, content: Content): void {
  if (clone(from, to) && hasExtents(to, content)) return;
  unlinkIfThere(to);
  const target = openSync(bytesOf(to), "wx", 0o600);
  try {
    ftruncateSync(target, content.sizeBytes);
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (const number of chunksOf(content.extents))
      writeChunk(target, number, readChunk(from, number, content, chunk), content.extents);
  } finally {
    closeSync(target);
  }
}

function hasExtents(path: ByteString, { sizeBytes, extents }: Content): boolean {
  const file = openSync(bytesOf(path), "r");
  try {
    return JSON.stringify(native().fileExtents(file, sizeBytes)) === JSON.stringify(extents);
  } finally {
    closeSync(file);
  }
}

/** From which device into which folder it was tried in vain. */
const noClone = new Set<string>();

/** By descriptor: another file may stand under the name by now. */
function clone(from: number, to: ByteString): boolean {
  const way = `${fstatSync(from).dev} ${dirname(to)}`;
  if (noClone.has(way)) return false;
  try {
    const { COPYFILE_EXCL, COPYFILE_FICLONE_FORCE } = constants;
    copyFileSync(`/proc/self/fd/${from}`, bytesOf(to), COPYFILE_EXCL | COPYFILE_FICLONE_FORCE);
    chmodSync(bytesOf(to), 0o600);
    return true;
  } catch (error) {
    if (!NO_CLONE.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
    unlinkIfThere(to);
    noClone.add(way);
    return false;
  }
}

function unlinkIfThere(path: ByteString): void {
  try {
    unlinkSync(bytesOf(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

export function lengthOf(chunk: number, sizeBytes: number): number {
  return Math.min(CHUNK_BYTES, sizeBytes - chunk * CHUNK_BYTES);
}

/** One chunk, holes as zeros; what lies behind the end of a file that is cut meanwhile, too. */
export function readChunk(
  file: number,
  number: number,
  { sizeBytes, extents }: Pick<Content, "sizeBytes" | "extents">,
  into: Buffer,
): Buffer {
  const begin = number * CHUNK_BYTES;
  const bytes = into.subarray(0, lengthOf(number, sizeBytes));
  const parts = partsIn(extents, begin, begin + bytes.length);
  if (parts.length !== 1 || parts[0]![1] - parts[0]![0] !== bytes.length) bytes.fill(0);
  for (const [from, to] of parts) readWhole(file, from, bytes.subarray(from - begin, to - begin));
  return bytes;
}

/** Only what is no hole. Returns the number of bytes. */
function writeChunk(file: number, number: number, bytes: Buffer, extents: readonly number[]): number {
  const begin = number * CHUNK_BYTES;
  let written = 0;
  for (const [from, to] of partsIn(extents, begin, begin + bytes.length))
    written += writeAll(file, bytes.subarray(from - begin, to - begin), from);
  return written;
}

/** Only the blocks of which `old` differs. Returns the number of bytes. */
function writeBlocks(file: number, bytes: Buffer, old: Buffer, to: number): number {
  let written = 0;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_BYTES);
    if (!block.equals(old.subarray(at, at + block.length))) written += writeAll(file, block, to + at);
  }
  return written;
}

/** The extents between two offsets, cut there. */
function partsIn(extents: readonly number[], begin: number, end: number): [number, number][] {
  const parts: [number, number][] = [];
  for (let at = firstEndingAfter(extents, begin); at < extents.length && extents[at]! < end; at += 2)
    parts.push([Math.max(begin, extents[at]!), Math.min(end, extents[at + 1]!)]);
  return parts;
}

function firstEndingAfter(extents: readonly number[], offset: number): number {
  return 2 * firstWhere(0, extents.length / 2, (at) => extents[2 * at + 1]! > offset);
}

/** Fills all of `into`, with zeros behind the file's end. */
function readWhole(file: number, from: number, into: Buffer): Buffer {
  let done = 0;
  while (done < into.length) {
    const read = readSync(file, into, done, into.length - done, from + done);
    if (read === 0) break;
    done += read;
  }
  into.fill(0, done);
  return into;
}

function writeAll(file: number, bytes: Buffer, to: number): number {
  for (let done = 0; done < bytes.length; )
    done += writeSync(file, bytes, done, bytes.length - done, to + done);
  return bytes.length;
}

export function hashOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
