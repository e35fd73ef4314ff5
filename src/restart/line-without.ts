/**
 * The line as if some checkpoints could not be restored: what they had sent is not to be had any more. Processes that have done nothing
 * yet stand in no log, and are part of it all the same.
 */
import { computeLine } from "../compute/compute.ts";
import { decodeBlock } from "../format/block.ts";
import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import { addBlock } from "../logs/read-evidence.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import type { CheckpointName } from "./plan.ts";

/** Throws what reading the log and computing throws. */
export async function lineWithout(
  blocks: AsyncIterable<Uint8Array>,
  processes: readonly string[],
  failed: readonly string[],
  unusable: readonly CheckpointName[],
): Promise<{ line: RecoveryLine; evidence: Evidence }> {
  const builder = new EvidenceBuilder();
  for await (const bytes of blocks) {
    const block = decodeBlock(bytes);
    for (const [row, event] of block.columns.extras)
      if (event.type === "checkpoint" && unusable.some((one) => names(one, event)))
        block.columns.extras.set(row, { ...event, usable: false });
    addBlock(builder, block);
  }
  for (const process of processes) builder.addProcess(process);
  const evidence = builder.build();
  return { line: computeLine(evidence, { failed, dsm: "sequential", inTransit: "any" }), evidence };
}

function names(one: CheckpointName, event: CheckpointName): boolean {
  return one.process === event.process && one.checkpoint === event.checkpoint;
}
