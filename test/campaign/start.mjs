/** Runs a campaign under vitest, told what its flags say: by CAMPAIGN_NAME for --name. */
import { spawnSync } from "node:child_process";

export function startCampaign(file, flags) {
  const told = Object.entries(flags).map(([name, value]) => [`CAMPAIGN_${name.toUpperCase()}`, value]);
  const config = ["--config", "test/campaign/vitest.config.ts", "--root", "."];
  const { status } = spawnSync("npx", ["vitest", "run", ...config, `test/campaign/${file}`], {
    stdio: "inherit",
    env: { ...process.env, ...Object.fromEntries(told) },
  });
  process.exitCode = status ?? 1;
}
