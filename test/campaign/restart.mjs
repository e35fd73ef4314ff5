/** `npm run campaign:restart -- --runs N [--seed S] [--mode M]`: the flags, for restart-campaign.ts. */
import { parseArgs } from "node:util";
import { startCampaign } from "./start.mjs";

const text = { type: "string" };
startCampaign("restart-campaign.ts", parseArgs({ options: { runs: text, seed: text, mode: text } }).values);
