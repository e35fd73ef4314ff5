/** `npm run campaign:restart -- --runs N [--seed S] [--mode M]`: the flags, for restart-campaign.ts. */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: { runs: { type: "string" }, seed: { type: "string" }, mode: { type: "string" } },
});
const names = { runs: "CAMPAIGN_RUNS", seed: "CAMPAIGN_SEED", mode: "CAMPAIGN_MODE" };
const told = Object.entries(values).map(([name, value]) => [names[name], value]);
const args = [
  "vitest",
  "run",
  "--config",
  "test/campaign/vitest.config.ts",
  "--root",
  ".",
  "test/campaign/restart-campaign.ts",
];
const { status } = spawnSync("npx", args, {
  stdio: "inherit",
  env: { ...process.env, ...Object.fromEntries(told) },
});
process.exitCode = status ?? 1;
