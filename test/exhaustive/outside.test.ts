/**
 * The campaign of the outside world: `npm run test:exhaustive` runs it, RL_EXECUTIONS=1000 makes it shorter, RL_SEED=… again. Random executions with
 * `outside` and `peek` lines, both (and cuts, gaps, `stable`, rollbacks, page traffic), each asked for one failure set by one policy:
 * *wrong* where the answer, verifier included, is not that of the reference, or the one from cuts not that from events; *unsafe* where a line from
 * evidence with losses is later than the true execution allows.
 */
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { computeFromCuts } from "../../src/compute/compute-from-cuts.ts";
import type { Event } from "../../src/model/event.ts";
import { evidenceOf } from "../property/laws-executions.ts";
import { type Answer, canonical, type Options, POLICIES } from "../reference/answer.ts";
import { bruteForce } from "../reference/brute-force.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { answerAt, buildInstance, isConsistent, isRestorable } from "../reference/instance.ts";
import { randomLosses } from "../reference/lose.ts";
import { Random } from "../reference/random.ts";
import { scribble } from "../reference/scribble.ts";
import { randomSetting, simulate } from "../reference/simulate.ts";
import { memoryLog } from "../unit/memory-log.ts";

const executions = Number(process.env["RL_EXECUTIONS"] ?? 100_000);
const first = Number(process.env["RL_SEED"] ?? Date.now() % 2 ** 31);
const PROGRESS_MS = 60_000;
/** Executions of so few events are tried by brute force, too. */
const BRUTE_EVENTS = 12;
/** One in so many goes through a log, too. */
const LOG_EVERY = 3;

const counts = {
  ...{ executions: 0, lines: 0, lossy: 0, brute: 0, fromCuts: 0 },
  ...{ lostInputs: 0, unsayable: 0, wrong: 0, unsafe: 0 },
};
const examples: string[] = [];

function report(seconds: number): string {
  return `seeds from ${first}: ${JSON.stringify(counts)}, ${seconds.toFixed(0)} s`;
}

function fault(kind: "wrong" | "unsafe", seed: number, options: Options, events: readonly Event[]): void {
  counts[kind] += 1;
  if (examples.length < 3)
    examples.push(`${kind}, seed ${seed}, ${JSON.stringify(options)}, ${events.length} events`);
}

function reference(events: readonly Event[], options: Options): Answer {
  const instance = buildInstance(events, options);
  return answerAt(instance, fixpointLine(instance));
}

/** The engine's answer as text, or what it threw. */
function engine(events: readonly Event[], options: Options): string {
  try {
    const answer = computeLine(evidenceOf(events, []), options);
    counts.lines += 1;
    counts.lostInputs += answer.lostInputs.length;
    counts.unsayable += answer.unsayable.length;
    return canonical(answer);
  } catch (error) {
    return String(error);
  }
}

function eventsOf(seed: number, random: Random): Event[] {
  if (seed % 5 === 0) {
    const setting = {
      processes: 2 + random.below(2),
      lines: 6 + random.below(20),
      fallingCuts: random.oneIn(2),
    };
    return scribble(random, { ...setting, outside: true, looks: true });
  }
  const setting = randomSetting(random, 4, 40);
  return simulate(seed, { ...setting, outside: true, looks: true });
}

async function judge(seed: number): Promise<void> {
  const random = new Random(seed);
  const events = eventsOf(seed, random);
  const isOne = (["outside", "peek"] as const).every((wanted) => events.some(({ type }) => type === wanted));
  if (!isOne) return;
  counts.executions += 1;
  const names = [...new Set(events.map(({ process }) => process))].sort();
  const options = { ...random.pick(POLICIES), failed: random.subset(names) };
  const right = reference(events, options);
  if (engine(events, options) !== canonical(right)) fault("wrong", seed, options, events);
  if (events.length <= BRUTE_EVENTS) {
    counts.brute += 1;
    if (canonical(bruteForce(events, options)) !== canonical(right)) fault("wrong", seed, options, events);
  }
  if (seed % LOG_EVERY === 0) await judgeLog(seed, random, events, options);
  if (seed % 5 !== 0 && random.oneIn(2)) judgeLosses(seed, random, events, names, options);
}

/** As a log of blocks, opened anew now and then: from cuts, where they do, the answer is the same. */
async function judgeLog(
  seed: number,
  random: Random,
  events: readonly Event[],
  options: Options,
): Promise<void> {
  const log = await memoryLog(events, [random.below(4), 1 + random.below(3)]);
  const found = await computeFromCuts([log], options);
  if (found.line === undefined) return;
  counts.fromCuts += 1;
  if (canonical(found.line) !== canonical(reference(events, options))) fault("wrong", seed, options, events);
}

function judgeLosses(
  seed: number,
  random: Random,
  truth: readonly Event[],
  names: readonly string[],
  options: Options & { readonly failed: readonly string[] },
): void {
  // Cuts say nothing of datagrams: what of them is lost no rule can tell (docs/semantics.md, 11).
  if (truth.some((event) => "channel" in event && event.channel.includes("~"))) return;
  const { events, truePosition } = randomLosses(truth, random, (process) => options.failed.includes(process));
  const left = new Set(events.map(({ process }) => process));
  const asked = { ...options, failed: options.failed.filter((name) => left.has(name)) };
  if (events.length === 0) return;
  counts.lossy += 1;
  const answer = reference(events, asked);
  if (engine(events, asked) !== canonical(answer)) fault("wrong", seed, asked, events);
  const instance = buildInstance(truth, options);
  const kept = names.map((name) => {
    const entry = answer.line.find(({ process }) => process === name);
    return entry === undefined ? 0 : truePosition.get(name)![entry.position]!;
  });
  const latest = fixpointLine(instance);
  const isSafe =
    isRestorable(instance, kept) && isConsistent(instance, kept) && kept.every((n, p) => n <= latest[p]!);
  if (!isSafe) fault("unsafe", seed, asked, events);
}

test(`${executions} random executions with outside and peek lines: 0 wrong, 0 unsafe`, async () => {
  const begun = Date.now();
  let told = begun;
  for (let seed = first; counts.executions < executions; seed += 1) {
    await judge(seed);
    if (Date.now() - told < PROGRESS_MS) continue;
    told = Date.now();
    console.log(`… ${report((told - begun) / 1000)}`);
  }
  console.log(report((Date.now() - begun) / 1000));
  expect(examples).toEqual([]);
  expect(counts.wrong + counts.unsafe).toBe(0);
});
