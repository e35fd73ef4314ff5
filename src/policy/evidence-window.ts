/**
 * The end of a history that lines can still reach. More events never lower the line of all processes (theory.md, law 6), so what lies
 * below it is collapsed: per process what is still in transit, then one checkpoint that stands for the place the line keeps. Lines of
 * later instants are the same, at the cost of the window instead of the whole history.
 */

import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import type { CheckpointEvent, Event, ReceiveEvent, SendEvent, StableEvent } from "../model/event.ts";
import type { Evidence } from "../model/evidence-layout.ts";

type Range = readonly [begin: number, end: number];
export type WindowRow = SendEvent | ReceiveEvent | CheckpointEvent | StableEvent;

/** Rows dropped at once must be at least so many, and half of the window. */
export const LEAST_DROPPED = 1024;

export class EvidenceWindow {
  readonly #processes: readonly string[];
  #builder: EvidenceBuilder;
  /** Per process: lines below the window, and lines that stand for them in the builder. */
  readonly #base: Uint32Array;
  readonly #head: Uint32Array;
  readonly #isStable: Uint8Array;
  /** Newest checkpoint below the window. */
  readonly #checkpoints: Uint32Array;
  readonly #rows: WindowRow[][];
  /** Per channel: sent and not received below the window, by its sender. */
  readonly #inTransit = new Map<string, { readonly sender: number; readonly ranges: readonly Range[] }>();

  readonly #leastDropped: number;

  constructor(processes: readonly string[], leastDropped: number) {
    this.#leastDropped = leastDropped;
    this.#processes = processes;
    this.#base = new Uint32Array(processes.length);
    this.#head = new Uint32Array(processes.length);
    this.#isStable = new Uint8Array(processes.length);
    this.#checkpoints = new Uint32Array(processes.length);
    this.#rows = processes.map(() => []);
    this.#builder = this.#emptyBuilder();
  }

  #emptyBuilder(): EvidenceBuilder {
    const builder = new EvidenceBuilder();
    for (const name of this.#processes) builder.addProcess(name);
    return builder;
  }

  add(p: number, row: WindowRow): void {
    (this.#rows[p] as WindowRow[]).push(row);
    this.#tell(row);
  }

  /** Checkpoints are numbered one higher than in the history: the one that stands for all below may stand for its start. */
  #tell(row: WindowRow): void {
    this.#builder.addEvent(row.type === "checkpoint" ? { ...row, checkpoint: row.checkpoint + 1 } : row);
  }

  build(): Evidence {
    return this.#builder.build();
  }

  /** A position of the evidence as one of the whole history. */
  position(p: number, windowPosition: number): number {
    return windowPosition - (this.#head[p] as number) + (this.#base[p] as number);
  }

  /** The evidence's oldest checkpoint of the process stands for its start: there is no image of it. */
  startsAtStart(p: number): boolean {
    return (this.#head[p] as number) > 0 && this.#checkpoints[p] === 0;
  }

  /** Collapses what the line of all processes keeps (positions of the whole history), if that is much. */
  collapse(kept: readonly number[]): void {
    const all = this.#rows.reduce((sum, rows) => sum + rows.length, 0);
    const dropped = kept.reduce((sum, position, p) => sum + position - (this.#base[p] as number), 0);
    if (dropped < this.#leastDropped || 2 * dropped < all) return;
    this.#drop(kept);
    this.#rebuild();
  }

  #drop(kept: readonly number[]): void {
    const sent = new Map<string, { sender: number; ranges: Range[] }>();
    const received = new Map<string, Range[]>();
    for (const [channel, { sender, ranges }] of this.#inTransit)
      sent.set(channel, { sender, ranges: [...ranges] });
    kept.forEach((position, p) => {
      const rows = this.#rows[p] as WindowRow[];
      for (const row of rows.splice(0, position - (this.#base[p] as number))) {
        if (row.type === "send") {
          const of = sent.get(row.channel) ?? { sender: p, ranges: [] };
          sent.set(row.channel, of);
          of.ranges.push([row.begin, row.end]);
        } else if (row.type === "receive") listIn(received, row.channel).push([row.begin, row.end]);
        else if (row.type === "checkpoint") this.#checkpoints[p] = row.checkpoint;
        else if (row.type === "stable") this.#isStable[p] = 1;
      }
      this.#base[p] = position;
    });
    this.#inTransit.clear();
    for (const [channel, { sender, ranges }] of sent) {
      const left = without(joined(ranges), joined(received.get(channel) ?? []));
      if (left.length > 0) this.#inTransit.set(channel, { sender, ranges: left });
    }
  }

  #rebuild(): void {
    this.#builder = this.#emptyBuilder();
    this.#head.fill(0);
    for (const [channel, { sender, ranges }] of this.#inTransit)
      for (const [begin, end] of ranges) this.#lead(sender, { type: "send", channel, begin, end });
    this.#processes.forEach((_, p) => {
      if (this.#isStable[p] === 1) this.#lead(p, { type: "stable" });
      this.#lead(p, { type: "checkpoint", checkpoint: (this.#checkpoints[p] as number) + 1, usable: true });
    });
    this.#rows.forEach((rows) => {
      for (const row of rows) this.#tell(row);
    });
  }

  #lead(p: number, row: object): void {
    this.#head[p] = (this.#head[p] as number) + 1;
    this.#builder.addEvent({ ...row, process: this.#processes[p] } as Event);
  }
}

function listIn(map: Map<string, Range[]>, key: string): Range[] {
  const list = map.get(key) ?? [];
  map.set(key, list);
  return list;
}

/** Sorted, overlapping and touching ones made one. */
function joined(ranges: readonly Range[]): Range[] {
  const found: Range[] = [];
  for (const [begin, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = found.at(-1);
    if (last !== undefined && begin <= last[1]) found[found.length - 1] = [last[0], Math.max(last[1], end)];
    else found.push([begin, end]);
  }
  return found;
}

/** What of `ranges` is in none of `others`; both as `joined` gives them. */
function without(ranges: readonly Range[], others: readonly Range[]): Range[] {
  const found: Range[] = [];
  let at = 0;
  for (const [begin, end] of ranges) {
    let from = begin;
    while (at < others.length && (others[at] as Range)[1] <= from) at += 1;
    for (let next = at; from < end; next += 1) {
      const other = others[next];
      if (other === undefined || other[0] >= end) {
        found.push([from, end]);
        break;
      }
      if (other[0] > from) found.push([from, other[0]]);
      from = Math.max(from, other[1]);
    }
  }
  return found;
}
