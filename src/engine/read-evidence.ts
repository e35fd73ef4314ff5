/** Where evidence comes from: event batches of a file, or blocks of a log. One pass; holds nothing but the builder. */
import { type Evidence, EvidenceBuilder } from "../graph/evidence.ts";
import type { Event } from "../model/event.ts";

/** Evidence of events that a gateway has checked. Throws what `EvidenceBuilder` throws. */
export async function readEventEvidence(batches: AsyncIterable<readonly Event[]>): Promise<Evidence> {
  const builder = new EvidenceBuilder();
  for await (const events of batches) for (const event of events) builder.addEvent(event);
  return builder.build();
}
