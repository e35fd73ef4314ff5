/** Reduced lines back into one history, in the order of the log, whatever order the workers finish in. */

import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import type { NamedBlocks } from "../log/log-sources.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { HashChain } from "./chain-check.ts";
import { type PackedStretches, unpack } from "./worker-protocol.ts";

export class StretchAssembler {
  readonly #builder = new EvidenceBuilder();
  readonly #join: boolean;
  /** Answers that came before their turn. */
  readonly #early = new Map<number, { readonly stretches: PackedStretches; readonly log: string }>();
  readonly #owners = new Map<string, string>();
  readonly #chains = new Map<string, HashChain>();
  #next = 0;

  /** `logs`: whose chains are checked here. */
  constructor(join: boolean, logs: readonly Pick<NamedBlocks, "name" | "ends">[]) {
    this.#join = join;
    for (const { name, ends } of logs)
      if (ends !== undefined) this.#chains.set(name, new HashChain(name, ends));
  }

  /**
   * Answer number `index`, from `log`; each number from 0 on comes once. Throws what `EvidenceBuilder` throws, RL_CORRUPT_LOG for holes,
   * RL_CONTRADICTION for a process in two logs.
   */
  accept(index: number, stretches: PackedStretches, log: string): void {
    this.#early.set(index, { stretches, log });
    for (let ready = this.#early.get(this.#next); ready !== undefined; ready = this.#early.get(this.#next)) {
      this.#early.delete(this.#next);
      this.#next += 1;
      this.#add(ready.stretches, ready.log);
    }
  }

  #add(packed: PackedStretches, log: string): void {
    const builder = this.#builder;
    this.#chains.get(log)?.add(packed);
    for (const stretch of unpack(packed)) {
      claimProcess(this.#owners, stretch.process, log);
      const process = builder.addProcess(stretch.process);
      // The log may have dropped a process's oldest blocks; what it holds has no holes.
      if (builder.lengthOf(process) === 0) builder.skipTo(process, stretch.position);
      if (builder.lengthOf(process) !== stretch.position)
        throw holes(stretch.process, builder.lengthOf(process), stretch.position);
      builder.addReduced(stretch, this.#join);
      if (builder.lengthOf(process) !== stretch.positionAfter)
        throw holes(stretch.process, builder.lengthOf(process), stretch.positionAfter);
    }
  }

  /** Everything that was accepted. Throws `TypeError` while a number is missing. */
  build(): Evidence {
    if (this.#early.size > 0) throw new TypeError(`stretches ${this.#next} never came`);
    for (const chain of this.#chains.values()) chain.end();
    return this.#builder.build();
  }
}

/** A process's lines have no order if two logs hold some. Throws RL_CONTRADICTION. */
export function claimProcess(owners: Map<string, string>, process: string, log: string): void {
  const owner = owners.get(process);
  if (owner === undefined) owners.set(process, log);
  else if (owner !== log)
    throw new RecoveryLineError(
      "RL_CONTRADICTION",
      `process ${JSON.stringify(process)} is in the logs of ${owner} and of ${log}`,
      "A process belongs to one node. Is one of the directories a copy of the other?",
    );
}

function holes(process: string, found: number, told: number): RecoveryLineError {
  return new RecoveryLineError(
    "RL_CORRUPT_LOG",
    `process "${process}": a block begins at position ${told}, and its history before that ends at ${found}`,
    "`recovery-line verify` lists what is missing.",
  );
}
