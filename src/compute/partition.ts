/** Cuts the blocks of logs into tasks for workers, in order. */

import type { NamedBlocks } from "../log/log-sources.ts";
import { MAX_TASK_BLOCKS, TASK_BYTES } from "../model/limits.ts";

/** A run of blocks of one log that follow each other; `index` counts runs from 0. */
export interface Partition {
  readonly index: number;
  readonly log: string;
  /** Number of the first block among the log's, by count from the first that is kept. */
  readonly first: number;
  readonly blocks: readonly Uint8Array[];
}

/** Runs of at least `bytes` bytes or `count` blocks; the last one of a log may be smaller. No empty runs. */
export async function* partition(
  logs: readonly NamedBlocks[],
  bytes: number = TASK_BYTES,
  count: number = MAX_TASK_BLOCKS,
): AsyncGenerator<Partition> {
  let index = 0;
  for (const log of logs) {
    let run: Uint8Array[] = [];
    let size = 0;
    let first = log.ends?.firstChain ?? 1;
    for await (const block of log.blocks()) {
      run.push(block);
      size += block.length;
      if (size < bytes && run.length < count) continue;
      yield { index: index++, log: log.name, first, blocks: run };
      first += run.length;
      run = [];
      size = 0;
    }
    if (run.length > 0) yield { index: index++, log: log.name, first, blocks: run };
  }
}
