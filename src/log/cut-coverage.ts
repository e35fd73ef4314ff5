/**
 * Does a checkpoint's cut name everything its process did before? interchange.md promises it; readers that skip the events in between
 * rest on it, so the writer checks it, and says so in the block (`BlockHeader.covers`).
 *
 * Covered: each channel end that a line in effect or an earlier cut names is named by the cut, at that offset or above. What must be named
 * is known from the last covering cut and the lines since; where this owner of the log did not see them (it was opened anew, a
 * rollback), they are read back. Too far to read: then no cut covers, and readers take the events.
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
import { EVENT_KIND, type EventColumns, isRangeKind } from "../format/event-columns.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import type { Cut } from "../model/event.ts";
import {
  MAX_COVERAGE_BLOCKS,
  MAX_COVERAGE_NAMES,
  MAX_ENDED_OUTSIDE,
  MAX_LIVE_PROCESSES,
} from "../model/limits.ts";
import { type ChannelAccount, completeCut, ownsEnd, reverseChannel, sendsOn } from "./complete-cut.ts";
import { HistoryWalk } from "./history-walk.ts";

/** Offsets by channel that a cut must reach. */
interface Required extends ChannelAccount {
  readonly sent: Map<string, number>;
  readonly received: Map<string, number>;
  /** What was looked at; where more was received that counts. */
  readonly seen: Map<string, number>;
  /** Channels known to be outside that it may still name. */
  outside: Set<string>;
  /** Channels that lines since the last cut were the first to name, sent and received: where the first of them begins. */
  readonly fresh: readonly [sent: Map<string, number>, received: Map<string, number>];
  /** The last covering cut: what it says stands, also where the next one is silent. Absent: silence covers nothing. */
  stated: Cut | undefined;
  /** Cuts in effect left channels out. */
  forgets: boolean;
  /** Connections to outside that the process has ended since, by the channel it sent on, oldest first. */
  readonly ended: Set<string>;
}

/** What a block says of its cuts. */
interface Coverage {
  readonly covers: boolean;
  readonly forgets: boolean;
  /** By row: which of the channels that its cut names are outside. Only rows where some are. */
  readonly outsideAt: OutsideAt;
}

type OutsideAt = ReadonlyMap<number, ReadonlySet<string>>;

const NO_CUT: Coverage = { covers: false, forgets: false, outsideAt: new Map() };
const NOTHING: Cut = { sent: new Map(), received: new Map() };

export class CutCoverage {
  readonly #blockAt: (chain: number) => Promise<Uint8Array | undefined>;
  /** In order of last use. Null: it can't be known, so no cut of the process covers. */
  readonly #required = new Map<string, Required | null>();
  /** What is outside for processes that went back: a rollback does not undo it. Until it is read back what is in effect. */
  readonly #undone = new Map<string, ReadonlySet<string>>();
  readonly #mayForget: boolean;

  constructor(blockAt: (chain: number) => Promise<Uint8Array | undefined>, mayForget = false) {
    this.#blockAt = blockAt;
    this.#mayForget = mayForget;
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
    let required = head.chain === 0 ? this.#requiredBy(NOTHING, false) : this.#required.get(process);
    if (required === undefined) {
      if (!hasCut) return NO_CUT; // read back when it is needed
      required = await this.#readBack(process, head);
    }
    this.#required.delete(process);
    const outsideAt = new Map<number, ReadonlySet<string>>();
    const covers = required !== null && follow(required, columns, from, to, outsideAt);
    // A rollback stands last: what is in effect now must be read back.
    if (columns.kind[to - 1] !== EVENT_KIND.rollback) this.#remember(process, required);
    else if (required !== null && required.outside.size > 0) this.#undone.set(process, required.outside);
    return hasCut ? { covers, forgets: required?.forgets === true, outsideAt } : NO_CUT;
  }

  /**
   * The collector's cut with the ended channels that it must name (complete-cut.ts). `heads`: of this process and of those that run: what the
   * others did is known as far as this owner of the log saw it. Where it can't be known the cut stays as it is, and will not cover.
   */
  async complete(process: string, cut: Cut, heads: ReadonlyMap<string, ProcessHead>): Promise<Cut> {
    const accounts = await this.#accounts(heads);
    const own = this.#required.get(process);
    return own ? completeCut(cut, own, accounts) : cut;
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
    for (const [process, head] of heads)
      if (!this.#required.has(process)) this.#remember(process, await this.#readBack(process, head));
    return [...this.#required.values()].filter((account) => account !== null);
  }

  #remember(process: string, known: Required | null): void {
    const required = this.#mayForget && known !== null && namesIn(known) > MAX_COVERAGE_NAMES ? null : known;
    this.#required.set(process, required);
    if (this.#required.size <= MAX_LIVE_PROCESSES) return;
    const [oldest] = this.#required.keys();
    this.#required.delete(oldest as string);
  }

  /** From the newest covering cut, or the beginning, on; null if that is too far back. */
  async #readBack(process: string, head: ProcessHead): Promise<Required | null> {
    const walk = new HistoryWalk(process, head, (chain) => this.#parsed(chain));
    const newer: { readonly columns: EventColumns; readonly from: number; readonly to: number }[] = [];
    let required = this.#requiredBy(NOTHING, false);
    for (let block = await walk.next(); block !== undefined; block = await walk.next()) {
      const columns = readColumns(block.parsed);
      const last = block.parsed.header.covers ? lastCut(columns, block.rows) : undefined;
      newer.push({ columns, from: last === undefined ? 0 : last.row + 1, to: block.rows });
      if (last !== undefined) {
        required = this.#requiredBy(last.cut, block.parsed.header.forgets);
        break;
      }
      if (walk.blocks > MAX_COVERAGE_BLOCKS) return null;
    }
    if (walk.truncated) return null;
    for (const channel of this.#undone.get(process) ?? []) required.outside.add(channel);
    this.#undone.delete(process);
    for (const { columns, from, to } of newer.reverse()) follow(required, columns, from, to);
    return required;
  }

  #requiredBy(cut: Cut, forgets: boolean): Required {
    const stated = this.#mayForget ? cut : undefined;
    return {
      sent: new Map(cut.sent),
      received: new Map(cut.received),
      seen: new Map(cut.seen),
      outside: new Set(cut.outside),
      fresh: [new Map(), new Map()],
      stated,
      settled: new Set(),
      forgets,
      ended: new Set(),
    };
  }

  async #parsed(chain: number): Promise<ParsedBlock | undefined> {
    const bytes = await this.#blockAt(chain);
    return bytes === undefined ? undefined : parseBlock(bytes);
  }
}

function namesIn({ sent, received, seen }: Required): number {
  return sent.size + received.size + seen.size;
}

/** The newest cut among the first `rows` rows. */
function lastCut(columns: EventColumns, rows: number): { row: number; cut: Cut } | undefined {
  for (let row = rows - 1; row >= 0; row -= 1) {
    if (columns.kind[row] !== EVENT_KIND.checkpoint) continue;
    const event = columns.event(row);
    if (event.type === "checkpoint" && event.cut !== undefined) return { row, cut: event.cut };
  }
  return undefined;
}

/** Brings `required` up to rows [from, to). True if every cut among them covers. */
function follow(
  required: Required,
  columns: EventColumns,
  from: number,
  to: number,
  outsideAt?: Map<number, ReadonlySet<string>>,
): boolean {
  let covers = true;
  let done = from;
  for (let row = from; row < to; row += 1) {
    if (columns.kind[row] !== EVENT_KIND.checkpoint) continue;
    const event = columns.event(row);
    if (event.type !== "checkpoint" || event.cut === undefined) continue;
    raiseByRows(required, columns, done, row);
    done = row;
    const named = outsideOf(event.cut, required);
    if (named.size > 0) outsideAt?.set(row, named);
    const { stated } = required;
    const reached = reachesAll(event.cut, required) && !comesAgain(event.cut, named, required);
    for (const side of required.fresh) side.clear();
    covers &&= reached;
    if (reached && stated !== undefined) {
      required.forgets ||= leavesOut(event.cut, stated, required.outside);
      required.stated = event.cut;
    }
    settle(required.sent, event.cut.sent, reached);
    settle(required.received, event.cut.received, reached);
    settle(required.seen, event.cut.seen ?? NOTHING.sent, reached);
    if (reached) {
      required.outside = named;
      required.ended.clear();
      for (const end of required.settled)
        if (!(end[0] === ">" ? required.sent : required.received).has(end.slice(1)))
          required.settled.delete(end);
    }
  }
  raiseByRows(required, columns, done, to);
  return covers;
}

type Offsets = ReadonlyMap<string, number>;

/** Which of the channels that the cut names are outside. */
function outsideOf(cut: Cut, { outside }: Required): Set<string> {
  const named = new Set(cut.outside);
  for (const channel of outside)
    if (cut.sent.has(channel) || cut.received.has(channel) || cut.seen?.has(channel) === true)
      named.add(channel);
  return named;
}

/** Names a channel outside that the cut before left out, and that did not begin since. */
function comesAgain(cut: Cut, outside: ReadonlySet<string>, { sent, received, fresh }: Required): boolean {
  for (const channel of outside)
    for (const [offset, known, first] of [
      [cut.sent.get(channel), sent, fresh[0].get(channel)],
      [cut.received.get(channel), received, fresh[1].get(channel)],
    ] as const)
      if ((offset ?? 0) > 0 && (!known.has(channel) || (first ?? 0) > 0)) return true;
  return false;
}

function reachesAll(cut: Cut, { sent, received, seen, outside, stated }: Required): boolean {
  return (
    reaches(
      (channel) => cut.sent.get(channel),
      sent,
      outside,
      (channel) => stated?.sent.get(channel),
    ) &&
    reaches(
      (channel) => cut.received.get(channel),
      received,
      outside,
      (channel) => stated?.received.get(channel),
    ) &&
    reaches(
      (channel) => seenBy(cut, channel),
      seen,
      outside,
      (channel) => stated && seenBy(stated, channel),
    )
  );
}

/** What is received has been seen. */
function seenBy({ received, seen }: Cut, channel: string): number | undefined {
  return seen?.get(channel) ?? received.get(channel);
}

type OffsetOf = (channel: string) => number | undefined;

/** `stated`: a channel that the cut does not name stands where this says; one that is outside, where the lines left it. */
function reaches(cut: OffsetOf, required: Offsets, outside: ReadonlySet<string>, stated: OffsetOf): boolean {
  for (const [channel, offset] of required) {
    const said = cut(channel);
    if (said === undefined && outside.has(channel)) continue;
    if (!((said ?? stated(channel) ?? -1) >= offset)) return false;
  }
  return true;
}

/** Inside channels that it does not name any more. */
function leavesOut(cut: Cut, stated: Cut, outside: ReadonlySet<string>): boolean {
  const missing = (now: OffsetOf, before: Offsets | undefined): boolean =>
    [...(before?.keys() ?? [])].some((channel) => now(channel) === undefined && !outside.has(channel));
  return (
    missing((channel) => cut.sent.get(channel), stated.sent) ||
    missing((channel) => cut.received.get(channel), stated.received) ||
    missing((channel) => seenBy(cut, channel), stated.seen)
  );
}

/** After a covering cut its offsets are all that is required; else they add to it. */
function settle(required: Map<string, number>, cut: ReadonlyMap<string, number>, covering: boolean): void {
  if (covering) required.clear();
  for (const [channel, offset] of cut) raise(required, channel, offset);
}

function raise(required: Map<string, number>, channel: string, offset: number): void {
  if (!((required.get(channel) ?? -1) >= offset)) required.set(channel, offset);
}

function raiseByRows(required: Required, columns: EventColumns, from: number, to: number): void {
  const { kind, channel, begin, end, channels } = columns;
  /** By channel and what was done (0 sent, 1 received, 2 seen); 0 = not touched, since empty ranges say nothing. */
  const reach = new Float64Array(from < to ? channels.length * 3 : 0);
  const first = new Float64Array(reach.length);
  const offsets = [required.sent, required.received, required.seen] as const;
  for (let row = from; row < to; row += 1) {
    const code = kind[row] as number;
    if (code === EVENT_KIND.outside) required.outside.add(channels[channel[row] as number] as string);
    if (!isRangeKind(code) || (begin[row] as number) >= (end[row] as number)) continue;
    const slot = (channel[row] as number) * 3 + sideOf(columns, row, code);
    if (reach[slot] === 0) first[slot] = begin[row] as number;
    if ((end[row] as number) > (reach[slot] as number)) reach[slot] = end[row] as number;
  }
  for (let slot = 0; slot < reach.length; slot += 1) {
    if (reach[slot] === 0) continue;
    const name = channels[Math.floor(slot / 3)] as string;
    const side = offsets[slot % 3] as Map<string, number>;
    if (!side.has(name)) required.fresh[slot % 3]?.set(name, first[slot] as number);
    raise(side, name, reach[slot] as number);
  }
  if (required.stated !== undefined) forgetEnded(required, required.stated, columns, from, to);
}

const END = "/end";

/** Of the connections to outside that these rows end, or that they say of that they lead there, all but the newest are forgotten. */
function forgetEnded(required: Required, stated: Cut, columns: EventColumns, from: number, to: number): void {
  const { kind, channel, channels } = columns;
  const { ended, outside, sent } = required;
  for (let row = from; row < to; row += 1) {
    if (kind[row] !== EVENT_KIND.outside && kind[row] !== EVENT_KIND.send) continue;
    const name = channels[channel[row] as number] as string;
    if (name.endsWith(END) && outside.has(name) && sent.has(name)) ended.add(name.slice(0, -END.length));
  }
  for (const sends of ended) {
    if (ended.size <= MAX_ENDED_OUTSIDE) return;
    ended.delete(sends);
    forget(required, stated, sends);
  }
}

/** Not of one that the last covering cut names: that this one is outside is what excuses the next cut from naming it. */
function forget({ sent, received, seen, fresh, outside }: Required, stated: Cut, sends: string): void {
  const receives = reverseChannel(sends);
  const units = ["", "/open", END];
  if (units.some((unit) => stated.sent.has(sends + unit) || stated.received.has(receives + unit))) return;
  for (const unit of units) {
    for (const side of [sent, fresh[0], outside]) side.delete(sends + unit);
    for (const side of [received, fresh[1]]) side.delete(receives + unit);
  }
  for (const side of [seen, outside]) side.delete(receives);
}

function sideOf(columns: EventColumns, row: number, code: number): 0 | 1 | 2 {
  if (code === EVENT_KIND.send) return 0;
  if (code === EVENT_KIND.receive) return 1;
  if (code === EVENT_KIND.peek) return 2;
  const event = columns.event(row);
  return "role" in event && event.role === "destination" ? 1 : 0;
}
