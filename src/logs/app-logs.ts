/**
 * The one way to an application's log: in the hands of a live collector or of nobody, of one node or of several, each open until it is
 * closed. Blocks come as bytes; whoever decodes them checks their checksums.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { NodeLog } from "../log/log-sources.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { absentNodes, NODE_STATE, nodeNames, refusedNodes } from "./app-nodes.ts";
import { onceInReach, openClosedLog } from "./closed-log.ts";
import { appDirectory } from "./home.ts";
import { unrecordedIn } from "./unrecorded.ts";

/** How often a log is tried that its collector tries to write, count, and how long between two, in ms. */
const UNWRITABLE_TRIES = 20;
const UNWRITABLE_PAUSE_MS = 50;

/** One node's log of an application. */
interface OpenAppLog extends NodeLog {
  /** Processes that no collector records though the log says so. */
  readonly unrecorded: readonly string[];
  /** Blocks whose checksums and chain are checked on their way; a collector checks what it sends. */
  checked(): AsyncGenerator<Uint8Array>;
}

export interface AppLogs {
  readonly logs: readonly OpenAppLog[];
  /** Homes that lack the application although they were named: only with `assumeLost`. */
  readonly missing: readonly string[];
  /** Nodes that logs or `nodes` name and that no log is of: only with `assumeLost`. */
  readonly missingNodes: readonly string[];
  /** Processes that no collector records though their log says so (see unrecorded.ts). */
  readonly unrecorded: readonly string[];
}

/** Throws RL_UNKNOWN_APP where no home has the application, RL_REFUSED where one of several lacks it or a node's log is missing, and what opening throws. */
export async function openAppLogs(
  homes: readonly string[],
  app: string,
  assumeLost = false,
  nodes?: readonly string[],
): Promise<AppLogs> {
  const logs: OpenAppLog[] = [];
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

/** Throws RL_UNKNOWN_APP where neither the collector nor the home knows the application, RL_LOCKED where somebody else goes on holding the log, RL_CORRUPT_LOG. */
async function openAppLog(home: string, app: string): Promise<OpenAppLog> {
  try {
    return await onceInReach(async () => (await openCollected(home, app)) ?? (await openClosed(home, app)));
  } catch (error) {
    if (!hasCode(error, "RL_LOG_WRITE")) throw error;
    return openUnwritable(home, app, error);
  }
}

/**
 * A log that its collector can't write now is closed, and holds what is committed; who is recorded there counts as unrecorded, as where no
 * collector lives: what they do waits in the ring. The collector tries again to open it, and has it for a moment then.
 */
async function openUnwritable(home: string, app: string, why: RecoveryLineError): Promise<OpenAppLog> {
  for (let left = UNWRITABLE_TRIES; left > 0; left -= 1) {
    try {
      return await openClosed(home, app);
    } catch (error) {
      if (!hasCode(error, "RL_LOCKED")) throw error;
      await sleep(UNWRITABLE_PAUSE_MS);
    }
  }
  throw why;
}

/** All committed blocks of one node's log in chain order, checked. Throws what opening and reading throw. */
export async function* appBlocks(home: string, app: string): AsyncGenerator<Uint8Array> {
  const log = await openAppLog(home, app);
  try {
    yield* log.checked();
  } finally {
    await log.close();
  }
}

async function openClosed(home: string, app: string): Promise<OpenAppLog> {
  const reader = await openClosedLog(appDirectory(home, app));
  const checked = async function* (): AsyncGenerator<Uint8Array> {
    for await (const { bytes } of reader.blocks()) yield bytes;
  };
  return {
    name: home,
    cuts: reader,
    blocks: () => reader.unchecked(),
    checked,
    ends: reader.ends,
    node: nodeNames(reader.getState(NODE_STATE)),
    unrecorded: unrecordedIn(reader),
    close: () => reader.close(),
  };
}

/** The log in the hands of a live collector, which alone may read it; undefined if none has it: an import beside it is a closed one. */
async function openCollected(home: string, app: string): Promise<OpenAppLog | undefined> {
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  if (collector === undefined) return undefined;
  const blocks = (): AsyncGenerator<Uint8Array> => collector.blocks(app);
  try {
    const cuts = await collector.log(app);
    const { node } = await collector.ping();
    return {
      name: home,
      cuts,
      node,
      blocks,
      checked: blocks,
      unrecorded: [],
      close: async () => collector.close(),
    };
  } catch (error) {
    collector.close();
    if (hasCode(error, "RL_UNKNOWN_APP")) return undefined;
    throw error;
  }
}

function refused(app: string, missing: readonly string[]): RecoveryLineError {
  return new RecoveryLineError(
    "RL_REFUSED",
    `no log of ${app} in ${missing.join(", ")}: the evidence of that node is missing`,
    "Bring the node's log, or add --assume-lost: then the line is tainted, and earlier where it depends on that node.",
  );
}
