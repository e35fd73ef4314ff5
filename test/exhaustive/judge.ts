/** One small execution against its truth: nothing lost, and every way to lose one event. */
import { computeLine } from "../../src/compute/compute.ts";
import { dependencies } from "../../src/graph/evidence/dependencies.ts";
import { buildDependencyGraph } from "../../src/graph/evidence/dependency-graph.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { matchRanges } from "../../src/graph/evidence/match-ranges.ts";
import { restorePoints } from "../../src/graph/evidence/restore-points.ts";
import { keptPositions, type RollbackModel, undoneBy } from "../../src/graph/rollback/rollback-model.ts";
import type { Event } from "../../src/model/event.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import { channelName, type Execution, OUTSIDE } from "./enumerate.ts";
import { greatestVector, isConsistent, type Policy, type Truth, truthOf, type Vector } from "./truth.ts";

export interface Counts {
  executions: number;
  /** Single-event losses: pieces of lossy evidence. */
  losses: number;
  /** Lines computed and judged: failed sets × policies. */
  lines: number;
  /** … of them through `computeLine`, with its verifier and the in-transit list. */
  verified: number;
  /** Lines that differ from the truth where nothing was lost. */
  wrong: number;
  /** Lines from lossy evidence that the true execution does not allow, or that are later than the true line. */
  unsafe: number;
  /** The first few of both, to be read. */
  readonly examples: string[];
}

export function noCounts(): Counts {
  return { executions: 0, losses: 0, lines: 0, verified: 0, wrong: 0, unsafe: 0, examples: [] };
}

const POLICIES: readonly Policy[] = ["any", "logged"];
/** One line in so many goes through `computeLine` as a whole. */
const VERIFY_EVERY = 16;
const MAX_EXAMPLES = 5;

export function judgeExecution(execution: Execution, counts: Counts): void {
  const { processes, events } = execution;
  const truth = truthOf(execution);
  const right = trueLines(truth, processes.length);
  counts.executions += 1;
  judgeEvidence(execution, events, truth, right, true, counts);
  const named = rollbackTargets(events);
  events.forEach((event, lost) => {
    if (!mayBeLost(event, named)) return;
    counts.losses += 1;
    judgeEvidence(execution, withGap(events, lost), truth, right, false, counts);
  });
}

/** The true line of each policy and failed set, at `policy * sets + mask`. */
function trueLines(truth: Truth, count: number): Vector[] {
  return POLICIES.flatMap((policy) =>
    Array.from({ length: 1 << count }, (_, mask) => greatestVector(truth, failedOf(mask, count), policy)),
  );
}

function failedOf(mask: number, count: number): boolean[] {
  return Array.from({ length: count }, (_, p) => ((mask >> p) & 1) === 1);
}

/** `process checkpoint` of each checkpoint that a rollback names: those two kinds of line are written by the tool itself. */
function rollbackTargets(events: readonly Event[]): Set<string> {
  return new Set(
    events.flatMap((event) => (event.type === "rollback" ? [`${event.process} ${event.checkpoint}`] : [])),
  );
}

function mayBeLost(event: Event, named: ReadonlySet<string>): boolean {
  if (event.type === "rollback") return false;
  return event.type !== "checkpoint" || !named.has(`${event.process} ${event.checkpoint}`);
}

function withGap(events: readonly Event[], lost: number): Event[] {
  return events.with(lost, { type: "gap", process: events[lost]!.process, lost: 1 });
}

function judgeEvidence(
  { processes, events }: Execution,
  known: readonly Event[],
  truth: Truth,
  right: readonly Vector[],
  complete: boolean,
  counts: Counts,
): void {
  const builder = new EvidenceBuilder();
  for (const process of processes) builder.addProcess(process);
  for (const event of known) builder.addEvent(event);
  const evidence = builder.build();
  const models = modelsOf(evidence);
  POLICIES.forEach((inTransit, which) => {
    const model = models[which]!;
    for (let mask = 0; mask < 1 << processes.length; mask += 1) {
      const expected = right[which * (1 << processes.length) + mask]!;
      const numbers = processes.flatMap((_, p) => ((mask >> p) & 1 ? [p] : []));
      const undone = undoneBy(model, numbers);
      const kept = keptPositions(evidence, undone);
      counts.lines += 1;
      const problem = complete
        ? differs(kept, undone, expected)
        : dangers(truth, kept, undone, expected, inTransit);
      const failed = numbers.map((p) => processes[p]!);
      const asked = { failed, dsm: "sequential", inTransit } as const;
      const trouble = problem ?? ((counts.lines % VERIFY_EVERY === 0 && verify(asked)) || undefined);
      if (trouble === undefined) continue;
      if (complete) counts.wrong += 1;
      else counts.unsafe += 1;
      if (counts.examples.length < MAX_EXAMPLES)
        counts.examples.push(describe(events, known, JSON.stringify(asked), trouble));
    }
  });

  function verify(asked: Parameters<typeof computeLine>[1]): string | undefined {
    counts.verified += 1;
    try {
      const answer = computeLine(evidence, asked);
      const positions = answer.line.map(({ position }) => position);
      // Where the line that says so was lost, what went outside counts as in transit.
      const inside = answer.inTransit.filter(({ channel }) => !channel.includes(OUTSIDE));
      if (complete && inside.length < answer.inTransit.length) return "in transit to the outside";
      const listed = inside.map(({ channel, begin, end }) => `${channel} ${begin} ${end}`);
      const told = [...answer.lostInputs, ...answer.unsayable].map(
        ({ channel, begin, end }) => `${channel} ${begin} ${end}`,
      );
      const undone = undoneOutside(processes, truth, positions);
      if (complete && told.join() !== undone.join())
        return `outside: lists ${told.join()}, undoes ${undone.join()}`;
      const needed = underWay(processes, truth, positions);
      return listed.join() === needed.join() ? undefined : `replays ${listed.join()}, needs ${needed.join()}`;
    } catch (error) {
      return String(error);
    }
  }
}

/** `rollbackModel` for each policy; what they have in common is built once. */
function modelsOf(evidence: Evidence): RollbackModel[] {
  const points = restorePoints(evidence);
  const matches = matchRanges(evidence, "sequential");
  return POLICIES.map((inTransit) => {
    const { list, base } = dependencies(evidence, points, matches, inTransit);
    const graph = buildDependencyGraph(list, evidence.processes.length);
    return { evidence, rules: { dsm: "sequential", inTransit }, points, matches, graph, base };
  });
}

const NOTHING_UNDONE = 0xffffffff;

function differs(
  kept: Uint32Array,
  undone: Uint32Array,
  { positions, continues }: Vector,
): string | undefined {
  const same = kept.every((n, p) => n === positions[p] && (undone[p] === NOTHING_UNDONE) === continues[p]);
  return same ? undefined : `line ${kept.join()}, true line ${positions.join()}`;
}

function dangers(
  truth: Truth,
  kept: Uint32Array,
  undone: Uint32Array,
  { positions, continues }: Vector,
  policy: Policy,
): string | undefined {
  const goesOn = Array.from(undone, (line) => line === NOTHING_UNDONE);
  for (let p = 0; p < kept.length; p += 1) {
    const n = kept[p]!;
    if (n > positions[p]!) return `process ${p} at ${n}, later than the true line ${positions.join()}`;
    if (goesOn[p] ? !continues[p] : !truth.restorable[p]![n])
      return `process ${p} can't be at ${n}, true line ${positions.join()}`;
  }
  return isConsistent(truth, kept, goesOn, policy) ? undefined : `inconsistent line ${kept.join()}`;
}

/** What is truly in transit, by channel. */
function underWay(processes: readonly string[], truth: Truth, positions: readonly number[]): string[] {
  const found: string[] = [];
  processes.forEach((from, i) => {
    processes.forEach((to, j) => {
      const sent = truth.sent[i]![positions[i]!]![j]!;
      const received = truth.received[j]![positions[j]!]![i]!;
      if (received < sent) found.push(`${channelName(from, to)} ${received} ${sent}`);
    });
  });
  return found;
}

function describe(events: readonly Event[], known: readonly Event[], asked: string, trouble: string): string {
  const text = (event: Event): string =>
    JSON.stringify(event, (_, value) => (value instanceof Map ? Object.fromEntries(value) : value));
  const lines = known.map((event, i) => (event === events[i] ? text(event) : `LOST ${text(events[i]!)}`));
  return `${trouble}\n${asked}\n${lines.join("\n")}`;
}

/** Ranges of inputs, then of outputs, behind the positions. */
function undoneOutside(processes: readonly string[], truth: Truth, positions: readonly number[]): string[] {
  const ranges = (bytes: readonly number[][], name: (process: string) => string): string[] =>
    processes.flatMap((process, p) => {
      const [begin, end] = [bytes[p]![positions[p]!]!, bytes[p]!.at(-1)!];
      return begin < end ? [`${name(process)} ${begin} ${end}`] : [];
    });
  return [
    ...ranges(truth.inputs, (process) => channelName(OUTSIDE, process)),
    ...ranges(truth.outputs, (process) => channelName(process, OUTSIDE)),
  ];
}
