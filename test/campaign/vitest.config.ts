import { defineConfig } from "vitest/config";

/** Long runs on real programs: `npm run campaign:restart`. */
export default defineConfig({
  test: {
    include: ["test/campaign/*-campaign.ts"],
    testTimeout: 86_400_000,
    fileParallelism: false,
    pool: "forks",
    disableConsoleIntercept: true,
  },
});
