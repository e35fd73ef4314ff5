/**
 * Blocks of a collector's log by number. Whoever walks a log back needs most of the blocks on its way, and a request costs as much as reading ten: the
 * second block that is asked for of a window of WINDOW_BLOCKS brings all of it.
 */
import { type ParsedBlock, parseBlock } from "../format/block-header.ts";
import { type BlockWindow, windowOf } from "../model/block-window.ts";

/** Windows that are kept, count: one for each process that is read at one time; and bytes of their blocks. */
const MAX_WINDOWS = 32;
const MAX_WINDOW_BYTES = 64 * 1024 * 1024;

export interface BlockRequests {
  one(chain: number): Promise<Uint8Array>;
  /** Blocks `first` to `last`, in order. */
  range(first: number, last: number): Promise<readonly Uint8Array[]>;
}

export class BlockWindows {
  readonly #requests: BlockRequests;
  readonly #firstChain: number;
  readonly #lastChain: number;
  readonly #touched = new Set<number>();
  /** In order of last use. */
  readonly #windows = new Map<number, Promise<ReadonlyMap<number, ParsedBlock>>>();
  readonly #sizes = new Map<number, number>();
  /** Not kept, as there were too many: their blocks come one by one. */
  readonly #given = new Set<number>();

  /** Of the blocks `firstChain` to `lastChain`. */
  constructor(requests: BlockRequests, firstChain: number, lastChain: number) {
    this.#requests = requests;
    this.#firstChain = firstChain;
    this.#lastChain = lastChain;
  }

  /** Throws RL_BAD_BLOCK, and what the requests throw. */
  async block(chain: number): Promise<ParsedBlock> {
    const window = windowOf(chain);
    const isWhole =
      chain >= this.#firstChain && this.#touched.has(window.number) && !this.#given.has(window.number);
    this.#touched.add(window.number);
    if (!isWhole) return parseBlock(await this.#requests.one(chain));
    const known = this.#windows.get(window.number) ?? this.#fetch(window);
    this.#windows.delete(window.number);
    this.#windows.set(window.number, known);
    known.catch(() => this.#windows.delete(window.number));
    this.#forgetOldest();
    return (await known).get(chain) ?? parseBlock(await this.#requests.one(chain));
  }

  #forgetOldest(): void {
    const bytes = (): number =>
      [...this.#windows.keys()].reduce((sum, number) => sum + (this.#sizes.get(number) ?? 0), 0);
    while (this.#windows.size > 1 && (this.#windows.size > MAX_WINDOWS || bytes() > MAX_WINDOW_BYTES)) {
      const oldest = this.#windows.keys().next().value!;
      this.#windows.delete(oldest);
      this.#given.add(oldest);
    }
  }

  async #fetch({ number, first, last }: BlockWindow): Promise<ReadonlyMap<number, ParsedBlock>> {
    const from = Math.max(first, this.#firstChain);
    const all = await this.#requests.range(from, Math.min(last, this.#lastChain));
    this.#sizes.set(
      number,
      all.reduce((sum, bytes) => sum + bytes.length, 0),
    );
    return new Map(
      all.map((bytes) => {
        const parsed = parseBlock(bytes);
        return [parsed.header.chain, parsed] as const;
      }),
    );
  }
}
