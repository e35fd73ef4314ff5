/**
 * Does a checkpoint's cut name everything its process did before? interchange.md promises it; readers that skip the events in between
 * rest on it, so the writer checks it, and says so in the block (`BlockHeader.covers`).
 *
 * Covered: each channel end that a line in effect or an earlier cut names is named by the cut, at that offset or above. What must be named
 * is known from the last covering cut and the lines since; where this owner of the log did not see them (it was opened anew, a
 * rollback), they are read back. Too far to read: then no cut covers, and readers take the events.
 */
import { type ParsedBlock, parseBlock } from "../format/block-header.ts";
import { readColumns } from "../format/block-read.ts";
import { EVENT_KIND, type EventColumns, isRangeKind } from "../format/event-columns.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import type { Cut } from "../model/event.ts";
import { MAX_COVERAGE_BLOCKS, MAX_LIVE_PROCESSES } from "../model/limits.ts";
import { HistoryWalk } from "./history-walk.ts";

/** Offsets by channel that a cut must reach. */
interface Required {
  readonly sent: Map<string, number>;
  readonly received: Map<string, number>;
}

const nothing = (): Required => ({ sent: new Map(), received: new Map() });

export class CutCoverage {
  readonly #blockAt: (chain: number) => Promise<Uint8Array | undefined>;
  /** In order of last use. Null: it can't be known, so no cut of the process covers. */
  readonly #required = new Map<string, Required | null>();

  constructor(blockAt: (chain: number) => Promise<Uint8Array | undefined>) {
    this.#blockAt = blockAt;
  }

  /** Rows [from, to), which go behind `head`. True if they hold cuts and all of them cover. */
  async take(
    columns: EventColumns,
    from: number,
    to: number,
    hasCut: boolean,
    head: ProcessHead,
  ): Promise<boolean> {
    const { process } = columns;
    let required = head.chain === 0 ? nothing() : this.#required.get(process);
    if (required === undefined) {
      if (!hasCut) return false; // read back when it is needed
      required = await this.#readBack(process, head);
    }
    this.#required.delete(process);
    const covers = required !== null && follow(required, columns, from, to);
    // A rollback stands last: what is in effect now must be read back.
    if (columns.kind[to - 1] !== EVENT_KIND.rollback) this.#remember(process, required);
    return hasCut && covers;
  }

  #remember(process: string, required: Required | null): void {
    this.#required.set(process, required);
    if (this.#required.size <= MAX_LIVE_PROCESSES) return;
    const [oldest] = this.#required.keys();
    this.#required.delete(oldest as string);
  }

  /** From the newest covering cut, or the beginning, on; null if that is too far back. */
  async #readBack(process: string, head: ProcessHead): Promise<Required | null> {
    const walk = new HistoryWalk(process, head, (chain) => this.#parsed(chain));
    const newer: { readonly columns: EventColumns; readonly from: number; readonly to: number }[] = [];
    let required = nothing();
    for (let block = await walk.next(); block !== undefined; block = await walk.next()) {
      const columns = readColumns(block.parsed);
      const last = block.parsed.header.covers ? lastCut(columns, block.rows) : undefined;
      newer.push({ columns, from: last === undefined ? 0 : last.row + 1, to: block.rows });
      if (last !== undefined) {
        required = requiredBy(last.cut);
        break;
      }
      if (walk.blocks > MAX_COVERAGE_BLOCKS) return null;
    }
    if (walk.truncated) return null;
    for (const { columns, from, to } of newer.reverse()) follow(required, columns, from, to);
    return required;
  }

  async #parsed(chain: number): Promise<ParsedBlock | undefined> {
    const bytes = await this.#blockAt(chain);
    return bytes === undefined ? undefined : parseBlock(bytes);
  }
}

function requiredBy({ sent, received }: Cut): Required {
  return { sent: new Map(sent), received: new Map(received) };
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
function follow(required: Required, columns: EventColumns, from: number, to: number): boolean {
  let covers = true;
  let done = from;
  for (let row = from; row < to; row += 1) {
    if (columns.kind[row] !== EVENT_KIND.checkpoint) continue;
    const event = columns.event(row);
    if (event.type !== "checkpoint" || event.cut === undefined) continue;
    raiseByRows(required, columns, done, row);
    done = row;
    const { sent, received } = event.cut;
    const reached = reaches(sent, required.sent) && reaches(received, required.received);
    covers &&= reached;
    settle(required.sent, sent, reached);
    settle(required.received, received, reached);
  }
  raiseByRows(required, columns, done, to);
  return covers;
}

function reaches(cut: ReadonlyMap<string, number>, required: ReadonlyMap<string, number>): boolean {
  for (const [channel, offset] of required) if (!((cut.get(channel) ?? -1) >= offset)) return false;
  return true;
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
  /** By channel and end (0 sent, 1 received); 0 = not touched, since empty ranges say nothing. */
  const reach = new Float64Array(from < to ? channels.length * 2 : 0);
  for (let row = from; row < to; row += 1) {
    const code = kind[row] as number;
    if (!isRangeKind(code) || (begin[row] as number) >= (end[row] as number)) continue;
    const slot = (channel[row] as number) * 2 + (receives(columns, row, code) ? 1 : 0);
    if ((end[row] as number) > (reach[slot] as number)) reach[slot] = end[row] as number;
  }
  for (let slot = 0; slot < reach.length; slot += 1)
    if ((reach[slot] as number) > 0)
      raise(
        slot % 2 === 0 ? required.sent : required.received,
        channels[slot >>> 1] as string,
        reach[slot] as number,
      );
}

function receives(columns: EventColumns, row: number, code: number): boolean {
  if (code === EVENT_KIND.send) return false;
  if (code === EVENT_KIND.receive) return true;
  const event = columns.event(row);
  return "role" in event && event.role === "destination";
}
