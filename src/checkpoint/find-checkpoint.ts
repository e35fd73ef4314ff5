/** A checkpoint's event in a log that another process owns, along the process's control blocks. */

import { decodeBlock } from "../format/block.ts";
import { parseBlock } from "../format/block-header.ts";
import type { CutSource } from "../log/log-sources.ts";
import type { CheckpointEvent } from "../model/event.ts";

export interface CheckpointSource {
  cuts(): Promise<CutSource>;
  blocks(): AsyncIterable<Uint8Array>;
}

/**
 * The checkpoint, newest control block first; of a log that was pruned, from all that readers get. Undefined where it is in neither.
 * Indices are never used twice, also not after a rollback: the log's last word on one is the only one.
 */
export async function findCheckpoint(
  source: CheckpointSource,
  process: string,
  checkpoint: number,
): Promise<CheckpointEvent | undefined> {
  const cuts = await source.cuts();
  let chain = cuts.heads().get(process)?.control ?? 0;
  while (chain >= cuts.firstChain && chain > 0) {
    const { bytes, header } = await cuts.block(chain);
    const found = checkpointIn(bytes, checkpoint);
    if (found !== undefined) return found;
    chain = header.previousControl;
  }
  if (chain <= 0) return undefined;
  let last: CheckpointEvent | undefined;
  for await (const bytes of source.blocks())
    if (parseBlock(bytes).header.process === process) last = checkpointIn(bytes, checkpoint) ?? last;
  return last;
}

function checkpointIn(bytes: Uint8Array, checkpoint: number): CheckpointEvent | undefined {
  let found: CheckpointEvent | undefined;
  for (const event of decodeBlock(bytes).columns.extras.values())
    if (event.type === "checkpoint" && event.checkpoint === checkpoint) found = event;
  return found;
}
