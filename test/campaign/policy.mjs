/**
 * `npm run campaign:policy -- [--kills N] [--bound SECONDS] [--seed S] [--seconds N]`: the flags, for policy-campaign.ts; with `--safety [--seconds N] [--seed S]` for
 * policy-safety-campaign.ts.
 */
import { parseArgs } from "node:util";
import { startCampaign } from "./start.mjs";

const text = { type: "string" };
const { safety, ...told } = parseArgs({
  options: { kills: text, seed: text, bound: text, seconds: text, safety: { type: "boolean" } },
}).values;
startCampaign(`${safety ? "policy-safety" : "policy"}-campaign.ts`, told);
