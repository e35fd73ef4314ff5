/** `--dsm exact`: copies depend on who wrote what they bring, where both ends know it (graph/evidence/page-versions.ts). */

import type { ExactEvidence, PageVersions } from "../graph/evidence/page-versions.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import type { RecoveryLine, WitnessLink } from "../model/recovery-line.ts";
import { type ComputeOptions, computeLine } from "./compute.ts";

/**
 * The latest line of `evidence` whose page versions are `versions`. Throws as `computeLine` does. What is in transit are messages only: a
 * version that nobody has received yet stays with its writer, and retention keeps it.
 */
export function computeExactLine(
  evidence: Evidence,
  versions: PageVersions,
  options: Pick<ComputeOptions, "failed">,
): RecoveryLine {
  const exact = versions.exact(evidence);
  const answer = computeLine(exact.evidence, { ...options, dsm: "transfers", inTransit: "any" });
  return {
    ...answer,
    inTransit: answer.inTransit.filter(({ channel, begin }) => exact.copyOf(channel, begin) === undefined),
    witnesses: answer.witnesses.map(({ process, because }) => ({
      process,
      because: because.map((link) => named(exact, link)),
    })),
  };
}

/** A link that rests on a writer names the copy as it was recorded. */
function named({ copyOf }: ExactEvidence, link: WitnessLink): WitnessLink {
  const copy = link.channel === undefined ? undefined : copyOf(link.channel, link.begin ?? 0);
  if (copy === undefined) return link;
  const { channel, begin, end, page, version } = copy;
  return { ...link, channel, begin, end, page, ...(version === undefined ? {} : { version }) };
}
