import { EVENT_KIND, type EventColumns } from "../../format/event-columns.ts";
import { RecoveryLineError } from "../../model/errors.ts";
import type { CheckpointEvent, Event, GapEvent, RollbackEvent } from "../../model/event.ts";
import {
  channelOfTag,
  type Evidence,
  endOfTag,
  HAS_CUT,
  HAS_IMAGE,
  LOOKED,
  NO_INITIAL,
  OUTSIDE,
  RECEIVED,
  RECEIVER,
  rowTag,
  SENDER,
  SENT,
  USABLE,
  whatOfTag,
} from "../../model/evidence-layout.ts";
import { ATTACHED } from "../../model/gap-reasons.ts";
import { MAX_PROCESS_LINES, MAX_PROCESSES } from "../../model/limits.ts";
import { assembleEvidence } from "./assemble-evidence.ts";
import { Uint32List } from "./growable.ts";
import { AMBIGUOUS, NOBODY, RawEvidence } from "./raw-evidence.ts";
import type { ReducedLines } from "./reduced-lines.ts";

/**
 * Collects events into `Evidence`. Lines of one process must come in its program order; processes may interleave anyhow.
 *
 * Throws `RL_CONTRADICTION` where a channel gets a second sender or receiver, or two processes and is outside for one, unless the other was
 * attached later (undone lines count: ends never change), and
 * `RL_BAD_INPUT` where a checkpoint index does not rise or a rollback names a checkpoint that its history does not hold and no gap
 * can hide.
 */
export class EvidenceBuilder {
  readonly #raw = new RawEvidence();
  readonly #processIds = new Map<string, number>();
  readonly #channelIds = new Map<string, number>();
  /** For joins. Per tag: 1 + its newest row; per process: rows before it stand behind a checkpoint or a rollback. */
  readonly #lastRow = new Uint32List();
  readonly #closedRows = new Uint32List();

  /** Makes a process known even if it did nothing. Returns its number in order of arrival. */
  addProcess(name: string): number {
    const known = this.#processIds.get(name);
    if (known !== undefined) return known;
    const raw = this.#raw;
    if (raw.processes.length === MAX_PROCESSES)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `more than ${MAX_PROCESSES} processes in one application`,
        "Split the application: give parts that do not talk to each other names of their own.",
      );
    const id = raw.processes.push(name) - 1;
    this.#processIds.set(name, id);
    raw.length.push(0);
    this.#closedRows.push(0);
    raw.top.push(raw.segmentLine.length);
    this.#pushSegment(0, 0, USABLE, raw.segmentLine.length);
    return id;
  }

  addEvent(event: Event): void {
    const process = this.addProcess(event.process);
    switch (event.type) {
      case "send":
        this.#range(process, event.channel, SENT, event.begin, event.end);
        break;
      case "receive":
        this.#range(process, event.channel, RECEIVED, event.begin, event.end);
        break;
      case "peek":
        this.#range(process, event.channel, LOOKED, event.begin, event.end);
        break;
      case "page-copy":
      case "page-invalidate": {
        const moved = event.role === "source" ? SENT : RECEIVED;
        const invalidate = event.type === "page-invalidate" ? 1 : 0;
        this.#range(process, event.channel, moved + invalidate, event.begin, event.end);
        break;
      }
      case "outside":
        this.#nextLine(process);
        this.#outside(process, this.#channel(event.channel));
        break;
      case "page-fault":
        this.#nextLine(process);
        break;
      case "checkpoint":
        this.#checkpoint(process, event);
        break;
      case "stable":
        this.#stable(process);
        break;
      case "gap":
        this.#gap(process, event);
        break;
      case "rollback":
        this.#rollback(process, event);
        break;
    }
  }

  /** Rows [from, to) of one process's columns: no object an event for sends, receives and stable lines. */
  addColumns(columns: EventColumns, from = 0, to = columns.count): void {
    const process = this.addProcess(columns.process);
    const { kind, channel, begin, end, channels } = columns;
    /** Index in `channels` → 1 + our number, once looked up. */
    const known = new Uint32Array(channels.length);
    for (let row = from; row < to; row += 1) {
      const code = kind[row] as number;
      if (code === EVENT_KIND.stable) this.#stable(process);
      else if (code === EVENT_KIND.send || code === EVENT_KIND.receive || code === EVENT_KIND.peek) {
        const index = channel[row] as number;
        if (known[index] === 0 && (begin[row] as number) < (end[row] as number))
          known[index] = this.#channel(channels[index] as string) + 1;
        const what = code === EVENT_KIND.send ? SENT : code === EVENT_KIND.receive ? RECEIVED : LOOKED;
        const tag = rowTag((known[index] as number) - 1, what);
        this.#rangeOn(process, tag, begin[row] as number, end[row] as number);
      } else this.addEvent(columns.event(row));
    }
  }

  /**
   * A stretch that follows what is known of its process. With `join`, rows that continue the stretch before become one with its rows
   * (see reduced-lines.ts). The answer is the same as from the events themselves, witnesses name longer ranges.
   */
  addReduced(stretch: ReducedLines, join: boolean): void {
    const process = this.addProcess(stretch.process);
    const { tag, line, begin, end, controls } = stretch;
    const first = this.#raw.length.at(process);
    /** Index in `channels` → 1 + our number, once looked up. */
    const known = new Uint32Array(stretch.channels.length);
    let next = 0;
    /** What a rollback in the stretch took off the lines. */
    let offset = first;
    for (let control = 0; control <= controls.length; control += 1) {
      const stop = controls[control]?.line ?? stretch.lines + 1;
      for (; next < tag.length && (line[next] as number) < stop; next += 1) {
        const index = channelOfTag(tag[next] as number);
        if (known[index] === 0) known[index] = this.#channel(stretch.channels[index] as string) + 1;
        const channel = (known[index] as number) - 1;
        const what = whatOfTag(tag[next] as number);
        if (what === OUTSIDE) {
          this.#outside(process, channel);
          continue;
        }
        this.#row(
          process,
          rowTag(channel, what),
          offset + (line[next] as number),
          begin[next] as number,
          end[next] as number,
          join,
        );
      }
      this.skipTo(process, offset + stop - 1);
      const event = controls[control]?.event;
      if (event === undefined) break;
      this.addEvent(event);
      if (event.type === "rollback") offset = this.#raw.length.at(process) - stop;
    }
  }

  /** Lines of the effective history so far. */
  lengthOf(process: number): number {
    return this.#raw.length.at(process);
  }

  /** Lines up to `line` say nothing that is needed. */
  skipTo(process: number, line: number): void {
    if (line > MAX_PROCESS_LINES)
      throw new RecoveryLineError(
        "RL_LIMIT",
        `process "${this.#raw.processes[process]}" has more than ${MAX_PROCESS_LINES} lines`,
      );
    this.#raw.length.data[process] = line;
  }

  /** The process stands at the channel's receiving end, as lines say that were undone and are not handed in. */
  nameReceiver(process: number, channel: string): void {
    this.#claim(process, this.#channel(channel) * 2 + RECEIVER, 0, 1);
  }

  /** The evidence so far; the builder may go on afterwards. */
  build(): Evidence {
    return assembleEvidence(this.#raw);
  }

  #nextLine(process: number): number {
    const line = this.#raw.length.at(process) + 1;
    this.#raw.length.data[process] = line;
    return line;
  }

  #channel(name: string): number {
    const known = this.#channelIds.get(name);
    if (known !== undefined) return known;
    const raw = this.#raw;
    const id = raw.channels.push(name) - 1;
    this.#channelIds.set(name, id);
    raw.outsideOf.push(NOBODY);
    for (let side = 0; side < 2; side += 1) {
      raw.processAt.push(NOBODY);
      raw.weak.push(0);
    }
    for (let tag = rowTag(id, 0); tag < rowTag(id + 1, 0); tag += 1) this.#lastRow.push(0);
    return id;
  }

  #range(process: number, channel: string, what: number, begin: number, end: number): void {
    this.#rangeOn(process, rowTag(begin < end ? this.#channel(channel) : 0, what), begin, end);
  }

  #rangeOn(process: number, tag: number, begin: number, end: number): void {
    const line = this.#nextLine(process);
    if (begin < end) this.#row(process, tag, line, begin, end, false);
  }

  /** A range that is not empty. */
  #row(process: number, tag: number, line: number, begin: number, end: number, join: boolean): void {
    const raw = this.#raw;
    const channelEnd = endOfTag(tag);
    if (raw.processAt.at(channelEnd) !== process || raw.weak.at(channelEnd) === 1)
      this.#claim(process, channelEnd, begin, end);
    if (join) {
      const last = this.#lastRow.at(tag) - 1;
      if (last >= this.#closedRows.at(process) && continues(raw, last, tag, begin)) {
        raw.rowEnd.data[last] = Math.max(raw.rowEnd.at(last), end);
        return;
      }
      this.#lastRow.data[tag] = raw.rowTag.length + 1;
    }
    raw.rowTag.push(tag);
    raw.rowLine.push(line);
    raw.rowBegin.push(begin);
    raw.rowEnd.push(end);
  }

  /** `process` stands at this channel end. At offset 0 (begin = end) the claim is weak: any other process's wins over it. */
  #claim(process: number, channelEnd: number, begin: number, end: number): void {
    const raw = this.#raw;
    const holder = raw.processAt.at(channelEnd);
    const holderIsWeak = raw.weak.at(channelEnd) === 1;
    const outside = raw.outsideOf.at(channelEnd >>> 1);
    if (outside !== NOBODY && outside !== process) {
      if (begin === end) return;
      if (!this.#raw.attached.has(process)) throw notOutside(raw, outside, process, channelEnd >>> 1);
      raw.outsideOf.data[channelEnd >>> 1] = NOBODY;
    }
    if (begin === end) {
      if (holder === NOBODY) {
        raw.processAt.data[channelEnd] = process;
        raw.weak.data[channelEnd] = 1;
      } else if (holderIsWeak && holder !== process) raw.processAt.data[channelEnd] = AMBIGUOUS;
      return;
    }
    if (holder !== NOBODY && !holderIsWeak && holder !== process)
      throw twoEnds(raw, process, holder, channelEnd, begin, end);
    raw.processAt.data[channelEnd] = process;
    raw.weak.data[channelEnd] = 0;
  }

  /**
   * The channel's other end is outside: nobody else stands at either, but for those that only a cut at offset 0 names, and for one that
   * was attached later, whose events make the line void from its start.
   */
  #outside(process: number, channel: number): void {
    const raw = this.#raw;
    if (
      this.#isAttachedAt(channel * 2 + SENDER, process) ||
      this.#isAttachedAt(channel * 2 + RECEIVER, process)
    )
      return;
    const known = raw.outsideOf.at(channel);
    if (known !== NOBODY && known !== process) throw notOutside(raw, known, process, channel);
    raw.outsideOf.data[channel] = process;
    for (const channelEnd of [channel * 2 + SENDER, channel * 2 + RECEIVER]) {
      const holder = raw.processAt.at(channelEnd);
      if (holder === NOBODY || holder === process) continue;
      if (holder !== AMBIGUOUS && raw.weak.at(channelEnd) === 0)
        throw notOutside(raw, process, holder, channel);
      raw.processAt.data[channelEnd] = NOBODY;
      raw.weak.data[channelEnd] = 0;
    }
  }

  /** Another process than this one stands there, and was attached. */
  #isAttachedAt(channelEnd: number, process: number): boolean {
    const holder = this.#raw.processAt.at(channelEnd);
    return holder !== process && this.#raw.weak.at(channelEnd) === 0 && this.#raw.attached.has(holder);
  }

  #checkpoint(process: number, event: CheckpointEvent): void {
    const raw = this.#raw;
    const below = raw.top.at(process);
    const line = this.#nextLine(process);
    const newest = raw.segmentIndex.at(below);
    if (!(event.checkpoint > newest))
      throw badInput(event.process, line, "checkpoint", `${event.checkpoint} does not rise above ${newest}`);
    const segment = raw.segmentLine.length;
    const flags =
      (event.usable ? USABLE : 0) |
      (event.cut === undefined ? 0 : HAS_CUT) |
      (event.image === undefined ? 0 : HAS_IMAGE);
    raw.top.data[process] = segment;
    this.#closedRows.data[process] = raw.rowTag.length;
    this.#pushSegment(line, event.checkpoint, flags, below);
    if (event.cut === undefined) return;
    for (const [channel, offset] of event.cut.sent) this.#cut(process, segment, channel, SENDER, offset);
    for (const [channel, offset] of event.cut.received)
      this.#cut(process, segment, channel, RECEIVER, offset);
    for (const [channel, offset] of event.cut.seen ?? [])
      this.#seen(process, segment, channel, offset, event.cut.received.get(channel) ?? 0);
    for (const channel of event.cut.outside ?? []) this.#outside(process, this.#channel(channel));
  }

  #seen(process: number, segment: number, channel: string, offset: number, received: number): void {
    const raw = this.#raw;
    const number = this.#channel(channel);
    this.#claim(process, number * 2 + RECEIVER, 0, offset);
    if (offset <= received) return;
    raw.seenSegment.push(segment);
    raw.seenChannel.push(number);
    raw.seenOffset.push(offset);
  }

  #cut(process: number, segment: number, channel: string, side: number, offset: number): void {
    const raw = this.#raw;
    const channelEnd = this.#channel(channel) * 2 + side;
    this.#claim(process, channelEnd, 0, offset);
    if (offset === 0) return;
    raw.cutSegment.push(segment);
    raw.cutEnd.push(channelEnd);
    raw.cutOffset.push(offset);
  }

  #stable(process: number): void {
    const line = this.#nextLine(process);
    this.#raw.sawStable = true;
    this.#raw.segmentStable.data[this.#raw.top.at(process)] = line;
  }

  #gap(process: number, event: GapEvent): void {
    const raw = this.#raw;
    const line = this.#nextLine(process);
    const segment = raw.top.at(process);
    if (event.reason === ATTACHED && raw.segmentBelow.at(segment) === segment) {
      this.#raw.attached.add(process);
      raw.segmentFlags.data[segment] = raw.segmentFlags.at(segment) | NO_INITIAL;
    }
    if (raw.segmentGap.at(segment) === 0) {
      raw.segmentGap.data[segment] = line;
      raw.segmentFirstLost.data[segment] = event.lost ?? 0;
      raw.segmentFirstStable.data[segment] = raw.segmentStable.at(segment);
    }
    raw.segmentGapCount.data[segment] = raw.segmentGapCount.at(segment) + 1;
    raw.segmentLost.data[segment] = raw.segmentLost.at(segment) + (event.lost ?? 0);
  }

  #rollback(process: number, event: RollbackEvent): void {
    const raw = this.#raw;
    let segment = raw.top.at(process);
    while (raw.segmentIndex.at(segment) > event.checkpoint) segment = raw.segmentBelow.at(segment);
    // The line of a checkpoint that is missing was lost in a gap: in the first one that can hide it, since then least is believed.
    const hidden = raw.segmentIndex.at(segment) !== event.checkpoint;
    const kept = hidden ? raw.segmentGap.at(segment) : raw.segmentLine.at(segment);
    if (hidden && kept === 0) {
      const line = raw.length.at(process) + 1;
      throw badInput(event.process, line, "checkpoint", `no checkpoint ${event.checkpoint} to roll back to`);
    }
    if (event.checkpoint === 0)
      // it began anew, by its command
      raw.segmentFlags.data[segment] = raw.segmentFlags.at(segment) & ~NO_INITIAL;
    raw.rollbackRow.push(raw.rowTag.length);
    raw.rollbackProcess.push(process);
    raw.rollbackKept.push(kept);
    raw.top.data[process] = segment;
    raw.length.data[process] = kept + 1;
    this.#closedRows.data[process] = raw.rowTag.length;
    raw.segmentStable.data[segment] = hidden ? raw.segmentFirstStable.at(segment) : 0;
    raw.segmentGap.data[segment] = hidden ? kept : 0;
    raw.segmentGapCount.data[segment] = hidden ? 1 : 0;
    raw.segmentLost.data[segment] = hidden ? raw.segmentFirstLost.at(segment) : 0;
  }

  #pushSegment(line: number, index: number, flags: number, below: number): void {
    const raw = this.#raw;
    raw.segmentLine.push(line);
    raw.segmentIndex.push(index);
    raw.segmentFlags.push(flags);
    raw.segmentStable.push(0);
    raw.segmentGap.push(0);
    raw.segmentGapCount.push(0);
    raw.segmentLost.push(0);
    raw.segmentFirstLost.push(0);
    raw.segmentFirstStable.push(0);
    raw.segmentBelow.push(below);
  }
}

/** True where a range joins the row before it: it touches; of what was looked at, it may overlap. */
function continues(raw: RawEvidence, row: number, tag: number, begin: number): boolean {
  const end = raw.rowEnd.at(row);
  return begin === end || (whatOfTag(tag) === LOOKED && begin >= raw.rowBegin.at(row) && begin < end);
}

function notOutside(raw: RawEvidence, process: number, other: number, channel: number): RecoveryLineError {
  return new RecoveryLineError(
    "RL_CONTRADICTION",
    `channel "${raw.channels[channel]}" is outside for process "${raw.processes[process]}", but process "${raw.processes[other]}" names it, too`,
    "Outside is who is no part of the application: leave the `outside` line out, or give the channels names of their own.",
  );
}

function twoEnds(
  raw: RawEvidence,
  process: number,
  holder: number,
  channelEnd: number,
  begin: number,
  end: number,
): RecoveryLineError {
  const does = channelEnd % 2 === SENDER ? "sends" : "receives";
  const channel = raw.channels[Math.floor(channelEnd / 2)];
  return new RecoveryLineError(
    "RL_CONTRADICTION",
    `process "${raw.processes[process]}" ${does} [${begin}, ${end}) on channel "${channel}", but process "${raw.processes[holder]}" ${does} on it too`,
    "A channel is one direction between two processes: give each pair of ends its own channel name.",
  );
}

function badInput(process: string, line: number, field: string, what: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_BAD_INPUT",
    `process "${process}", position ${line}, field "${field}": ${what}`,
  );
}
