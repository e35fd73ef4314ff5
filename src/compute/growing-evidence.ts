/** The evidence of a log that grows, asked for again and again: each block is read once, not at every question. */
import type { CollectorClient } from "../client/client.ts";
import { parseBlock } from "../format/block-header.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { StretchAssembler } from "./assemble-stretches.ts";
import { settle } from "./build-evidence.ts";
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
      const { chain, hash } = parseBlock(known.value).header;
      if (chain !== read.chain || Buffer.compare(hash, read.hash) !== 0) return undefined;
      return (await take(read, log.name, linked(blocks, known.value))) ? read : undefined;
    } catch (error) {
      if (error instanceof Unlinked) return undefined;
      throw error;
    } finally {
      await blocks.return?.();
    }
  }
}

/** The log was pruned while it was read: its base goes on with other blocks than it did. */
class Unlinked extends Error {}

/** The blocks after `before`, each the next in the chain. Throws `Unlinked`. */
async function* linked(blocks: AsyncIterator<Uint8Array>, before: Uint8Array): AsyncGenerator<Uint8Array> {
  let last = parseBlock(before).header;
  for (let next = await blocks.next(); next.done !== true; next = await blocks.next()) {
    const { header } = parseBlock(next.value);
    if (header.chain !== last.chain + 1 || Buffer.compare(header.previousHash, last.hash) !== 0)
      throw new Unlinked();
    last = header;
    yield next.value;
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

/** False where a `stable` line forbids joining. */
async function take(read: Read, name: string, blocks: AsyncIterable<Uint8Array>): Promise<boolean> {
  for await (const part of partition([{ name, blocks: () => blocks }])) {
    const newest = parseBlock(part.blocks.at(-1)!).header;
    const answer = reduceBlocks({ blocks: part.blocks, join: read.join });
    if (!settle(read.assembler, { ...part, index: read.tasks }, answer)) return false;
    read.tasks += 1;
    read.chain = newest.chain;
    read.hash = Uint8Array.from(newest.hash);
  }
  return true;
}
