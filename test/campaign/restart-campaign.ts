/**
 * Seeded restarts of real programs, counted: exact, refused, failed (it said so), wrong (must be 0).
 *
 *   npm run campaign:restart -- --runs 200 [--seed 1] [--mode payload|coordinated|fall-back|interrupted|images|redis|redis-cluster|lammps|sdk|dsm|applications]
 *
 * `applications` are mariadb, etcd, jvm, prometheus, postgresql and mpi (modes, too), one a run: five rounds each, so --runs 6.
 *
 * Prints one JSON line a run and a summary at the end; the same lines go to build/campaign/restart.jsonl.
 */
import { appendFileSync, mkdirSync } from "node:fs";
import { expect, test } from "vitest";
import { ROUND, type RunResult, WORKLOADS } from "./workloads.ts";

const FOLDER = "build/campaign";
/** Of the runs that must be exact. */
const LEAST_EXACT = 0.99;

interface Run extends RunResult {
  readonly seed: number;
  readonly mode: string;
  readonly seconds: number;
}

test("restart campaign", async () => {
  const runs = Number(process.env["CAMPAIGN_RUNS"] ?? 20);
  const first = Number(process.env["CAMPAIGN_SEED"] ?? 1);
  const only = process.env["CAMPAIGN_MODE"];
  if (only !== undefined && !(only in WORKLOADS))
    throw new TypeError(`--mode is one of ${Object.keys(WORKLOADS)}`);
  mkdirSync(FOLDER, { recursive: true });
  const results: Run[] = [];
  for (let seed = first; seed < first + runs; seed += 1) {
    const result = await one(seed, only ?? ROUND[seed % ROUND.length]!);
    results.push(result);
    console.log(JSON.stringify(result));
    appendFileSync(`${FOLDER}/restart.jsonl`, `${JSON.stringify(result)}\n`);
  }
  console.log(summary(results));
  expect(results.filter(({ outcome }) => outcome === "wrong")).toEqual([]);
  const judged = results.filter(({ mode }) => mode !== "images");
  expect(exact(judged)).toBeGreaterThanOrEqual(LEAST_EXACT * judged.length);
});

async function one(seed: number, mode: string): Promise<Run> {
  const fromMs = performance.now();
  const result = await WORKLOADS[mode]!(seed).catch(
    (error: unknown): RunResult => ({
      outcome: error instanceof Error && error.name === "AssertionError" ? "wrong" : "failed",
      detail: String(error),
      restartMs: [],
    }),
  );
  return { ...result, seed, mode, seconds: Math.round((performance.now() - fromMs) / 100) / 10 };
}

function exact(results: readonly Run[]): number {
  return results.filter(({ outcome }) => outcome === "exact").length;
}

function summary(results: readonly Run[]): string {
  const lines = ["workload       runs  exact  refused  failed  wrong  restarts  ms a restart (median)"];
  for (const mode of [...new Set(results.map((one) => one.mode)), "all"]) {
    const ofMode = results.filter((one) => mode === "all" || one.mode === mode);
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
