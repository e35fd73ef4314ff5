/**
 * Kills under a policy on real programs, brought back from images of CRIU:
 *
 *   npm run campaign:policy -- [--kills 100] [--seed 1] [--bound 90] [--seconds 1000]
 *
 * bounded-loss decides for a nats-server, a publisher and a subscriber, in several copies beside each other; one of a copy's processes is killed at a
 * random moment, again and again. What each failure cost, by the engine's line and the log's clock, must be below the bound (s). After --seconds no more are
 * killed. Prints a line a kill and a summary; the same go to build/campaign/policy.jsonl.
 */
import { appendFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { seeded } from "../../src/demo/seeded.ts";
import { parseSettings } from "../../src/policy/settings.ts";
import { loadPolicy } from "../../src/policy/shipped.ts";
import { killUnder, type TrialKill } from "../../src/terminal/policy-trial.ts";

const FOLDER = "build/campaign";
const SCRIPT = join(import.meta.dirname, "../../docs/trial-nats.sh");
/** Copies of the application. */
const COPIES = 4;
/**
 * Longest pause between a restart and the next kill, as a share of the bound. Three processes go back: a checkpoint is due after a quarter of it, and from a
 * third on a kill without one would cost more.
 */
const PAUSE_SHARE = 0.5;

test("policy campaign", async () => {
  const kills = Number(process.env["CAMPAIGN_KILLS"] ?? 100);
  const seed = Number(process.env["CAMPAIGN_SEED"] ?? 1);
  const bound = Number(process.env["CAMPAIGN_BOUND"] ?? 90);
  const endMs = Date.now() + 1000 * Number(process.env["CAMPAIGN_SECONDS"] ?? 86_400);
  mkdirSync(FOLDER, { recursive: true });
  const { component } = loadPolicy("bounded-loss");
  const label = `bounded-loss:bound=${bound}s`;
  const parameters = parseSettings(component, [`bound=${bound}s`]);
  const done: TrialKill[] = [];
  const random = seeded(seed);
  const each = Math.ceil(kills / COPIES);
  await killUnder(
    { label, component, parameters },
    {
      script: SCRIPT,
      seconds: each * bound * PAUSE_SHARE,
      kills: each,
      random,
      onProgress: () => undefined,
      isOver: () => Date.now() > endMs,
      onKill: (kill) => {
        done.push(kill);
        const line = JSON.stringify({ kill: done.length, seed, bound, ...kill });
        console.log(line);
        appendFileSync(`${FOLDER}/policy.jsonl`, `${line}\n`);
      },
    },
    COPIES,
  );
  const lost = done.map((one) => one.lost).sort((a, b) => a - b);
  console.log(
    `${label}, seed ${seed}: ${done.length} kills with CRIU, each brought back; lost ${lost[lost.length >> 1]!.toFixed(1)} s in the median, ` +
      `${lost.at(-1)!.toFixed(1)} s at most`,
  );
  expect(done.length).toBeGreaterThanOrEqual(Date.now() > endMs ? COPIES : each * COPIES);
  for (const kill of done) expect(kill.lost, JSON.stringify(kill)).toBeLessThan(bound);
});
