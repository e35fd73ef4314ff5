/**
 * Dependencies as CSR typed arrays, sorted by source process, then source line: 16 bytes a dependency and 4 a process.
 * Per (source process, source line, target process) only the smallest target line is kept (theory.md, "The line").
 */
import { assert } from "../../model/assert.ts";
import type { DependencyList } from "./dependencies.ts";

export interface DependencyGraph {
  /** CSR offsets by source process. */
  readonly start: Uint32Array;
  /** Rising within a process. */
  readonly sourceLine: Uint32Array;
  readonly targetProcess: Uint32Array;
  readonly targetLine: Uint32Array;
  /** What made it (`dependencies.ts`). */
  readonly cause: Uint32Array;
}

/** O(dependencies) where each channel comes in offset order, plus `n log n` within a process that needs sorting. */
export function buildDependencyGraph(list: DependencyList, processes: number): DependencyGraph {
  const start = new Uint32Array(processes + 1);
  const source = list.sourceProcess.view();
  for (const process of source) start[process + 1] = (start[process + 1] as number) + 1;
  for (let process = 0; process < processes; process += 1)
    start[process + 1] = (start[process + 1] as number) + (start[process] as number);
  assert(start[processes] === list.length, "every dependency starts at a process");
  const order = sortedOrder(list, start);
  return compact(list, start, order);
}

/** Indices of the list by (source process, source line), stable. */
function sortedOrder(list: DependencyList, start: Uint32Array): Uint32Array {
  const order = new Uint32Array(list.length);
  const next = start.slice();
  for (let edge = 0; edge < order.length; edge += 1) {
    const process = list.sourceProcess.at(edge);
    const to = next[process] as number;
    next[process] = to + 1;
    order[to] = edge;
  }
  for (let process = 0; process + 1 < start.length; process += 1)
    sortSlice(list, order.subarray(start[process], start[process + 1]));
  return order;
}

/** Sorts one process's edges by source line, stable. */
function sortSlice(list: DependencyList, slice: Uint32Array): void {
  const size = slice.length;
  const lines = new Uint32Array(size);
  let risen = true;
  let least = 0xffffffff;
  let greatest = 0;
  for (let i = 0; i < size; i += 1) {
    const line = list.sourceLine.at(slice[i] as number);
    lines[i] = line;
    if (line < greatest) risen = false;
    if (line > greatest) greatest = line;
    if (line < least) least = line;
  }
  if (risen) return;
  if (greatest - least <= 4 * size) sortByCounting(slice, lines, least, greatest);
  else sortByKeys(slice, lines, greatest);
}

/** O(edges + lines): dense lines, as checkpoint intervals of a talkative process are. */
function sortByCounting(slice: Uint32Array, lines: Uint32Array, least: number, greatest: number): void {
  const next = new Uint32Array(greatest - least + 2);
  for (let i = 0; i < lines.length; i += 1) {
    const after = (lines[i] as number) - least + 1;
    next[after] = (next[after] as number) + 1;
  }
  for (let line = 1; line < next.length; line += 1)
    next[line] = (next[line] as number) + (next[line - 1] as number);
  const edges = slice.slice();
  for (let i = 0; i < lines.length; i += 1) {
    const line = (lines[i] as number) - least;
    const to = next[line] as number;
    next[line] = to + 1;
    slice[to] = edges[i] as number;
  }
}

/** Packed into doubles, so that the sort is the engine's native one. */
function sortByKeys(slice: Uint32Array, lines: Uint32Array, greatest: number): void {
  const size = slice.length;
  assert((greatest + 1) * size <= Number.MAX_SAFE_INTEGER, "line and rank of a dependency fit one double");
  const keys = new Float64Array(size);
  for (let i = 0; i < size; i += 1) keys[i] = (lines[i] as number) * size + i;
  keys.sort();
  const edges = slice.slice();
  for (let i = 0; i < size; i += 1) slice[i] = edges[(keys[i] as number) % size] as number;
}

/** Copies in order, keeping the smallest target line per (source process, source line, target process). */
function compact(list: DependencyList, rawStart: Uint32Array, order: Uint32Array): DependencyGraph {
  const processes = rawStart.length - 1;
  const start = new Uint32Array(processes + 1);
  const sourceLine = new Uint32Array(order.length);
  const targetProcess = new Uint32Array(order.length);
  const targetLine = new Uint32Array(order.length);
  const cause = new Uint32Array(order.length);
  /** Per target process: 1 + where the current group already holds it. */
  const held = new Uint32Array(processes);
  let size = 0;
  for (let process = 0; process < processes; process += 1) {
    let group = size;
    for (let at = rawStart[process] as number; at < (rawStart[process + 1] as number); at += 1) {
      const edge = order[at] as number;
      const line = list.sourceLine.at(edge);
      const target = list.targetProcess.at(edge);
      assert(target < processes, "a dependency ends at a process");
      if (size > group && sourceLine[size - 1] !== line) {
        assert(
          (sourceLine[size - 1] as number) < line,
          "the dependencies of a process stand in rising order of lines",
        );
        group = size;
      }
      let to = (held[target] as number) - 1;
      const fresh = to < group || to >= size || targetProcess[to] !== target;
      if (fresh) {
        to = size++;
        held[target] = to + 1;
        sourceLine[to] = line;
        targetProcess[to] = target;
      } else if ((targetLine[to] as number) <= list.targetLine.at(edge)) continue;
      targetLine[to] = list.targetLine.at(edge);
      cause[to] = list.cause.at(edge);
    }
    start[process + 1] = size;
  }
  return {
    start,
    sourceLine: sourceLine.slice(0, size),
    targetProcess: targetProcess.slice(0, size),
    targetLine: targetLine.slice(0, size),
    cause: cause.slice(0, size),
  };
}
