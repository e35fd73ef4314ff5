import { defineConfig } from "vitest/config";

/** Tests that load capture programs, make cgroups or take images: one file at a time. */
const live = [
  "test/{daemon,restart,native,payload,sdk}/**/*.test.ts",
  "test/cli/demo.test.ts",
  "test/dsm/userfaultfd.test.ts",
  "test/museum/reader-that-is-just-ending.test.ts",
  "test/unit/from-cuts-capture.test.ts",
];
const never = ["test/exhaustive/**", "**/node_modules/**"];

const shared = {
  testTimeout: 240_000,
  hookTimeout: 240_000,
  fileParallelism: false,
  maxConcurrency: 4,
  pool: "forks" as const,
};

/** Two cores, two lanes: `npm test` runs each in a process of its own (scripts/task.sh). */
export default defineConfig({
  test: {
    ...shared,
    projects: [
      { test: { ...shared, name: "live", include: live, exclude: never } },
      { test: { ...shared, name: "still", include: ["test/**/*.test.ts"], exclude: [...never, ...live] } },
    ],
  },
});
