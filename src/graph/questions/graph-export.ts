/**
 * The condensed graph of intervals for other tools, through graphlib: a node for each row of intervals that no dependency tells apart, an
 * edge for each dependency (the strongest per pair) and for "history is a prefix".
 */
import { Graph, json } from "@dagrejs/graphlib";
import { RecoveryLineError } from "../../model/errors.ts";
import { MAX_EXPORT_DEPENDENCIES } from "../../model/limits.ts";
import type { RollbackModel } from "../rollback/rollback-model.ts";
import { linkOf } from "./chain.ts";
import { intervalNodes } from "./interval-nodes.ts";
import { components } from "./zigzag.ts";

export interface IntervalLabel {
  readonly process: string;
  /** Lines of the process, both inclusive; `last` < `first` is the empty volatile end. */
  readonly first: number;
  readonly last: number;
  /** Equal number: undoing one undoes the other. */
  readonly component: number;
}

export interface DependencyLabel {
  readonly rule: "prefix" | "orphan" | "unreplayable";
  readonly channel?: string;
  readonly begin?: number;
  readonly end?: number;
}

/** Edges read "undoing the source undoes the target". Throws RL_LIMIT beyond MAX_EXPORT_DEPENDENCIES nodes and dependencies. */
export function exportGraph(model: RollbackModel): Graph<string, IntervalLabel, DependencyLabel> {
  const { evidence, graph } = model;
  const nodes = intervalNodes(model);
  const size = nodes.line.length + graph.targetLine.length;
  if (size > MAX_EXPORT_DEPENDENCIES)
    throw new RecoveryLineError(
      "RL_LIMIT",
      `the graph has ${nodes.line.length} intervals and ${graph.targetLine.length} dependencies; at most ${MAX_EXPORT_DEPENDENCIES} together are exported`,
      "Export a smaller application or a shorter log; compute, failures and zcycles have no such bound.",
    );
  const exported = new Graph<string, IntervalLabel, DependencyLabel>({ directed: true, multigraph: true });
  exported.setGraph("recovery-line");
  const component = components(nodes);
  for (let node = 0; node < nodes.line.length; node += 1) {
    const process = nodes.process[node] as number;
    const next =
      node + 1 < (nodes.start[process + 1] as number) ? (nodes.line[node + 1] as number) - 1 : undefined;
    exported.setNode(String(node), {
      process: evidence.processes[process] as string,
      first: nodes.line[node] as number,
      last: next ?? (evidence.length[process] as number),
      component: component[node] as number,
    });
  }
  for (let node = 0; node < nodes.line.length; node += 1) {
    if (node + 1 < (nodes.start[(nodes.process[node] as number) + 1] as number))
      exported.setEdge(String(node), String(node + 1), { rule: "prefix" }, "prefix");
    for (
      let edge = nodes.edgeStart[node] as number;
      edge < (nodes.edgeStart[node + 1] as number);
      edge += 1
    ) {
      const { rule, channel, begin, end } = linkOf(model, edge, nodes.process[node] as number);
      const label = { rule: rule as "orphan" | "unreplayable", channel, begin, end } as DependencyLabel;
      exported.setEdge(String(node), String(nodes.edgeTarget[edge]), label, `${edge}`);
    }
  }
  return exported;
}

/** graphlib's own JSON. */
export function graphJson(graph: Graph<string, IntervalLabel, DependencyLabel>): object {
  return json.write(graph);
}

/** Graphviz text. `shown` makes a name printable; quotes and backslashes are escaped here. */
export function graphDot(
  graph: Graph<string, IntervalLabel, DependencyLabel>,
  shown: (name: string) => string,
): string {
  const quoted = (text: string): string => `"${shown(text).replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  const lines = ["digraph recovery_line {", "  rankdir=LR;", "  node [shape=box];"];
  const sizes = new Map<number, number>();
  for (const name of graph.nodes()) {
    const { component } = graph.node(name) as IntervalLabel;
    sizes.set(component, (sizes.get(component) ?? 0) + 1);
  }
  for (const name of graph.nodes()) {
    const { process, first, last, component } = graph.node(name) as IntervalLabel;
    const range = first > last ? "now" : first === last ? `${first}` : `${first}-${last}`;
    const cycle = (sizes.get(component) ?? 0) > 1 ? ", color=red" : "";
    lines.push(`  ${name} [label=${quoted(`${process} ${range}`)}${cycle}];`);
  }
  for (const edge of graph.edges()) {
    const { rule, channel, begin, end } = graph.edge(edge) as DependencyLabel;
    const label = rule === "prefix" ? "style=dotted" : `label=${quoted(`${channel} [${begin},${end})`)}`;
    const reverse = rule === "unreplayable" ? ", style=dashed" : "";
    lines.push(`  ${edge.v} -> ${edge.w} [${label}${reverse}];`);
  }
  return `${lines.join("\n")}\n}\n`;
}
