/**
 * The whole enumeration: `npm run test:exhaustive`. Ten to twenty minutes; progress once a minute. RL_FAMILIES=2,3 takes only the families
 * of those numbers (from 1).
 */
import { expect, test } from "vitest";
import { enumerate } from "./enumerate.ts";
import { FAMILIES } from "./families.ts";
import { type Counts, judgeExecution, noCounts } from "./judge.ts";

const PROGRESS_MS = 60_000;
const chosen = process.env["RL_FAMILIES"]?.split(",").map(Number);

function report(name: string, counts: Counts, seconds: number): string {
  const { executions, losses, lines, verified, wrong, unsafe } = counts;
  return `${name}: ${executions} executions, ${losses} single-event losses, ${lines} lines (${verified} with the verifier), ${wrong} wrong, ${unsafe} unsafe, ${seconds.toFixed(0)} s`;
}

test("all small executions, every single-event loss: 0 wrong, 0 unsafe", () => {
  const total = noCounts();
  const started = Date.now();
  for (const family of FAMILIES.filter((_, i) => chosen?.includes(i + 1) ?? true)) {
    const counts = noCounts();
    const begun = Date.now();
    let told = begun;
    enumerate(family, (execution) => {
      judgeExecution(execution, counts);
      if (Date.now() - told < PROGRESS_MS) return;
      told = Date.now();
      console.log(`… ${report(family.name, counts, (told - begun) / 1000)}`);
    });
    console.log(report(family.name, counts, (Date.now() - begun) / 1000));
    for (const key of ["executions", "losses", "lines", "verified", "wrong", "unsafe"] as const)
      total[key] += counts[key];
    total.examples.push(...counts.examples);
  }
  console.log(report("in all", total, (Date.now() - started) / 1000));
  expect(total.examples).toEqual([]);
  expect(total.wrong + total.unsafe).toBe(0);
  if (chosen !== undefined) return;
  expect(total.executions).toBeGreaterThanOrEqual(1_000_000);
  expect(total.losses).toBeGreaterThanOrEqual(5_000_000);
});
