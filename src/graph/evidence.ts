/** What the engine computes from (README "Contracts"): the layout, and the builder that fills it. */
export { EvidenceBuilder } from "./evidence-builder.ts";
export type { CutRows, Evidence, RangeRows, Segments } from "./evidence-layout.ts";
