/**
 * Which nodes an application runs on, and whether the log of each is there. A collector that was told (`collect --node NAME --nodes A,B`)
 * writes both into every log it keeps, so that a copy of one node's log knows of the others; `--nodes` of a command adds to it.
 */
import type { NodeNames } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";

/** State key of a log. */
export const NODE_STATE = "node";

/** `--nodes A,B`, repeatable. Throws RL_USAGE for an empty name. */
export function nodeList(options: readonly string[] = []): string[] {
  const names = options.flatMap((option) => option.split(","));
  if (!names.includes("")) return [...new Set(names)];
  throw new RecoveryLineError("RL_USAGE", "--nodes has an empty name", "Write --nodes A,B.");
}

/** What a log's state says; undefined: nobody told. */
export function nodeNames(state: unknown): NodeNames | undefined {
  const { name, all } = (state ?? {}) as Partial<NodeNames>;
  if (typeof name !== "string" || !Array.isArray(all)) return undefined;
  return { name, all: all.filter((one) => typeof one === "string") };
}

/** Nodes that the logs or the caller name and no log is of. Throws RL_CONTRADICTION for two logs of one node. */
export function absentNodes(
  logs: readonly { readonly name: string; readonly node?: NodeNames | undefined }[],
  wanted: readonly string[] = [],
): string[] {
  const present = new Map<string, string>();
  for (const { name, node } of logs) {
    if (node === undefined) continue;
    const other = present.get(node.name);
    if (other !== undefined)
      throw new RecoveryLineError(
        "RL_CONTRADICTION",
        `the logs in ${other} and ${name} are both of node ${JSON.stringify(node.name)}`,
        "Is one a copy of the other? Give each node's log once.",
      );
    present.set(node.name, name);
  }
  const all = new Set([...wanted, ...logs.flatMap(({ node }) => node?.all ?? [])]);
  return [...all].filter((name) => !present.has(name)).sort();
}

/** Throws RL_REFUSED where these are not the logs of all nodes that they name. */
export function requireNodes(app: string, logs: Parameters<typeof absentNodes>[0]): void {
  const absent = absentNodes(logs);
  if (absent.length > 0) throw refusedNodes(app, absent);
}

export function refusedNodes(app: string, absent: readonly string[]): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `no log of ${app} is of node ${absent.map((name) => JSON.stringify(name)).join(", ")}: its evidence is missing`,
    "Bring the node's log and name its directory with --log, or add --assume-lost: then the line is tainted, and earlier where it depends on that node.",
  );
}
