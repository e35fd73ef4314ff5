/**
 * Seeded restarts of real programs, counted: exact, refused, failed (it said so), wrong (must be 0).
 *
 *   npm run campaign:restart -- --runs 50 [--seed 1] [--mode payload|coordinated|fall-back|images]
 *
 * Prints one JSON line a run and a summary at the end; the same lines go to build/campaign/restart.jsonl.
 */
import { appendFileSync, mkdirSync } from "node:fs";
import { expect, test } from "vitest";
import { withRig } from "../daemon/rig.ts";
import { natsRun, type RunMode, type RunResult } from "../restart/nats-run.ts";

const MODES: readonly RunMode[] = ["payload", "coordinated", "payload", "fall-back", "payload", "images"];
const FOLDER = "build/campaign";

test("restart campaign", async () => {
  const runs = Number(process.env["CAMPAIGN_RUNS"] ?? 20);
  const first = Number(process.env["CAMPAIGN_SEED"] ?? 1);
  const only = process.env["CAMPAIGN_MODE"] as RunMode | undefined;
  mkdirSync(FOLDER, { recursive: true });
  const results: RunResult[] = [];
  for (let seed = first; seed < first + runs; seed += 1) {
    const result = await one(seed, only ?? MODES[seed % MODES.length]!);
    results.push(result);
    console.log(JSON.stringify(result));
    appendFileSync(`${FOLDER}/restart.jsonl`, `${JSON.stringify(result)}\n`);
  }
  console.log(summary(results));
  expect(results.filter(({ outcome }) => outcome === "wrong")).toEqual([]);
});

async function one(seed: number, mode: RunMode): Promise<RunResult> {
  let result: RunResult | undefined;
  try {
    await withRig(`campaign-${seed}`, async (rig) => {
      result = await natsRun(rig, seed, mode);
    });
  } catch (error) {
    result ??= {
      seed,
      mode,
      outcome: "failed",
      detail: String(error),
      restarts: 0,
      rolledFurther: 0,
      replayedBytes: 0,
      restartMs: [],
    };
  }
  return result!;
}

function summary(results: readonly RunResult[]): string {
  const lines = ["mode           runs  exact  refused  failed  wrong  restarts  ms a restart (median)"];
  for (const mode of new Set(results.map((one) => one.mode))) {
    const ofMode = results.filter((one) => one.mode === mode);
    const count = (outcome: string) => String(ofMode.filter((one) => one.outcome === outcome).length);
    const times = ofMode.flatMap(({ restartMs }) => restartMs).sort((a, b) => a - b);
    const cells = [
      mode.padEnd(13),
      String(ofMode.length).padStart(5),
      count("exact").padStart(6),
      count("refused").padStart(8),
      count("failed").padStart(7),
      count("wrong").padStart(6),
      String(times.length).padStart(9),
      (times[Math.floor(times.length / 2)] ?? 0).toFixed(0).padStart(14),
    ];
    lines.push(cells.join(" "));
  }
  return lines.join("\n");
}
