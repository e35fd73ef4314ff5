/**
 * The two small records of a segment beside its blocks: what the newest commit was, and the newest block of a process.
 * Layouts: logs-format.md, "Commit record" and "Head".
 */
import { sha256 } from "./block-header.ts";
import { HASH_BYTES } from "./block-layout.ts";
import { getU64, setU64, viewOf } from "./u64.ts";

const COMMIT_MAGIC = 0x434c_5252; // "RRLC"
const COMMIT_VERSION = 1;
/** Offsets in the commit record, in bytes. */
export const COMMIT_AT = {
  magic: 0, // u32
  version: 4, // u32
  commit: 8, // u64
  lastChain: 16, // u64
  segmentBytes: 24, // u64
  lastHash: 32, // 32 bytes
  stateDigest: 64, // 32 bytes
  checksum: 96, // 32 bytes, SHA-256 of what stands before
} as const;
export const COMMIT_BYTES_TOTAL = 128;

export interface CommitRecord {
  /** Rises by one with each commit of the log. */
  readonly commit: number;
  /** Newest block; 0 = none. */
  readonly lastChain: number;
  /** Bytes of the segment's blocks. */
  readonly segmentBytes: number;
  readonly lastHash: Uint8Array;
  /** Over all heads and states (`stateEntryHash`). */
  readonly stateDigest: Uint8Array;
}

export function encodeCommit(record: CommitRecord): Uint8Array {
  const bytes = new Uint8Array(COMMIT_BYTES_TOTAL);
  const view = viewOf(bytes);
  view.setUint32(COMMIT_AT.magic, COMMIT_MAGIC, true);
  view.setUint32(COMMIT_AT.version, COMMIT_VERSION, true);
  setU64(view, COMMIT_AT.commit, record.commit);
  setU64(view, COMMIT_AT.lastChain, record.lastChain);
  setU64(view, COMMIT_AT.segmentBytes, record.segmentBytes);
  bytes.set(record.lastHash, COMMIT_AT.lastHash);
  bytes.set(record.stateDigest, COMMIT_AT.stateDigest);
  bytes.set(sha256(bytes.subarray(0, COMMIT_AT.checksum)), COMMIT_AT.checksum);
  return bytes;
}

/** The record, or why it is none. */
export function decodeCommit(bytes: Uint8Array): CommitRecord | string {
  if (bytes.length !== COMMIT_BYTES_TOTAL) return `a commit record of ${bytes.length} bytes`;
  const view = viewOf(bytes);
  if (view.getUint32(COMMIT_AT.magic, true) !== COMMIT_MAGIC) return "no commit record";
  const digest = sha256(bytes.subarray(0, COMMIT_AT.checksum));
  if (Buffer.compare(digest, bytes.subarray(COMMIT_AT.checksum)) !== 0) return "a damaged commit record";
  const version = view.getUint32(COMMIT_AT.version, true);
  if (version !== COMMIT_VERSION) return `a commit record of unknown version ${version}`;
  const record = {
    commit: getU64(view, COMMIT_AT.commit),
    lastChain: getU64(view, COMMIT_AT.lastChain),
    segmentBytes: getU64(view, COMMIT_AT.segmentBytes),
    lastHash: bytes.slice(COMMIT_AT.lastHash, COMMIT_AT.lastHash + HASH_BYTES),
    stateDigest: bytes.slice(COMMIT_AT.stateDigest, COMMIT_AT.stateDigest + HASH_BYTES),
  };
  const whole = !Number.isNaN(record.commit + record.lastChain + record.segmentBytes);
  return whole ? record : "a commit record with a number beyond 2^53";
}

/** The newest block of a process, and where the next one goes on. */
export interface ProcessHead {
  /** Chain number of the newest block. */
  readonly chain: number;
  readonly sequence: number;
  /** Chain number of the newest block with control events; 0 = none. */
  readonly control: number;
  /** Chain number of the newest irregular block (block-header.ts); 0 = none. */
  readonly irregular: number;
  /** Lines that are not undone, after that block. */
  readonly position: number;
  /** Greatest checkpoint index ever logged. */
  readonly greatestCheckpoint: number;
}

const HEAD_FIELDS = ["chain", "sequence", "control", "irregular", "position", "greatestCheckpoint"] as const;

/** Six u64. */
export function encodeHead(head: ProcessHead): Uint8Array {
  const bytes = new Uint8Array(HEAD_FIELDS.length * 8);
  const view = viewOf(bytes);
  for (const [index, field] of HEAD_FIELDS.entries()) setU64(view, index * 8, head[field]);
  return bytes;
}

/** The head, or undefined if the bytes are none. */
export function decodeHead(bytes: Uint8Array): ProcessHead | undefined {
  if (bytes.length !== HEAD_FIELDS.length * 8) return undefined;
  const view = viewOf(bytes);
  const numbers = HEAD_FIELDS.map((_, index) => getU64(view, index * 8));
  if (numbers.some(Number.isNaN)) return undefined;
  return Object.fromEntries(
    HEAD_FIELDS.map((field, index) => [field, numbers[index]]),
  ) as unknown as ProcessHead;
}

/** One entry's share of the state digest: the digest is the XOR over all entries, so it is kept up by the changed ones. */
export function stateEntryHash(key: Uint8Array, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + key.length + value.length);
  viewOf(bytes).setUint32(0, key.length, true);
  bytes.set(key, 4);
  bytes.set(value, 4 + key.length);
  return sha256(bytes);
}

/** `digest` ^= `hash`, in place. */
export function foldHash(digest: Uint8Array, hash: Uint8Array): void {
  for (let n = 0; n < HASH_BYTES; n += 1) digest[n]! ^= hash[n]!;
}
