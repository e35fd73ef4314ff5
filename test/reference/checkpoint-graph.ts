/**
 * Checkpoint graph (Bhargava & Lian 1988, theory.md): vertices are restore points c(i,0) … c(i,K_i).
 * A message sent in interval xs of i and received in interval yr of j gives the edge c(i,xs-1) → c(j,yr).
 * Start from the latest points; while one of them is strictly reachable from the set, step it back; repeat.
 * An edge whose source is c(i,-1) or that has no source at all marks its target from the start.
 */
import type { Instance } from "./instance.ts";
import { continues, NEVER } from "./instance.ts";

/** Index of the interval that holds `line`: the first point at or after it; points.length if there is none. */
function intervalOf(points: readonly number[], line: number): number {
  const index = points.findIndex((point) => point >= line);
  return index < 0 ? points.length : index;
}

interface Graph {
  /** Vertex number of c(i,0). */
  readonly first: readonly number[];
  readonly successors: number[][];
  /** Vertices no line may hold. */
  readonly forbidden: number[];
}

function buildGraph(instance: Instance): Graph {
  const { processes, cells, options } = instance;
  const first: number[] = [];
  const successors: number[][] = [];
  const forbidden: number[] = [];
  for (const { points } of processes) {
    first.push(successors.length);
    points.forEach((_, k) => {
      successors.push(k + 1 < points.length ? [successors.length + 1] : []);
    });
  }
  /** Keeping the line `to` of process j needs keeping the line `from` of process i. */
  const needs = (j: number, to: number, i: number, from: number) => {
    const target = intervalOf(processes[j]!.points, to);
    if (target === processes[j]!.points.length) return;
    const vertex = first[j]! + target;
    if (i < 0 || from === NEVER) forbidden.push(vertex);
    else {
      // If c(i,K) already lies before `from`, the source is c(i,K): it stays in the set or reaches it from behind.
      successors[first[i]! + intervalOf(processes[i]!.points, from) - 1]!.push(vertex);
    }
  };
  for (const cell of cells) {
    const { sender, receiver, sent, received, known, logged } = cell;
    if (receiver >= 0 && known !== NEVER) needs(receiver, known, sender, sent);
    if (options.inTransit === "logged" && !logged && sender >= 0 && sent !== NEVER) {
      const process = receiver < 0 ? undefined : processes[receiver]!;
      const volatile = process && continues(process, process.history.length) ? process.history.length : NEVER;
      needs(sender, sent, receiver, Math.min(received, volatile));
    }
  }
  return { first, successors, forbidden };
}

export function checkpointGraphLine(instance: Instance): number[] {
  const { first, successors, forbidden } = buildGraph(instance);
  const marked = new Set<number>();
  const queue: number[] = [];
  const mark = (vertex: number) => {
    if (!marked.has(vertex)) {
      marked.add(vertex);
      queue.push(vertex);
    }
  };
  for (const vertex of forbidden) mark(vertex);
  const root = instance.processes.map((p) => p.points.length - 1);
  for (let stepped = true; stepped; ) {
    root.forEach((k, i) => {
      for (const next of successors[first[i]! + k]!) mark(next);
    });
    while (queue.length > 0) for (const next of successors[queue.pop()!]!) mark(next);
    stepped = false;
    root.forEach((k, i) => {
      let point = k;
      while (marked.has(first[i]! + point)) point--;
      if (point !== k) stepped = true;
      root[i] = point;
    });
  }
  return instance.processes.map((p, i) => p.points[root[i]!]!);
}
