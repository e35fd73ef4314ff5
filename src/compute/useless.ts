/** Useless checkpoints by name, each with the path that makes it so. */

import { pointAtOrBefore } from "../graph/evidence/restore-points.ts";
import type { UselessCheckpoint } from "../graph/questions/zigzag.ts";
import type { RollbackModel } from "../graph/rollback/rollback-model.ts";
import { USABLE } from "../model/evidence-layout.ts";
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

/** Checkpoints that are no restore points, count: a line holds none of them, whether they are on a Z-cycle or not. */
export interface NotJudged {
  /** Their images can't be restored. */
  readonly unusable: number;
  /** Behind a gap of their process that nothing has healed. */
  readonly missingEvents: number;
}

export interface UselessReport {
  /** Checkpoints of all processes that are restore points, count: the others stand in `notJudged`. */
  readonly judged: number;
  readonly notJudged: NotJudged;
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
  const notJudged = notJudgedIn(model);
  const all = evidence.segments.line.length - evidence.processes.length;
  return { judged: all - notJudged.unusable - notJudged.missingEvents, notJudged, useless };
}

function notJudgedIn({ evidence, points }: RollbackModel): NotJudged {
  const { start, line, flags } = evidence.segments;
  const found = { unusable: 0, missingEvents: 0 };
  for (let process = 0; process < evidence.processes.length; process += 1)
    for (let s = (start[process] as number) + 1; s < (start[process + 1] as number); s += 1) {
      const position = line[s] as number;
      if (pointAtOrBefore(points, process, position) === position) continue;
      found[((flags[s] as number) & USABLE) === 0 ? "unusable" : "missingEvents"] += 1;
    }
  return found;
}
