/**
 * Runs an application really, under one policy after the other, kills its processes at random moments, brings them back, and measures what the
 * comparison predicts. The prediction is made from a run without any policy, and from the costs that the trials measured.
 */
import { once } from "node:events";
import { rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type CollectorClient, requireCollector } from "../client/client.ts";
import type { ProcessInfo } from "../client/protocol.ts";
import { decodeBlock } from "../format/block.ts";
import { spawn } from "../host/spawn.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Event } from "../model/event.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import { type Compared, type ComparedPolicy, comparePolicies } from "../policy/compare.ts";
import { encodeComponent, hashOf } from "../policy/component.ts";
import { toWire } from "../policy/host-protocol.ts";
import { Recorder } from "../policy/recording.ts";
import { cleanedUp } from "./clean-up.ts";
import { type OwnApp, OwnCollector } from "./own-collector.ts";
import { askCommand, MAIN } from "./run-command.ts";

export interface TrialOptions {
  /** Starts the application by `$RECOVERY_LINE run "$RECOVERY_LINE_APP" …`, then ends. */
  readonly script: string;
  /** How long each policy decides, in seconds, and how many processes are killed in that time. */
  readonly seconds: number;
  readonly kills: number;
  /** A number below a bound; draws moments and victims. */
  readonly random: (bound: number) => number;
  /** What goes on, one sentence each. */
  readonly onProgress: (sentence: string) => Promise<void> | void;
  readonly onKill?: (kill: TrialKill) => void;
  /** True: there is no time for another kill. */
  readonly isOver?: () => boolean;
}

/** One killed process. */
export interface TrialKill {
  readonly process: string;
  /** Processes that went back, count; their work since where they went back to, seconds. */
  readonly breadth: number;
  readonly lost: number;
  /** From the call of `restart` to its end, seconds. */
  readonly recovery: number;
}

export interface Observed {
  readonly checkpoints: number;
  readonly frozenSeconds: number;
  readonly processes: number;
  readonly seconds: number;
  readonly kills: readonly TrialKill[];
}

export interface TrialRow {
  readonly label: string;
  readonly observed: Observed;
  readonly predicted: ComparedPolicy;
}

export interface Trial {
  readonly rows: readonly TrialRow[];
  /** Seconds of the recorded run. */
  readonly recorded: number;
  readonly cost: { readonly checkpoint: number; readonly restart: number };
}

const READY_MS = 30_000;
const NS = 1e9;
/** A checkpoint that is under way keeps a restart from its processes. */
const RESTART_TRIES = 10;
const RETRY_MS = 1_000;

/** Throws RL_DRIVER where the script fails, a restart does, or nothing runs. */
export async function runTrial(
  policies: readonly Compared[],
  options: TrialOptions,
  workers: number,
): Promise<Trial> {
  const recording = await withApplication(options, async (stage, client) => {
    await options.onProgress(`recording ${options.seconds} s without a policy`);
    await sleep(options.seconds * 1000);
    return recordingOf(await eventsOf(client, stage.app));
  });
  const observed: Observed[] = [];
  for (const policy of policies) observed.push(...(await killUnder(policy, options)));
  const kills = observed.flatMap((one) => one.kills);
  const cost = {
    checkpoint: Math.max(1e-4, mean(observed.map((one) => one.frozenSeconds / Math.max(1, one.checkpoints)))),
    restart: Math.max(1e-4, mean(kills.map(({ recovery }) => recovery))),
  };
  const { policies: predicted } = await comparePolicies(recording, policies, {
    seeds: 3,
    instants: 100,
    workers,
    cost: { ...cost, imageBytes: 2 ** 20, mtbf: 86_400, event: 1 },
    rules: { dsm: "sequential", inTransit: "any" },
    tainted: false,
  });
  const rows = policies.map(({ label }, at) => ({
    label,
    observed: observed[at]!,
    predicted: predicted[at]!,
  }));
  return { rows, recorded: options.seconds, cost };
}

/**
 * One policy for so many copies of the application beside each other, from its plugging on, and kills at random moments in each of them. Throws
 * RL_DRIVER also where the policy ends.
 */
export async function killUnder(policy: Compared, options: TrialOptions, copies = 1): Promise<Observed[]> {
  return withApplication(options, async (stage, client) => {
    const stages: OwnApp[] = [stage];
    for (let copy = 1; copy < copies; copy += 1) {
      stages.push(stage.beside(String(copy)));
      await startApplication(options.script, stages.at(-1)!);
    }
    return Promise.all(stages.map((one) => killIn(one, client, policy, options)));
  });
}

async function killIn(
  stage: OwnApp,
  client: CollectorClient,
  policy: Compared,
  options: TrialOptions,
): Promise<Observed> {
  await client.plugPolicy(plugOf(stage.app, policy));
  const began = performance.now();
  const work = new WorkDone(client, stage.app);
  const kills: TrialKill[] = [];
  for (let kill = 0; kill < options.kills && options.isOver?.() !== true; kill += 1) {
    const pauseMs = (options.seconds * 1000) / options.kills;
    await sleep(pauseMs * (0.3 + options.random(700) / 1000));
    kills.push(await killOne(stage, client, work, options));
    const { process, lost, breadth } = kills.at(-1)!;
    options.onKill?.(kills.at(-1)!);
    await options.onProgress(
      `${policy.label}: ${process} killed, ${breadth} back, ${lost.toFixed(1)} s of work lost`,
    );
  }
  const status = (await client.policies()).find(({ app }) => app === stage.app);
  const processes = (await client.processes()).filter(({ app }) => app === stage.app).length;
  const { checkpoints = 0, frozenMs = 0 } = status ?? {};
  if (status?.state !== "active")
    throw new RecoveryLineError(
      "RL_DRIVER",
      `${policy.label} decides no more: ${status?.over?.why ?? "it is gone"}`,
    );
  const seconds = (performance.now() - began) / 1000;
  return { checkpoints, frozenSeconds: frozenMs / 1000, processes, seconds, kills };
}

async function killOne(
  stage: OwnApp,
  client: CollectorClient,
  work: WorkDone,
  { random }: TrialOptions,
): Promise<TrialKill> {
  const isOurs = ({ app }: ProcessInfo): boolean => app === stage.app;
  const live = (await client.processes()).filter((one) => one.live && isOurs(one));
  const victim = live[random(live.length)];
  if (victim === undefined)
    throw new RecoveryLineError("RL_DRIVER", "nothing of the application runs any more");
  const { process } = victim;
  stage.cgroup(process).kill();
  await until(async () =>
    (await client.processes()).some((one) => isOurs(one) && one.process === process && !one.live),
  );
  await client.drain();
  const args = ["--failed", process, "--log", stage.home];
  const { line } = await askCommand<RecoveryLine>(["compute", stage.app, ...args]);
  const back = line.filter(({ action }) => action !== "continue");
  await work.readOn();
  const lost = work.lost(back);
  const fromMs = performance.now();
  await bringBack(["restart", stage.app, ...args, "--fall-back"]);
  return { process, breadth: back.length, lost, recovery: (performance.now() - fromMs) / 1000 };
}

/** As its advice says, it is tried again. Throws RL_DRIVER. */
async function bringBack(command: readonly string[]): Promise<void> {
  for (let left = RESTART_TRIES; ; left -= 1)
    try {
      await askCommand(command);
      return;
    } catch (error) {
      if (left === 1) throw error;
      await sleep(RETRY_MS);
    }
}

/** When the processes of an application did what is in effect; its log is read on, not anew. */
class WorkDone {
  readonly #client: CollectorClient;
  readonly #app: string;
  readonly #histories = new Map<string, EffectiveTimes>();
  #newest = 0;
  /** Number of the newest block read. */
  #chain = 0;

  constructor(client: CollectorClient, app: string) {
    this.#client = client;
    this.#app = app;
  }

  async readOn(): Promise<void> {
    for await (const bytes of this.#client.blocks(this.#app, this.#chain)) {
      const { header, columns } = decodeBlock(bytes);
      this.#chain = header.chain;
      const history = this.#histories.get(header.process) ?? new EffectiveTimes();
      this.#histories.set(header.process, history);
      for (const event of columns.events()) {
        history.add(event);
        this.#newest = Math.max(this.#newest, event.time ?? 0);
      }
    }
  }

  /** Seconds from the first that each undoes until the newest event of all: one node, one clock. Who is idle loses nothing meanwhile. */
  lost(back: RecoveryLine["line"]): number {
    return back.reduce((sum, { process, position }) => {
      const undone = this.#histories.get(process)?.after(position);
      return sum + (this.#newest - (undone ?? this.#newest)) / NS;
    }, 0);
  }
}

/** When each line of a process's history was written; what a rollback undid is in it no more (interchange.md, `rollback`). */
export class EffectiveTimes {
  readonly #times: (number | undefined)[] = [];
  readonly #positions = new Map<number, number>();

  add(event: Event): void {
    if (event.type === "rollback") this.#times.length = this.#positions.get(event.checkpoint) ?? 0;
    this.#times.push(event.time);
    if (event.type === "checkpoint") this.#positions.set(event.checkpoint, this.#times.length);
  }

  /** Of the first line with a time after the first `position`. */
  after(position: number): number | undefined {
    return this.#times.slice(position).find((time) => time !== undefined);
  }
}

async function withApplication<T>(
  { script }: TrialOptions,
  work: (stage: OwnCollector, client: CollectorClient) => Promise<T>,
): Promise<T> {
  const stage = new OwnCollector(`trial-${process.pid}`);
  const onStage = async (): Promise<T> => {
    await stage.start();
    await startApplication(script, stage);
    const client = await requireCollector(stage.home);
    try {
      await until(async () => (await client.processes()).some((one) => one.live));
      return await work(stage, client);
    } finally {
      client.close();
    }
  };
  return cleanedUp(onStage, async () => {
    await stage.stop();
    rmSync(stage.folder, { recursive: true, force: true });
  });
}

async function startApplication(script: string, { app, home, folder }: OwnApp): Promise<void> {
  const own = {
    RECOVERY_LINE: `${process.execPath} ${MAIN}`,
    RECOVERY_LINE_HOME: home,
    RECOVERY_LINE_APP: app,
    RECOVERY_LINE_FOLDER: folder,
  };
  const child = spawn(script, [], {
    env: { ...process.env, ...own },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new RecoveryLineError("RL_DRIVER", `${script} ended with ${code ?? "a signal"}`);
}

async function eventsOf(client: CollectorClient, app: string): Promise<Event[]> {
  await client.drain();
  const events: Event[] = [];
  for await (const block of client.blocks(app)) events.push(...decodeBlock(block).columns.events());
  return events;
}

function recordingOf(events: readonly Event[]) {
  const recorder = new Recorder();
  for (const event of events) recorder.addEvent(event);
  return recorder.build();
}

/** The trial brings back what it kills itself: policies that would are not allowed to. */
function plugOf(app: string, { component, parameters }: Compared) {
  return {
    app,
    component: new TextDecoder().decode(encodeComponent(component)),
    hash: hashOf(component),
    lines: [],
    set: [...parameters].map(([name, value]) => [name, toWire(value)] as const),
    allow: [],
    fallback: null,
    driver: "criu" as const,
    shadow: 0,
    dryRun: false,
  };
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + READY_MS;
  while (!(await condition())) {
    if (performance.now() > deadlineMs)
      throw new RecoveryLineError("RL_TIMEOUT", "the application does not become what the trial waits for");
    await sleep(50);
  }
}

export function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}
