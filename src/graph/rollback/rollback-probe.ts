/**
 * Rollback propagation from one mark after another over the same graph: what `propagateRollback` finds, at the cost of what the mark
 * reaches and not of the number of processes. Memory: four words a process, once.
 */

import { firstAbove } from "../../model/search.ts";
import type { DependencyGraph } from "../evidence/dependency-graph.ts";
import { NOTHING_UNDONE } from "./propagate-rollback.ts";

export class RollbackProbe {
  readonly #graph: DependencyGraph;
  /** What is undone before any probe; closed under the graph. Null: nothing. */
  readonly #base: Uint32Array | null;
  /** Dependencies of a process from here on were followed. */
  readonly #done: Uint32Array;
  readonly #stack: Uint32Array;
  /** 1: touched by this probe, 2: also on the stack. */
  readonly #state: Uint8Array;
  readonly #touched: Uint32Array;
  #touchedCount = 0;
  #edges = 0;
  /** First undone line per process; valid until the next `from`. */
  readonly undone: Uint32Array;

  /** `base` must be a result of `propagateRollback` on this graph. */
  constructor(graph: DependencyGraph, base: Uint32Array | null = null) {
    const processes = graph.start.length - 1;
    this.#graph = graph;
    this.#base = base;
    this.undone = base === null ? new Uint32Array(processes).fill(NOTHING_UNDONE) : base.slice();
    this.#done = graph.start.slice(1);
    if (base !== null) for (let p = 0; p < processes; p += 1) this.#done[p] = this.#firstFollowed(p);
    this.#stack = new Uint32Array(processes);
    this.#state = new Uint8Array(processes);
    this.#touched = new Uint32Array(processes);
  }

  /** Dependencies followed by all probes so far. */
  get edges(): number {
    return this.#edges;
  }

  /** Undoes `line` of `process` on top of the base. Returns the processes whose first undone line fell; valid until the next call. */
  from(process: number, line: number): Uint32Array {
    this.#reset();
    let size = this.#lower(process, line, 0);
    const { start, sourceLine, targetProcess, targetLine } = this.#graph;
    while (size > 0) {
      const source = this.#stack[--size] as number;
      this.#state[source] = 1;
      const first = start[source] as number;
      let edge = this.#done[source] as number;
      const before = edge;
      while (edge > first && (sourceLine[edge - 1] as number) >= (this.undone[source] as number)) {
        edge -= 1;
        size = this.#lower(targetProcess[edge] as number, targetLine[edge] as number, size);
      }
      this.#edges += before - edge;
      this.#done[source] = edge;
    }
    return this.#touched.subarray(0, this.#touchedCount);
  }

  #lower(process: number, line: number, size: number): number {
    if (line >= (this.undone[process] as number)) return size;
    this.undone[process] = line;
    if (this.#state[process] === 0) this.#touched[this.#touchedCount++] = process;
    if (this.#state[process] === 2) return size;
    this.#state[process] = 2;
    this.#stack[size] = process;
    return size + 1;
  }

  #reset(): void {
    for (let t = 0; t < this.#touchedCount; t += 1) {
      const process = this.#touched[t] as number;
      this.undone[process] = this.#base === null ? NOTHING_UNDONE : (this.#base[process] as number);
      this.#done[process] = this.#firstFollowed(process);
      this.#state[process] = 0;
    }
    this.#touchedCount = 0;
  }

  /** The first dependency of `process` that the base has followed already. */
  #firstFollowed(process: number): number {
    const { start, sourceLine } = this.#graph;
    const end = start[process + 1] as number;
    const line = this.#base === null ? NOTHING_UNDONE : (this.#base[process] as number);
    if (line === NOTHING_UNDONE) return end;
    return firstAbove(sourceLine, start[process] as number, end, line - 1);
  }
}
