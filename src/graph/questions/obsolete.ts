/**
 * Which checkpoints no line can need any more, now or after any continuation of the execution (Wang, Chung, Lin, Fuchs 1995).
 *
 * Every mark of a future rollback that lies in the present history is the union of marks from *roots*, and a line is then the
 * component-wise minimum of the roots' lines. So what stands in none of the roots' lines stands in no future line. Roots are:
 *
 *  - the volatile interval of each process: its failure, or an open gap at its end. On clean evidence these N are all, and at most
 *    N(N+1)/2 checkpoints remain;
 *  - each byte received that nobody sent, on its own: its send may still arrive (processes' events reach the log at different times, a
 *    later cut vector may tell), and once it has, the receive stands or falls by lines that do not exist yet;
 *  - the earliest line at which a cut vector still to come may place a receive that no event told of;
 *  - each unlogged byte under way, where such bytes must not be in transit: its receive may follow, and be undone by a later rollback.
 *
 * All this rests on restore points in the past staying what they are. A message log breaks that: the next `stable` line makes old positions
 * restorable, and lines may then land between today's. With `logging` only what lies below the line of all roots is obsolete.
 */
import { HAS_CUT, RECEIVER, SENDER, USABLE } from "../../model/evidence-layout.ts";
import { RECEIVED_FROM_CUT, SENT_FROM_CUT } from "../evidence/match-ranges.ts";
import { baseSegment, IntervalFinder, pointAtOrBefore } from "../evidence/restore-points.ts";
import { NOTHING_UNDONE, propagateRollback } from "../rollback/propagate-rollback.ts";
import { type RollbackModel, volatileFrom } from "../rollback/rollback-model.ts";
import { RollbackProbe } from "../rollback/rollback-probe.ts";

export interface ObsoleteOptions {
  /** Some process keeps a message log: its `stable` lines will make more of the past restorable. */
  readonly logging: boolean;
  /** Dependencies and touched processes to visit at most before settling for what is below every line, count. */
  readonly maxSteps: number;
}

/** `exact`: nothing else remains. Otherwise only what lies below every line is obsolete, and this is why. */
export type Exactness = "exact" | "logging" | "too-large" | "page-cuts" | "own-channels";

export interface ObsoleteCheckpoints {
  /** Per segment of the evidence: 1 = its checkpoint can go. Initial states never. */
  readonly obsolete: Uint8Array;
  /** Per process: no future line restarts from before this position (that of a checkpoint, or 0). */
  readonly oldestBase: Uint32Array;
  readonly exactness: Exactness;
}

/** `models` are of one evidence, one for each set of rules that a later compute may use: what any of them needs stays. */
export function obsoleteCheckpoints(
  models: readonly [RollbackModel, ...RollbackModel[]],
  { logging, maxSteps }: ObsoleteOptions,
): ObsoleteCheckpoints {
  const { evidence } = models[0];
  const oldestBase = evidence.length.slice();
  const needed = new Uint8Array(evidence.segments.line.length);
  let steps = maxSteps;
  let reason: Exactness = logging ? "logging" : "exact";
  for (const model of models) {
    const roots = rootsOf(model);
    lowerToBases(model, propagateRollback(model.graph, roots), oldestBase);
    if (reason === "exact" && mayLoseDependencies(model)) reason = "page-cuts";
    if (reason === "exact" && mayBeOutside(model)) reason = "own-channels";
    if (reason === "exact") steps = markNeeded(model, roots, needed, steps);
    if (steps < 0) reason = "too-large";
  }
  const keep = reason === "exact" ? needed : null;
  const obsolete = Uint8Array.from(needed, () => 0);
  for (let process = 0; process < evidence.processes.length; process += 1)
    sweep(models, process, oldestBase[process] as number, keep, obsolete);
  return { obsolete, oldestBase, exactness: reason };
}

interface Roots {
  readonly process: number[];
  readonly line: number[];
}

function rootsOf(model: RollbackModel): Roots {
  const { evidence, base } = model;
  const roots: Roots = { process: [], line: [] };
  const known = new Set<number>();
  const add = (process: number, line: number): void => {
    const key = line * evidence.processes.length + process;
    if (known.has(key)) return;
    known.add(key);
    roots.process.push(process);
    roots.line.push(line);
  };
  evidence.processes.forEach((_, process) => {
    add(process, volatileFrom(model, process));
  });
  for (let mark = 0; mark < base.process.length; mark += 1) add(base.process.at(mark), base.line.at(mark));
  addUntold(model, add);
  if (model.rules.inTransit === "logged") addUnderWay(model, add);
  return roots;
}

/** Where a future cut vector may place receives: at the first gap since the last cut, or right after that where all is told by cuts. */
function addUntold(model: RollbackModel, add: (process: number, line: number) => void): void {
  const { evidence, points } = model;
  const { start, line, flags, gap } = evidence.segments;
  const intervals = new IntervalFinder(points);
  const usesCuts = flags.some((flag) => (flag & HAS_CUT) !== 0);
  for (let process = 0; process < evidence.processes.length; process += 1) {
    let from = 1;
    let firstGap = 0;
    for (let s = start[process] as number; s < (start[process + 1] as number); s += 1) {
      if ((flags[s] as number) & HAS_CUT) {
        from = (line[s] as number) + 1;
        firstGap = 0;
      }
      if (firstGap === 0) firstGap = gap[s] as number;
    }
    if (firstGap !== 0 || usesCuts)
      add(process, intervals.firstLine(process, firstGap === 0 ? from : firstGap));
  }
}

/** Sends that nobody has received and no log can replay: the receive to come may be undone on its own. */
function addUnderWay(model: RollbackModel, add: (process: number, line: number) => void): void {
  const { processAt } = model.evidence;
  const intervals = new IntervalFinder(model.points);
  forEachUnderWay(model, (channel, sent) => {
    const sender = processAt[channel * 2 + SENDER] as number;
    add(sender, intervals.firstLine(sender, sent));
  });
}

/** `sent`: the line of the send. */
function forEachUnderWay({ matches }: RollbackModel, take: (channel: number, sent: number) => void): void {
  for (let channel = 0; channel + 1 < matches.start.length; channel += 1)
    for (
      let match = matches.start[channel] as number;
      match < (matches.start[channel + 1] as number);
      match += 1
    ) {
      const sent = matches.sent[match] as number;
      if (sent !== 0 && matches.received[match] === 0) take(channel, sent);
    }
}

/** A page-invalidate still to come may take bytes that only cuts tell of out of the account: dependencies of the past would go. */
function mayLoseDependencies({ evidence, rules, matches }: RollbackModel): boolean {
  return (
    rules.dsm === "transfers" &&
    evidence.rows.invalidate.includes(1) &&
    matches.flags.some((flags) => (flags & (SENT_FROM_CUT | RECEIVED_FROM_CUT)) !== 0)
  );
}

/**
 * Bytes under way from a process to itself make its own failure undo their send; an `outside` row still to come may say that they left the
 * application, and then it does not. Between two processes the sender's own failure needs no such dependency.
 */
function mayBeOutside(model: RollbackModel): boolean {
  if (model.rules.inTransit !== "logged") return false;
  const { processAt } = model.evidence;
  let found = false;
  forEachUnderWay(model, (channel) => {
    found ||= processAt[channel * 2 + SENDER] === processAt[channel * 2 + RECEIVER];
  });
  return found;
}

/** Lowers `into` to the position of the checkpoint that each process's place in this line restarts from. */
function lowerToBases(model: RollbackModel, undone: Uint32Array, into: Uint32Array): void {
  const { evidence } = model;
  undone.forEach((line, process) => {
    if (line === NOTHING_UNDONE) return;
    const base = evidence.segments.line[baseSegment(evidence, process, line - 1)] as number;
    into[process] = Math.min(into[process] as number, base);
  });
}

/** Marks the bases of all roots' lines. Returns the steps left; below 0 it gave up. */
function markNeeded(model: RollbackModel, roots: Roots, needed: Uint8Array, steps: number): number {
  const probe = new RollbackProbe(model.graph);
  let left = steps;
  for (let root = 0; root < roots.process.length && left >= 0; root += 1) {
    const before = probe.edges;
    const touched = probe.from(roots.process[root] as number, roots.line[root] as number);
    left -= probe.edges - before + touched.length;
    for (const process of touched)
      needed[baseSegment(model.evidence, process, (probe.undone[process] as number) - 1)] = 1;
  }
  return left;
}

/**
 * Judges the checkpoints of one process. What can't be restored goes; what only a gap keeps from being a restore point goes once every
 * line has passed it, since evidence that is still on its way may tell more about it.
 */
function sweep(
  models: readonly RollbackModel[],
  process: number,
  oldestBase: number,
  needed: Uint8Array | null,
  obsolete: Uint8Array,
): void {
  const { evidence, points } = models[0] as RollbackModel;
  const { start, line, flags } = evidence.segments;
  for (let s = (start[process] as number) + 1; s < (start[process + 1] as number); s += 1) {
    const at = line[s] as number;
    const usable = ((flags[s] as number) & USABLE) !== 0;
    const certain = pointAtOrBefore(points, process, at) === at;
    const passed = at < oldestBase;
    obsolete[s] = !usable || passed || (certain && needed !== null && needed[s] === 0) ? 1 : 0;
  }
}
