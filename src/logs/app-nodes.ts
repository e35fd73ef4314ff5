/**
 * Which nodes an application runs on, and whether the log of each is there. A collector that was told (`collect --node NAME --nodes A,B`)
 * writes both into every log it keeps, so that a copy of one node's log knows of the others; `--nodes` of a command adds to it.
 */
import type { NodeNames } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { openLog } from "./app-blocks.ts";
import { appDirectory } from "./home.ts";

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

/** The node whose log it is, asked of whoever holds it. */
export async function nodeOfLog(home: string, app: string): Promise<NodeNames | undefined> {
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  if (collector !== undefined)
    try {
      return (await collector.ping()).node;
    } finally {
      collector.close();
    }
  const reader = await openLog(appDirectory(home, app));
  try {
    return nodeNames(reader.getState(NODE_STATE));
  } finally {
    await reader.close();
  }
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

export function refusedNodes(app: string, absent: readonly string[]): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `no log of ${app} is of node ${absent.map((name) => JSON.stringify(name)).join(", ")}: its evidence is missing`,
    "Bring the node's log and name its directory with --log, or add --assume-lost: then the line is tainted, and earlier where it depends on that node.",
  );
}

/** Asks every log; a home that lacks the application has been told of already. Throws RL_REFUSED for absent nodes unless `assumeLost`. */
export async function checkNodes(
  homes: readonly string[],
  app: string,
  wanted: readonly string[] | undefined,
  assumeLost: boolean,
): Promise<string[]> {
  const logs = [];
  for (const home of homes)
    try {
      logs.push({ name: home, node: await nodeOfLog(home, app) });
    } catch (error) {
      if (!hasCode(error, "RL_UNKNOWN_APP")) throw error;
    }
  const absent = absentNodes(logs, wanted);
  if (absent.length > 0 && !assumeLost) throw refusedNodes(app, absent);
  return absent;
}
