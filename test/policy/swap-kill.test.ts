/** The collector is killed at each step of a swap, and at random moments of many: the log then names the old policy or the new one, whole. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { AppLog } from "../../src/collect/app-log.ts";
import type { SwapStep } from "../../src/daemon/app-policy.ts";
import { componentOf, decodeRecord } from "../../src/daemon/policy-record.ts";
import { openEventLog } from "../../src/log/append-log.ts";
import { build } from "../cli/cli.ts";
import { Random } from "../reference/random.ts";

const CHILD = join(import.meta.dirname, "swap-child.mjs");
const APP = "shop";

beforeAll(build, 120_000);

interface Outcome {
  /** Epochs whose plug had returned. */
  readonly acknowledged: number;
  readonly epoch: number;
  readonly policy: string;
}

/** Runs the child until it dies, by itself at a step, or killed `afterMs` its first swap; then reads what its log says. */
async function swapped(step: SwapStep | "", afterMs?: number): Promise<Outcome> {
  const home = mkdtempSync(join(tmpdir(), "rl-swap-"));
  try {
    const child = spawn(process.execPath, [CHILD, home, APP, step], { stdio: ["ignore", "pipe", "inherit"] });
    let out = "";
    child.stdout.on("data", (text: Buffer) => {
      if (out === "" && afterMs !== undefined) setTimeout(() => child.kill("SIGKILL"), afterMs);
      out += text.toString();
    });
    await once(child, "close");
    expect(child.signalCode).toBe("SIGKILL");
    const log = new AppLog(APP, join(home, APP), openEventLog, "boot");
    await log.open(false);
    const record = decodeRecord(log.policy)!;
    await log.close();
    const { name } = componentOf(record.plugged!); // under its hash: it is whole
    const acknowledged = Number(out.trim().split("\n").at(-1));
    return { acknowledged, epoch: record.epoch, policy: name };
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

for (const step of ["checked", "started", "shadowed", "committing"] as const)
  test.concurrent(`killed when ${step}: the old policy`, async () => {
    expect(await swapped(step)).toEqual({ acknowledged: 1, epoch: 1, policy: "periodic" });
  });

for (const step of ["committed", "switched", "ended"] as const)
  test.concurrent(`killed when ${step}: the new policy`, async () => {
    expect(await swapped(step)).toEqual({ acknowledged: 1, epoch: 2, policy: "coordinated" });
  });

test("killed at random moments of many swaps, seed 15: what was acknowledged, or the one begun after it", async () => {
  const random = new Random(15);
  for (let kill = 0; kill < 4; kill += 1) {
    const { acknowledged, epoch, policy } = await swapped("", random.below(300));
    expect(epoch - acknowledged).toBeGreaterThanOrEqual(0);
    expect(epoch - acknowledged).toBeLessThanOrEqual(1);
    expect(policy).toBe(epoch % 2 === 1 ? "periodic" : "coordinated");
  }
});
