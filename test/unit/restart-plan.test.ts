/** What a restart's plan refuses for want of an image, and as what. */
import { expect, test } from "vitest";
import { hasCode } from "../../src/model/errors.ts";
import { lineWithout } from "../../src/restart/line-without.ts";
import { Obstructed } from "../../src/restart/obstacle.ts";
import { type PlanSource, planRestart } from "../../src/restart/plan.ts";
import { evidenceOf } from "../property/laws-executions.ts";

const LINES = [1, 2].map(
  (checkpoint) => ({ type: "checkpoint", process: "p", checkpoint, usable: true }) as const,
);

/** Two checkpoints of p, and no image. */
function planOf(source: Partial<PlanSource>): Promise<unknown> {
  const whole = {
    home: "/nonexistent",
    app: "app",
    compute: async (failed, unusable) => lineWithout(evidenceOf(LINES), failed, unusable),
    checkpoint: async (_, checkpoint) => LINES[checkpoint - 1],
    running: new Map(),
    startRecipe: async () => undefined,
    data: new Map(),
    startTrees: async () => [],
    unseen: () => undefined,
    takesOwnCheckpoints: () => false,
    driverOf: () => undefined,
    ...source,
  } satisfies PlanSource;
  return planRestart(whole, { failed: ["p"], keepSurvivors: false, fallBack: false }).catch(
    (error: unknown) => error,
  );
}

test("a checkpoint of ours without an image is an obstacle, that of a runtime which takes its own is not supported", async () => {
  const ours = await planOf({});
  expect(ours).toBeInstanceOf(Obstructed);
  expect((ours as Obstructed).found).toMatchObject([{ process: "p", checkpoint: 2 }]);
  expect(hasCode(await planOf({ takesOwnCheckpoints: () => true }), "RL_NOT_SUPPORTED")).toBe(true);
});

test("an image that is gone is an obstacle of its checkpoint", async () => {
  const image = `images/p/2#${"0".repeat(64)}`;
  const gone = await planOf({ checkpoint: async () => ({ ...LINES[1]!, image }) });
  expect((gone as Obstructed).found).toMatchObject([
    {
      process: "p",
      checkpoint: 2,
      what: "image damaged: /nonexistent/app/images/p/2/manifest.json is missing",
    },
  ]);
});
