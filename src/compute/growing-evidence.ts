/** The evidence of a log that grows, asked for again and again: each block is read once, not at every question. */
import type { CollectorClient } from "../client/client.ts";
import { parseBlock } from "../format/block-header.ts";
import { HASH_BYTES } from "../format/block-layout.ts";
import { hasCode } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { StretchAssembler } from "./assemble-stretches.ts";
import { settle } from "./build-evidence.ts";
import { HashChain } from "./chain-check.ts";
import { partition } from "./partition.ts";
import { reduceBlocks } from "./worker-protocol.ts";

export interface GrowingLog {
  /** For messages. */
  readonly name: string;
  /** Number of the first block behind the log's base: another one means that the log was pruned. */
  readonly firstChain: number;
  /** Blocks after number `since`, in chain order. */
  blocks(since: number): AsyncIterable<Uint8Array>;
}

interface Read {
  readonly assembler: StretchAssembler;
  readonly join: boolean;
  readonly firstChain: number;
  /** Tasks so far, count. */
  tasks: number;
  /** Number and hash of the newest block read. */
  chain: number;
  hash: Uint8Array;
}

export class GrowingEvidence {
  readonly #mostEntries: number;
  #read: Read | undefined;

  /** More than so many rows, cuts and checkpoints are not kept from one question to the next, count (some 40 bytes each). */
  constructor(mostEntries = Number.POSITIVE_INFINITY) {
    this.#mostEntries = mostEntries;
  }

  /** What was read is kept: the next question reads only what is new. */
  get isKept(): boolean {
    return this.#read !== undefined;
  }

  /**
   * All of the log as it is now. What was read before is taken for the log's beginning only where the newest of those blocks still stands in it, each
   * new one hangs on the one before, and it was not pruned since. Throws what `buildEvidence` throws; the next question then reads all.
   */
  async of(log: GrowingLog): Promise<Evidence> {
    const before = this.#read;
    this.#read = undefined; // until all went well
    const isSame = before !== undefined && before.chain > 0 && before.firstChain === log.firstChain;
    const read = (isSame ? await this.#goOn(before, log) : undefined) ?? (await readAll(log));
    const evidence = read.assembler.build();
    if (entriesOf(evidence) <= this.#mostEntries) this.#read = read;
    return evidence;
  }

  /** The same, of an application that a collector records. */
  async ofApp(client: Pick<CollectorClient, "log" | "blocks">, app: string): Promise<Evidence> {
    const { firstChain } = await client.log(app);
    return this.of({ name: app, firstChain, blocks: (since) => client.blocks(app, since) });
  }

  /** Undefined where it must be read from the beginning. */
  async #goOn(read: Read, log: GrowingLog): Promise<Read | undefined> {
    const blocks = log.blocks(read.chain - 1)[Symbol.asyncIterator]();
    try {
      const known = await blocks.next();
      if (known.done === true) return undefined;
      const { application, chain, hash } = parseBlock(known.value).header;
      if (chain !== read.chain || Buffer.compare(hash, read.hash) !== 0) return undefined;
      const rest = { [Symbol.asyncIterator]: () => blocks };
      const ends = { application, firstChain: chain + 1, baseHash: hash, lastChain: chain, lastHash: hash };
      return (await take(read, log.name, rest, new HashChain(log.name, ends))) ? read : undefined;
    } catch (error) {
      if (hasCode(error, "RL_CORRUPT_LOG")) return undefined; // pruned while it was read: its base goes on with other blocks than it did
      throw error;
    } finally {
      await blocks.return?.();
    }
  }
}

function entriesOf({ rows, peeks, cuts, seen, segments }: Evidence): number {
  return (
    rows.begin.length + peeks.begin.length + cuts.offset.length + seen.offset.length + segments.line.length
  );
}

async function readAll(log: GrowingLog): Promise<Read> {
  return (await readFrom(log, true)) ?? ((await readFrom(log, false)) as Read);
}

/** Undefined where joining is forbidden. */
async function readFrom(log: GrowingLog, join: boolean): Promise<Read | undefined> {
  const assembler = new StretchAssembler(join, []);
  const { firstChain } = log;
  const read: Read = { assembler, join, firstChain, tasks: 0, chain: 0, hash: new Uint8Array() };
  return (await take(read, log.name, log.blocks(0))) ? read : undefined;
}

/** False where a `stable` line forbids joining. `chain`: which the blocks go on with. */
async function take(
  read: Read,
  name: string,
  blocks: AsyncIterable<Uint8Array>,
  chain?: HashChain,
): Promise<boolean> {
  for await (const part of partition([{ name, blocks: () => blocks }])) {
    const answer = reduceBlocks({ blocks: part.blocks, join: read.join });
    if (answer.kind === "stretches") {
      chain?.add(answer.stretches);
      read.chain = answer.stretches.chain.at(-1)!;
      read.hash = answer.stretches.hash.slice(-HASH_BYTES);
    }
    if (!settle(read.assembler, { ...part, index: read.tasks }, answer)) return false;
    read.tasks += 1;
  }
  return true;
}
