/**
 * The intervals of all processes that dependencies or checkpoints name, as numbered nodes: what is between two of them behaves as one.
 *
 * A node is the first line of its interval and stands for all lines up to the next node of its process. From a node lead the
 * implicit dependency on the next node ("history is a prefix") and its slice of the graph's dependencies.
 */

import { firstAbove } from "../../model/search.ts";
import { pointAtOrBefore } from "../evidence/restore-points.ts";
import type { RollbackModel } from "../rollback/rollback-model.ts";

export interface IntervalNodes {
  /** CSR offsets by process. */
  readonly start: Uint32Array;
  /** First line, rising within a process; `length + 1` is the volatile end after a restore point at the end. */
  readonly line: Uint32Array;
  readonly process: Uint32Array;
  /** CSR offsets of the graph's dependencies by source node. */
  readonly edgeStart: Uint32Array;
  /** Target node of each dependency. */
  readonly edgeTarget: Uint32Array;
}

/** O(dependencies × log intervals of a process). */
export function intervalNodes(model: RollbackModel): IntervalNodes {
  const { start, line } = namedLines(model);
  const process = new Uint32Array(line.length);
  for (let p = 0; p + 1 < start.length; p += 1) process.fill(p, start[p], start[p + 1]);
  const { graph } = model;
  const edgeStart = new Uint32Array(line.length + 1);
  let edge = 0;
  for (let node = 0; node < line.length; node += 1) {
    const stop = graph.start[(process[node] as number) + 1] as number;
    while (edge < stop && graph.sourceLine[edge] === line[node]) edge += 1;
    edgeStart[node + 1] = edge;
  }
  const edgeTarget = graph.targetProcess.map((p, e) => nodeOf(start, line, p, graph.targetLine[e] as number));
  return { start, line, process, edgeStart, edgeTarget };
}

/** The node of `process` whose interval holds `line`, by binary search; -1 where all nodes come later. */
export function nodeAt({ start, line }: IntervalNodes, process: number, at: number): number {
  const node = nodeOf(start, line, process, at);
  return node < (start[process] as number) ? -1 : node;
}

function nodeOf(start: Uint32Array, lines: Uint32Array, process: number, line: number): number {
  return firstAbove(lines, start[process] as number, start[process + 1] as number, line) - 1;
}

/** Sources and targets of dependencies, and the first line after each checkpoint that can be restored. */
function namedLines(model: RollbackModel): { start: Uint32Array; line: Uint32Array } {
  const { evidence, graph, points } = model;
  const processes = evidence.processes.length;
  const bound = targetOffsets(graph.targetProcess, processes);
  const targets = new Uint32Array(graph.targetLine.length);
  const next = bound.slice();
  graph.targetProcess.forEach((p, e) => {
    targets[next[p] as number] = graph.targetLine[e] as number;
    next[p] = (next[p] as number) + 1;
  });
  const { segments } = evidence;
  const room = graph.sourceLine.length + targets.length + segments.line.length;
  const line = new Uint32Array(room);
  const start = new Uint32Array(processes + 1);
  let size = 0;
  for (let p = 0; p < processes; p += 1) {
    const from = size;
    for (let e = graph.start[p] as number; e < (graph.start[p + 1] as number); e += 1)
      line[size++] = graph.sourceLine[e] as number;
    for (let t = bound[p] as number; t < (bound[p + 1] as number); t += 1)
      line[size++] = targets[t] as number;
    for (let s = segments.start[p] as number; s < (segments.start[p + 1] as number); s += 1) {
      const at = segments.line[s] as number;
      if (pointAtOrBefore(points, p, at) === at) line[size++] = at + 1;
    }
    size = from + distinct(line.subarray(from, size).sort());
    start[p + 1] = size;
  }
  return { start, line: line.slice(0, size) };
}

function targetOffsets(targetProcess: Uint32Array, processes: number): Uint32Array {
  const start = new Uint32Array(processes + 1);
  for (const p of targetProcess) start[p + 1] = (start[p + 1] as number) + 1;
  for (let p = 0; p < processes; p += 1) start[p + 1] = (start[p + 1] as number) + (start[p] as number);
  return start;
}

/** Moves the distinct values of a sorted array to its front; their count. */
function distinct(sorted: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < sorted.length; i += 1)
    if (count === 0 || sorted[count - 1] !== sorted[i]) sorted[count++] = sorted[i] as number;
  return count;
}
