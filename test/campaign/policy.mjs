/** `npm run campaign:policy -- [--kills N] [--seed S] [--bound SECONDS]`: the flags, for policy-campaign.ts. */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

const text = { type: "string" };
const { values } = parseArgs({ options: { kills: text, seed: text, bound: text } });
const told = Object.entries(values).map(([name, value]) => [`CAMPAIGN_${name.toUpperCase()}`, value]);
const config = ["--config", "test/campaign/vitest.config.ts", "--root", "."];
const { status } = spawnSync("npx", ["vitest", "run", ...config, "test/campaign/policy-campaign.ts"], {
  stdio: "inherit",
  env: { ...process.env, ...Object.fromEntries(told) },
});
process.exitCode = status ?? 1;
