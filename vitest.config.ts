import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/exhaustive/**"],
    testTimeout: 240_000,
    hookTimeout: 240_000,
    // Two cores, and the kernel-capture tests share one set of pinned programs.
    fileParallelism: false,
    maxConcurrency: 4,
    pool: "forks",
  },
});
