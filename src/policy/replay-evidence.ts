/**
 * What the replay tells the engine: the recorded ranges, joined within a checkpoint interval and channel, and the policy's checkpoints.
 * Undoing any line of an interval undoes all of it, so joining changes no line (reduced-lines.ts); with message logs every line is a
 * place to go back to, and then nothing is joined.
 */

import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import { Float64List, Uint32List } from "../graph/evidence/growable.ts";
import type { Event } from "../model/event.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { firstWhere } from "../model/search.ts";
import { EvidenceWindow, type WindowRow } from "./evidence-window.ts";
import { type Recording, SEND } from "./recording.ts";

export class ReplayEvidence {
  readonly #recording: Recording;
  readonly #builder = new EvidenceBuilder();
  readonly window: EvidenceWindow;
  /** Per channel end (2 × channel + 0 sent, 1 received): the open range; begin -1 = none. */
  readonly #begin: Float64Array;
  readonly #end: Float64Array;
  /** Per process: channel ends with an open range. */
  readonly #open: Uint32List[];
  /** Per process: position and clock of each checkpoint; clock of every line. */
  readonly #checkpointLine: Uint32List[];
  readonly #checkpointClock: Float64List[];
  readonly #lineClock: Float64List[];
  readonly #observe: ((event: Event) => void) | undefined;
  readonly #joins: boolean;

  constructor(recording: Recording, joins: boolean, leastDropped: number, observe?: (event: Event) => void) {
    const { processes, channels } = recording;
    this.#recording = recording;
    this.#joins = joins;
    this.#observe = observe;
    this.#begin = new Float64Array(2 * channels.length).fill(-1);
    this.#end = new Float64Array(2 * channels.length);
    this.#open = processes.map(() => new Uint32List());
    this.#checkpointLine = processes.map(() => new Uint32List());
    this.#checkpointClock = processes.map(() => new Float64List());
    this.#lineClock = processes.map(() => new Float64List());
    this.window = new EvidenceWindow(processes, leastDropped);
    for (const name of processes) this.#builder.addProcess(name);
  }

  allCheckpoints(): number {
    return this.#checkpointLine.reduce((sum, { length }) => sum + length, 0);
  }

  checkpoints(p: number): number {
    return (this.#checkpointLine[p] as Uint32List).length;
  }

  /** A recorded send or receive. */
  range(p: number, e: number, clock: number): void {
    const { channel, begin, end, kind } = this.#recording;
    const at = 2 * (channel[e] as number) + (kind[e] === SEND ? 0 : 1);
    if (this.#observe !== undefined) this.#observe(this.#event(p, at, begin[e] as number, end[e] as number));
    if (this.#begin[at] !== -1 && this.#end[at] === begin[e]) {
      this.#end[at] = end[e] as number;
    } else {
      if (this.#begin[at] !== -1) this.#tell(p, at, clock);
      else (this.#open[p] as Uint32List).push(at);
      this.#begin[at] = begin[e] as number;
      this.#end[at] = end[e] as number;
    }
    if (!this.#joins) this.flush(p, clock);
  }

  /** Tells the open ranges of a process. */
  flush(p: number, clock: number): void {
    const open = this.#open[p] as Uint32List;
    for (let at = 0; at < open.length; at += 1) this.#tell(p, open.at(at), clock);
    open.clear();
  }

  #tell(p: number, at: number, clock: number): void {
    this.#add(p, this.#event(p, at, this.#begin[at] as number, this.#end[at] as number), clock);
    this.#begin[at] = -1;
  }

  #event(p: number, at: number, begin: number, end: number): WindowRow {
    const { processes, channels } = this.#recording;
    const type = at % 2 === 0 ? "send" : "receive";
    return { type, process: processes[p] as string, channel: channels[at >>> 1] as string, begin, end };
  }

  #add(p: number, event: WindowRow, clock: number): void {
    this.#builder.addEvent(event);
    this.window.add(p, event);
    (this.#lineClock[p] as Float64List).push(clock);
  }

  checkpoint(p: number, clock: number): void {
    this.flush(p, clock);
    const lines = this.#checkpointLine[p] as Uint32List;
    const process = this.#recording.processes[p] as string;
    const event: WindowRow = { type: "checkpoint", process, checkpoint: lines.length + 1, usable: true };
    this.#observe?.(event);
    this.#add(p, event, clock);
    lines.push((this.#lineClock[p] as Float64List).length);
    (this.#checkpointClock[p] as Float64List).push(clock);
  }

  /** All that the process has done is in its message log. */
  stable(p: number, clock: number): void {
    const event: WindowRow = { type: "stable", process: this.#recording.processes[p] as string };
    this.#observe?.(event);
    this.#add(p, event, clock);
  }

  /** The whole history. */
  build(clocks: Float64Array): Evidence {
    this.#flushAll(clocks);
    return this.#builder.build();
  }

  /** What lines can still reach. */
  buildWindow(clocks: Float64Array): Evidence {
    this.#flushAll(clocks);
    return this.window.build();
  }

  #flushAll(clocks: Float64Array): void {
    for (let p = 0; p < clocks.length; p += 1) this.flush(p, clocks[p] as number);
  }

  /** Checkpoints of the process at or before a position, count. */
  checkpointsAt(p: number, position: number): number {
    const lines = this.#checkpointLine[p] as Uint32List;
    return firstWhere(0, lines.length, (at) => lines.at(at) > position);
  }

  /** The process's clock at checkpoint number `count`, 0 = its start. */
  clockOfCheckpoint(p: number, count: number): number {
    return count === 0 ? 0 : (this.#checkpointClock[p] as Float64List).at(count - 1);
  }

  /** The process's clock at a position that a line keeps. */
  clockAt(p: number, position: number): number {
    return position === 0 ? 0 : (this.#lineClock[p] as Float64List).at(position - 1);
  }
}
