/**
 * Why each process is rolled back as far as it is: for each one a shortest chain of messages from a failure.
 *
 * A search in rounds: in round t a process's mark is the least line reachable over at most t messages, so the round in which it gets
 * its final mark is the length of the shortest chain. Each dependency is touched at most once, as in propagate-rollback.ts.
 */
import { assert } from "../../model/assert.ts";
import type { Witness, WitnessLink } from "../../model/recovery-line.ts";
import { firstAbove } from "../../model/search.ts";
import { ORPHAN, TOGETHER } from "../evidence/dependencies.ts";
import { Uint32List } from "../evidence/growable.ts";
import { KNOWN_FROM_CUT, SENT_FROM_CUT } from "../evidence/match-ranges.ts";
import { NOTHING_UNDONE } from "./propagate-rollback.ts";
import { type RollbackModel, volatileFrom } from "./rollback-model.ts";

/** Links printed over all witnesses; beyond it chains keep their first link and their last ones. */
const MAX_PRINTED_LINKS = 1_000_000;

/** Why a mark was set. */
const FAILED = 0;
const GAP = 1;
const BASE = 2;
const MESSAGE = 3;

/** All chains as one forest: `parents[i] < i` is the step before, -1 at a start. What a verifier needs. */
export interface Proof {
  readonly steps: readonly WitnessLink[];
  readonly parents: Int32Array;
  /** Per process: its last step, -1 = not rolled back. */
  readonly last: Int32Array;
}

/** One mark a record; a process gets at most one new record a round. */
class Records {
  readonly process = new Uint32List();
  readonly line = new Uint32List();
  readonly why = new Uint32List();
  readonly cause = new Uint32List();
  /** 1 + the record before, 0 at a start. */
  readonly parent = new Uint32List();
  /** Per process: the least line marked so far, and 1 + its record. */
  readonly marked: Uint32Array;
  readonly newest: Uint32Array;
  #round = 0;

  constructor(processes: number) {
    this.marked = new Uint32Array(processes).fill(NOTHING_UNDONE);
    this.newest = new Uint32Array(processes);
  }

  get length(): number {
    return this.process.length;
  }

  /** Records made so far belong to rounds that are over: they no longer change. Returns their number. */
  nextRound(): number {
    this.#round = this.length;
    return this.#round;
  }

  lower(process: number, line: number, why: number, cause: number, parent: number): void {
    if (line >= (this.marked[process] as number)) return;
    this.marked[process] = line;
    let record = (this.newest[process] as number) - 1;
    if (record < this.#round) {
      record = this.length;
      this.newest[process] = record + 1;
      for (const list of [this.process, this.line, this.why, this.cause, this.parent]) list.push(0);
    }
    this.process.data[record] = process;
    this.line.data[record] = line;
    this.why.data[record] = why;
    this.cause.data[record] = cause;
    this.parent.data[record] = parent;
  }
}

/** The proof of a line; `undone` is what `undoneBy` found, and both searches must agree. */
export function proofOf(model: RollbackModel, failed: readonly number[], undone: Uint32Array): Proof {
  const records = search(model, failed);
  records.marked.forEach((line, process) => {
    assert(line === undone[process], "both searches mark the same lines");
  });
  const stepOf = new Int32Array(records.length).fill(-1);
  const last = new Int32Array(undone.length).fill(-1);
  const steps: WitnessLink[] = [];
  const parents: number[] = [];
  const pending: number[] = [];
  for (let process = 0; process < undone.length; process += 1) {
    let record = (records.newest[process] as number) - 1;
    if (record < 0) continue;
    const final = record;
    for (; record >= 0 && stepOf[record] === -1; record = records.parent.at(record) - 1) pending.push(record);
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const parent = records.parent.at(next) - 1;
      stepOf[next] = steps.push(linkOf(model, records, next)) - 1;
      parents.push(parent < 0 ? -1 : (stepOf[parent] as number));
    }
    last[process] = stepOf[final] as number;
  }
  return { steps, parents: Int32Array.from(parents), last };
}

function search(model: RollbackModel, failed: readonly number[]): Records {
  const { graph, base, points } = model;
  const records = new Records(model.evidence.processes.length);
  for (const process of failed) records.lower(process, volatileFrom(model, process), FAILED, 0, 0);
  for (let process = 0; process < points.openGap.length; process += 1)
    if (points.openGap[process] !== 0) records.lower(process, volatileFrom(model, process), GAP, 0, 0);
  for (let mark = 0; mark < base.process.length; mark += 1)
    records.lower(base.process.at(mark), base.line.at(mark), BASE, base.cause.at(mark), 0);
  const done = graph.start.slice(1);
  let from = 0;
  for (let to = records.nextRound(); from < to; from = to, to = records.nextRound())
    for (let record = from; record < to; record += 1) {
      const process = records.process.at(record);
      const line = records.line.at(record);
      const first = graph.start[process] as number;
      let edge = done[process] as number;
      for (; edge > first && (graph.sourceLine[edge - 1] as number) >= line; edge -= 1)
        records.lower(
          graph.targetProcess[edge - 1] as number,
          graph.targetLine[edge - 1] as number,
          MESSAGE,
          edge - 1,
          record + 1,
        );
      done[process] = edge;
    }
  return records;
}

function linkOf(model: RollbackModel, records: Records, record: number): WitnessLink {
  const { evidence, graph, points } = model;
  const number = records.process.at(record);
  const process = evidence.processes[number] as string;
  const why = records.why.at(record);
  if (why === FAILED) return { rule: "failed", process };
  if (why === GAP) return { rule: "gap", process, position: points.openGap[number] as number };
  if (why === BASE) return messageLink(model, process, records.cause.at(record), undefined);
  const cause = graph.cause[records.cause.at(record)] as number;
  const from = evidence.processes[records.process.at(records.parent.at(record) - 1)] as string;
  assert(cause !== TOGETHER, "witnesses have no rule for processes checkpointed together");
  return messageLink(model, process, cause, from);
}

/** A link for the message behind a cause (`dependencies.ts`); `from` undefined: it stands at the start of a chain. */
export function messageLink(
  { evidence, matches }: RollbackModel,
  process: string,
  cause: number,
  from: string | undefined,
): WitnessLink {
  const match = Math.floor(cause / 2);
  const orphan = cause % 2 === ORPHAN;
  const flags = matches.flags[match] as number;
  const inexact = flags & (orphan ? KNOWN_FROM_CUT : SENT_FROM_CUT);
  const position = (orphan ? matches.known[match] : matches.sent[match]) as number;
  const looked = orphan && matches.received[match] !== position;
  return {
    rule: orphan ? (from === undefined ? "never-sent" : "orphan") : "unreplayable",
    process,
    ...(from === undefined ? {} : { from }),
    channel: evidence.channels[channelOf(matches.start, match)] as string,
    begin: matches.begin[match] as number,
    end: matches.end[match] as number,
    ...(inexact ? {} : { position }),
    ...(looked ? { looked } : {}),
  };
}

/** The channel whose CSR slice holds this match. */
function channelOf(start: Uint32Array, match: number): number {
  return firstAbove(start, 1, start.length - 1, match) - 1;
}

/** The chains to print, one for each rolled-back process in order of name. */
export function witnesses(processes: readonly string[], proof: Proof): Witness[] {
  const rolledBack = proof.last.reduce((count, step) => count + (step < 0 ? 0 : 1), 0);
  const longest = Math.max(3, Math.floor(MAX_PRINTED_LINKS / Math.max(1, rolledBack)));
  const starts = startOfChains(proof.parents);
  const found: Witness[] = [];
  proof.last.forEach((last, process) => {
    if (last < 0) return;
    const chain: WitnessLink[] = [];
    let step = last;
    for (; step >= 0 && chain.length < longest; step = proof.parents[step] as number)
      chain.push(proof.steps[step] as WitnessLink);
    if (step >= 0) chain[longest - 1] = proof.steps[starts[step] as number] as WitnessLink;
    found.push({ process: processes[process] as string, because: chain.reverse() });
  });
  return found;
}

/** Per step: the first step of its chain. Parents stand before their children. */
function startOfChains(parents: Int32Array): Int32Array {
  const starts = new Int32Array(parents.length);
  parents.forEach((parent, step) => {
    starts[step] = parent < 0 ? step : (starts[parent] as number);
  });
  return starts;
}
