/** The shortest chain of messages by which undoing one line of a process undoes a line of another (or of itself). */
import { assert } from "../../model/assert.ts";
import type { WitnessLink } from "../../model/recovery-line.ts";
import { TOGETHER } from "../evidence/dependencies.ts";
import { Uint32List } from "../evidence/growable.ts";
import { NOTHING_UNDONE } from "../rollback/propagate-rollback.ts";
import { type RollbackModel, volatileFrom } from "../rollback/rollback-model.ts";
import { messageLink } from "../rollback/witness.ts";

/** Where a search starts: undoing `line` of `process`; `because` is the link that says why. */
export interface ChainStart {
  readonly process: number;
  readonly line: number;
  readonly because?: WitnessLink;
}

const START = 0xffffffff;

/**
 * Links from a start to the first message that `hits` (a process and its first undone line); undefined where none does.
 * A search in rounds: a process is visited again only with an earlier line, so each dependency is looked at once.
 */
export function shortestChain(
  model: RollbackModel,
  starts: readonly ChainStart[],
  hits: (process: number, undone: number) => boolean,
): WitnessLink[] | undefined {
  const { graph } = model;
  const marked = new Map<number, number>();
  const done = new Map<number, number>();
  const process = new Uint32List();
  const line = new Uint32List();
  const cause = new Uint32List();
  const parent = new Uint32List();
  const visit = (p: number, l: number, c: number, from: number): boolean => {
    if (l >= (marked.get(p) ?? NOTHING_UNDONE)) return false;
    marked.set(p, l);
    process.push(p);
    line.push(l);
    cause.push(c);
    parent.push(from);
    return hits(p, l);
  };
  for (const [at, s] of starts.entries())
    if (visit(s.process, s.line, START, at)) return links(process.length - 1);
  for (let record = 0; record < process.length; record += 1) {
    const p = process.at(record);
    let edge = done.get(p) ?? (graph.start[p + 1] as number);
    const first = graph.start[p] as number;
    for (; edge > first && (graph.sourceLine[edge - 1] as number) >= line.at(record); edge -= 1) {
      const target = graph.targetProcess[edge - 1] as number;
      if (visit(target, graph.targetLine[edge - 1] as number, edge - 1, record))
        return links(process.length - 1);
    }
    done.set(p, edge);
  }
  return undefined;
  function links(last: number): WitnessLink[] {
    const chain: WitnessLink[] = [];
    let at = last;
    for (; cause.at(at) !== START; at = parent.at(at))
      chain.push(linkOf(model, cause.at(at), process.at(parent.at(at))));
    const because = (starts[parent.at(at)] as ChainStart).because;
    return [...(because === undefined ? [] : [because]), ...chain.reverse()];
  }
}

/** The message behind a dependency of the graph, as a link from the process whose undoing starts it. */
export function linkOf(model: RollbackModel, edge: number, source: number): WitnessLink {
  const { graph, evidence } = model;
  const cause = graph.cause[edge] as number;
  assert(cause !== TOGETHER, "processes checkpointed together have no message");
  const target = evidence.processes[graph.targetProcess[edge] as number] as string;
  return messageLink(model, target, cause, evidence.processes[source] as string);
}

/** Why something is undone though nobody failed: bytes nobody sent or nobody can replay, and gaps at ends. */
export function startsAnyway(model: RollbackModel): ChainStart[] {
  const { base, evidence, points } = model;
  const starts: ChainStart[] = [];
  for (let mark = 0; mark < base.process.length; mark += 1) {
    const process = base.process.at(mark);
    const name = evidence.processes[process] as string;
    const because = messageLink(model, name, base.cause.at(mark), undefined);
    starts.push({ process, line: base.line.at(mark), because });
  }
  points.openGap.forEach((position, process) => {
    if (position === 0) return;
    const because = { rule: "gap", process: evidence.processes[process] as string, position } as const;
    starts.push({ process, line: volatileFrom(model, process), because });
  });
  return starts;
}
