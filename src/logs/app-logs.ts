/** The logs of an application on its nodes, each open until it is closed: by block, or as a stream from a live collector. */
import type { NodeLog } from "../log/log-sources.ts";
import { hasCode } from "../model/errors.ts";
import { appBlocks, openLog } from "./app-blocks.ts";
import { refused } from "./app-evidence.ts";
import { absentNodes, NODE_STATE, nodeNames, refusedNodes } from "./app-nodes.ts";
import { appDirectory } from "./home.ts";
import { unrecordedIn } from "./unrecorded.ts";

export interface AppLogs {
  readonly logs: readonly NodeLog[];
  /** Homes that lack the application although they were named: only with `assumeLost`. */
  readonly missing: readonly string[];
  /** Nodes that logs or `nodes` name and that no log is of: only with `assumeLost`. */
  readonly missingNodes: readonly string[];
  /** Processes that no collector records though their log says so. */
  readonly unrecorded: readonly string[];
}

interface OpenLog extends NodeLog {
  readonly unrecorded: readonly string[];
}

/** Throws RL_UNKNOWN_APP where no home has the application, RL_REFUSED where one of several lacks it or a node's log is missing, and what opening throws. */
export async function openAppLogs(
  homes: readonly string[],
  app: string,
  assumeLost = false,
  nodes?: readonly string[],
): Promise<AppLogs> {
  const logs: OpenLog[] = [];
  const missing: string[] = [];
  let missingNodes: readonly string[] = [];
  let unknown: unknown;
  try {
    for (const home of homes)
      try {
        logs.push(await openAppLog(home, app));
      } catch (error) {
        if (!hasCode(error, "RL_UNKNOWN_APP")) throw error;
        unknown = error;
        missing.push(home);
      }
    if (logs.length === 0) throw unknown;
    if (missing.length > 0 && !assumeLost) throw refused(app, missing);
    missingNodes = absentNodes(logs, nodes);
    if (missingNodes.length > 0 && !assumeLost) throw refusedNodes(app, missingNodes);
  } catch (error) {
    await closeLogs(logs);
    throw error;
  }
  return { logs, missing, missingNodes, unrecorded: logs.flatMap(({ unrecorded }) => unrecorded) };
}

export async function closeLogs(logs: readonly NodeLog[]): Promise<void> {
  for (const log of logs) await log.close();
}

async function openAppLog(home: string, app: string): Promise<OpenLog> {
  const collected = await openCollected(home, app);
  if (collected !== undefined) return { ...collected, unrecorded: [] };
  const reader = await openLog(appDirectory(home, app));
  const { ends } = reader;
  const node = nodeNames(reader.getState(NODE_STATE));
  return {
    name: home,
    cuts: reader,
    blocks: () => reader.unchecked(),
    ends,
    node,
    unrecorded: unrecordedIn(reader),
    close: () => reader.close(),
  };
}

/** The log in the hands of a live collector, which alone may read it; undefined if none has it. */
async function openCollected(home: string, app: string): Promise<NodeLog | undefined> {
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  if (collector === undefined) return undefined;
  try {
    const cuts = await collector.log(app);
    const { node } = await collector.ping();
    return {
      name: home,
      cuts,
      node,
      blocks: () => appBlocks(home, app),
      close: async () => collector.close(),
    };
  } catch (error) {
    collector.close();
    if (hasCode(error, "RL_UNKNOWN_APP")) return undefined;
    throw error;
  }
}
