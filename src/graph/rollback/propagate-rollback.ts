/**
 * What the failures reach: the greatest feasible cut, by reachability (theory.md, "One theorem carries the engine"; the
 * rollback-dependency graph of Wang 1997).
 */
import { assert } from "../../model/assert.ts";
import type { DependencyGraph } from "../evidence/dependency-graph.ts";

/** The process is not rolled back: no line of it is undone. */
export const NOTHING_UNDONE = 0xffffffff;

/** Marks to start from: the first line undone, rounded to the first line of its interval, per process. */
export interface StartMarks {
  readonly process: ArrayLike<number>;
  readonly line: ArrayLike<number>;
}

/**
 * The first undone line per process, NOTHING_UNDONE where none is: the greatest feasible cut keeps all lines before it.
 *
 * Marks are upward closed, so a process needs one number; its dependencies from `done` on were visited. Each dependency is touched at
 * most once: the cost is the dependencies that leave undone intervals, plus O(processes) to set up.
 */
export function propagateRollback(graph: DependencyGraph, marks: StartMarks): Uint32Array {
  const { start, sourceLine, targetProcess, targetLine } = graph;
  const processes = start.length - 1;
  const undone = new Uint32Array(processes).fill(NOTHING_UNDONE);
  const done = start.slice(1);
  const stack = new Uint32Array(processes);
  const waiting = new Uint8Array(processes);
  let size = 0;
  for (let mark = 0; mark < marks.process.length; mark += 1) {
    const process = marks.process[mark] as number;
    assert(process < processes && (marks.line[mark] as number) >= 1, "a mark is at a line of a process");
    undone[process] = Math.min(undone[process] as number, marks.line[mark] as number);
    if (waiting[process] === 1) continue;
    waiting[process] = 1;
    stack[size++] = process;
  }
  while (size > 0) {
    const process = stack[--size] as number;
    waiting[process] = 0;
    const first = start[process] as number;
    let edge = done[process] as number;
    // A self-dependency may lower this process's own mark: read it anew each time.
    while (edge > first && (sourceLine[edge - 1] as number) >= (undone[process] as number)) {
      edge -= 1;
      const target = targetProcess[edge] as number;
      if ((targetLine[edge] as number) >= (undone[target] as number)) continue;
      undone[target] = targetLine[edge] as number;
      if (waiting[target] === 1 || target === process) continue;
      waiting[target] = 1;
      stack[size++] = target;
    }
    done[process] = edge;
  }
  return undone;
}
