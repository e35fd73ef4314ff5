/** Processes of the SDK under shipped policies, killed with SIGKILL and started again alone: each policy's promise, and nothing lost. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { uselessCheckpoints } from "../../src/graph/questions/zigzag.ts";
import { rollbackModel } from "../../src/graph/rollback/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import { sdkTrace } from "../../src/sdk/trace.ts";
import { until } from "../daemon/rig.ts";
import { RULES } from "../policy/executions.ts";
import { sized } from "../size.ts";
import { seededRandom } from "./random.ts";

const PROGRAM = join(import.meta.dirname, "policy-program.mjs");
const NAMES = ["a", "b", "c"];
const [TOKENS, HOPS] = [2, 25];
const DELIVERIES = NAMES.length * TOKENS * (HOPS + 1);
const SEED = Number(process.env["RL_POLICY_SEED"] ?? 1);
const KILLS = sized(5, 2);

class Application {
  readonly home = mkdtempSync(join(tmpdir(), "rl-sdk-policy-"));
  readonly starts = new Map<string, number>();
  /** By process and count of deliveries: what the world was told, in each life. */
  readonly told = new Map<string, Set<string>>();
  readonly #running = new Map<string, { child: ChildProcess; joined: boolean; err: string }>();
  readonly #counts = new Map<string, number>();
  readonly #policy: readonly string[];

  constructor(policy: readonly string[]) {
    this.#policy = policy;
    for (const name of NAMES) this.start(name);
  }

  start(name: string): void {
    const args = [PROGRAM, this.home, name, NAMES.join(","), String(TOKENS), String(HOPS), ...this.#policy];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    const one = { child, joined: false, err: "" };
    let pending = "";
    child.stdout.on("data", (text: Buffer) => {
      const lines = (pending + text.toString()).split("\n");
      pending = lines.pop()!;
      for (const line of lines) this.#take(name, one, line);
    });
    child.stderr.on("data", (text: Buffer) => {
      one.err += text.toString();
    });
    this.#running.set(name, one);
    this.starts.set(name, (this.starts.get(name) ?? 0) + 1);
  }

  #take(name: string, one: { joined: boolean }, line: string): void {
    const [word, count, hash = ""] = line.split(" ");
    if (word === "joined") one.joined = true;
    if (word !== "out") return;
    const key = `${name} ${count}`;
    this.told.set(key, (this.told.get(key) ?? new Set()).add(hash));
    this.#counts.set(name, Math.max(this.#counts.get(name) ?? 0, Number(count)));
  }

  get deliveries(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    await until(what, () => {
      for (const [name, { child, err }] of this.#running)
        if (child.exitCode !== null) throw new Error(`${name} ended by itself: ${err}`);
      return condition();
    });
  }

  async crash(name: string): Promise<void> {
    const { child } = this.#running.get(name)!;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
    this.start(name);
    await this.until("it joins again", () => this.#running.get(name)!.joined);
  }

  /**
   * What they did, without what the log adds to it: the pattern of messages and checkpoints alone. The protocols promise that none that
   * was taken is useless; a state that has been removed since is no gap in the pattern.
   */
  events(): Event[] {
    return sdkTrace(this.home, "policed").flatMap(({ events }) =>
      events
        .filter(({ type }) => type !== "stable")
        .map((event) => (event.type === "checkpoint" ? { ...event, usable: true } : event)),
    );
  }

  /** All of them die: what was durable stands in their logs, and none of it is still on its way there. */
  async end(): Promise<void> {
    for (const { child } of this.#running.values()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    }
  }

  async remove(): Promise<void> {
    await this.end();
    rmSync(this.home, { recursive: true, force: true });
  }
}

/** Runs to its end through kills at random moments. `isCovered`: whatever was told is told once, or the same again. */
async function survived(policy: readonly string[], kills: number, isCovered = false): Promise<Event[]> {
  const app = new Application(policy);
  const random = seededRandom(SEED);
  try {
    for (let kill = 0; kill < kills; kill += 1) {
      const at = Math.floor(((kill + random()) / kills) * DELIVERIES * 0.9);
      await app.until("they go on", () => app.deliveries >= at);
      await app.crash(NAMES[Math.floor(random() * NAMES.length)]!);
    }
    await app.until("all is delivered", () => app.deliveries === DELIVERIES);
    expect(
      [...app.starts.values()].reduce((sum, count) => sum + count, 0),
      "survivors go on",
    ).toBe(NAMES.length + kills);
    for (const [key, hashes] of isCovered ? app.told : [])
      expect(hashes.size, `${key} was told otherwise before`).toBe(1);
    expect(app.told.size, "every delivery was told").toBe(DELIVERIES);
    await app.end();
    return app.events();
  } finally {
    await app.remove();
  }
}

function useless(events: readonly Event[]): string[] {
  const builder = new EvidenceBuilder();
  for (const event of events) builder.addEvent(event);
  return uselessCheckpoints(rollbackModel(builder.build(), RULES)).map(
    ({ process, position, why }) => `${why} ${process} ${position}`,
  );
}

for (const [name, ...set] of [
  ["index-based", "interval=100ms"],
  ["hmnr", "interval=100ms"],
  ["fdas", "interval=100ms"],
] as const)
  test(`${name}: forced checkpoints come before delivery, none is useless, and who is killed goes on`, {
    timeout: 60_000,
  }, async () => {
    const events = await survived([name, ...set], 2);
    const checkpoints = events.filter(({ type }) => type === "checkpoint");
    expect(checkpoints.length).toBeGreaterThan(NAMES.length);
    expect(useless(events), `seed ${SEED} (RL_POLICY_SEED)`).toEqual([]);
  });

test(`pessimistic: ${KILLS} kills, and only who is killed goes back`, { timeout: 60_000 }, async () => {
  await survived(["pessimistic", "interval=100ms"], KILLS);
});

test(`output-commit: ${KILLS} kills, and what the world was told is never told otherwise`, {
  timeout: 60_000,
}, async () => {
  await survived(["output-commit", "interval=100ms"], KILLS, true);
});
