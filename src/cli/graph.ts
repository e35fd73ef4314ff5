/** `recovery-line graph`: the condensed graph of intervals, for Graphviz or as JSON. */
import { type Command, Option } from "commander";
import { exitCodeOfOutcome } from "../terminal/exit-codes.ts";
import { write, writeJson } from "../terminal/print.ts";
import { type EvidenceFlags, evidenceCommand, loadEvidence, rulesOf } from "./evidence-options.ts";

interface GraphFlags extends EvidenceFlags {
  readonly format?: "dot" | "json";
}

const HELP = `
An edge reads "undoing this undoes that". Nodes are intervals between restore points; neighbours that no dependency tells
apart are one node. Red ones are on a cycle. Dotted edges: a history is a prefix; dashed: bytes that no log can replay.

Example:
  recovery-line graph heat --format dot | dot -Tsvg > heat.svg`;

export function register(program: Command): void {
  evidenceCommand(program, "graph", "print the graph that rollback follows")
    .description("Exports the condensed rollback-dependency graph.")
    .addOption(new Option("--format <format>", "dot (default) or json").choices(["dot", "json"]))
    .addHelpText("after", HELP)
    .action(graph);
}

async function graph(app: string | undefined, flags: GraphFlags): Promise<void> {
  const { dependencyGraph } = await import("../index.ts");
  const { application, evidence } = await loadEvidence(app, flags);
  const exported = dependencyGraph(evidence, rulesOf(flags));
  const outcome = evidence.gaps > 0 ? "tainted" : "clean";
  const format = flags.format ?? (flags.json ? "json" : "dot");
  if (format === "dot" && flags.json) await writeJson({ application, outcome, dot: exported.dot() });
  else if (format === "dot") await write(exported.dot());
  else await writeJson({ application, outcome, ...exported.json() });
  process.exitCode = exitCodeOfOutcome(outcome);
}
