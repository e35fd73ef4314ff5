/**
 * One seeded run: programs start, checkpoints at random moments, SIGKILL for some or all at a random moment, restart, maybe all of it
 * once more, and then the messages are counted.
 */

import { checkpointTogether } from "../../src/checkpoint/checkpoint.ts";
import { chooseDriver } from "../../src/checkpoint/driver-choice.ts";
import { connectCollector } from "../../src/client/client.ts";
import { seeded } from "../../src/demo/seeded.ts";
import { ProcessCgroup } from "../../src/host/cgroups.ts";
import { type Ended, type Rig, until } from "../daemon/rig.ts";
import { type Answer, fromNowhere } from "./answer.ts";
import { restartInterrupted } from "./interrupted.ts";
import { NATS_PROCESSES, NatsApp } from "./nats-app.ts";

/**
 * coordinated: all at one time · payload: one coordinated one, then independent ones, payloads kept · fall-back: the same without
 * payloads, with --fall-back · images: independent ones alone, no payloads · interrupted: coordinated or payload, by the seed, and
 * signals for the restart at random moments until one call comes to its end
 */
export type RunMode = "coordinated" | "payload" | "fall-back" | "images" | "interrupted";

export interface RunResult {
  readonly seed: number;
  readonly mode: RunMode;
  /** exact: every message once, in order, after each restart · refused: nothing was touched · failed: it said so · wrong: it did not. */
  readonly outcome: "exact" | "refused" | "failed" | "wrong";
  readonly detail: string;
  readonly restarts: number;
  /** Went back to a checkpoint older than its newest one, or to the start, summed over processes and restarts. */
  readonly rolledFurther: number;
  readonly replayedBytes: number;
  readonly restartMs: readonly number[];
}

const MESSAGES = 20_000;
const SIGNALS_WITHIN_MS = 2500;
const REFUSED = 4;

export async function natsRun(rig: Rig, seed: number, mode: RunMode): Promise<RunResult> {
  const run = new Run(rig, seed, mode);
  await rig.collect();
  return run.play();
}

class Run {
  readonly #rig: Rig;
  readonly #seed: number;
  readonly #mode: Exclude<RunMode, "interrupted">;
  readonly #interrupted: boolean;
  readonly #random: (limit: number) => number;
  readonly #app: NatsApp;
  readonly #newest = new Map<string, number>();
  #restarts = 0;
  #rolledFurther = 0;
  #replayedBytes = 0;
  readonly #restartMs: number[] = [];

  constructor(rig: Rig, seed: number, mode: RunMode) {
    this.#rig = rig;
    this.#seed = seed;
    this.#interrupted = mode === "interrupted";
    this.#random = seeded(seed);
    if (mode === "interrupted") this.#mode = this.#random(2) === 0 ? "coordinated" : "payload";
    else this.#mode = mode;
    this.#app = new NatsApp(rig, MESSAGES, ...(this.#mode === "payload" ? ["--payload"] : []));
  }

  async play(): Promise<RunResult> {
    await this.#app.start();
    await until("messages flow", () => this.#app.numbers().length > 20);
    const rounds = 1 + this.#random(2);
    for (let round = 0; round < rounds; round += 1) {
      await this.#checkpoints();
      await pause(this.#random(400));
      this.#kill();
      const ended = await this.#restart();
      if (ended !== undefined) return ended;
    }
    const wrong = await this.#app.outcome(60_000);
    return this.#result(wrong === undefined ? "exact" : "wrong", wrong ?? "");
  }

  async #checkpoints(): Promise<void> {
    if (this.#mode !== "images") await this.#checkpoint(NATS_PROCESSES);
    const count = this.#mode === "coordinated" ? 1 + this.#random(2) : 6 + this.#random(8);
    for (let at = 0; at < count; at += 1) {
      await pause(this.#random(150));
      const one = NATS_PROCESSES[at < 4 ? (at + this.#seed) % 4 : this.#random(4)]!;
      await this.#checkpoint(this.#mode === "coordinated" ? NATS_PROCESSES : [one]);
    }
  }

  /** In this process: a command a checkpoint would take most of the time to start. */
  async #checkpoint(names: readonly string[]): Promise<void> {
    const { home, app } = this.#rig;
    const log = (await connectCollector(home))!;
    const { driver } = await chooseDriver("criu", home);
    const targets = names.map((process) => ({
      app,
      process,
      incarnation: 1,
      cgroup: new ProcessCgroup(app, process),
    }));
    const taken = await checkpointTogether(targets, { home, log, driver, usable: true });
    for (const { process, checkpoint } of taken) this.#newest.set(process, checkpoint);
    log.close();
  }

  /** All, or any one of them. */
  #kill(): void {
    if (this.#random(3) > 0) this.#app.kill();
    else this.#rig.cgroup(NATS_PROCESSES[this.#random(4)]!).kill();
  }

  /** Undefined: it worked. */
  async #restart(): Promise<RunResult | undefined> {
    await pause(this.#random(50));
    const flags = this.#mode === "fall-back" ? ["--fall-back"] : [];
    const { code, out, err } = this.#interrupted
      ? await this.#interrupt()
      : await this.#rig.cli("restart", this.#rig.app, "--json", ...flags);
    if (code === REFUSED) return this.#result("refused", JSON.parse(out).error.message as string);
    if (code !== 0) return this.#result("failed", out + err);
    const answer = JSON.parse(out) as Answer;
    this.#restarts += 1;
    if (answer.connections === undefined) return undefined; // an earlier call had done it, and could not say so
    this.#restartMs.push(answer.phasesMs["total"]!);
    for (const { process, checkpoint } of answer.restarted)
      if (checkpoint !== (this.#newest.get(process) ?? 0)) this.#rolledFurther += 1;
    this.#replayedBytes += answer.inTransit.reduce((sum, { begin, end }) => sum + end - begin, 0);
    const broken = fromNowhere(answer);
    return broken.length === 0 ? undefined : this.#result("wrong", `received more than sent: ${broken}`);
  }

  async #interrupt(): Promise<Ended> {
    const { last, story } = await restartInterrupted(
      this.#rig,
      this.#random,
      1 + this.#random(4),
      SIGNALS_WITHIN_MS,
    );
    return last.code === 0 ? last : { ...last, err: `${last.err} (${story.join("; ")})` };
  }

  #result(outcome: RunResult["outcome"], detail: string): RunResult {
    const [restarts, rolledFurther, replayedBytes] = [
      this.#restarts,
      this.#rolledFurther,
      this.#replayedBytes,
    ];
    const [seed, mode, restartMs] = [this.#seed, this.#mode, this.#restartMs];
    return { seed, mode, outcome, detail, restarts, rolledFurther, replayedBytes, restartMs };
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
