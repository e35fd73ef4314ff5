/** What an application can drop: checkpoints and message-log entries that no line of any future needs (graph/questions/obsolete.ts). */

import { type Exactness, obsoleteCheckpoints } from "../graph/questions/obsolete.ts";
import { prunableRanges } from "../graph/questions/prunable.ts";
import { type RollbackModel, type Rules, rollbackModel } from "../graph/rollback/rollback-model.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { USABLE } from "../model/evidence-layout.ts";
import { MAX_COLLECT_STEPS } from "../model/limits.ts";
import type { DsmModel, InTransitPolicy } from "../model/recovery-line.ts";

interface ObsoleteCheckpoint {
  readonly process: string;
  readonly checkpoint: number;
  readonly position: number;
  readonly usable: boolean;
}

interface Prunable {
  readonly channel: string;
  readonly begin: number;
  readonly end: number;
}

export interface CollectPlan {
  readonly exactness: Exactness;
  /** Checkpoints in effect, count; initial states not among them. */
  readonly checkpoints: number;
  /** In order of process and position. */
  readonly obsolete: readonly ObsoleteCheckpoint[];
  /** Per process: position of a checkpoint, or 0, that no line of any future starts before. */
  readonly oldest: ReadonlyMap<string, number>;
  /** By channel, then begin. */
  readonly prunable: readonly Prunable[];
}

/** The rules that a later compute may use where nobody narrowed them down. Without page traffic both DSM models are one. */
export function rulesToKeep(
  evidence: Evidence,
  dsm?: DsmModel,
  inTransit?: InTransitPolicy,
): [Rules, ...Rules[]] {
  const invalidates = evidence.rows.invalidate.includes(1);
  const models: DsmModel[] =
    dsm !== undefined ? [dsm] : invalidates ? ["sequential", "transfers"] : ["sequential"];
  const policies: InTransitPolicy[] = inTransit !== undefined ? [inTransit] : ["any", "logged"];
  return models.flatMap((model) => policies.map((policy) => ({ dsm: model, inTransit: policy }))) as [Rules];
}

/** What can go while lines by any of the given rules stay computable and restorable. */
export function planCollection(evidence: Evidence, rules: readonly [Rules, ...Rules[]]): CollectPlan {
  const models = rules.map((rule) => rollbackModel(evidence, rule)) as [RollbackModel, ...RollbackModel[]];
  const { obsolete, oldestBase, exactness } = obsoleteCheckpoints(models, {
    logging: evidence.sawStable,
    maxSteps: MAX_COLLECT_STEPS,
  });
  return {
    exactness,
    checkpoints: evidence.segments.line.length - evidence.processes.length,
    obsolete: named(evidence, obsolete),
    oldest: new Map(evidence.processes.map((process, number) => [process, oldestBase[number] as number])),
    prunable: prunableRanges(evidence, models[0].matches, oldestBase).map(({ channel, begin, end }) => ({
      channel: evidence.channels[channel] as string,
      begin,
      end,
    })),
  };
}

function named(evidence: Evidence, obsolete: Uint8Array): ObsoleteCheckpoint[] {
  const { start, index, line, flags } = evidence.segments;
  return evidence.processes.flatMap((process, number) => {
    const found: ObsoleteCheckpoint[] = [];
    for (let s = start[number] as number; s < (start[number + 1] as number); s += 1)
      if (obsolete[s] === 1)
        found.push({
          process,
          checkpoint: index[s] as number,
          position: line[s] as number,
          usable: ((flags[s] as number) & USABLE) !== 0,
        });
    return found;
  });
}
