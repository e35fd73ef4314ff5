/**
 * Matches → what undoing undoes (theory.md, table of rules), in coordinates of lines.
 *
 * A dependency (i, a) → (j, b) reads "undoing line a of i undoes line b of j". Lines are rounded to the first line of their interval
 * between restore points, and the volatile end of a process is line `length + 1`. "History is a prefix" is implicit: marks are upward
 * closed per process.
 */

import { type Evidence, RECEIVER, SENDER } from "../../model/evidence-layout.ts";
import type { InTransitPolicy } from "../../model/recovery-line.ts";
import { Uint32List } from "./growable.ts";
import type { Matches } from "./match-ranges.ts";
import { IntervalFinder, type RestorePoints } from "./restore-points.ts";

/** Causes of dependencies and of base marks: a match and which rule made it. `2 * match + rule`. */
export const ORPHAN = 0;
export const UNREPLAYABLE = 1;
/** The cause of a dependency between processes that are checkpointed together. */
export const TOGETHER = 0xffffffff;

/** Dependencies before they are sorted: four numbers each. */
export class DependencyList {
  readonly sourceProcess = new Uint32List();
  readonly sourceLine = new Uint32List();
  readonly targetProcess = new Uint32List();
  readonly targetLine = new Uint32List();
  readonly cause = new Uint32List();

  get length(): number {
    return this.cause.length;
  }

  /**
   * Appends, unless it follows from "history is a prefix". Joins with the one before where only the smallest target matters.
   */
  push(
    sourceProcess: number,
    sourceLine: number,
    targetProcess: number,
    targetLine: number,
    cause: number,
  ): void {
    if (sourceProcess === targetProcess && sourceLine <= targetLine) return;
    const last = this.length - 1;
    if (
      last >= 0 &&
      this.sourceLine.at(last) === sourceLine &&
      this.sourceProcess.at(last) === sourceProcess &&
      this.targetProcess.at(last) === targetProcess
    ) {
      if (this.targetLine.at(last) <= targetLine) return;
      this.targetLine.data[last] = targetLine;
      this.cause.data[last] = cause;
      return;
    }
    this.sourceProcess.push(sourceProcess);
    this.sourceLine.push(sourceLine);
    this.targetProcess.push(targetProcess);
    this.targetLine.push(targetLine);
    this.cause.push(cause);
  }
}

/** Undone whoever fails: received though never sent, or kept though unreplayable and no receiver known. */
export interface BaseMarks {
  readonly process: Uint32List;
  readonly line: Uint32List;
  /** `2 * match + rule`: ORPHAN here means that nobody sent it. */
  readonly cause: Uint32List;
}

export interface Dependencies {
  readonly list: DependencyList;
  readonly base: BaseMarks;
}

/** All dependencies of all channels; `policy` "logged" adds the reverse rule for what no message log can replay. */
export function dependencies(
  evidence: Evidence,
  points: RestorePoints,
  matches: Matches,
  policy: InTransitPolicy,
): Dependencies {
  const list = new DependencyList();
  const base = { process: new Uint32List(), line: new Uint32List(), cause: new Uint32List() };
  const sentAt = new IntervalFinder(points);
  const receivedAt = new IntervalFinder(points);
  for (let channel = 0; channel < evidence.channels.length; channel += 1) {
    const sender = evidence.processAt[channel * 2 + SENDER] as number;
    const receiver = evidence.processAt[channel * 2 + RECEIVER] as number;
    const stop = matches.start[channel + 1] as number;
    for (let match = matches.start[channel] as number; match < stop; match += 1) {
      const sent = matches.sent[match] as number;
      const known = matches.known[match] as number;
      const sentFrom = sent === 0 ? 0 : sentAt.firstLine(sender, sent);
      const knownFrom = known === 0 ? 0 : receivedAt.firstLine(receiver, known);
      if (sent === 0) pushBase(base, receiver, knownFrom, 2 * match + ORPHAN);
      else if (known !== 0) list.push(sender, sentFrom, receiver, knownFrom, 2 * match + ORPHAN);
    }
    if (policy === "logged" && sender >= 0)
      unreplayable(evidence, points, matches, channel, sentAt, receivedAt, list, base);
  }
  return { list, base };
}

function pushBase(base: BaseMarks, process: number, line: number, cause: number): void {
  base.process.push(process);
  base.line.push(line);
  base.cause.push(cause);
}

/** The reverse rule (docs/semantics.md, 6), a pass of its own so that neighbours with one source still join. */
function unreplayable(
  evidence: Evidence,
  points: RestorePoints,
  matches: Matches,
  channel: number,
  sentAt: IntervalFinder,
  receivedAt: IntervalFinder,
  list: DependencyList,
  base: BaseMarks,
): void {
  const sender = evidence.processAt[channel * 2 + SENDER] as number;
  const receiver = evidence.processAt[channel * 2 + RECEIVER] as number;
  const stable = points.stable[sender] as number;
  const stop = matches.start[channel + 1] as number;
  for (let match = matches.start[channel] as number; match < stop; match += 1) {
    const sent = matches.sent[match] as number;
    if (sent === 0 || sent <= stable) continue;
    const sentFrom = sentAt.firstLine(sender, sent);
    const cause = 2 * match + UNREPLAYABLE;
    if (receiver < 0) {
      pushBase(base, sender, sentFrom, cause);
      continue;
    }
    const received = matches.received[match] as number;
    const needed = received === 0 ? (evidence.length[receiver] as number) + 1 : received;
    list.push(receiver, receivedAt.firstLine(receiver, needed), sender, sentFrom, cause);
  }
}
