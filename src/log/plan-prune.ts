/**
 * Which segments of a log can go, and what must stand for them (logs-format.md, "Base").
 *
 * A process's history up to a checkpoint that no line of any future falls below is collapsed into that checkpoint: its cut names all that
 * the process had sent and received (`covers`), and no mark of a rollback gets before it, so what lies before is one interval that is
 * never undone (the argument of compute/compute-from-cuts.ts, which reads logs in the same way). Positions go on, gaps are counted as
 * before. What the process did since, as far as it stands in removed segments, is carried along: its blocks as they are. A closed channel
 * that the cut leaves out (`forgets`) is put back into it from the older cuts, unless both its ends leave it out at the same offset. That a
 * channel is outside holds for ever: the cut names those channels, too, and says so (`Cut.outside`).
 *
 * Left whole: a log with message-log (`stable`) lines or page invalidations, one with an attached life that is undone, and whatever would carry
 * more than MAX_CARRIED_BYTES.
 */
import { type Block, decodeBlock, encodeBlock } from "../format/block.ts";
import { type BlockHeader, parseBlock } from "../format/block-header.ts";
import { AT, VERSION_WITH_OUTSIDE } from "../format/block-layout.ts";
import { readColumns } from "../format/block-read.ts";
import { EVENT_KIND, EventColumns } from "../format/event-columns.ts";
import type { LogBase } from "../format/log-base.ts";
import type { CheckpointEvent, Cut, Event } from "../model/event.ts";
import { ATTACHED } from "../model/gap-reasons.ts";
import {
  MAX_BASE_GAPS,
  MAX_BASE_OUTSIDE,
  MAX_BLOCK_EVENTS,
  MAX_CARRIED_BYTES,
  MAX_CARRIED_SHARE,
} from "../model/limits.ts";
import { firstWhere } from "../model/search.ts";

export type PrunePlan =
  | { readonly base: LogBase }
  /** Nothing can go, and why. */
  | { readonly base: undefined; readonly reason: string };

/** The log as its owner sees it. */
export interface PruneSource {
  /** Numbers of the first blocks of the segments, without the oldest one's; rising. */
  readonly boundaries: readonly number[];
  /** Base and blocks, from the first. */
  blocks(): AsyncIterable<Uint8Array>;
}

interface Collapse {
  readonly position: number;
  readonly chain: number;
  readonly row: number;
  readonly gaps: number;
  readonly lost: number;
  /** One of them says that the process ran before it was recorded. */
  readonly attached: boolean;
  /** Its cut leaves channels out that older ones name. */
  readonly forgets: boolean;
}

/** One process's history. */
class Track {
  readonly chains: number[] = [];
  /** Bytes of the blocks up to each, summed. */
  readonly bytes: number[] = [0];
  /** Checkpoints in effect that its history may be collapsed into, oldest first. */
  collapses: Collapse[] = [];
  gaps: { readonly position: number; readonly lost: number; readonly attached: boolean }[] = [];
  /** It was attached in a life that is undone. */
  wasAttached = false;
  /** Newest block that ends in a rollback; 0 = none. */
  rolledBack = 0;

  /** Bytes of its blocks from number `from` up to, without, number `to`. */
  bytesBetween(from: number, to: number): number {
    return Math.max(0, this.bytes[firstAt(this.chains, to)]! - this.bytes[firstAt(this.chains, from)]!);
  }

  collapseBefore(boundary: number): Collapse | undefined {
    return this.collapses.findLast(({ chain }) => chain < boundary);
  }

  undo(kept: number, chain: number): void {
    this.collapses = this.collapses.filter(({ position }) => position <= kept);
    this.wasAttached ||= this.gaps.some(({ position, attached }) => attached && position > kept);
    this.gaps = this.gaps.filter(({ position }) => position <= kept);
    this.rolledBack = chain;
  }
}

/** Index of the first element that is not below `value`. */
function firstAt(rising: readonly number[], value: number): number {
  return firstWhere(0, rising.length, (at) => rising[at]! >= value);
}

/**
 * `oldest`: per process the position of a checkpoint, or 0, that no line of any future starts before. A process that it lacks keeps its
 * history. Throws what reading throws.
 */
export async function planPrune(
  source: PruneSource,
  oldest: ReadonlyMap<string, number>,
  maxCarriedShare = MAX_CARRIED_SHARE,
): Promise<PrunePlan> {
  if (source.boundaries.length === 0) return nothing("there is one segment only");
  const tracks = new Map<string, Track>();
  for await (const bytes of source.blocks()) {
    const reason = follow(tracks, bytes, oldest);
    if (reason !== undefined) return nothing(reason);
  }
  if ([...tracks.values()].some(({ wasAttached }) => wasAttached))
    return nothing("a life that is undone was attached: what others say of its channels rests on it");
  for (const boundary of [...source.boundaries].reverse()) {
    let [carried, dropped] = [0, 0];
    for (const track of tracks.values()) {
      carried += track.bytesBetween(track.collapseBefore(boundary)?.chain ?? 0, boundary);
      dropped += track.bytesBetween(0, boundary);
    }
    if (carried > MAX_CARRIED_BYTES || carried > dropped * maxCarriedShare) continue;
    return collapse(source, tracks, boundary);
  }
  return nothing("too much of the older segments may still be needed");
}

function nothing(reason: string): PrunePlan {
  return { base: undefined, reason };
}

/** Takes one block in. Returns why the log must stay whole. */
function follow(
  tracks: Map<string, Track>,
  bytes: Uint8Array,
  oldest: ReadonlyMap<string, number>,
): string | undefined {
  const parsed = parseBlock(bytes);
  const { header } = parsed;
  const track = tracks.get(header.process) ?? new Track();
  tracks.set(header.process, track);
  track.chains.push(header.chain);
  track.bytes.push(track.bytes.at(-1)! + bytes.length);
  if (header.controls === 0 && !parsed.hasExtras) return undefined;
  const columns = readColumns(parsed);
  for (let row = 0; row < columns.count; row += 1) {
    const kind = columns.kind[row]!;
    if (kind === EVENT_KIND.send || kind === EVENT_KIND.receive) continue;
    if (kind === EVENT_KIND.stable) return "a message log makes more of the past restorable";
    const event = columns.event(row);
    if (event.type === "page-invalidate") return "page invalidations are not in cuts";
    const position = header.position + row + 1;
    if (event.type === "gap")
      track.gaps.push({ position, lost: event.lost ?? 0, attached: event.reason === ATTACHED });
    else if (event.type === "rollback") track.undo(header.positionAfter - 1, header.chain);
    else if (event.type === "checkpoint" && position <= (oldest.get(header.process) ?? 0))
      addCollapse(track, header, event, { position, row });
  }
  return undefined;
}

function addCollapse(
  track: Track,
  header: BlockHeader,
  event: CheckpointEvent,
  at: { readonly position: number; readonly row: number },
): void {
  const gaps = track.gaps.length;
  if (event.cut === undefined || !event.usable || !header.covers) return;
  if (gaps > MAX_BASE_GAPS || gaps >= at.position || gaps + header.rows > MAX_BLOCK_EVENTS) return;
  const lost = track.gaps.reduce((sum, gap) => sum + gap.lost, 0);
  const attached = track.gaps.some((gap) => gap.attached);
  track.collapses.push({ ...at, chain: header.chain, gaps, lost, attached, forgets: header.forgets });
}

async function collapse(
  source: PruneSource,
  tracks: ReadonlyMap<string, Track>,
  boundary: number,
): Promise<PrunePlan> {
  const left = await leftOut(source, tracks, boundary);
  const outside = await outsideNames(source, tracks, boundary);
  const blocks: Uint8Array[] = [];
  const ends = new Map<string, ChannelEnds>();
  for await (const bytes of source.blocks()) {
    const { header } = parseBlock(bytes);
    if (header.chain >= boundary) break;
    const { process, chain } = header;
    const track = tracks.get(process) as Track;
    const into = track.collapseBefore(boundary);
    if (into === undefined || chain > into.chain) blocks.push(Uint8Array.from(bytes));
    else {
      const names = outside.get(process) ?? new OutsideNames();
      // Who stands at a channel's end is also told by lines that were undone, and by the base that stands for such lines. A cut that
      // forgets is looked after by `leftOut`.
      if (track.rolledBack > 0 || (header.hasCut && !into.forgets))
        collectEnds(ends, decodeBlock(bytes), names);
      if (chain === into.chain)
        blocks.push(collapsed(decodeBlock(bytes), into, names, [ends.get(process), left.get(process)]));
    }
  }
  return { base: { boundary, blocks } };
}

/** By process, what its history up to its collapse says of the outside, and how far it was with it. */
async function outsideNames(
  source: PruneSource,
  tracks: ReadonlyMap<string, Track>,
  boundary: number,
): Promise<ReadonlyMap<string, OutsideNames>> {
  const all = new Map<string, OutsideNames>();
  await eachCollapsed(source, tracks, boundary, (bytes, into) => {
    if (bytes[AT.version]! < VERSION_WITH_OUTSIDE) return; // older ones have no such rows
    const block = decodeBlock(bytes);
    const names = all.get(block.header.process) ?? new OutsideNames();
    names.take(block, into);
    if (!names.isEmpty) all.set(block.header.process, names);
  });
  if (all.size > 0)
    await eachCollapsed(source, tracks, boundary, (bytes, into) => {
      const names = all.get(parseBlock(bytes).header.process);
      names?.follow(decodeBlock(bytes), into);
    });
  return all;
}

/** Hands over the blocks that collapses stand for, those of the collapses among them. */
async function eachCollapsed(
  source: PruneSource,
  tracks: ReadonlyMap<string, Track>,
  boundary: number,
  take: (bytes: Uint8Array, into: Collapse) => void,
): Promise<void> {
  for await (const bytes of source.blocks()) {
    const { header } = parseBlock(bytes);
    if (header.chain >= boundary) return;
    const into = (tracks.get(header.process) as Track).collapseBefore(boundary);
    if (into !== undefined && header.chain <= into.chain) take(bytes, into);
  }
}

/** The channels that a process's history up to its collapse says are outside, undone lines, too. */
class OutsideNames {
  #names = new Set<string>();
  /** There were too many: those that the cut does not name are left out, and closed for good. */
  #full = false;
  readonly #sent = new Map<string, Stair[]>();
  readonly #received = new Map<string, Stair[]>();

  get isEmpty(): boolean {
    return this.#names.size === 0;
  }

  /** Rows up to the collapse. */
  take({ header, columns }: Block, into: Collapse): void {
    const rows = header.chain === into.chain ? into.row + 1 : columns.count;
    for (let row = 0; row < rows; row += 1) {
      if (columns.kind[row] === EVENT_KIND.outside) this.#add(columns.channels[columns.channel[row]!]!);
      const event = columns.kind[row] === EVENT_KIND.checkpoint ? columns.extras.get(row) : undefined;
      if (event?.type === "checkpoint") for (const name of event.cut?.outside ?? []) this.#add(name);
    }
  }

  /** How far lines and cuts in effect were on those channels; to be called when all names are known. */
  follow({ header, columns }: Block, into: Collapse): void {
    const rows = header.chain === into.chain ? into.row : columns.count;
    for (let row = 0; row < rows; row += 1) {
      const position = header.position + row + 1;
      const event = columns.event(row);
      if (event.type === "checkpoint" && event.cut !== undefined) {
        for (const [side, cut] of [
          [this.#sent, event.cut.sent],
          [this.#received, event.cut.received],
        ] as const)
          for (const [channel, offset] of cut) this.#raise(side, channel, offset, position);
      } else if ("begin" in event && event.type !== "peek" && event.begin < event.end) {
        const sends = event.type === "send" || ("role" in event && event.role === "source");
        this.#raise(sends ? this.#sent : this.#received, event.channel, event.end, position);
      }
    }
    if (header.endsInRollback)
      for (const side of [this.#sent, this.#received]) undoStairs(side, header.positionAfter - 1);
  }

  #raise(side: Map<string, Stair[]>, channel: string, offset: number, position: number): void {
    if (this.#names.has(channel)) raise(side, new Map([[channel, offset]]), position);
  }

  has(channel: string): boolean {
    return this.#names.has(channel);
  }

  /** The checkpoint, whose cut names them and says so. */
  toldBy(event: CheckpointEvent): CheckpointEvent {
    const { cut } = event;
    if (cut === undefined || this.#names.size === 0) return event;
    const isNamed = (channel: string): boolean =>
      cut.sent.has(channel) || cut.received.has(channel) || cut.seen?.has(channel) === true;
    const known = new Set([...this.#names, ...(cut.outside ?? [])]);
    const outside = [...known].filter((channel) => !this.#full || isNamed(channel));
    const [sent, received] = [new Map(cut.sent), new Map(cut.received)];
    for (const channel of outside) {
      if (isNamed(channel)) continue;
      received.set(channel, this.#received.get(channel)?.at(-1)?.offset ?? 0);
      const offset = this.#sent.get(channel)?.at(-1)?.offset;
      if (offset !== undefined) sent.set(channel, offset);
    }
    return { ...event, cut: { ...cut, sent, received, outside: new Set(outside) } };
  }

  /** Once there are too many only the newest are of interest: the cut may still name them. */
  #add(channel: string): void {
    this.#names.delete(channel);
    this.#names.add(channel);
    if (this.#names.size <= MAX_BASE_OUTSIDE * 2) return;
    this.#full = true;
    this.#names = new Set([...this.#names].slice(-MAX_BASE_OUTSIDE));
  }
}

/** By process, what the cut that its history is collapsed into must say again. */
async function leftOut(
  source: PruneSource,
  tracks: ReadonlyMap<string, Track>,
  boundary: number,
): Promise<ReadonlyMap<string, ChannelEnds>> {
  const histories = new Map<string, CutOffsets>();
  const left = new Map<string, ChannelEnds>();
  for (const [process, track] of tracks)
    if (track.collapseBefore(boundary)?.forgets === true) histories.set(process, new CutOffsets());
  if (histories.size === 0) return left;
  for await (const bytes of source.blocks()) {
    const { header, ...parsed } = parseBlock(bytes);
    if (header.chain >= boundary) break;
    const into = (tracks.get(header.process) as Track).collapseBefore(boundary) as Collapse;
    const history = histories.get(header.process);
    if (history === undefined || header.chain > into.chain) continue;
    if (header.hasCut) history.take(header, readColumns({ header, ...parsed }), into);
    if (header.endsInRollback) history.undo(header.positionAfter - 1);
    if (header.chain === into.chain) left.set(header.process, history.leftOut());
  }
  forgetSettled(left);
  return left;
}

/** Drops the channels that are left out at both ends, all received that was sent: nobody asks for them any more. */
function forgetSettled(left: ReadonlyMap<string, ChannelEnds>): void {
  const sent = new Map<string, ChannelEnds>();
  for (const ends of left.values()) for (const channel of ends.sent.keys()) sent.set(channel, ends);
  for (const ends of left.values())
    for (const [channel, offset] of ends.received) {
      const sender = sent.get(channel);
      if (sender?.sent.get(channel) !== offset) continue;
      sender.sent.delete(channel);
      ends.received.delete(channel);
      ends.seen.delete(channel);
    }
}

/** The offsets that a process's cuts named, as far as they are in effect. */
class CutOffsets {
  /** By channel: rising positions and offsets. */
  readonly #sent = new Map<string, Stair[]>();
  readonly #received = new Map<string, Stair[]>();
  readonly #seen = new Map<string, Stair[]>();
  /** The newest cut's. */
  #now: Cut = { sent: new Map(), received: new Map() };

  take(header: BlockHeader, columns: EventColumns, into: Collapse): void {
    for (const [row, event] of columns.extras) {
      const position = header.position + row + 1;
      if (event.type !== "checkpoint" || event.cut === undefined) continue;
      if (header.chain === into.chain && row > into.row) continue;
      this.#now = event.cut;
      const { sent, received, seen, outside } = event.cut;
      raise(this.#sent, sent, position, outside);
      raise(this.#received, received, position, outside);
      raise(this.#seen, seen ?? new Map(), position, outside);
    }
  }

  undo(kept: number): void {
    for (const stairs of [this.#sent, this.#received, this.#seen]) undoStairs(stairs, kept);
  }

  /** What the newest cut is silent about. */
  leftOut(): ChannelEnds {
    return {
      sent: unnamed(this.#sent, this.#now.sent),
      received: unnamed(this.#received, this.#now.received),
      seen: unnamed(this.#seen, this.#now.seen ?? this.#now.received),
    };
  }
}

interface Stair {
  readonly position: number;
  readonly offset: number;
}

function undoStairs(stairs: Map<string, Stair[]>, kept: number): void {
  for (const [channel, steps] of stairs) {
    while ((steps.at(-1)?.position ?? 0) > kept) steps.pop();
    if (steps.length === 0) stairs.delete(channel);
  }
}

/** What is outside the next cuts may be silent about. */
function raise(
  stairs: Map<string, Stair[]>,
  cut: ReadonlyMap<string, number>,
  position: number,
  outside?: ReadonlySet<string>,
): void {
  for (const [channel, offset] of cut) {
    if (outside?.has(channel) === true) {
      stairs.delete(channel);
      continue;
    }
    const steps = stairs.get(channel) ?? [];
    stairs.set(channel, steps);
    if (offset > (steps.at(-1)?.offset ?? -1)) steps.push({ position, offset });
  }
}

function unnamed(
  stairs: ReadonlyMap<string, readonly Stair[]>,
  cut: ReadonlyMap<string, number>,
): Map<string, number> {
  const left = new Map<string, number>();
  for (const [channel, steps] of stairs)
    if (!cut.has(channel)) left.set(channel, steps.at(-1)?.offset as number);
  return left;
}

/** Offsets by channel; 0 says only who stands there. */
interface ChannelEnds {
  readonly sent: Map<string, number>;
  readonly received: Map<string, number>;
  readonly seen: Map<string, number>;
}

function collectEnds(into: Map<string, ChannelEnds>, { columns }: Block, outside: OutsideNames): void {
  let ends = into.get(columns.process);
  if (ends === undefined) {
    ends = { sent: new Map(), received: new Map(), seen: new Map() };
    into.set(columns.process, ends);
  }
  for (const event of columns.events()) addEnds(ends, event);
  for (const side of [ends.sent, ends.received])
    for (const channel of side.keys()) if (outside.has(channel)) side.delete(channel);
}

function addEnds(ends: ChannelEnds, event: Event): void {
  if (event.type === "send") ends.sent.set(event.channel, 0);
  else if (event.type === "receive" || event.type === "peek") ends.received.set(event.channel, 0);
  else if (event.type === "page-copy")
    (event.role === "source" ? ends.sent : ends.received).set(event.channel, 0);
  else if (event.type === "checkpoint" && event.cut !== undefined) {
    for (const channel of event.cut.sent.keys()) ends.sent.set(channel, 0);
    for (const channel of event.cut.received.keys()) ends.received.set(channel, 0);
    for (const channel of event.cut.seen?.keys() ?? []) ends.received.set(channel, 0);
  }
}

/** The block from its checkpoint on, as the first one of its process; the gaps before it stand before it. */
function collapsed(
  { header, columns }: Block,
  { position, row, gaps, lost, attached }: Collapse,
  outside: OutsideNames,
  more: readonly (ChannelEnds | undefined)[],
): Uint8Array {
  const { process } = columns;
  const kept = new EventColumns(process);
  const first = { ...(lost > 0 ? { lost } : {}), ...(attached ? { reason: ATTACHED } : {}) };
  for (let gap = 0; gap < gaps; gap += 1) kept.push({ type: "gap", process, ...(gap === 0 ? first : {}) });
  for (let at = row; at < columns.count; at += 1) {
    const event = columns.event(at);
    const isBase = at === row && event.type === "checkpoint";
    kept.push(isBase ? outside.toldBy(more.reduce(withEnds, event)) : event);
  }
  const place = { ...header, previousControl: 0, previousIrregular: 0 }; // nothing before it is asked for
  return encodeBlock({ ...place, position: position - 1 - gaps }, kept);
}

/** A channel that no cut in effect names stands at 0: to say so changes nothing but who stands there. */
function withEnds(event: CheckpointEvent, ends: ChannelEnds | undefined): CheckpointEvent {
  const cut = event.cut;
  if (ends === undefined || cut === undefined) return event;
  const sent = raised(cut.sent, ends.sent);
  const received = raised(cut.received, ends.received);
  if (cut.seen === undefined && ends.seen.size === 0) return { ...event, cut: { ...cut, sent, received } };
  const seen = new Map(cut.seen);
  // Never below what was received.
  for (const [channel, offset] of ends.seen)
    seen.set(channel, Math.max(offset, seen.get(channel) ?? 0, received.get(channel) ?? 0));
  for (const [channel, offset] of seen) seen.set(channel, Math.max(offset, received.get(channel) ?? 0));
  return { ...event, cut: { ...cut, sent, received, seen } };
}

function raised(
  offsets: ReadonlyMap<string, number>,
  more: ReadonlyMap<string, number>,
): Map<string, number> {
  const all = new Map(offsets);
  for (const [channel, offset] of more) all.set(channel, Math.max(offset, all.get(channel) ?? 0));
  return all;
}
