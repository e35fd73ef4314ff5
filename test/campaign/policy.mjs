/**
 * `npm run campaign:policy -- [--kills N] [--bound SECONDS] [--seed S] [--seconds N]`: the flags, for policy-campaign.ts; with `--safety [--seconds N] [--seed S]` for
 * policy-safety-campaign.ts.
 */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

const text = { type: "string" };
const { values } = parseArgs({
  options: { kills: text, seed: text, bound: text, seconds: text, safety: { type: "boolean" } },
});
const { safety, ...told } = values;
const env = Object.fromEntries(
  Object.entries(told).map(([name, value]) => [`CAMPAIGN_${name.toUpperCase()}`, value]),
);
const file = `test/campaign/${safety ? "policy-safety" : "policy"}-campaign.ts`;
const config = ["--config", "test/campaign/vitest.config.ts", "--root", "."];
const { status } = spawnSync("npx", ["vitest", "run", ...config, file], {
  stdio: "inherit",
  env: { ...process.env, ...env },
});
process.exitCode = status ?? 1;
