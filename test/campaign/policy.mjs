/** `npm run campaign:policy -- [--kills N] [--seed S] [--bound SECONDS]`: the flags, for policy-campaign.ts. */
import { parseArgs } from "node:util";
import { startCampaign } from "./start.mjs";

const text = { type: "string" };
startCampaign("policy-campaign.ts", parseArgs({ options: { kills: text, seed: text, bound: text } }).values);
