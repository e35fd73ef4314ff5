/**
 * Effective histories: what a process did and has not undone (interchange.md, `rollback`).
 * Part of the judge: written from the contracts, shares no code with the engine.
 */
import { RecoveryLineError } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";

export type History = readonly Event[];

function bad(event: Event, what: string): never {
  throw new RecoveryLineError("RL_BAD_INPUT", `${event.process}: ${what}`);
}

function greatestCheckpoint(history: History): number {
  for (let n = history.length; n > 0; n--) {
    const line = history[n - 1]!;
    if (line.type === "checkpoint") return line.checkpoint;
  }
  return 0;
}

/** Position of c(index) in a history: the number of lines up to and with it. 0 for the initial state. */
function positionOfCheckpoint(history: History, index: number): number | undefined {
  if (index === 0) return 0;
  for (let n = history.length; n > 0; n--) {
    const line = history[n - 1]!;
    if (line.type === "checkpoint" && line.checkpoint === index) return n;
  }
  return undefined;
}

/** Where a checkpoint may stand whose line is missing: the first gap between the checkpoints with lower and with higher indices. */
function positionOfHidden(history: History, index: number): number | undefined {
  let hidden: number | undefined;
  for (const [before, line] of history.entries()) {
    if (line.type === "checkpoint" && line.checkpoint > index) break;
    if (line.type === "checkpoint") hidden = undefined;
    else if (line.type === "gap") hidden ??= before + 1;
  }
  return hidden;
}

/** Appends one line to a history, undoing what a `rollback` undoes. The rollback line itself stays. */
export function appendLine(history: Event[], event: Event): void {
  if (event.type === "checkpoint" && event.checkpoint <= greatestCheckpoint(history))
    bad(event, `checkpoint ${event.checkpoint} does not rise`);
  if (event.type === "rollback") {
    const { checkpoint } = event;
    const position = positionOfCheckpoint(history, checkpoint) ?? positionOfHidden(history, checkpoint);
    if (position === undefined) bad(event, `rollback to unknown checkpoint ${event.checkpoint}`);
    history.length = position;
  }
  history.push(event);
}

/** The effective history of every process, processes sorted by name. */
export function effectiveHistories(events: readonly Event[]): Map<string, Event[]> {
  const histories = new Map<string, Event[]>();
  for (const event of events) {
    const history = histories.get(event.process) ?? [];
    histories.set(event.process, history);
    appendLine(history, event);
  }
  return new Map([...histories].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
}
