/**
 * The question in numbers, for executions too large for brute-force.ts: restore points per process, and *cells*.
 *
 * A cell is a range of one channel between two neighbouring offsets that the evidence names: all its bytes were
 * sent on one line and received on one line, so it behaves like one message (theory.md, Model).
 */
import type { Event } from "../../src/model/event.ts";
import type { InTransitRange } from "../../src/model/recovery-line.ts";
import type { Answer, Options } from "./answer.ts";
import { evidenceOf, isFailed, lineEntry } from "./answer.ts";
import { channelEnds, isSend } from "./channel-ends.ts";
import type { History } from "./history.ts";
import { effectiveHistories } from "./history.ts";
import { isVolatileEnd, lastStable, restorePoints } from "./restore-points.ts";

/** "On no line": later than every position. */
export const NEVER = Number.POSITIVE_INFINITY;

export interface ProcessView {
  readonly name: string;
  readonly history: History;
  readonly failed: boolean;
  /** Positions, rising; `points[0]` is 0. */
  readonly points: readonly number[];
  /** True if the last point is "not rolled back". */
  readonly canContinue: boolean;
}

export interface Cell {
  readonly channel: string;
  readonly begin: number;
  readonly end: number;
  /** Index of the process, -1 if nobody is known. */
  readonly sender: number;
  readonly receiver: number;
  /** Line of the sender, NEVER if it was never sent. */
  readonly sent: number;
  /** Line of the receiver, NEVER if it was never received. */
  readonly received: number;
  /** Its payload is in a message log. */
  readonly logged: boolean;
}

export interface Instance {
  readonly processes: readonly ProcessView[];
  readonly cells: readonly Cell[];
  readonly options: Options;
}

/** One fact about a range: it counts from line `from` on, unless an event on a line ≤ `unlessBy` tells it better. */
interface Fact {
  readonly begin: number;
  readonly end: number;
  readonly from: number;
  /** 0 for events; the cut's line for cuts. */
  readonly unlessBy: number;
}

interface ChannelFacts {
  readonly sent: Fact[];
  readonly received: Fact[];
  readonly ignored: [begin: number, end: number][];
}

function collect(histories: readonly History[], options: Options): Map<string, ChannelFacts> {
  const channels = new Map<string, ChannelFacts>();
  const of = (channel: string) => {
    const facts = channels.get(channel) ?? { sent: [], received: [], ignored: [] };
    channels.set(channel, facts);
    return facts;
  };
  for (const history of histories) {
    let previousCut = 0;
    let firstGap = 0;
    for (let line = 1; line <= history.length; line++) {
      const event = history[line - 1]!;
      if (event.type === "page-invalidate" && options.dsm === "transfers") {
        of(event.channel).ignored.push([event.begin, event.end]);
      } else if (event.type === "checkpoint" && event.cut !== undefined) {
        const { sent, received } = event.cut;
        const common = { begin: 0, unlessBy: line };
        const earliest = firstGap > 0 ? firstGap : previousCut + 1;
        for (const [channel, end] of sent) of(channel).sent.push({ ...common, end, from: line });
        for (const [channel, end] of received) of(channel).received.push({ ...common, end, from: earliest });
        previousCut = line;
        firstGap = 0;
      } else if (event.type === "gap") {
        if (firstGap === 0) firstGap = line;
      } else if ("begin" in event && event.begin < event.end) {
        const { begin, end } = event;
        const facts = of(event.channel);
        const fact = { begin, end, from: line, unlessBy: 0 };
        (isSend(event) ? facts.sent : facts.received).push(fact);
      }
    }
  }
  return channels;
}

/** The line at which the byte at `offset` counts. */
function firstLine(facts: readonly Fact[], offset: number, ignored: boolean): number {
  let byEvent = NEVER;
  for (const fact of facts)
    if (fact.unlessBy === 0 && fact.begin <= offset && offset < fact.end)
      byEvent = Math.min(byEvent, fact.from);
  let line = byEvent;
  if (!ignored)
    for (const fact of facts)
      if (fact.unlessBy > 0 && offset < fact.end && byEvent > fact.unlessBy && fact.from < line)
        line = fact.from;
  return line;
}

export function buildInstance(events: readonly Event[], options: Options): Instance {
  const histories = effectiveHistories(events);
  const ends = channelEnds(events);
  const processes: ProcessView[] = [];
  const index = new Map<string, number>();
  const stable: number[] = [];
  for (const [name, history] of histories) {
    const failed = isFailed(options, name);
    index.set(name, processes.length);
    stable.push(lastStable(history));
    processes.push({
      name,
      history,
      failed,
      points: restorePoints(history, failed),
      canContinue: !failed && isVolatileEnd(history, history.length),
    });
  }
  const cells: Cell[] = [];
  const facts = collect(
    processes.map((p) => p.history),
    options,
  );
  for (const channel of [...facts.keys()].sort()) {
    const { sent, received, ignored } = facts.get(channel)!;
    const sender = index.get(ends.sender.get(channel) ?? "") ?? -1;
    const receiver = index.get(ends.receiver.get(channel) ?? "") ?? -1;
    const offsets = new Set<number>();
    for (const fact of sent) offsets.add(fact.begin).add(fact.end);
    for (const fact of received) offsets.add(fact.begin).add(fact.end);
    for (const [begin, end] of ignored) offsets.add(begin).add(end);
    const bounds = [...offsets].sort((a, b) => a - b);
    for (let k = 0; k + 1 < bounds.length; k++) {
      const begin = bounds[k]!;
      const skip = ignored.some(([from, to]) => from <= begin && begin < to);
      const out = firstLine(sent, begin, skip);
      const into = firstLine(received, begin, skip);
      if (out === NEVER && into === NEVER) continue;
      const logged = out !== NEVER && out <= stable[sender]!;
      cells.push({
        channel,
        begin,
        end: bounds[k + 1]!,
        sender,
        receiver,
        sent: out,
        received: into,
        logged,
      });
    }
  }
  return { processes, cells, options };
}

/** True if process i at `position` is not rolled back. */
export function continues(process: ProcessView, position: number): boolean {
  return process.canContinue && position === process.history.length;
}

/** Rule 5, and under `logged` rule 6, for one cell. */
export function cellAllows(instance: Instance, cell: Cell, vector: ArrayLike<number>): boolean {
  const isSent = cell.sender >= 0 && cell.sent <= vector[cell.sender]!;
  const isReceived = cell.receiver >= 0 && cell.received <= vector[cell.receiver]!;
  if (isReceived && !isSent) return false;
  if (instance.options.inTransit === "any" || !isSent || isReceived || cell.logged) return true;
  if (cell.receiver < 0) return false;
  return continues(instance.processes[cell.receiver]!, vector[cell.receiver]!);
}

export function isConsistent(instance: Instance, vector: ArrayLike<number>): boolean {
  return instance.cells.every((cell) => cellAllows(instance, cell, vector));
}

/** True if every position is a restore point of its process. */
export function isRestorable(instance: Instance, vector: ArrayLike<number>): boolean {
  return instance.processes.every((process, i) => process.points.includes(vector[i]!));
}

/** The greatest consistent vector, by trying all: for very small instances. */
export function enumerateMaximum(instance: Instance): number[] {
  const { processes } = instance;
  const vector = processes.map(() => 0);
  const maximum = processes.map(() => 0);
  const visit = (i: number) => {
    if (i === processes.length) {
      if (isConsistent(instance, vector))
        for (let k = 0; k < i; k++) if (vector[k]! > maximum[k]!) maximum[k] = vector[k]!;
      return;
    }
    for (const point of processes[i]!.points) {
      vector[i] = point;
      visit(i + 1);
    }
  };
  visit(0);
  return maximum;
}

/** What is sent but not received at the vector: maximal ranges by channel, then begin. */
function inTransitAt(instance: Instance, vector: ArrayLike<number>): InTransitRange[] {
  const result: InTransitRange[] = [];
  for (const { channel, begin, end, sender, receiver, sent, received } of instance.cells) {
    if (sender < 0 || sent > vector[sender]!) continue;
    if (receiver >= 0 && received <= vector[receiver]!) continue;
    const last = result.at(-1);
    if (last?.channel === channel && last.end === begin) result.splice(-1, 1, { ...last, end });
    else {
      const to = receiver < 0 ? null : instance.processes[receiver]!.name;
      result.push({ channel, from: instance.processes[sender]!.name, to, begin, end });
    }
  }
  return result;
}

export function answerAt(instance: Instance, vector: ArrayLike<number>): Answer {
  return {
    ...evidenceOf(instance.processes.map((p) => p.history)),
    line: instance.processes.map((p, i) => lineEntry(p.name, p.history, vector[i]!, p.failed)),
    inTransit: inTransitAt(instance, vector),
  };
}
