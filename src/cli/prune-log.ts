/** Retention of one node's log, whoever holds it: the live collector, or nobody. */

import type { Keep } from "../log/keep.ts";
import { appDirectory } from "../logs/home.ts";
import type { Pruned } from "../model/collector-answers.ts";
import { hasCode } from "../model/errors.ts";

/** `oldest` as `CollectPlan.oldest`, from the logs of all nodes. Throws what opening, reading and writing the log throws. */
export async function pruneLog(
  home: string,
  app: string,
  oldest: ReadonlyMap<string, number>,
  keep?: Keep,
): Promise<Pruned> {
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(home);
  try {
    if (collector !== undefined) return await collector.prune(app, oldest, keep);
  } catch (error) {
    if (hasCode(error, "RL_LOG_WRITE")) return { bytes: 0, reason: error.message }; // images were removed all the same
    if (!hasCode(error, "RL_UNKNOWN_APP")) throw error; // imported beside the collector
  } finally {
    collector?.close();
  }
  const { EventLog } = await import("../log/event-log.ts");
  const log = await EventLog.open(appDirectory(home, app), { create: false });
  try {
    const { base, ...plan } = await log.planPrune(oldest, keep);
    if (base === undefined) return { bytes: 0, ...plan };
    const { bytes, removed } = await log.prune(base);
    await removed;
    return { bytes };
  } finally {
    await log.close();
  }
}
