/** Useless checkpoints by name, each with the path that makes it so. */

import type { UselessCheckpoint } from "../graph/questions/zigzag.ts";
import type { RollbackModel } from "../graph/rollback/rollback-model.ts";
import type { WitnessLink } from "../model/recovery-line.ts";

/** Checkpoints whose path is searched, count: each costs what its rollback costs. */
const MAX_PATHS = 1000;

export interface Useless {
  readonly process: string;
  readonly checkpoint: number;
  readonly position: number;
  readonly why: UselessCheckpoint["why"];
  /** From what follows the checkpoint to what precedes it; absent where nobody looked (there are very many). */
  readonly path?: readonly WitnessLink[];
}

export interface UselessReport {
  /** Checkpoints of all processes, count. */
  readonly judged: number;
  readonly useless: readonly Useless[];
}

export async function uselessReport(model: RollbackModel): Promise<UselessReport> {
  const { uselessCheckpoints } = await import("../graph/questions/zigzag.ts");
  const { shortestChain, startsAnyway } = await import("../graph/questions/chain.ts");
  const { evidence } = model;
  const anyway = startsAnyway(model);
  const useless = uselessCheckpoints(model).map(({ process, segment, position, why }, at): Useless => {
    const from = why === "z-cycle" ? [{ process, line: position + 1 }] : anyway;
    const hits = (p: number, undone: number): boolean => p === process && undone <= position;
    const path = at < MAX_PATHS ? shortestChain(model, from, hits) : undefined;
    return {
      process: evidence.processes[process] as string,
      checkpoint: evidence.segments.index[segment] as number,
      position,
      why,
      ...(path === undefined ? {} : { path }),
    };
  });
  return { judged: evidence.segments.line.length - evidence.processes.length, useless };
}
