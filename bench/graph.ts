// bench: graph — what undoing costs, from events to the line, beside one pass over the edges and a textbook version.
import { Graph } from "@dagrejs/graphlib";
import { computeLine } from "../src/compute/compute.ts";
import { EVENT_KIND, EventColumns } from "../src/format/event-columns.ts";
import { DependencyList } from "../src/graph/evidence/dependencies.ts";
import { buildDependencyGraph, type DependencyGraph } from "../src/graph/evidence/dependency-graph.ts";
import { EvidenceBuilder } from "../src/graph/evidence/evidence-builder.ts";
import { propagateRollback } from "../src/graph/rollback/propagate-rollback.ts";
import { type Figure, median, report } from "./report.ts";

/** A small seeded generator (xorshift32): the same graph in every run. */
function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

interface Shape {
  readonly processes: number;
  /** Intervals of each process. */
  readonly intervals: number;
  readonly dependencies: number;
}

/**
 * Dependencies between random processes whose receive comes `ahead` intervals after the send or, for a total domino, always some
 * before the end of the sender's interval in time: undoing one interval reaches back.
 */
function randomList({ processes, intervals, dependencies }: Shape, domino: boolean): DependencyList {
  const random = seeded(42);
  const list = new DependencyList();
  for (let i = 0; i < dependencies; i += 1) {
    const from = random(processes);
    const to = (from + 1 + random(processes - 1)) % processes;
    const sent = 1 + random(intervals);
    const received = domino ? Math.max(1, sent - random(2)) : Math.min(intervals + 1, sent + 1 + random(3));
    list.push(from, sent, to, received, 0);
  }
  return list;
}

function timed(work: () => void): number {
  const begin = performance.now();
  work();
  return performance.now() - begin;
}

/** One pass over the edges that reads what propagation reads: the least work a total domino can be. */
function onePass(graph: DependencyGraph, least: Uint32Array): void {
  for (let edge = 0; edge < graph.sourceLine.length; edge += 1) {
    const target = graph.targetProcess[edge] as number;
    if (
      (graph.sourceLine[edge] as number) > 0 &&
      (graph.targetLine[edge] as number) < (least[target] as number)
    )
      least[target] = graph.targetLine[edge] as number;
  }
}

async function propagation(): Promise<Figure[]> {
  const shape = { processes: 1000, intervals: 1000, dependencies: 10_000_000 };
  const figures: Figure[] = [];
  for (const domino of [true, false]) {
    const list = randomList(shape, domino);
    let graph: DependencyGraph | undefined;
    const building = timed(() => {
      graph = buildDependencyGraph(list, shape.processes);
    });
    const built = graph as unknown as DependencyGraph;
    const edges = built.sourceLine.length;
    const marks = { process: [0], line: [shape.intervals] };
    const floor = await median(5, () =>
      timed(() => onePass(built, new Uint32Array(shape.processes).fill(0xffffffff))),
    );
    const work = await median(5, () => timed(() => void propagateRollback(built, marks)));
    const undone = propagateRollback(built, marks).reduce(
      (sum, line) => sum + (line === 0xffffffff ? 0 : shape.intervals + 1 - line),
      0,
    );
    const name = domino ? "total domino" : "no domino";
    const goal = domino ? 300 : 5;
    figures.push({
      name: `${name}: propagate over ${edges} dependencies (${undone} of 1 M intervals undone)`,
      value: work,
      unit: "ms",
      floor: { name: "one pass over the edges", value: floor },
      goal: `≤ ${goal} ms`,
      met: work <= goal,
    });
    figures.push({ name: `${name}: build CSR from 10 M pushes`, value: building, unit: "ms" });
    const bytes =
      (built.start.byteLength +
        built.sourceLine.byteLength +
        built.targetProcess.byteLength +
        built.targetLine.byteLength +
        built.cause.byteLength) /
      edges;
    figures.push({
      name: `${name}: graph size`,
      value: bytes,
      unit: "bytes a dependency",
      goal: "≤ 24",
      met: bytes <= 24,
    });
  }
  return figures;
}

/** The textbook: a graphlib graph of intervals, prefix edges and all, and a breadth-first search. On a smaller size. */
async function textbook(): Promise<Figure[]> {
  const shape = { processes: 100, intervals: 100, dependencies: 100_000 };
  const list = randomList(shape, true);
  const graph = buildDependencyGraph(list, shape.processes);
  const marks = { process: [0], line: [shape.intervals] };
  const book = new Graph({ directed: true });
  const building = timed(() => {
    for (let p = 0; p < shape.processes; p += 1)
      for (let x = 1; x <= shape.intervals; x += 1) book.setEdge(`${p}:${x}`, `${p}:${x + 1}`);
    for (let e = 0; e < list.length; e += 1)
      book.setEdge(
        `${list.sourceProcess.at(e)}:${list.sourceLine.at(e)}`,
        `${list.targetProcess.at(e)}:${list.targetLine.at(e)}`,
      );
  });
  const search = await median(5, () => timed(() => void breadthFirst(book, `0:${shape.intervals}`)));
  const ours = await median(5, () => timed(() => void propagateRollback(graph, marks)));
  return [
    { name: "textbook graphlib, 100 k dependencies: build", value: building, unit: "ms" },
    {
      name: "textbook graphlib, 100 k dependencies: breadth-first search",
      value: search,
      unit: "ms",
      floor: { name: "propagateRollback on the same", value: ours },
    },
  ];
}

function breadthFirst(graph: Graph, from: string): number {
  const seen = new Set([from]);
  const queue = [from];
  for (const node of queue)
    for (const next of graph.successors(node) ?? [])
      if (!seen.has(next)) {
        seen.add(next);
        queue.push(next);
      }
  return seen.size;
}

/** One process of a ring: sends 64 bytes to the right, receives 64 from the left, in turns; now and then a checkpoint. */
function ringMember(p: number, processes: number, events: number, checkpointEvery: number): EventColumns {
  const column = new EventColumns(`p${p}`);
  const right = column.addChannel(`c${p}-${(p + 1) % processes}`);
  const left = column.addChannel(`c${(p + processes - 1) % processes}-${p}`);
  let sent = 0;
  let received = 0;
  let checkpoint = 0;
  for (let i = 1; i <= events; i += 1) {
    if (i % checkpointEvery === p % checkpointEvery) {
      checkpoint += 1;
      column.push({ type: "checkpoint", process: `p${p}`, checkpoint, usable: true });
    } else if (i % 2 === 0 || received >= sent) {
      column.pushRange(EVENT_KIND.send, right, sent, sent + 64, Number.NaN, 0);
      sent += 64;
    } else {
      column.pushRange(EVENT_KIND.receive, left, received, received + 64, Number.NaN, 0);
      received += 64;
    }
  }
  return column;
}

/** 10 M events in columns: a ring of processes that talk to their neighbours, a checkpoint every 1 000 events. */
async function endToEnd(
  processes: number,
  perProcess: number,
  checkpointEvery: number,
  label: string,
): Promise<Figure[]> {
  const columns = Array.from({ length: processes }, (_, p) =>
    ringMember(p, processes, perProcess, checkpointEvery),
  );
  const builder = new EvidenceBuilder();
  const adding = timed(() => {
    for (const column of columns) builder.addColumns(column);
  });
  let evidence: ReturnType<EvidenceBuilder["build"]> | undefined;
  const building = timed(() => {
    evidence = builder.build();
  });
  const built = evidence as unknown as ReturnType<EvidenceBuilder["build"]>;
  const one = timed(() => void computeLine(built, { failed: ["p0"], dsm: "sequential", inTransit: "any" }));
  const all = timed(() => void computeLine(built, { dsm: "sequential", inTransit: "any" }));
  return [
    { name: `${label}: addColumns`, value: adding, unit: "ms" },
    { name: `${label}: build`, value: building, unit: "ms" },
    { name: `${label}: computeLine, one failed, verified`, value: one, unit: "ms" },
    { name: `${label}: computeLine, all failed, verified`, value: all, unit: "ms" },
    { name: `${label}: resident memory`, value: process.memoryUsage().rss / 2 ** 20, unit: "MiB" },
  ];
}

report("graph: propagation, 1 M intervals, 10 M dependencies", await propagation());
report("graph: textbook", await textbook());
report("graph: from events to the verified line", [
  ...(await endToEnd(1000, 10_000, 1000, "10 M events, 1 000 processes")),
  ...(await endToEnd(1_000_000, 10, 5, "10 M events, 1 M processes")),
]);
