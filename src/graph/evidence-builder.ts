import { EVENT_KIND, type EventColumns } from "../format/event-columns.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { CheckpointEvent, Event, GapEvent, RollbackEvent } from "../model/event.ts";
import { MAX_PROCESS_LINES, MAX_PROCESSES } from "../model/limits.ts";
import { assembleEvidence } from "./assemble-evidence.ts";
import { type Evidence, HAS_CUT, RECEIVER, SENDER, USABLE } from "./evidence-layout.ts";
import { Uint32List } from "./growable.ts";
import { AMBIGUOUS, NOBODY, RawEvidence } from "./raw-evidence.ts";
import type { ReducedLines } from "./reduced-lines.ts";

/**
 * Collects events into `Evidence`. Lines of one process must come in its program order; processes may interleave anyhow.
 *
 * Throws `RL_CONTRADICTION` where a channel gets a second sender or receiver (undone lines count: ends never change), and
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
        this.#range(process, event.channel, SENDER, event.begin, event.end, 0);
        break;
      case "receive":
        this.#range(process, event.channel, RECEIVER, event.begin, event.end, 0);
        break;
      case "page-copy":
      case "page-invalidate": {
        const side = event.role === "source" ? SENDER : RECEIVER;
        const invalidate = event.type === "page-invalidate" ? 1 : 0;
        this.#range(process, event.channel, side, event.begin, event.end, invalidate);
        break;
      }
      case "page-fault":
      case "peek":
      case "outside":
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
      else if (code === EVENT_KIND.send || code === EVENT_KIND.receive) {
        const index = channel[row] as number;
        if (known[index] === 0 && (begin[row] as number) < (end[row] as number))
          known[index] = this.#channel(channels[index] as string) + 1;
        const side = code === EVENT_KIND.send ? SENDER : RECEIVER;
        const number = (known[index] as number) - 1;
        this.#rangeOn(process, number, side, begin[row] as number, end[row] as number, 0);
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
        const index = (tag[next] as number) >>> 2;
        if (known[index] === 0) known[index] = this.#channel(stretch.channels[index] as string) + 1;
        const number = ((known[index] as number) - 1) * 4 + ((tag[next] as number) & 3);
        this.#row(
          process,
          number,
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
    for (let side = 0; side < 2; side += 1) {
      raw.processAt.push(NOBODY);
      raw.weak.push(0);
      this.#lastRow.push(0);
      this.#lastRow.push(0);
    }
    return id;
  }

  #range(
    process: number,
    channel: string,
    side: number,
    begin: number,
    end: number,
    invalidate: number,
  ): void {
    this.#rangeOn(process, begin < end ? this.#channel(channel) : 0, side, begin, end, invalidate);
  }

  #rangeOn(
    process: number,
    channel: number,
    side: number,
    begin: number,
    end: number,
    invalidate: number,
  ): void {
    const line = this.#nextLine(process);
    if (begin >= end) return;
    this.#row(process, (channel * 2 + side) * 2 + invalidate, line, begin, end, false);
  }

  /** A range that is not empty. `tag` as in `RawEvidence`. */
  #row(process: number, tag: number, line: number, begin: number, end: number, join: boolean): void {
    const raw = this.#raw;
    const channelEnd = tag >>> 1;
    if (raw.processAt.at(channelEnd) !== process || raw.weak.at(channelEnd) === 1)
      this.#claim(process, channelEnd, begin, end);
    if (join) {
      const last = this.#lastRow.at(tag) - 1;
      if (last >= this.#closedRows.at(process) && raw.rowEnd.at(last) === begin) {
        raw.rowEnd.data[last] = end;
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

  #checkpoint(process: number, event: CheckpointEvent): void {
    const raw = this.#raw;
    const below = raw.top.at(process);
    const line = this.#nextLine(process);
    const newest = raw.segmentIndex.at(below);
    if (!(event.checkpoint > newest))
      throw badInput(event.process, line, "checkpoint", `${event.checkpoint} does not rise above ${newest}`);
    const segment = raw.segmentLine.length;
    const flags = (event.usable ? USABLE : 0) | (event.cut === undefined ? 0 : HAS_CUT);
    raw.top.data[process] = segment;
    this.#closedRows.data[process] = raw.rowTag.length;
    this.#pushSegment(line, event.checkpoint, flags, below);
    if (event.cut === undefined) return;
    for (const [channel, offset] of event.cut.sent) this.#cut(process, segment, channel, SENDER, offset);
    for (const [channel, offset] of event.cut.received)
      this.#cut(process, segment, channel, RECEIVER, offset);
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
