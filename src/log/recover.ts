/**
 * What a log holds when it is opened: LevelDB's newest segment against the anchor.
 *
 * LevelDB may lose what was synced and say nothing, but it can't make a commit record up: the newest commit must be the
 * one the anchor names, or exactly one newer (its owner died between LevelDB and the anchor) that chains to it.
 */

import { type ParsedBlock, parseBlock } from "../format/block-header.ts";
import type { Anchor, SegmentFacts } from "../format/log-anchor.ts";
import { type CommitRecord, decodeCommit } from "../format/log-commit.ts";
import { hasCode } from "../model/errors.ts";
import { readAnchor } from "./anchor-file.ts";
import { equal } from "./block-store.ts";
import { locked } from "./log-lock.ts";
import { corrupt, segmentNumbers } from "./log-paths.ts";
import { LogState } from "./log-state.ts";
import type { ReadableSegment } from "./segment.ts";
import type { SegmentShelf } from "./segment-shelf.ts";

export interface Recovered {
  /** As the log now is: the commit that had no anchor yet is in it. */
  readonly anchor: Anchor;
  readonly state: LogState;
  /** Of the newest segment's blocks. */
  readonly segmentBytes: number;
  /** True if the file must be written: it is one commit behind. */
  readonly anchorIsBehind: boolean;
}

/**
 * Checks the newest segment, which the caller has taken, against the anchor and reads the state.
 * Throws RL_CORRUPT_LOG; RL_LOCKED where another owner changed the anchor meanwhile.
 */
export async function recover(dir: string, anchor: Anchor, segment: ReadableSegment): Promise<Recovered> {
  const again = await readAnchor(dir);
  if (
    again === undefined ||
    again.commit !== anchor.commit ||
    again.segments.length !== anchor.segments.length
  )
    throw locked(dir, undefined);
  return await checkNewest(dir, anchor, segment);
}

/** The same, of an anchor that is known to be the log's. Throws RL_CORRUPT_LOG. */
export async function checkNewest(dir: string, anchor: Anchor, segment: ReadableSegment): Promise<Recovered> {
  const record = await readCommit(dir, anchor, segment);
  const behind = record.commit !== anchor.commit;
  if (behind) await checkNewerCommit(dir, anchor, record, segment);
  else checkSameCommit(dir, anchor, record);
  await checkNewestBlock(dir, anchor, record, segment);
  const state = await LogState.load(dir, segment);
  if (!equal(state.digest, record.stateDigest)) throw corrupt(dir, "the state is not what was committed");
  const { commit, lastChain, lastHash, stateDigest } = record;
  return {
    anchor: { ...anchor, commit, lastChain, lastHash, stateDigest },
    state,
    segmentBytes: record.segmentBytes,
    anchorIsBehind: behind,
  };
}

async function readCommit(dir: string, anchor: Anchor, segment: ReadableSegment): Promise<CommitRecord> {
  const bytes = await segment.commitRecord();
  if (bytes === undefined) throw corrupt(dir, `commit ${anchor.commit} is missing`);
  const record = decodeCommit(bytes);
  if (typeof record === "string") throw corrupt(dir, record);
  if (record.commit !== anchor.commit && record.commit !== anchor.commit + 1)
    throw corrupt(dir, `commit ${record.commit} where the anchor names ${anchor.commit}`);
  return record;
}

function checkSameCommit(dir: string, anchor: Anchor, record: CommitRecord): void {
  const same =
    record.lastChain === anchor.lastChain &&
    equal(record.lastHash, anchor.lastHash) &&
    equal(record.stateDigest, anchor.stateDigest);
  if (!same) throw corrupt(dir, `commit ${record.commit} is not the one the anchor names`);
}

/** The blocks that the anchor does not know yet must chain to the last one it knows. */
async function checkNewerCommit(
  dir: string,
  anchor: Anchor,
  record: CommitRecord,
  segment: ReadableSegment,
): Promise<void> {
  if (record.lastChain < anchor.lastChain) throw corrupt(dir, "the newest commit ends before the anchor");
  let hash = anchor.lastHash;
  for (let chain = anchor.lastChain + 1; chain <= record.lastChain; chain += 1) {
    const { header } = await blockOf(dir, segment, chain);
    if (!equal(header.previousHash, hash))
      throw corrupt(dir, `block ${chain} does not follow block ${chain - 1}`);
    hash = header.hash;
  }
  if (!equal(hash, record.lastHash)) throw corrupt(dir, `block ${record.lastChain} is not the last one`);
}

async function checkNewestBlock(
  dir: string,
  anchor: Anchor,
  record: CommitRecord,
  segment: ReadableSegment,
): Promise<void> {
  const newest = anchor.segments.at(-1)!;
  const sealed = anchor.segments.at(-2);
  const before = sealed?.lastHash ?? anchor.baseHash;
  const hash =
    record.lastChain >= newest.firstChain
      ? (await blockOf(dir, segment, record.lastChain)).header.hash
      : before;
  if (!equal(hash, record.lastHash)) throw corrupt(dir, `block ${record.lastChain} is not the last one`);
}

async function blockOf(dir: string, segment: ReadableSegment, chain: number): Promise<ParsedBlock> {
  const bytes = await segment.block(chain);
  if (bytes === undefined) throw corrupt(dir, `block ${chain} is missing`);
  try {
    const parsed = parseBlock(bytes);
    if (parsed.header.chain !== chain) throw corrupt(dir, `block ${chain} is another one`);
    return parsed;
  } catch (error) {
    throw hasCode(error, "RL_BAD_BLOCK") ? corrupt(dir, `block ${chain}: ${error.message}`, error) : error;
  }
}

/** The folders that are there against those the anchor names. */
export interface Leftovers {
  /** Dropped by retention, and not removed yet. */
  readonly dropped: readonly number[];
  /** Begun by a rotation that the anchor does not know. */
  readonly begun: number | undefined;
}

/** Throws RL_CORRUPT_LOG where a named one is missing, or a newer one holds blocks. */
export async function checkFolders(dir: string, anchor: Anchor, shelf: SegmentShelf): Promise<Leftovers> {
  const there = await segmentNumbers(dir);
  for (const { number } of anchor.segments)
    if (!there.includes(number)) throw corrupt(dir, `segment ${number} is missing`);
  const newest: SegmentFacts = anchor.segments.at(-1)!;
  const beyond = there.filter((number) => number > newest.number);
  if (beyond.length > 1 || (beyond[0] ?? newest.number + 1) !== newest.number + 1)
    throw corrupt(dir, `segment ${beyond.at(-1)} is not in the anchor`);
  const begun = beyond[0];
  if (begun !== undefined && (await holdsBlocks(begun, shelf)))
    throw corrupt(dir, `segment ${begun} holds blocks and is not in the anchor`);
  return { dropped: there.filter((number) => number < anchor.segments[0]!.number), begun };
}

/** A rotation that was cut off may have left a folder that LevelDB can't open: then nothing was acknowledged in it. */
async function holdsBlocks(number: number, shelf: SegmentShelf): Promise<boolean> {
  try {
    const found = await shelf.use(number, async (segment) => {
      for await (const _ of segment.blocks(0, Number.MAX_SAFE_INTEGER)) return true;
      return false;
    });
    await shelf.retire(number);
    return found;
  } catch (error) {
    if (hasCode(error, "RL_CORRUPT_LOG")) return false;
    throw error;
  }
}
