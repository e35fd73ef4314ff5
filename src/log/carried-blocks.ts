/** The blocks of a log's base, and the whole log as a reader sees it: base first, then what is kept. */
import { type ParsedBlock, parseBlock } from "../format/block-header.ts";
import type { LogBase } from "../format/log-base.ts";
import type { BlockStore } from "./block-store.ts";

export class CarriedBlocks {
  readonly #blocks: ReadonlyMap<number, Uint8Array>;
  readonly #boundary: number;

  constructor(base: LogBase | undefined) {
    this.#boundary = base?.boundary ?? 1;
    this.#blocks = new Map((base?.blocks ?? []).map((bytes) => [parseBlock(bytes).header.chain, bytes]));
  }

  /** The block with this number, as far as the base holds it. */
  block(chain: number): ParsedBlock | undefined {
    const bytes = this.#blocks.get(chain);
    return bytes === undefined ? undefined : parseBlock(bytes);
  }

  /** Number of each process's first block in the base: what it did before is collapsed into it. */
  first(): ReadonlyMap<string, number> {
    const found = new Map<string, number>();
    for (const [chain, bytes] of this.#blocks) {
      const { process } = parseBlock(bytes).header;
      if (!found.has(process)) found.set(process, chain);
    }
    return found;
  }

  get bytes(): readonly Uint8Array[] {
    return [...this.#blocks.values()];
  }

  /** Blocks after number `since`: of the base, then of the store. Base and store are taken as they are at the call. */
  before(since: number, store: BlockStore): AsyncGenerator<ParsedBlock> {
    return this.#follow(since, store.blocks(Math.max(since, this.#boundary - 1)));
  }

  async *#follow(since: number, kept: AsyncGenerator<ParsedBlock>): AsyncGenerator<ParsedBlock> {
    for (const [chain, bytes] of this.#blocks) if (chain > since) yield parseBlock(bytes);
    yield* kept;
  }
}
