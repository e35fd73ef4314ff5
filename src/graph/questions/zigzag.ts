/**
 * Useless checkpoints: those on a Z-cycle (Netzer & Xu 1995), in no consistent cut whatever happens. A checkpoint is on one iff undoing
 * the interval after it undoes the interval before it, that is iff both are in one strongly connected component: one Tarjan pass.
 */

import { pointAtOrBefore } from "../evidence/restore-points.ts";
import { type RollbackModel, undoneBy } from "../rollback/rollback-model.ts";
import { type IntervalNodes, intervalNodes, nodeAt } from "./interval-nodes.ts";

export interface UselessCheckpoint {
  readonly process: number;
  /** Segment of the evidence that starts with it. */
  readonly segment: number;
  readonly position: number;
  /** `z-cycle`: proven useless for ever · `uncertain`: only because of gaps or bytes nobody sent, as far as the evidence goes. */
  readonly why: "z-cycle" | "uncertain";
}

/** In order of process and position. Checkpoints that are no restore points (unusable, after a gap) are not judged. */
export function uselessCheckpoints(model: RollbackModel): UselessCheckpoint[] {
  const { evidence, points } = model;
  const { start, line } = evidence.segments;
  const nodes = intervalNodes(model);
  const component = components(nodes);
  const anyway = undoneBy(model, []);
  const found: UselessCheckpoint[] = [];
  for (let process = 0; process < evidence.processes.length; process += 1)
    for (
      let segment = (start[process] as number) + 1;
      segment < (start[process + 1] as number);
      segment += 1
    ) {
      const position = line[segment] as number;
      if (pointAtOrBefore(points, process, position) !== position) continue;
      const after = nodeAt(nodes, process, position + 1);
      const before = nodeAt(nodes, process, position);
      if (before >= 0 && component[before] === component[after])
        found.push({ process, segment, position, why: "z-cycle" });
      else if ((anyway[process] as number) <= position)
        found.push({ process, segment, position, why: "uncertain" });
    }
  return found;
}

/** Strongly connected components of the intervals, as numbers (equal = one component). Tarjan's algorithm with its own stack. */
export function components(nodes: IntervalNodes): Uint32Array {
  const { start, process, edgeStart, edgeTarget } = nodes;
  const count = process.length;
  const found = new Tarjan(count);
  /** Per node on the path: its next dependency; the implicit one on the next interval comes first, as `edgeStart - 1`. */
  const next = new Int32Array(count);
  const path = new Uint32Array(count);
  for (let root = 0; root < count; root += 1) {
    if (found.seen(root)) continue;
    let depth = 0;
    path[depth++] = found.enter(root);
    next[root] = (edgeStart[root] as number) - 1;
    while (depth > 0) {
      const node = path[depth - 1] as number;
      const edge = next[node] as number;
      if (edge >= (edgeStart[node + 1] as number)) {
        depth -= 1;
        found.leave(node, depth > 0 ? (path[depth - 1] as number) : -1);
        continue;
      }
      next[node] = edge + 1;
      const implicit = edge < (edgeStart[node] as number);
      if (implicit && node + 1 >= (start[(process[node] as number) + 1] as number)) continue;
      const target = implicit ? node + 1 : (edgeTarget[edge] as number);
      if (found.seen(target)) found.meet(node, target);
      else {
        path[depth++] = found.enter(target);
        next[target] = (edgeStart[target] as number) - 1;
      }
    }
  }
  return found.component;
}

class Tarjan {
  /** 1 + order of discovery, 0 = not seen. */
  readonly #order: Uint32Array;
  readonly #low: Uint32Array;
  readonly #open: Uint8Array;
  readonly #stack: Uint32Array;
  #size = 0;
  #seen = 0;
  #components = 0;
  readonly component: Uint32Array;

  constructor(count: number) {
    this.#order = new Uint32Array(count);
    this.#low = new Uint32Array(count);
    this.#open = new Uint8Array(count);
    this.#stack = new Uint32Array(count);
    this.component = new Uint32Array(count);
  }

  seen(node: number): boolean {
    return this.#order[node] !== 0;
  }

  enter(node: number): number {
    this.#order[node] = this.#low[node] = ++this.#seen;
    this.#open[node] = 1;
    this.#stack[this.#size++] = node;
    return node;
  }

  /** An edge to a node seen before: it counts while that node's component is open. */
  meet(node: number, target: number): void {
    if (this.#open[target] === 1)
      this.#low[node] = Math.min(this.#low[node] as number, this.#order[target] as number);
  }

  leave(node: number, parent: number): void {
    if (this.#low[node] === this.#order[node]) {
      let member: number;
      do {
        member = this.#stack[--this.#size] as number;
        this.#open[member] = 0;
        this.component[member] = this.#components;
      } while (member !== node);
      this.#components += 1;
    }
    if (parent >= 0) this.#low[parent] = Math.min(this.#low[parent] as number, this.#low[node] as number);
  }
}
