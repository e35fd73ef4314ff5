import { defineConfig } from "vitest/config";

/** The long runs that `npm test` only samples: `npm run test:exhaustive`, `npm run test:mutation`. */
export default defineConfig({
  test: {
    include: ["test/exhaustive/*.test.ts", "test/mutation/*.test.ts"],
    testTimeout: 7_200_000,
    fileParallelism: false,
    pool: "forks",
    env: { RL_TEST_LONG: "1" },
    disableConsoleIntercept: true,
  },
});
