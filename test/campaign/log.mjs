/** `npm run campaign:log -- --kill N --named N --power N --faults N --damage N [--seed S]
 * [--scenarios log,gc,import,collect]`: the flags, for log-campaign.ts. */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

const names = ["kill", "named", "power", "faults", "damage", "seed", "scenarios"];
const { values } = parseArgs({
  options: Object.fromEntries(names.map((name) => [name, { type: "string" }])),
});
const told = Object.entries(values).map(([name, value]) => [`CAMPAIGN_${name.toUpperCase()}`, value]);
const args = [
  "vitest",
  "run",
  "--config",
  "test/campaign/vitest.config.ts",
  "--root",
  ".",
  "test/campaign/log-campaign.ts",
];
const { status } = spawnSync("npx", args, {
  stdio: "inherit",
  env: { ...process.env, ...Object.fromEntries(told) },
});
process.exitCode = status ?? 1;
