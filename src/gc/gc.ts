/** What an application can drop: checkpoints and message-log entries that no line of any future needs (graph/questions/obsolete.ts). */

import { type Exactness, obsoleteCheckpoints } from "../graph/questions/obsolete.ts";
import { prunableRanges } from "../graph/questions/prunable.ts";
import { type RollbackModel, type Rules, rollbackModel } from "../graph/rollback/rollback-model.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { HAS_IMAGE, USABLE } from "../model/evidence-layout.ts";
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
  /** Processes with images whose newer checkpoints have none: what a restart from those needs stays, too. */
  readonly keptForImages: readonly string[];
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

/**
 * What can go while lines by any of the given rules stay computable and restorable. A checkpoint without an image can't be restored by us:
 * where its process has older images, the lines without it count as well, since `restart --back-further` comes back by them.
 */
export function planCollection(evidence: Evidence, rules: readonly [Rules, ...Rules[]]): CollectPlan {
  const plan = planOf(evidence, rules);
  const { byImages, isOther, keptForImages } = onlyByImages(evidence);
  if (!isOther) return plan;
  const further = planOf(byImages, rules); // nowhere later
  const gone = new Set(further.obsolete.map(checkpointKey));
  return {
    ...further,
    exactness: plan.exactness === "exact" ? further.exactness : plan.exactness,
    obsolete: plan.obsolete.filter((one) => gone.has(checkpointKey(one))),
    keptForImages,
  };
}

/** Names one in a map. */
export function checkpointKey({
  process,
  checkpoint,
}: Pick<ObsoleteCheckpoint, "process" | "checkpoint">): string {
  return `${checkpoint} ${process}`;
}

/** As if no checkpoint were usable that has no image, and has one of its process before it. */
function onlyByImages(evidence: Evidence): {
  readonly byImages: Evidence;
  readonly isOther: boolean;
  /** Whose newest usable checkpoint has none. */
  readonly keptForImages: readonly string[];
} {
  const { start } = evidence.segments;
  const flags = evidence.segments.flags.slice();
  let isOther = false;
  const keptForImages = evidence.processes.filter((_, number) => {
    let [images, newest] = [0, 0];
    for (let s = start[number] as number; s < (start[number + 1] as number); s += 1) {
      const [had, usable] = [(flags[s] as number) & HAS_IMAGE, (flags[s] as number) & USABLE];
      images += had === 0 ? 0 : 1;
      if (usable === 0) continue;
      newest = had;
      if (had !== 0 || images === 0) continue;
      flags[s] = (flags[s] as number) & ~USABLE;
      isOther = true;
    }
    return images > 0 && newest === 0;
  });
  return { byImages: { ...evidence, segments: { ...evidence.segments, flags } }, isOther, keptForImages };
}

function planOf(evidence: Evidence, rules: readonly [Rules, ...Rules[]]): CollectPlan {
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
    keptForImages: [],
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
