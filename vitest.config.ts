import { defineConfig } from "vitest/config";

/**
 * Live tests load capture programs, make cgroups or take images, and mostly wait: three lanes of them beside the one that computes. In a
 * lane one file at a time; what works with the machine's only podman, or with what anybody's CRIU leaves, is in the lane of restarts. Other
 * files go where there is time, so that the lanes take about as long, and those of one matter stand in several.
 */
const restart = [
  "test/restart/!(data|half-closed|hook|keep-survivors|mpi|nats|obstacles|own-sockets|postgres|signals|tied-pipes).test.ts",
  "test/payload/{restart,service}.test.ts",
  "test/daemon/{attach-refusals,container,ends,packaging,policy,unit,doctor,doctor-leftovers}.test.ts",
  "test/house/**/*.test.ts",
];
const native = [
  "test/{data-tree,native,sdk}/**/*.test.ts",
  "test/dsm/userfaultfd.test.ts",
  "test/payload/{capture,gc,loss,segments,store}.test.ts",
  "test/restart/{data,mpi,nats,obstacles,postgres}.test.ts",
  "test/daemon/{datagrams,far-peers,unrecorded,unseen}.test.ts",
];
const daemon = [
  "test/daemon/**/*.test.ts",
  "test/restart/{half-closed,hook,keep-survivors,signals,tied-pipes}.test.ts",
  "test/cli/demo.test.ts",
  "test/museum/reader-that-is-just-ending.test.ts",
];
const never = ["test/exhaustive/**", "**/node_modules/**"];

/** One process for all files of a lane: what they import is loaded once, and a third of the processor time of short ones is saved. */
const shared = {
  testTimeout: 240_000,
  hookTimeout: 240_000,
  expect: { poll: { timeout: 30_000 } }, // its own second is little on a busy machine
  fileParallelism: false,
  maxConcurrency: 4,
  pool: "forks" as const,
  isolate: false,
  chaiConfig: { truncateThreshold: 4000 }, // what failed is told whole: of a run elsewhere there is nothing else to see
};

const lane = (name: string, include: string[], exclude: string[] = []) => ({
  test: { ...shared, name, include, exclude: [...never, ...exclude] },
});

/** `npm test` runs each lane in a process of its own (scripts/task.sh). */
export default defineConfig({
  test: {
    ...shared,
    tags: [{ name: "long", description: "left to npm run test:long (test/size.ts)" }],
    projects: [
      lane("daemon", daemon, [...restart, ...native]),
      lane("restart", restart),
      lane("native", native),
      lane("still", ["test/**/*.test.ts"], [...daemon, ...restart, ...native]),
    ],
  },
});
