/** Where each key of a segment has its newest value: small, so that values are read when they are asked for. */
import { COMMIT_KEY, chainOf, isBlockKey, isStateKey } from "../format/log-key.ts";
import { firstWhere } from "../model/search.ts";

/** Part of a source, which is a table or a WAL of the segment. */
export interface ValuePlace {
  readonly source: number;
  readonly at: number;
  readonly length: number;
}

/** Numbers a block takes in `#blocks`. */
const FIELDS = { chain: 0, sequence: 1, source: 2, at: 3, length: 4 } as const;
const WIDTH = 5;
/** In the place of a source: the key was deleted. */
const DELETED = -1;

export class EntryIndex {
  /** Chain, sequence, source, offset, length of each block that was added: a segment may hold a quarter million. */
  #blocks: number[] = [];
  #rising = true;
  readonly #others = new Map<string, { readonly sequence: number; readonly place: ValuePlace }>();

  /** False for a key that no segment has. In any order: the greatest sequence number of a key counts. */
  add(key: Buffer, sequence: number, place: ValuePlace | undefined): boolean {
    const { source, at, length } = place ?? { source: DELETED, at: 0, length: 0 };
    if (isBlockKey(key)) {
      const chain = chainOf(key);
      if (Number.isNaN(chain)) return false;
      this.#rising &&= !(chain <= (this.#blocks.at(-WIDTH) ?? 0));
      this.#blocks.push(chain, sequence, source, at, length);
      return true;
    }
    if (!isStateKey(key) && Buffer.compare(key, COMMIT_KEY) !== 0) return false;
    const name = key.toString("latin1");
    const old = this.#others.get(name);
    if (old === undefined || old.sequence < sequence)
      this.#others.set(name, { sequence, place: { source, at, length } });
    return true;
  }

  /** Call it when all is added. */
  finish(): void {
    if (this.#rising) return;
    const rows = Array.from({ length: this.#blocks.length / WIDTH }, (_, row) => row * WIDTH);
    const { chain, sequence } = FIELDS;
    const cell = (at: number, field: number): number => this.#blocks[at + field]!;
    rows.sort((a, b) => cell(a, chain) - cell(b, chain) || cell(b, sequence) - cell(a, sequence));
    this.#blocks = rows
      .filter((at, row) => row === 0 || cell(at, chain) !== cell(rows[row - 1]!, chain))
      .flatMap((at) => this.#blocks.slice(at, at + WIDTH));
    this.#rising = true;
  }

  block(chain: number): ValuePlace | undefined {
    const row = this.#firstFrom(chain);
    return this.#blocks[row * WIDTH] === chain ? this.#place(row) : undefined;
  }

  /** Blocks [first, last] in order, those that are there. */
  *blocks(first: number, last: number): Generator<readonly [chain: number, place: ValuePlace]> {
    for (let row = this.#firstFrom(first); row * WIDTH < this.#blocks.length; row += 1) {
      const chain = this.#blocks[row * WIDTH]!;
      if (chain > last) return;
      const place = this.#place(row);
      if (place !== undefined) yield [chain, place];
    }
  }

  #place(row: number): ValuePlace | undefined {
    const cell = (field: number): number => this.#blocks[row * WIDTH + field]!;
    const source = cell(FIELDS.source);
    return source === DELETED ? undefined : { source, at: cell(FIELDS.at), length: cell(FIELDS.length) };
  }

  /** The first row whose chain number is at least this. */
  #firstFrom(chain: number): number {
    return firstWhere(0, this.#blocks.length / WIDTH, (at) => this.#blocks[at * WIDTH]! >= chain);
  }

  /** Commit record, heads or states. */
  other(key: Uint8Array): ValuePlace | undefined {
    return there(this.#others.get(Buffer.from(key).toString("latin1"))?.place);
  }

  /** Heads and states, by key. */
  *states(): Generator<readonly [key: Uint8Array, place: ValuePlace]> {
    for (const name of [...this.#others.keys()].sort()) {
      const key = Buffer.from(name, "latin1");
      const place = there(this.#others.get(name)!.place);
      if (place !== undefined && isStateKey(key)) yield [Uint8Array.from(key), place];
    }
  }
}

function there(place: ValuePlace | undefined): ValuePlace | undefined {
  return place?.source === DELETED ? undefined : place;
}
