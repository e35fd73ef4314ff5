/**
 * Accounts of processes whose last covering cut lies further back than a writer can wait for (cut-coverage.ts): after a collector's restart
 * none of its cuts would cover again, lines would take all events, and nothing could be removed from the log. They are read on the side while
 * lines go on being written, up to where the writer reads the rest itself.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type ParsedBlock, parseBlock } from "../format/block-header.ts";
import { readColumns } from "../format/block-read.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import { MAX_COVERAGE_BLOCKS, MAX_COVERAGE_NAMES } from "../model/limits.ts";
import { follow, lastCut, namesIn, nothingRequired, type Required, requiredBy } from "./cut-account.ts";
import { type EffectiveBlock, HistoryWalk } from "./history-walk.ts";

/** What a process had done by the end of the first `rows` rows of a block. */
export interface AccountAt {
  readonly chain: number;
  readonly rows: number;
  readonly required: Required;
}

/** Rows of a block that an account must yet follow. */
interface Ahead {
  readonly chain: number;
  /** Where the block begins in its process's history: a block of this number in the log's base begins elsewhere. */
  readonly position: number;
  readonly from: number;
  readonly to: number;
}

/** Blocks between two rests, count; a rest takes as long as they did: writing goes first. */
const BLOCKS_A_TURN = 16;

/** True if the account is of what is in effect up to there. */
export function isAt({ chain, rows }: AccountAt, block: EffectiveBlock): boolean {
  return block.parsed.header.chain === chain && block.rows === rows;
}

export class FarAccounts {
  readonly #mostAccounts: number;
  readonly #blockAt: (chain: number) => Promise<Uint8Array | undefined>;
  readonly #committed: (process: string) => ProcessHead | undefined;
  readonly #accounts = new Map<string, AccountAt | "is read" | "is not to be had" | "has too many names">();
  #reading: Promise<void> = Promise.resolve();
  #stopped = false;
  #turn = { blocks: 0, beganMs: performance.now() };

  /** `committed`: the newest committed block of a process: `blockAt` must have it whenever it is asked. No more than `mostAccounts` are kept. */
  constructor(
    blockAt: (chain: number) => Promise<Uint8Array | undefined>,
    committed: (process: string) => ProcessHead | undefined,
    mostAccounts: number,
  ) {
    this.#mostAccounts = mostAccounts;
    this.#blockAt = blockAt;
    this.#committed = committed;
  }

  /** One process after the other. `again`: also where nothing came of it before. */
  begin(process: string, again = false): void {
    const known = this.#accounts.get(process);
    const isNew = known === undefined && this.#accounts.size < this.#mostAccounts;
    if (this.#stopped || !(isNew || (again && known === "is not to be had"))) return;
    this.#accounts.set(process, "is read");
    this.#reading = this.#reading
      .then(() => this.#read(process))
      .catch(() => undefined) // damage is told to whoever reads the log
      .then((account) => {
        if (this.#accounts.get(process) !== "is read") return; // it went back, or never comes
        this.#accounts.set(process, account ?? "is not to be had");
      });
  }

  /** Once it is there. Whoever uses it takes it, and follows it from there. */
  of(process: string): AccountAt | undefined {
    const known = this.#accounts.get(process);
    return typeof known === "string" ? undefined : known;
  }

  /** It was taken, or the process went back. */
  drop(process: string): void {
    this.#accounts.delete(process);
  }

  /** On return no block is asked for any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#reading;
  }

  async #read(process: string): Promise<AccountAt | undefined> {
    this.#turn = { blocks: 0, beganMs: performance.now() };
    let known: AccountAt | undefined;
    for (let near = false; !near; ) {
      const head = this.#committed(process);
      const ahead = head && (await this.#ahead(process, head, known));
      if (ahead === undefined) return undefined;
      const { required, rows } = ahead;
      for (const some of rows.toReversed())
        if (!(await this.#follow(process, required, some))) return undefined;
      if (rows[0] !== undefined) known = { chain: rows[0].chain, rows: rows[0].to, required };
      near = rows.length <= MAX_COVERAGE_BLOCKS / 2;
    }
    return known;
  }

  /** What is to be followed up to `head`, newest first, and from where: `known`, the last covering cut, or the beginning. undefined: nobody knows. */
  async #ahead(
    process: string,
    head: ProcessHead,
    known: AccountAt | undefined,
  ): Promise<{ readonly required: Required; readonly rows: readonly Ahead[] } | undefined> {
    const walk = new HistoryWalk(process, head, (chain) => this.#block(process, chain));
    const rows: Ahead[] = [];
    for (let block = await walk.next(); block !== undefined; block = await walk.next()) {
      const { chain, position, covers, forgets } = block.parsed.header;
      if (known !== undefined && isAt(known, block)) return { required: known.required, rows };
      if (known !== undefined && chain <= known.chain) return undefined; // it went back behind that
      const last = covers ? lastCut(readColumns(block.parsed), block.rows) : undefined;
      rows.push({ chain, position, from: last === undefined ? 0 : last.row + 1, to: block.rows });
      if (last !== undefined) return { required: requiredBy(last.cut, forgets, true), rows };
    }
    if (walk.truncated || known !== undefined) return undefined;
    return { required: nothingRequired(true), rows };
  }

  /** False where it is in vain. */
  async #follow(process: string, required: Required, { chain, position, from, to }: Ahead): Promise<boolean> {
    const parsed = await this.#block(process, chain);
    if (parsed === undefined || parsed.header.position !== position) return false; // removed meanwhile
    const { covers = false } = parsed.header;
    follow(required, { columns: readColumns(parsed), from, to }, covers);
    if (namesIn(required) <= MAX_COVERAGE_NAMES) return true;
    this.#accounts.set(process, "has too many names");
    return false;
  }

  async #block(process: string, chain: number): Promise<ParsedBlock | undefined> {
    await this.#rest();
    if (this.#stopped || !this.#accounts.has(process)) return undefined;
    const bytes = await this.#blockAt(chain);
    return bytes === undefined ? undefined : parseBlock(bytes);
  }

  async #rest(): Promise<void> {
    this.#turn.blocks += 1;
    if (this.#turn.blocks < BLOCKS_A_TURN || this.#stopped) return;
    await sleep(performance.now() - this.#turn.beganMs);
    this.#turn = { blocks: 0, beganMs: performance.now() };
  }
}
