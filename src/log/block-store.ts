/** Blocks of a log by number and in chain order, checked: nothing passes that the chain does not vouch for. */
import { type BlockHeader, type ParsedBlock, parseBlock } from "../format/block-header.ts";
import type { SegmentFacts } from "../format/log-anchor.ts";
import { chainOf } from "../format/log-key.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { corrupt } from "./log-paths.ts";
import type { ReadableSegment } from "./segment.ts";
import type { SegmentShelf } from "./segment-shelf.ts";

/** What the blocks of a log, all together, must be: each one's hash is in the next, from the base hash to the last one. */
export interface ChainEnds {
  readonly application: string;
  readonly firstChain: number;
  /** Newest block; firstChain - 1 = none. */
  readonly lastChain: number;
  readonly baseHash: Uint8Array;
  readonly lastHash: Uint8Array;
}

/** How far a log reaches; a value never changes, the log has newer ones. */
export interface Extent extends ChainEnds {
  /** Oldest first; the last one reaches to lastChain. */
  readonly segments: readonly SegmentFacts[];
}

type Shelf = Pick<SegmentShelf, "take" | "use" | "giveBack">;

export class BlockStore {
  readonly #dir: string;
  readonly #shelf: Shelf;
  readonly #extent: () => Extent;

  constructor(dir: string, shelf: Shelf, extent: () => Extent) {
    this.#dir = dir;
    this.#shelf = shelf;
    this.#extent = extent;
  }

  /** Throws `TypeError` beyond the log's reach, RL_CORRUPT_LOG where the block is missing or damaged. */
  async block(chain: number): Promise<ParsedBlock> {
    const extent = this.#extent();
    if (!(chain >= extent.firstChain && chain <= extent.lastChain))
      throw new TypeError(`block ${chain} of a log of ${extent.firstChain} to ${extent.lastChain}`);
    const { number } = extent.segments.findLast((one) => one.firstChain <= chain)!;
    const bytes = await this.#shelf.use(number, (segment) => segment.block(chain));
    if (bytes === undefined) throw corrupt(this.#dir, `block ${chain} is missing`);
    return this.#parse(bytes, chain, extent.application);
  }

  #parse(bytes: Uint8Array, chain: number, application: string): ParsedBlock {
    try {
      const parsed = parseBlock(bytes);
      if (parsed.header.chain !== chain || parsed.header.application !== application)
        throw corrupt(this.#dir, `block ${chain} is another one`);
      return parsed;
    } catch (error) {
      if (!hasCode(error, "RL_BAD_BLOCK")) throw error;
      throw corrupt(this.#dir, `block ${chain}: ${error.message}`, error);
    }
  }

  /**
   * Blocks after number `since`, up to the newest at the time of the call, each checked against the one before it.
   * Throws RL_CORRUPT_LOG at the first that is missing, damaged or out of place, RL_REFUSED where retention removed it meanwhile.
   */
  blocks(since = 0): AsyncGenerator<ParsedBlock> {
    return this.#blocks(this.#extent(), since);
  }

  async *#blocks(extent: Extent, since: number): AsyncGenerator<ParsedBlock> {
    let next = Math.max(since + 1, extent.firstChain);
    if (next > extent.lastChain) return;
    let hash = next === extent.firstChain ? extent.baseHash : (await this.block(next - 1)).header.hash;
    for await (const [key, bytes] of this.#raw(extent, next)) {
      if (chainOf(key) !== next) throw corrupt(this.#dir, `block ${next} is missing`);
      const parsed = this.#parse(bytes, next, extent.application);
      this.#checkLink(parsed.header, hash);
      hash = parsed.header.hash;
      next += 1;
      yield parsed;
    }
    if (next !== extent.lastChain + 1) throw corrupt(this.#dir, `block ${next} is missing`);
    if (!equal(hash, extent.lastHash)) throw corrupt(this.#dir, `block ${next - 1} is not the last one`);
  }

  /** All blocks as bytes, checked only to stand under every number from the first to the last: `ChainEnds` is left to the reader. */
  async *unchecked(): AsyncGenerator<Uint8Array> {
    const extent = this.#extent();
    let next = extent.firstChain;
    for await (const [key, bytes] of this.#raw(extent, next)) {
      if (chainOf(key) !== next) throw corrupt(this.#dir, `block ${next} is missing`);
      next += 1;
      yield bytes;
    }
    if (next !== extent.lastChain + 1) throw corrupt(this.#dir, `block ${next} is missing`);
  }

  #checkLink({ chain, previousHash }: BlockHeader, hash: Uint8Array): void {
    if (!equal(previousHash, hash))
      throw corrupt(this.#dir, `block ${chain} does not follow block ${chain - 1}`);
  }

  async *#raw(extent: Extent, first: number): AsyncGenerator<[Uint8Array, Uint8Array]> {
    for (const { number, firstChain, lastChain } of extent.segments) {
      const last = lastChain === 0 ? extent.lastChain : lastChain;
      if (last < first) continue;
      const segment = await this.#take(number, last);
      try {
        yield* segment.blocks(Math.max(first, firstChain), last);
      } finally {
        await this.#shelf.giveBack(number);
      }
    }
  }

  /** A reader that is slower than retention is told so; the log is not damaged. */
  async #take(number: number, last: number): Promise<ReadableSegment> {
    try {
      return await this.#shelf.take(number);
    } catch (error) {
      if (last >= this.#extent().firstChain) throw error;
      throw new RecoveryLineError(
        "RL_REFUSED",
        `blocks up to ${last} of the log in ${this.#dir} were removed while they were read`,
        "Read the log again: it begins later now.",
        error,
      );
    }
  }
}

export function equal(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
