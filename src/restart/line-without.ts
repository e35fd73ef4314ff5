/**
 * The line as if some checkpoints could not be restored: what they had sent is not to be had any more. Processes that have done nothing
 * yet stand in no log, and are part of it all the same: `evidenceWith` reads event by event for their sake.
 */
import { computeLine } from "../compute/compute.ts";
import { decodeBlock } from "../format/block.ts";
import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import { addBlock } from "../logs/read-evidence.ts";
import { type Evidence, USABLE } from "../model/evidence-layout.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import type { CheckpointName } from "./plan.ts";

/** `unusable` that are in effect; others change nothing. Throws what computing throws. */
export function lineWithout(
  evidence: Evidence,
  failed: readonly string[],
  unusable: readonly CheckpointName[],
): { readonly line: RecoveryLine; readonly evidence: Evidence } {
  const without = withoutCheckpoints(evidence, unusable);
  const line = computeLine(without, { failed, dsm: "sequential", inTransit: "any" });
  return { line, evidence: without };
}

function withoutCheckpoints(evidence: Evidence, unusable: readonly CheckpointName[]): Evidence {
  const { processes, segments } = evidence;
  const flags = segments.flags.slice();
  for (const { process, checkpoint } of unusable) {
    const number = processes.indexOf(process);
    if (number === -1) continue;
    const [from, to] = [segments.start[number]!, segments.start[number + 1]!];
    for (let segment = from; segment < to; segment += 1)
      if (segments.index[segment] === checkpoint) flags[segment] = flags[segment]! & ~USABLE;
  }
  return { ...evidence, segments: { ...segments, flags } };
}

/** Throws what reading the log throws. */
export async function evidenceWith(
  blocks: AsyncIterable<Uint8Array>,
  processes: readonly string[],
): Promise<Evidence> {
  const builder = new EvidenceBuilder();
  for await (const bytes of blocks) addBlock(builder, decodeBlock(bytes));
  for (const process of processes) builder.addProcess(process);
  return builder.build();
}
