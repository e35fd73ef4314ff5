/** Where evidence comes from: event batches of a file, or blocks of a log. One pass; holds nothing but the builder. */
import { decodeBlock } from "../format/block.ts";
import { type Evidence, EvidenceBuilder } from "../graph/evidence.ts";
import type { Event } from "../model/event.ts";

/** Evidence of events that a gateway has checked. Throws what `EvidenceBuilder` throws. */
export async function readEventEvidence(batches: AsyncIterable<readonly Event[]>): Promise<Evidence> {
  const builder = new EvidenceBuilder();
  for await (const events of batches) for (const event of events) builder.addEvent(event);
  return builder.build();
}

/** Evidence of log blocks in chain order. Throws RL_BAD_BLOCK, and what `EvidenceBuilder` throws. */
export async function readEvidence(blocks: AsyncIterable<Uint8Array>): Promise<Evidence> {
  const builder = new EvidenceBuilder();
  for await (const bytes of blocks) builder.addColumns(decodeBlock(bytes).columns);
  return builder.build();
}
