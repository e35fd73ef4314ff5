/**
 * Does a checkpoint's cut name everything its process did before? interchange.md promises it; readers that skip the events in between
 * rest on it, so the writer checks it, and says so in the block (`BlockHeader.covers`).
 *
 * Covered: each channel end that a line in effect or an earlier cut names is named by the cut, at that offset or above. What must be named
 * is known from the last covering cut and the lines since; where this owner of the log did not see them (it was opened anew, a
 * rollback), they are read back. Too far to read: then no cut covers, and readers take the events, until it is read on the side
 * (far-account.ts).
 *
 * A writer that may forget (the collector) leaves out channels that have ended (complete-cut.ts). Such a cut still
 * covers if the covering cut before it named the channel's last offset, and says so (`BlockHeader.forgets`): older cuts name the rest.
 *
 * A channel that is outside may be left out by any cut: it stands where the lines left it. Of those that a cut names it is written into the
 * cut (`Cut.outside`), so that who skips the events knows them, too; one that a covering cut leaves out is forgotten here. A cut that names
 * such a one again does not cover: how much of it went before that cut, it does not say. A collector's log keeps of the connections to
 * outside that their process has ended since the last covering cut only the newest (MAX_ENDED_OUTSIDE): a server has millions, and no cut
 * names them any more. One that is only half closed, and older, counts as inside there, which is safe.
 */
import { type ParsedBlock, parseBlock } from "../format/block-header.ts";
import { readColumns } from "../format/block-read.ts";
import { EVENT_KIND, type EventColumns } from "../format/event-columns.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import type { Cut } from "../model/event.ts";
import { MAX_COVERAGE_BLOCKS, MAX_COVERAGE_NAMES, MAX_LIVE_PROCESSES } from "../model/limits.ts";
import { type ChannelAccount, completeCut, ownsEnd, sendsOn } from "./complete-cut.ts";
import {
  follow,
  lastCut,
  namesIn,
  nothingRequired,
  type OutsideAt,
  type Required,
  type Rows,
  requiredBy,
} from "./cut-account.ts";
import { FarAccounts, isAt } from "./far-account.ts";
import { HistoryWalk } from "./history-walk.ts";

/** What a block says of its cuts. */
interface Coverage {
  readonly covers: boolean;
  readonly forgets: boolean;
  /** By row: which of the channels that its cut names are outside. Only rows where some are. */
  readonly outsideAt: OutsideAt;
}

const NO_CUT: Coverage = { covers: false, forgets: false, outsideAt: new Map() };

export class CutCoverage {
  readonly #blockAt: (chain: number) => Promise<Uint8Array | undefined>;
  /** In order of last use. Null: it is not known (yet: far-account.ts), so no cut of the process covers. */
  readonly #required = new Map<string, Required | null>();
  /** What is outside for processes that went back: a rollback does not undo it. Until it is read back what is in effect. */
  readonly #undone = new Map<string, ReadonlySet<string>>();
  /** Processes whose next cut could not be completed: it does not cover, whatever is known of them meanwhile. */
  readonly #incomplete = new Set<string>();
  /** Went back: what is in effect is read back while the checkpoint is near. */
  readonly #back = new Set<string>();
  readonly #mayForget: boolean;
  /** Of a collector, whose logs are long and whose processes outlive it. */
  readonly #far: FarAccounts | undefined;

  constructor(
    blockAt: (chain: number) => Promise<Uint8Array | undefined>,
    committed: (process: string) => ProcessHead | undefined,
    mayForget = false,
  ) {
    this.#blockAt = blockAt;
    this.#mayForget = mayForget;
    this.#far = mayForget ? new FarAccounts(blockAt, committed, MAX_LIVE_PROCESSES) : undefined;
  }

  /** On return it asks for no block on its own. */
  async stop(): Promise<void> {
    await this.#far?.stop();
  }

  /** Rows [from, to), which go behind `head`. Covers if they hold cuts and all of them do. */
  async take(
    columns: EventColumns,
    from: number,
    to: number,
    hasCut: boolean,
    head: ProcessHead,
  ): Promise<Coverage> {
    const { process } = columns;
    let required = head.chain === 0 ? nothingRequired(this.#mayForget) : this.#required.get(process);
    if (required === undefined || (required === null && this.#far?.of(process) !== undefined)) {
      const isNear = this.#back.has(process) || this.#far?.of(process) !== undefined; // and will be so no more
      if (!hasCut && !isNear) {
        if (head.greatestCheckpoint > 0) this.#far?.begin(process); // whoever has taken one will take more
        return NO_CUT;
      }
      required = await this.#readBack(process, head);
    }
    const mayCover = !(hasCut && this.#incomplete.delete(process));
    this.#back.delete(process);
    this.#required.delete(process);
    const outsideAt = new Map<number, ReadonlySet<string>>();
    const covers = required !== null && follow(required, { columns, from, to }, mayCover, outsideAt);
    if (columns.kind[to - 1] === EVENT_KIND.rollback) this.#goBack(process, required);
    else this.#remember(process, required);
    return hasCut ? { covers, forgets: required?.forgets === true, outsideAt } : NO_CUT;
  }

  /**
   * The collector's cut with the ended channels that it must name (complete-cut.ts). `heads`: of this process and of those that run: what the
   * others did is known as far as this owner of the log saw it. Where it is not known the cut stays as it is, and will not cover.
   */
  async complete(process: string, cut: Cut, heads: ReadonlyMap<string, ProcessHead>): Promise<Cut> {
    if (!heads.has(process)) return cut; // it has done nothing
    const accounts = await this.#accounts(heads);
    const own = this.#required.get(process);
    if (own) {
      this.#incomplete.delete(process);
      return completeCut(cut, own, accounts);
    }
    this.#incomplete.add(process);
    return cut;
  }

  /** The process that has sent on a channel since its last covering cut, or that this one names as a sender. */
  async senderOf(channel: string, heads: ReadonlyMap<string, ProcessHead>): Promise<string | undefined> {
    await this.#accounts(heads);
    return this.#find((account) => sendsOn(account, channel));
  }

  /** The same for the process whose end of a connection sends on `channel` and receives on `reverse`. */
  async ownerOf(
    channel: string,
    reverse: string,
    heads: ReadonlyMap<string, ProcessHead>,
  ): Promise<string | undefined> {
    await this.#accounts(heads);
    return this.#find((account) => ownsEnd(account, channel, reverse));
  }

  /**
   * Has another process than `process` an end of a connection that sends on `channel` and receives on `reverse`? undefined: nobody knows, as
   * the account of one that runs reaches too far back. `heads`: those that run last, so that they are in memory.
   */
  async isAtOtherEnd(
    process: string,
    channel: string,
    reverse: string,
    heads: ReadonlyMap<string, ProcessHead>,
    running: ReadonlySet<string>,
  ): Promise<boolean | undefined> {
    await this.#accounts(heads);
    const others = [...heads.keys()].filter((name) => name !== process);
    const accounts = others.map((name) => this.#required.get(name));
    if (accounts.some((account) => account && ownsEnd(account, channel, reverse))) return true;
    return others.some((name, at) => running.has(name) && !accounts[at]) ? undefined : false;
  }

  #find(matches: (account: ChannelAccount) => boolean): string | undefined {
    for (const [process, account] of this.#required) if (account && matches(account)) return process;
    return undefined;
  }

  /** Of the listed processes, read back where they must be, and of all that are known. */
  async #accounts(heads: ReadonlyMap<string, ProcessHead>): Promise<ChannelAccount[]> {
    for (const [process, head] of heads) {
      const known = this.#required.get(process);
      if (known === undefined || (known === null && this.#far?.of(process) !== undefined))
        this.#remember(process, await this.#readBack(process, head));
    }
    return [...this.#required.values()].filter((account) => account !== null);
  }

  /** A rollback stands last: what is in effect now must be read back. */
  #goBack(process: string, required: Required | null): void {
    this.#far?.drop(process);
    this.#back.add(process);
    if (required !== null && required.outside.size > 0) this.#undone.set(process, required.outside);
  }

  #remember(process: string, known: Required | null): void {
    const required = this.#mayForget && known !== null && namesIn(known) > MAX_COVERAGE_NAMES ? null : known;
    this.#required.set(process, required);
    if (this.#required.size <= MAX_LIVE_PROCESSES) return;
    const [oldest] = this.#required.keys();
    this.#required.delete(oldest as string);
  }

  /** From the newest covering cut, or the beginning, on; null if that is too far back: then it is read on the side. */
  async #readBack(process: string, head: ProcessHead): Promise<Required | null> {
    const walk = new HistoryWalk(process, head, (chain) => this.#parsed(chain));
    const far = this.#far?.of(process);
    const newer: (Rows & { readonly mayCover: boolean })[] = [];
    let required = nothingRequired(this.#mayForget);
    for (let block = await walk.next(); block !== undefined; block = await walk.next()) {
      if (far !== undefined && isAt(far, block)) {
        required = far.required;
        break;
      }
      const columns = readColumns(block.parsed);
      const last = block.parsed.header.covers ? lastCut(columns, block.rows) : undefined;
      const from = last === undefined ? 0 : last.row + 1;
      newer.push({ columns, from, to: block.rows, mayCover: block.parsed.header.covers === true });
      if (last !== undefined) {
        required = requiredBy(last.cut, block.parsed.header.forgets, this.#mayForget);
        break;
      }
      if (walk.blocks > MAX_COVERAGE_BLOCKS) {
        if (far !== undefined) this.#far?.drop(process);
        this.#far?.begin(process, true);
        return null;
      }
    }
    this.#far?.drop(process);
    if (walk.truncated) return null;
    for (const channel of this.#undone.get(process) ?? []) required.outside.add(channel);
    this.#undone.delete(process);
    for (const rows of newer.reverse()) follow(required, rows, rows.mayCover);
    return required;
  }

  async #parsed(chain: number): Promise<ParsedBlock | undefined> {
    const bytes = await this.#blockAt(chain);
    return bytes === undefined ? undefined : parseBlock(bytes);
  }
}
