/**
 * Evidence with losses: what a collector is left with of a true execution. Every hole is declared by a `gap`; only
 * the tail of a process that failed may be missing without one.
 *
 * Rollback lines are written by the tool itself and are never lost here.
 */
import type { Event } from "../../src/model/event.ts";
import { appendLine } from "./history.ts";
import type { Random } from "./random.ts";

export interface Evidence {
  readonly events: Event[];
  /** Per process: position in the evidence → position in the true effective history. */
  readonly truePosition: Map<string, number[]>;
}

/** Which line of the true execution a line of evidence stands for. */
interface Line {
  readonly event: Event;
  readonly origin: number;
}

function linesOf(events: readonly Event[]): Map<string, Event[]> {
  const lines = new Map<string, Event[]>();
  for (const event of events) lines.set(event.process, [...(lines.get(event.process) ?? []), event]);
  return lines;
}

/** Origins of the lines of the effective history. */
function effectiveOrigins(lines: readonly Line[]): number[] {
  const history: Event[] = [];
  const origins: number[] = [];
  for (const { event, origin } of lines) {
    appendLine(history, event);
    origins.length = history.length - 1;
    origins.push(origin);
  }
  return origins;
}

/** True for lines that may be lost. */
function mayLose(lines: readonly Event[]): boolean[] {
  return lines.map((line) => line.type !== "rollback");
}

function assemble(trueEvents: readonly Event[], kept: Map<string, Line[]>): Evidence {
  const truePosition = new Map<string, number[]>();
  const events: Event[] = [];
  for (const [process, all] of linesOf(trueEvents)) {
    const truth = effectiveOrigins(all.map((event, origin) => ({ event, origin })));
    const lines = kept.get(process)!;
    const evidence = effectiveOrigins(lines);
    truePosition.set(process, [0, ...evidence.map((origin) => truth.indexOf(origin) + 1)]);
    events.push(...lines.map((line) => line.event));
  }
  return { events, truePosition };
}

/** Every way to lose exactly one event, declared by a gap in its place. */
export function* singleLosses(trueEvents: readonly Event[]): Generator<Evidence> {
  const all = linesOf(trueEvents);
  for (const [process, lines] of all) {
    const losable = mayLose(lines);
    for (let lost = 0; lost < lines.length; lost++) {
      if (!losable[lost]) continue;
      const kept = new Map<string, Line[]>();
      for (const [name, events] of all)
        kept.set(
          name,
          events.map((event, origin) => ({ event, origin })),
        );
      kept.get(process)![lost] = { event: { type: "gap", process, lost: 1 }, origin: lost };
      yield assemble(trueEvents, kept);
    }
  }
}

/** Several losses at once: single lines, runs of lines, tails. `mayTruncate`: the processes that failed. */
export function randomLosses(
  trueEvents: readonly Event[],
  random: Random,
  mayTruncate: (process: string) => boolean,
): Evidence {
  const kept = new Map<string, Line[]>();
  for (const [process, lines] of linesOf(trueEvents)) {
    const losable = mayLose(lines);
    const rate = 2 + random.below(8);
    const result: Line[] = [];
    kept.set(process, result);
    let run = 0;
    const close = (origin: number) => {
      if (run === 0) return;
      const lost = random.oneIn(2) ? { lost: run } : {};
      result.push({ event: { type: "gap", process, ...lost }, origin });
      run = 0;
    };
    lines.forEach((event, origin) => {
      if (losable[origin] && random.oneIn(run > 0 ? 2 : rate)) run++;
      else {
        close(origin - 1);
        result.push({ event, origin });
      }
    });
    close(lines.length - 1);
    if (mayTruncate(process) && random.oneIn(3)) {
      let tail = random.below(4);
      while (tail-- > 0 && result.length > 1 && !pinned(result.at(-1)!, losable)) result.pop();
    }
  }
  return assemble(trueEvents, kept);
}

function pinned(line: Line, losable: readonly boolean[]): boolean {
  return line.event.type !== "gap" && !losable[line.origin];
}
