/**
 * One process's newest checkpoints and what it did since, read from the log newest first and only as far as asked for.
 *
 * Behind the newest cut only control blocks are read. They must hold nothing but checkpoints with covering cuts (and gaps, which a cut
 * heals): everything else needs the events, and is a `NeedsEvents`. What a process exchanged with the outside world stands in no cut: where
 * the line takes it back, its lines since are read (`loadSince`).
 */
import type { BlockHeader, ParsedBlock } from "../format/block-header.ts";
import { readColumns } from "../format/block-read.ts";
import type { EventColumns } from "../format/event-columns.ts";
import { EVENT_KIND } from "../format/event-columns.ts";
import type { ProcessHead } from "../format/log-commit.ts";
import type { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import { HistoryWalk } from "../log/history-walk.ts";
import type { CheckpointEvent, Cut, Event } from "../model/event.ts";
import { ATTACHED } from "../model/gap-reasons.ts";

/** Why the line can't be had from cuts: not an error, the events tell. */
export class NeedsEvents extends Error {
  override readonly name = "NeedsEvents";
}

interface Placed<E extends Event> {
  readonly line: number;
  readonly event: E;
}

interface PlacedCut extends Placed<CheckpointEvent> {
  readonly cut: Cut;
  /** It, or one before it, leaves closed channels out. */
  readonly forgets: boolean;
}

/** Rows [from, to) of a block; row 0 is line position + 1. */
interface TailRows {
  readonly columns: EventColumns;
  readonly position: number;
  readonly from: number;
  readonly to: number;
}

export type BlockByNumber = (chain: number) => Promise<ParsedBlock | undefined>;

export class CutHistory {
  readonly process: string;
  readonly #walk: HistoryWalk;
  readonly #irregular: number;
  readonly #lines: number;
  readonly #head: ProcessHead;
  readonly #read: BlockByNumber;
  readonly #base: number | undefined;
  /** Newest first. */
  readonly #checkpoints: PlacedCut[] = [];
  #tail: TailRows[] = [];
  /** All lines behind this one were read. */
  #tailFrom = 0;
  /** Gaps before the newest cut, newest first. */
  readonly #gaps: Placed<Event>[] = [];
  /** A rollback stands somewhere in the log, or may have stood in what was removed of it, undone lines with it. */
  rolledBack: boolean;
  /** It ran before it was recorded, in this life or one that is undone. */
  attached = false;
  /** Numbers of the blocks that end in a rollback and are kept, newest first. */
  readonly rollbacks: number[] = [];
  /** Channels whose receiver is known from undone lines alone: this process. */
  readonly #undoneEnds = new Set<string>();
  /** It has `outside` lines somewhere, and those that were read need not be all. */
  hasOutside = false;
  /** Everything that is in effect was read. */
  complete = false;

  /** `base`: number of its first block in the log's base, where it has one. */
  constructor(process: string, head: ProcessHead, read: BlockByNumber, base?: number) {
    this.process = process;
    this.#walk = new HistoryWalk(process, head, read);
    this.#irregular = head.irregular;
    this.#lines = head.position;
    this.#head = head;
    this.#read = read;
    this.#base = base;
    this.rolledBack = base !== undefined;
  }

  /** Line of the oldest checkpoint that was read: what lies before is unknown. 0 = nothing is unknown. */
  get knownFrom(): number {
    return this.complete ? 0 : (this.#checkpoints.at(-1) as Placed<Event>).line;
  }

  /** Older cuts name channels that those which were read don't. */
  get leavesOut(): boolean {
    return !this.complete && this.#checkpoints.at(-1)?.forgets === true;
  }

  /** Inputs and outputs behind this line are not all known. */
  get exchangesFrom(): number {
    return this.hasOutside ? this.#tailFrom : 0;
  }

  /** Checkpoints read so far, count. */
  get depth(): number {
    return this.#checkpoints.length;
  }

  /** Reads on until `depth` checkpoints with cuts are known, or the beginning. Throws `NeedsEvents`. */
  async load(depth: number): Promise<void> {
    while (!this.complete && this.depth < depth) {
      const block = await this.#walk.next();
      if (block === undefined) {
        if (this.#walk.truncated) throw new NeedsEvents("the log keeps its older blocks no longer");
        this.complete = true;
        return;
      }
      this.#take(block.parsed, block.rows);
    }
  }

  #take(parsed: ParsedBlock, rows: number): void {
    const { header } = parsed;
    const columns = readColumns(parsed);
    const cuts = this.#cutsOf(columns, header, rows);
    const newest = cuts[0];
    if (cuts.length > 0 && !header.covers) throw new NeedsEvents("a cut does not name all its process did");
    this.hasOutside ||= header.outside;
    if (this.depth === 0) {
      const from = newest === undefined ? 0 : newest.line - header.position;
      this.#pushTail({ columns, position: header.position, from, to: rows });
      this.#tailFrom = newest?.line ?? 0;
      this.#walk.controlOnly = newest !== undefined;
    }
    for (const one of cuts) this.#pushCheckpoint(one, header.outside);
  }

  #pushTail(rows: TailRows): void {
    this.#tail.push(rows);
    const { kind } = rows.columns;
    for (let row = rows.from; row < rows.to && !this.hasOutside; row += 1)
      this.hasOutside = kind[row] === EVENT_KIND.outside;
  }

  /** Reads all lines behind `position`, that of a checkpoint that was read. Throws `NeedsEvents`. */
  async loadSince(position: number): Promise<void> {
    if (position >= this.#tailFrom) return;
    const walk = new HistoryWalk(this.process, this.#head, this.#read);
    this.#tail = [];
    this.#tailFrom = position;
    for (let block = await walk.next(); block !== undefined; block = await walk.next()) {
      const first = block.parsed.header.position;
      const from = Math.max(0, position - first);
      const columns = readColumns(block.parsed);
      if (from < block.rows) this.#pushTail({ columns, position: first, from, to: block.rows });
      if (first <= position) return;
    }
    if (walk.truncated) throw new NeedsEvents("the log keeps its older blocks no longer");
  }

  /** The checkpoints with cuts among the first `rows` rows, newest first. */
  #cutsOf(columns: EventColumns, { position, forgets }: BlockHeader, rows: number): PlacedCut[] {
    const cuts: PlacedCut[] = [];
    let oldestWithout = Number.POSITIVE_INFINITY;
    for (const [row, event] of columns.extras) {
      if (row >= rows || event.type !== "checkpoint") continue;
      const line = position + row + 1;
      if (event.cut !== undefined) cuts.push({ line, event, cut: event.cut, forgets });
      else if (event.usable) oldestWithout = Math.min(oldestWithout, line);
    }
    const newest = this.depth > 0 ? Number.POSITIVE_INFINITY : (cuts.at(-1)?.line ?? 0);
    if (oldestWithout < newest) throw new NeedsEvents("a checkpoint before one with a cut has none");
    return cuts.reverse();
  }

  /** `outside`: channels that a newer covering cut does not name are outside, or forgotten. */
  #pushCheckpoint(one: PlacedCut, outside: boolean): void {
    const newer = this.#checkpoints.at(-1);
    const silent = newer?.forgets === true || outside || this.hasOutside;
    if (newer !== undefined && !reaches(one.cut, newer.cut, silent))
      throw new NeedsEvents("a cut falls behind the one before it");
    this.#checkpoints.push(one);
  }

  /**
   * Follows the irregular blocks through the whole history: gaps count in every answer, and lines of a message log are restore points
   * wherever they stand. `budget` blocks at most. Call it after the first `load`. Throws `NeedsEvents`.
   */
  async loadIrregular(budget: number): Promise<void> {
    let ceiling = Number.POSITIVE_INFINITY;
    let left = budget;
    for (let chain = this.#irregular; chain > 0; left -= 1) {
      if (left <= 0) throw new NeedsEvents("there are too many gaps");
      const parsed = await this.#read(chain);
      if (parsed === undefined) return this.#takeCollapsed(chain, ceiling);
      const { header } = parsed;
      if (header.endsInRollback) {
        this.rolledBack = true;
        this.rollbacks.push(chain);
        this.hasOutside ||= header.outside;
        ceiling = Math.min(ceiling, header.positionAfter - 1);
      }
      this.#takeIrregular(readColumns(parsed), header.position, ceiling);
      chain = header.previousIrregular;
    }
  }

  /** Block `chain` was removed, and what came before it: the base's first block begins with all their gaps. Undone lines may be among them. */
  async #takeCollapsed(chain: number, ceiling: number): Promise<void> {
    const base = this.#base === undefined || this.#base <= chain ? undefined : await this.#read(this.#base);
    if (base === undefined) throw new NeedsEvents("gaps are older than what the log keeps");
    this.rolledBack = true;
    this.#takeIrregular(readColumns(base), base.header.position, ceiling);
  }

  #takeIrregular(columns: EventColumns, position: number, ceiling: number): void {
    const cut = this.#checkpoints[0]?.line ?? 0;
    for (let row = columns.count - 1; row >= 0; row -= 1) {
      const event = columns.event(row);
      const line = position + row + 1;
      if (event.type === "page-copy" || event.type === "page-invalidate")
        throw new NeedsEvents("page traffic is not in cuts");
      if (event.type === "gap" && event.reason === ATTACHED) this.attached = true;
      if (line > ceiling) continue;
      if (event.type === "stable")
        throw new NeedsEvents("a message log has restore points between checkpoints");
      if (event.type === "gap" && line < cut) this.#gaps.push({ line, event });
    }
  }

  /** Which of the channels it received from, or looked at, in lines that the rollback at the end of block `chain` undid; they are its own from now on. */
  async undoneReceives(chain: number, channels: ReadonlySet<string>): Promise<string[]> {
    const found = new Set<string>();
    let kept = Number.NaN;
    for (let next = chain; next > 0; ) {
      const parsed = await this.#read(next);
      if (parsed === undefined) break;
      const { header } = parsed;
      if (next === chain) kept = header.positionAfter - 1;
      for (const channel of receivedIn(readColumns(parsed))) if (channels.has(channel)) found.add(channel);
      if (header.position <= kept) break;
      next = header.previousBlock;
    }
    for (const channel of found) this.#undoneEnds.add(channel);
    return [...found];
  }

  /** Hands what is known on: skipped lines stay empty. */
  feed(builder: EvidenceBuilder): void {
    const process = builder.addProcess(this.process);
    const known = [...this.#checkpoints, ...this.#gaps]
      .filter(({ line }) => line <= this.#tailFrom)
      .sort((a, b) => a.line - b.line);
    for (const { line, event } of known) {
      builder.skipTo(process, line - 1);
      builder.addEvent(event);
    }
    for (const { columns, position, from, to } of [...this.#tail].reverse()) {
      builder.skipTo(process, position + from);
      builder.addColumns(columns, from, to);
    }
    builder.skipTo(process, this.#lines);
    for (const channel of this.#undoneEnds) builder.nameReceiver(process, channel);
  }
}

/** Channels with bytes that were received or looked at, also as cuts tell it. */
function* receivedIn({
  count,
  kind,
  channel,
  begin,
  end,
  channels,
  extras,
}: EventColumns): Generator<string> {
  for (let row = 0; row < count; row += 1)
    if ((kind[row] === EVENT_KIND.receive || kind[row] === EVENT_KIND.peek) && begin[row]! < end[row]!)
      yield channels[channel[row]!]!;
  for (const event of extras.values()) {
    if (event.type !== "checkpoint" || event.cut === undefined) continue;
    for (const offsets of [event.cut.received, event.cut.seen ?? []])
      for (const [name, offset] of offsets) if (offset > 0) yield name;
  }
}

/** Every channel of the older cut stands in the newer one, no lower; `silent`: or not at all. */
function reaches(older: Cut, newer: Cut, silent: boolean): boolean {
  const unnamed = silent ? Number.POSITIVE_INFINITY : -1;
  const within = (
    from: ReadonlyMap<string, number> | undefined,
    to: (channel: string) => number | undefined,
  ): boolean => {
    for (const [channel, offset] of from ?? []) if (!((to(channel) ?? unnamed) >= offset)) return false;
    return true;
  };
  return (
    within(older.sent, (channel) => newer.sent.get(channel)) &&
    within(older.received, (channel) => newer.received.get(channel)) &&
    within(older.seen, (channel) => newer.seen?.get(channel) ?? newer.received.get(channel))
  );
}
