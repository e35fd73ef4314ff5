/**
 * Processes on the SDK, killed with SIGKILL at random moments and started again alone. More seeds:
 *   RL_SDK_SEEDS=200 RL_SDK_FIRST=1000 npx vitest run test/sdk/ring.test.ts
 */
import { afterAll, expect, test } from "vitest";
import { sized } from "../size.ts";
import { type Outcome, runRing } from "./ring-rig.ts";

const SEEDS = Number(process.env["RL_SDK_SEEDS"] ?? sized(20, 3));
const FIRST = Number(process.env["RL_SDK_FIRST"] ?? 1);
/** Runs at one time: they wait for the disk and for each other most of the time. */
const TOGETHER = 2;
const outcomes: Outcome[] = [];
afterAll(() => console.log(summary()));

test(`${SEEDS} seeds: each message exactly once, results as in a run of the logged order, survivors untouched`, {
  timeout: SEEDS * 10_000,
}, async () => {
  const seeds = Array.from({ length: SEEDS }, (_, index) => FIRST + index);
  const worker = async (): Promise<void> => {
    for (let seed = seeds.shift(); seed !== undefined; seed = seeds.shift())
      outcomes.push(await runRing(seed));
  };
  await Promise.all(Array.from({ length: TOGETHER }, worker));
  expect(outcomes.length).toBe(SEEDS);
  expect(outcomes.flatMap(({ actions }) => actions)).toContain("replay");
});

function summary(): string {
  const actions = outcomes.flatMap(({ actions }) => actions);
  const restarts = outcomes.flatMap(({ restartMs }) => restartMs).sort((a, b) => a - b);
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);
  return (
    `SDK: ${outcomes.length} runs exact, ${actions.length} kills (${actions.filter((one) => one === "replay").length} replayed, ` +
    `${actions.filter((one) => one === "restore").length} at a checkpoint), ${sum(outcomes.map(({ deliveries }) => deliveries))} deliveries, ` +
    `restart to join median ${restarts[restarts.length >> 1]?.toFixed(0)} ms`
  );
}
