/** What the engine computes from (README "Contracts"): the layout, and the builder that fills it. */
export { EvidenceBuilder } from "./evidence-builder.ts";
export type { Evidence } from "./evidence-layout.ts";
