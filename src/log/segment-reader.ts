/**
 * Reading the log of a dead owner, or a copy of one. The lock is held meanwhile; nothing is written (without the addon LevelDB
 * opens the segments, and writes).
 */
import type { ParsedBlock } from "../format/block-header.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import { BlockStore, type ChainEnds } from "./block-store.ts";
import { CarriedBlocks } from "./carried-blocks.ts";
import { openLog } from "./open-log.ts";

/** Reads a log block by block; blocks come out checked (checksum, number, application). */
export interface LogReader {
  readonly application: string;
  /** Number of the first block that is kept, and of the last one (firstChain - 1 = none). */
  readonly firstChain: number;
  readonly lastChain: number;
  /** Newest block of each process, its newest control block, its position. */
  heads(): ReadonlyMap<string, ProcessHead>;
  /** Throws `TypeError` beyond firstChain … lastChain, RL_CORRUPT_LOG where the block is missing or damaged. */
  block(chain: number): Promise<ParsedBlock>;
  /** A block of the base (format/log-base.ts) by its number, which is below firstChain. */
  carried(chain: number): ParsedBlock | undefined;
  /** Number of each process's first block in the base. */
  readonly firstCarried: ReadonlyMap<string, number>;
  /** Blocks after number `since` in chain order, those of the base first; the chain is checked, too. */
  blocks(since?: number): AsyncGenerator<ParsedBlock>;
  /** All blocks as bytes, for readers that check checksums and chain by themselves (threads do it faster). */
  unchecked(): AsyncGenerator<Uint8Array>;
  readonly ends: ChainEnds;
  /** A state as it was committed, or undefined. */
  getState(key: string): unknown;
  close(): Promise<void>;
}

/** Throws RL_UNKNOWN_APP, RL_LOCKED (its owner lives), RL_CORRUPT_LOG, RL_NO_RIGHTS. */
export async function openLogReader(dir: string): Promise<LogReader> {
  const { anchor, state, base, shelf, unlock } = await openLog(dir, "reader", undefined);
  const carried = new CarriedBlocks(base);
  const store = new BlockStore(dir, shelf, () => anchor);
  const { application, firstChain, lastChain } = anchor;
  return {
    application,
    firstChain,
    lastChain,
    heads: () => state.heads,
    block: (chain) => store.block(chain),
    carried: (chain) => carried.block(chain),
    firstCarried: carried.first(),
    blocks: (since = 0) => carried.before(since, store),
    unchecked: () => follow(carried.bytes, store.unchecked()),
    ends: anchor,
    getState: (key) => state.get(key),
    close: () => shelf.closeAll().finally(unlock),
  };
}

async function* follow(
  first: readonly Uint8Array[],
  then: AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for (const bytes of first) yield Uint8Array.from(bytes); // readers give the memory away
  yield* then;
}

/** All blocks of a log in chain order, checked. Throws what `openLogReader` and reading throw. */
export async function* readLog(dir: string, since = 0): AsyncGenerator<Uint8Array> {
  const reader = await openLogReader(dir);
  try {
    for await (const { bytes } of reader.blocks(since)) yield bytes;
  } finally {
    await reader.close();
  }
}
