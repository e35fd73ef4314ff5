/** Do the blocks of a log form the chain that its anchor names? Checked by hashes that were computed elsewhere, block after block. */
import { HASH_BYTES } from "../format/block-layout.ts";
import type { ChainEnds } from "../log/block-store.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { PackedStretches } from "./worker-protocol.ts";

export class HashChain {
  readonly #log: string;
  readonly #ends: ChainEnds;
  #next: number;
  #hash: Uint8Array;

  constructor(log: string, ends: ChainEnds) {
    this.#log = log;
    this.#ends = ends;
    this.#next = ends.firstChain;
    this.#hash = ends.baseHash;
  }

  /** The blocks that come next. Throws RL_CORRUPT_LOG at the first that is out of place. */
  add({ application, chain, previousHash, hash }: PackedStretches): void {
    if (application !== this.#ends.application)
      throw this.#corrupt(`block ${this.#next} is of "${application}"`);
    for (let block = 0; block < chain.length; block += 1) {
      if (this.#next === this.#ends.firstChain && (chain[block] as number) < this.#next) continue; // of the log's base
      if (chain[block] !== this.#next) throw this.#corrupt(`block ${this.#next} is another one`);
      const at = block * HASH_BYTES;
      if (Buffer.compare(previousHash.subarray(at, at + HASH_BYTES), this.#hash) !== 0)
        throw this.#corrupt(`block ${this.#next} does not follow block ${this.#next - 1}`);
      this.#hash = hash.subarray(at, at + HASH_BYTES);
      this.#next += 1;
    }
  }

  /** There are no more. Throws RL_CORRUPT_LOG if the last one is not the last one that the anchor names. */
  end(): void {
    if (this.#next !== this.#ends.lastChain + 1) throw this.#corrupt(`block ${this.#next} is missing`);
    if (Buffer.compare(this.#hash, this.#ends.lastHash) !== 0)
      throw this.#corrupt(`block ${this.#next - 1} is not the last one`);
  }

  #corrupt(why: string): RecoveryLineError {
    return new RecoveryLineError(
      "RL_CORRUPT_LOG",
      `the log in ${this.#log} is damaged: ${why}`,
      "`recovery-line verify` lists the damaged places. Restore the log from a copy, or compute without this node.",
    );
  }
}
