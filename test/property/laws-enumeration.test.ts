/** A sample of test/exhaustive, drawn anew each time: RL_SEED repeats one. */
import { expect, test } from "vitest";
import { enumerate } from "../exhaustive/enumerate.ts";
import { FAMILIES } from "../exhaustive/families.ts";
import { judgeExecution, noCounts } from "../exhaustive/judge.ts";
import { Random } from "../reference/random.ts";

const seed = Number(process.env["RL_SEED"] ?? Date.now() % 2 ** 32);
/** One in so many subtrees of the enumeration, at this depth in steps. */
const ONE_IN = 600;
const DEPTH = 4;

test(`laws 1 and 13 on a sample of all small executions (RL_SEED=${seed})`, () => {
  const random = new Random(seed);
  const counts = noCounts();
  for (const family of FAMILIES)
    enumerate(family, (execution) => judgeExecution(execution, counts), {
      depth: DEPTH,
      chosen: () => random.oneIn(ONE_IN),
    });
  console.log(
    `seed ${seed}: ${counts.executions} executions, ${counts.losses} losses, ${counts.lines} lines, ${counts.verified} verified`,
  );
  expect(counts.examples).toEqual([]);
  expect(counts.wrong + counts.unsafe).toBe(0);
  expect(counts.losses).toBeGreaterThan(1000);
});
