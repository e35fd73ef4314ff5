/**
 * The anchor: what LevelDB must still have. It names the last acknowledged block and its hash, the first one that is
 * kept and the hash before it, the digest of the state, and the segments. Layout: logs-format.md, "Anchor".
 *
 * Invariants: at least one segment; numbers and chain numbers contiguous; all but the newest are sealed and not empty;
 * the first begins at firstChain; baseHash is zeros exactly if firstChain is 1 (nothing was dropped).
 */
import { isUtf8 } from "node:buffer";
import { assert } from "../model/assert.ts";
import { MAX_PROCESS_NAME_BYTES } from "../model/limits.ts";
import { sha256 } from "./block-header.ts";
import { HASH_BYTES } from "./block-layout.ts";
import { getU64, setU64, viewOf } from "./u64.ts";

const ANCHOR_MAGIC = 0x414c_5252; // "RRLA"
const ANCHOR_VERSION = 1;
/** Offsets in the anchor, in bytes. */
export const ANCHOR_AT = {
  magic: 0, // u32
  version: 4, // u32
  size: 8, // u32, whole file
  segments: 12, // u32, count
  commit: 16, // u64
  firstChain: 24, // u64
  lastChain: 32, // u64
  nameBytes: 40, // u32
  reserved: 44, // u32, zero
  baseHash: 48, // 32 bytes
  lastHash: 80, // 32 bytes
  stateDigest: 112, // 32 bytes
} as const;
export const ANCHOR_HEADER_BYTES = 144;
/** Offsets in a segment's entry, in bytes. */
export const SEGMENT_AT = {
  number: 0, // u32
  reserved: 4, // u32, zero
  firstChain: 8, // u64
  lastChain: 16, // u64, 0 while it is open
  bytes: 24, // u64, of its blocks; 0 while it is open
  lastHash: 32, // 32 bytes, zeros while it is open
} as const;
export const SEGMENT_ENTRY_BYTES = 64;
/** Far above any real log: 65 536 segments of 64 MiB are 4 TiB. */
const MAX_SEGMENTS = 65_536;

export interface SegmentFacts {
  /** Names the folder; rises by one. */
  readonly number: number;
  readonly firstChain: number;
  /** 0 while it is open. */
  readonly lastChain: number;
  /** Of its blocks; 0 while it is open. */
  readonly bytes: number;
  /** Of its last block; zeros while it is open. */
  readonly lastHash: Uint8Array;
}

export interface Anchor {
  readonly application: string;
  readonly commit: number;
  /** First block that is kept. */
  readonly firstChain: number;
  /** Last acknowledged block; firstChain - 1 = none is kept. */
  readonly lastChain: number;
  /** Of the block before firstChain. */
  readonly baseHash: Uint8Array;
  /** Of lastChain. */
  readonly lastHash: Uint8Array;
  readonly stateDigest: Uint8Array;
  /** Oldest first; the last one is open. */
  readonly segments: readonly SegmentFacts[];
}

export const NO_HASH: Uint8Array = new Uint8Array(HASH_BYTES);

export function encodeAnchor(anchor: Anchor): Uint8Array {
  const wrong = faultOf(anchor);
  assert(wrong === undefined, `an anchor that holds its invariants: ${wrong}`);
  const name = new TextEncoder().encode(anchor.application);
  const entries = anchor.segments.length * SEGMENT_ENTRY_BYTES;
  const bytes = new Uint8Array(ANCHOR_HEADER_BYTES + entries + name.length + HASH_BYTES);
  const view = viewOf(bytes);
  view.setUint32(ANCHOR_AT.magic, ANCHOR_MAGIC, true);
  view.setUint32(ANCHOR_AT.version, ANCHOR_VERSION, true);
  view.setUint32(ANCHOR_AT.size, bytes.length, true);
  view.setUint32(ANCHOR_AT.segments, anchor.segments.length, true);
  view.setUint32(ANCHOR_AT.nameBytes, name.length, true);
  for (const field of ["commit", "firstChain", "lastChain"] as const)
    setU64(view, ANCHOR_AT[field], anchor[field]);
  for (const field of ["baseHash", "lastHash", "stateDigest"] as const)
    bytes.set(anchor[field], ANCHOR_AT[field]);
  for (const [index, segment] of anchor.segments.entries())
    writeSegment(bytes.subarray(ANCHOR_HEADER_BYTES + index * SEGMENT_ENTRY_BYTES), segment);
  bytes.set(name, ANCHOR_HEADER_BYTES + entries);
  const trailer = bytes.length - HASH_BYTES;
  bytes.set(sha256(bytes.subarray(0, trailer)), trailer);
  return bytes;
}

function writeSegment(bytes: Uint8Array, segment: SegmentFacts): void {
  const view = viewOf(bytes);
  view.setUint32(SEGMENT_AT.number, segment.number, true);
  for (const field of ["firstChain", "lastChain", "bytes"] as const)
    setU64(view, SEGMENT_AT[field], segment[field]);
  bytes.set(segment.lastHash, SEGMENT_AT.lastHash);
}

/** The anchor, or why the bytes are none. */
export function decodeAnchor(bytes: Uint8Array): Anchor | string {
  if (bytes.length < ANCHOR_HEADER_BYTES + SEGMENT_ENTRY_BYTES + 1 + HASH_BYTES) return "too short";
  const view = viewOf(bytes);
  if (view.getUint32(ANCHOR_AT.magic, true) !== ANCHOR_MAGIC) return "wrong magic number";
  const trailer = bytes.length - HASH_BYTES;
  if (Buffer.compare(sha256(bytes.subarray(0, trailer)), bytes.subarray(trailer)) !== 0)
    return "wrong checksum";
  const version = view.getUint32(ANCHOR_AT.version, true);
  if (version !== ANCHOR_VERSION) return `unknown version ${version}`;
  const count = view.getUint32(ANCHOR_AT.segments, true);
  const nameBytes = view.getUint32(ANCHOR_AT.nameBytes, true);
  const nameAt = ANCHOR_HEADER_BYTES + count * SEGMENT_ENTRY_BYTES;
  if (view.getUint32(ANCHOR_AT.size, true) !== bytes.length || nameAt + nameBytes !== trailer)
    return "wrong size";
  const name = bytes.subarray(nameAt, trailer);
  if (nameBytes < 1 || nameBytes > MAX_PROCESS_NAME_BYTES || !isUtf8(name)) return "wrong application name";
  const hash = (at: number): Uint8Array => bytes.slice(at, at + HASH_BYTES);
  const anchor: Anchor = {
    application: new TextDecoder("utf-8", { ignoreBOM: true }).decode(name),
    commit: getU64(view, ANCHOR_AT.commit),
    firstChain: getU64(view, ANCHOR_AT.firstChain),
    lastChain: getU64(view, ANCHOR_AT.lastChain),
    baseHash: hash(ANCHOR_AT.baseHash),
    lastHash: hash(ANCHOR_AT.lastHash),
    stateDigest: hash(ANCHOR_AT.stateDigest),
    segments: Array.from({ length: count }, (_, index) =>
      readSegment(bytes.subarray(ANCHOR_HEADER_BYTES + index * SEGMENT_ENTRY_BYTES)),
    ),
  };
  return faultOf(anchor) ?? anchor;
}

function readSegment(bytes: Uint8Array): SegmentFacts {
  const view = viewOf(bytes);
  return {
    number: view.getUint32(SEGMENT_AT.number, true),
    firstChain: getU64(view, SEGMENT_AT.firstChain),
    lastChain: getU64(view, SEGMENT_AT.lastChain),
    bytes: getU64(view, SEGMENT_AT.bytes),
    lastHash: bytes.slice(SEGMENT_AT.lastHash, SEGMENT_AT.lastHash + HASH_BYTES),
  };
}

/** Which invariant does not hold; also NaN breaks one. */
function faultOf({ application, commit, firstChain, lastChain, segments }: Anchor): string | undefined {
  if (application === "" || !(commit >= 0)) return "no name or no commit number";
  if (segments.length < 1 || segments.length > MAX_SEGMENTS) return `${segments.length} segments`;
  if (!(firstChain >= 1 && lastChain >= firstChain - 1)) return "chain numbers out of range";
  let next = firstChain;
  for (const [index, segment] of segments.entries()) {
    const open = index === segments.length - 1;
    if (segment.number !== segments[0]!.number + index || segment.number < 1) return "segment numbers";
    if (segment.firstChain !== next || !(segment.bytes >= 0)) return "segments do not join";
    if (open ? segment.lastChain !== 0 : !(segment.lastChain >= next)) return "a segment's last block";
    if (!open) next = segment.lastChain + 1;
  }
  return lastChain >= next - 1 ? undefined : "the last block lies in a sealed segment";
}
