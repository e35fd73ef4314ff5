/** Where evidence comes from: event batches of a file, or blocks of a log. One pass; holds nothing but the builder. */
import { type Block, decodeBlock } from "../format/block.ts";
import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import type { PageVersions } from "../graph/evidence/page-versions.ts";
import type { Event } from "../model/event.ts";
import type { Evidence } from "../model/evidence-layout.ts";

/** Evidence of events that a gateway has checked; what they say of page versions goes into `versions`. Throws what `EvidenceBuilder` throws. */
export async function readEventEvidence(
  batches: AsyncIterable<readonly Event[]>,
  versions?: PageVersions,
): Promise<Evidence> {
  const builder = new EvidenceBuilder();
  for await (const events of batches)
    for (const event of events) {
      builder.addEvent(event);
      versions?.addEvent(event);
    }
  return builder.build();
}

/** Evidence of log blocks in chain order. Throws RL_BAD_BLOCK, and what `EvidenceBuilder` throws. */
export async function readEvidence(blocks: AsyncIterable<Uint8Array>): Promise<Evidence> {
  const builder = new EvidenceBuilder();
  for await (const bytes of blocks) addBlock(builder, decodeBlock(bytes));
  return builder.build();
}

/** The log may have dropped a process's oldest blocks: positions count from its beginning all the same. */
export function addBlock(
  builder: EvidenceBuilder,
  { header, columns }: Block,
  versions?: PageVersions,
): void {
  const process = builder.addProcess(columns.process);
  if (builder.lengthOf(process) === 0) builder.skipTo(process, header.position);
  versions?.addColumns(columns, builder.lengthOf(process));
  builder.addColumns(columns);
}
