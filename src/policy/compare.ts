/** Policies beside each other over one recording: every policy, order and way of counting delays is one task, for threads where it pays. */

import type { Rules } from "../graph/rollback/rollback-model.ts";
import { WorkerPool } from "../host/worker-pool.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { compiledFile } from "../native/binding.ts";
import { type Component, hashOf } from "./component.ts";
import { type CostModel, METRICS, type Measures, type Metric } from "./measures.ts";
import { drawOrder, type Recording } from "./recording.ts";
import { replay } from "./replay.ts";
import { type EventName, eventRow } from "./vocabulary.ts";

export interface Compared {
  /** What the caller calls it: name and settings. */
  readonly label: string;
  readonly component: Component;
  readonly parameters: ReadonlyMap<string, number>;
}

export interface CompareOptions {
  /** Orders drawn, by seeds 1 … n. */
  readonly seeds: number;
  readonly instants: number;
  readonly cost: CostModel;
  readonly rules: Rules;
  /** Threads, 0 = none. */
  readonly workers: number;
  /** Compare what is left of a log with gaps. */
  readonly tainted?: boolean;
}

/** Mean over the seeds, and how far they spread. */
export interface Spread {
  readonly mean: number;
  readonly least: number;
  readonly most: number;
}
export type Column = Readonly<Record<Metric, Spread>>;

export interface ComparedPolicy {
  readonly label: string;
  readonly hash: string;
  /** Events it waits for that a recorded log does not tell of: what it does about them is not compared. */
  readonly silent: readonly EventName[];
  readonly frozen: Column;
  readonly pushed: Column;
}

/** Two policies of which the comparison can't tell the better one. */
export interface Undecided {
  readonly metric: Metric;
  readonly policies: readonly [string, string];
  /** `delays`: the two columns rank them differently · `orders`: so do the seeds of one column. */
  readonly why: "delays" | "orders";
}

export interface Comparison {
  readonly events: number;
  readonly processes: number;
  readonly seeds: number;
  readonly instants: number;
  readonly timed: boolean;
  readonly model: CostModel;
  readonly policies: readonly ComparedPolicy[];
  readonly undecided: readonly Undecided[];
}

/** What one task needs: one order is drawn in the thread that uses it. */
export interface CompareTask {
  readonly recording: Recording;
  readonly component: Component;
  readonly parameters: ReadonlyMap<string, number>;
  readonly seed: number;
  readonly pushed: boolean;
  readonly instants: number;
  readonly cost: CostModel;
  readonly rules: Rules;
}

export function runTask(task: CompareTask): Measures {
  const { recording, component, parameters, seed, pushed, instants, cost, rules } = task;
  const order = drawOrder(recording, seed);
  return replay(recording, order, component, parameters, { pushed, instants, cost, rules }).measures;
}

/** Events of all tasks together up to which threads cost more than they bring. */
const POOLED_EVENTS = 200_000;

/**
 * Throws RL_REFUSED for a recording with gaps or without events, RL_NOT_SUPPORTED for a component that can't be compared,
 * RL_CONTRADICTION, RL_WORKER.
 */
export async function comparePolicies(
  recording: Recording,
  policies: readonly Compared[],
  options: CompareOptions,
): Promise<Comparison> {
  refuse(recording, policies, options);
  const tasks = tasksOf(recording, policies, options);
  const measures = await runTasks(tasks, options.workers);
  const perPolicy = 2 * options.seeds;
  const of = (index: number, pushed: boolean): Measures[] =>
    measures.filter((_, at) => Math.floor(at / perPolicy) === index && tasks[at]?.pushed === pushed);
  const runs = policies.map((_, index) => ({ frozen: of(index, false), pushed: of(index, true) }));
  return {
    events: recording.kind.length,
    processes: recording.processes.length,
    seeds: options.seeds,
    instants: Math.min(options.instants, recording.kind.length),
    timed: recording.timed,
    model: options.cost,
    policies: policies.map(({ label, component }, index) => ({
      label,
      hash: hashOf(component),
      silent: [
        ...new Set(
          component.handlers
            .map(({ event }) => event)
            .filter((event) => eventRow(event).where.comparison === "never"),
        ),
      ],
      frozen: columnOf(runs[index]!.frozen),
      pushed: columnOf(runs[index]!.pushed),
    })),
    undecided: undecidedOf(policies, runs),
  };
}

function refuse(recording: Recording, policies: readonly Compared[], { tainted }: CompareOptions): void {
  if (recording.kind.length === 0)
    throw new RecoveryLineError("RL_REFUSED", "the log holds no event: there is nothing to compare on");
  if (recording.gaps > 0 && tainted !== true)
    throw new RecoveryLineError(
      "RL_REFUSED",
      `the log has ${recording.gaps} gaps: what is missing could change every figure`,
      "Add --tainted to compare on what is left of it.",
    );
  for (const { label, component } of policies)
    if (component.refused.comparison.length > 0)
      throw new RecoveryLineError(
        "RL_NOT_SUPPORTED",
        `${label} can't be compared: ${component.refused.comparison.join(", ")}`,
      );
}

function tasksOf(
  recording: Recording,
  policies: readonly Compared[],
  options: CompareOptions,
): CompareTask[] {
  const { seeds, instants, cost, rules } = options;
  return policies.flatMap(({ component, parameters }) =>
    Array.from({ length: 2 * seeds }, (_, run) => ({
      recording,
      component,
      parameters,
      seed: (run >> 1) + 1,
      pushed: run % 2 === 1,
      instants,
      cost,
      rules,
    })),
  );
}

async function runTasks(tasks: readonly CompareTask[], workers: number): Promise<Measures[]> {
  const events = (tasks[0]?.recording.kind.length ?? 0) * tasks.length;
  if (workers === 0 || events <= POOLED_EVENTS) return tasks.map(runTask);
  const file = compiledFile("policy/compare-worker.js");
  const pool = new WorkerPool<CompareTask, Measures>(Math.min(workers, tasks.length), file);
  try {
    return await inTurns(tasks, pool.capacity, (task) => pool.run(task, []));
  } finally {
    await pool.close();
  }
}

/** At most `limit` at one time; answers in the order of the tasks. */
async function inTurns<T, A>(tasks: readonly T[], limit: number, run: (task: T) => Promise<A>): Promise<A[]> {
  const answers = new Array<A>(tasks.length);
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < tasks.length) {
      const at = next;
      next += 1;
      answers[at] = await run(tasks[at] as T);
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, tasks.length) }, lane));
  return answers;
}

const NAMES = Object.keys(METRICS) as Metric[];

function columnOf(runs: readonly Measures[]): Column {
  const of = (metric: Metric): Spread => {
    const values = runs.map((run) => run[metric]);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return { mean, least: Math.min(...values), most: Math.max(...values) };
  };
  return Object.fromEntries(NAMES.map((metric) => [metric, of(metric)])) as Column;
}

interface Runs {
  readonly frozen: readonly Measures[];
  readonly pushed: readonly Measures[];
}

function undecidedOf(policies: readonly Compared[], runs: readonly Runs[]): Undecided[] {
  const found: Undecided[] = [];
  for (const metric of NAMES)
    for (let a = 0; a < runs.length; a += 1)
      for (let b = a + 1; b < runs.length; b += 1) {
        const why = doubt(metric, runs[a] as Runs, runs[b] as Runs);
        if (why !== undefined)
          found.push({ metric, policies: [policies[a]!.label, policies[b]!.label], why });
      }
  return found;
}

/** Ranks of one order are compared with ranks of the same order: the pattern is the same for both policies. */
function doubt(metric: Metric, a: Runs, b: Runs): Undecided["why"] | undefined {
  const signs = (x: readonly Measures[], y: readonly Measures[]): Set<number> =>
    new Set(x.map((one, seed) => rank(one[metric], y[seed]![metric])));
  const frozen = signs(a.frozen, b.frozen);
  const pushed = signs(a.pushed, b.pushed);
  if (frozen.size > 1 || pushed.size > 1) return "orders";
  return [...frozen][0] === [...pushed][0] ? undefined : "delays";
}

/** Equal but for rounding is equal. */
function rank(a: number, b: number): number {
  return Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b)) ? 0 : Math.sign(a - b);
}
