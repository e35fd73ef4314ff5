/**
 * The engine for programs: events in, recovery lines and what else the command line answers out. docs/library.md shows it at work.
 *
 * Needs neither root nor the native part, and leaves no thread behind. Throws `RecoveryLineError` with a `code` for trouble from outside;
 * each function names its codes. Positions count the lines of a process, offsets bytes (or messages) of a channel.
 */

import { type ComputeOptions, computeLine, processNumbers } from "./compute/compute.ts";
import { type AppAnswer, computeApp } from "./compute/compute-app.ts";
import { computeExactLine } from "./compute/compute-exact.ts";
import { cutEntries, membersOf } from "./compute/cut-through.ts";
import { type Explanation, explanation } from "./compute/explanation.ts";
import { type Loss, LossReport } from "./compute/losses.ts";
import { type UselessReport, uselessReport } from "./compute/useless.ts";
import { spaceTimeDiagram } from "./diagram/space-time-diagram.ts";
import { HistoryCheck, readEventBatches } from "./format/interchange.ts";
import { type CollectPlan, planCollection, rulesToKeep } from "./gc/gc.ts";
import { EvidenceBuilder } from "./graph/evidence/evidence-builder.ts";
import type { PageVersions } from "./graph/evidence/page-versions.ts";
import { type Domino, dominoOf } from "./graph/questions/domino.ts";
import { exportGraph, graphDot, graphJson } from "./graph/questions/graph-export.ts";
import { type RollbackModel, rollbackModel } from "./graph/rollback/rollback-model.ts";
import { verifyLine } from "./graph/verify/verify-line.ts";
import { type AppEvidence, evidenceOfLogs } from "./logs/app-evidence.ts";
import { type AppLogs, closeLogs, openAppLogs } from "./logs/app-logs.ts";
import { appDirectory, homesOf } from "./logs/home.ts";
import { readEventEvidence } from "./logs/read-evidence.ts";
import { countedAsFailed, withUnrecorded } from "./logs/unrecorded.ts";
import type { Event } from "./model/event.ts";
import type { Evidence } from "./model/evidence-layout.ts";
import { printable } from "./model/printable.ts";
import type { DsmModel, InTransitPolicy, LineEntry, RecoveryLine } from "./model/recovery-line.ts";
import { type PlacedPayload, placePayloads } from "./payload/payload-places.ts";

export { printEvent } from "./format/interchange.ts";
export { PageVersions } from "./graph/evidence/page-versions.ts";
export { type ErrorCode, hasCode, RecoveryLineError } from "./model/errors.ts";
export type * from "./model/event.ts";
export type { Evidence } from "./model/evidence-layout.ts";
export type * from "./model/recovery-line.ts";
export { chainText } from "./model/witness-text.ts";
export type { AppEvidence, CollectPlan, Domino, Explanation, Loss, LossReport, PlacedPayload, UselessReport };

/** How dependencies count; interchange.md, "Rules". */
export interface RuleOptions {
  /** Default `sequential`: every page copy and invalidation counts. */
  readonly dsm?: DsmModel;
  /** Default `any`: whatever is in transit may stay there; `logged`: only what a message log can replay. */
  readonly inTransit?: InTransitPolicy;
}

export interface FailureOptions extends RuleOptions {
  /** Names of the failed processes. Absent: all of them. */
  readonly failed?: readonly string[];
}

export interface LineOptions extends FailureOptions {
  /** Per process the position whose output was released and can't be undone. */
  readonly released?: ReadonlyMap<string, number>;
  /**
   * Processes whose end nobody knows, as `readLog` names them: those that `failed` leaves out count as failed all the same, and the line is
   * tainted then.
   */
  readonly unrecorded?: readonly string[];
}

export interface LogOptions {
  /** Log directory of a node, or of each; absent: $RECOVERY_LINE_HOME or the system's. */
  readonly log?: string | readonly string[];
  /** Go on where a node's log is missing: what rests on it is uncertain then. */
  readonly assumeLost?: boolean;
  /** Names of all nodes of the application, where the logs don't say. */
  readonly nodes?: readonly string[];
}

export interface ReadOptions extends LogOptions {
  /** Of processes that no collector records though their log says so: `gap` (default) ends their evidence in a gap, `named` only names them. */
  readonly unrecorded?: "gap" | "named";
  /** Takes what events say of page versions, for `exactLine`. */
  readonly versions?: PageVersions;
}

export interface ComputeLogOptions extends LogOptions, RuleOptions {
  /** Names of the failed processes, or what tells them from the names of all. Absent: all of them. */
  readonly failed?: readonly string[] | ((processes: readonly string[]) => readonly string[] | undefined);
  /** Read all events, also where cuts of checkpoints would do. */
  readonly fromEvents?: boolean;
  /** Threads that read events, count; 0 = none. Default: one a core, at most four. */
  readonly workers?: number;
  readonly signal?: AbortSignal;
  /** Told now and then while events are read: bytes of blocks so far. */
  readonly progress?: (bytes: number) => void;
}

/** `unrecorded`: those that count as failed though `failed` leaves them out. */
export type LogAnswer = AppAnswer & Omit<AppLogs, "logs">;

const filled = ({ dsm = "sequential", inTransit = "any" }: RuleOptions = {}): Required<RuleOptions> => ({
  dsm,
  inTransit,
});

function modelOf(evidence: Evidence, rules?: RuleOptions): RollbackModel {
  return rollbackModel(evidence, filled(rules));
}

/** Text, bytes, or bytes as they come: a file's stream without an encoding. */
export type EventInput = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** Throws TypeError for what is none. */
async function* chunksOf(input: EventInput): AsyncGenerator<Uint8Array> {
  const source = typeof input === "string" ? new TextEncoder().encode(input) : input;
  const chunks = source instanceof Uint8Array ? [source] : source;
  if (
    typeof chunks !== "object" ||
    chunks === null ||
    !(Symbol.iterator in chunks || Symbol.asyncIterator in chunks)
  )
    throw new TypeError("input is text, a Uint8Array, or an iterable of these bytes");
  for await (const chunk of chunks) {
    if (!(chunk instanceof Uint8Array))
      throw new TypeError(
        `input gives a ${typeof chunk}, not bytes (Uint8Array): a stream has no encoding set`,
      );
    yield chunk;
  }
}

/** Throws TypeError for what is no list of texts. */
function requireTexts(what: string, list: unknown, such: string): void {
  if (list === undefined || (Array.isArray(list) && list.every((one) => typeof one === "string"))) return;
  throw new TypeError(`${what} is a list, such as ${such}`);
}

function requireFailed(failed: unknown): void {
  requireTexts("failed", failed, '["db"]');
}

/**
 * The events of a file (JSON Lines, interchange.md), in its order. `name` stands in errors. Throws RL_BAD_INPUT and RL_CONTRADICTION with the
 * line, TypeError for other input, and what the source throws.
 */
export async function* parseEvents(input: EventInput, name = "events"): AsyncGenerator<Event> {
  for await (const batch of readEventBatches(chunksOf(input), name)) yield* batch;
}

/**
 * What answers are computed from. Events of one process come in its program order, processes may interleave anyhow. Objects that a program
 * made itself must hold the invariants that `Event` names. Throws RL_CONTRADICTION where histories can't be, with the number of the event.
 */
export async function evidenceOf(events: Iterable<Event> | AsyncIterable<Event>): Promise<Evidence> {
  const builder = new EvidenceBuilder();
  const check = new HistoryCheck();
  let line = 0;
  for await (const event of events) {
    line += 1;
    check.add(event, { file: "events", line });
    builder.addEvent(event);
  }
  return builder.build();
}

/** Evidence of a file (JSON Lines): as `evidenceOf(parseEvents(…))`, in large steps. Throws what these throw. */
export function readEvents(input: EventInput, name = "events", versions?: PageVersions): Promise<Evidence> {
  return readEventEvidence(readEventBatches(chunksOf(input), name), versions);
}

/**
 * An application's evidence from its log, event by event; a live collector is asked for it. Throws RL_UNKNOWN_APP, RL_REFUSED (a node's log
 * is missing), RL_LOCKED, RL_CORRUPT_LOG, RL_BAD_BLOCK, RL_CONTRADICTION.
 */
export function readLog(app: string, options: ReadOptions = {}): Promise<AppEvidence> {
  const { assumeLost = false, nodes, unrecorded = "gap", versions } = options;
  return evidenceOfLogs(homes(options), app, assumeLost, nodes, unrecorded === "gap", versions);
}

/**
 * The line of an application from its log: from cut vectors where they prove it, else from all events by `workers` threads, which end with
 * the call. It is tainted where a log is missing, or a process is unrecorded and not named as failed. Throws what `readLog` and
 * `recoveryLine` throw, RL_WORKER, the signal's reason.
 */
export async function computeLog(app: string, options: ComputeLogOptions = {}): Promise<LogAnswer> {
  const { log, assumeLost, nodes, failed, dsm, inTransit, ...more } = options;
  if (typeof failed !== "function") requireFailed(failed);
  const { logs, ...absent } = await openAppLogs(homes(options), app, assumeLost, nodes);
  let named: readonly string[] | undefined;
  try {
    const answer = await computeApp(logs, {
      ...more,
      ...filled(options),
      failed: (processes) => {
        named = typeof failed === "function" ? failed(processes) : failed;
        return withUnrecorded(named, absent.unrecorded);
      },
    });
    const unrecorded = countedAsFailed(named, absent.unrecorded);
    const whole = absent.missing.length + absent.missingNodes.length + unrecorded.length === 0;
    return { ...answer, ...absent, unrecorded, line: whole ? answer.line : tainted(answer.line) };
  } finally {
    await closeLogs(logs);
  }
}

function tainted(line: RecoveryLine): RecoveryLine {
  return { ...line, outcome: "tainted" };
}

function homes({ log }: LogOptions): string[] {
  return homesOf(typeof log === "string" ? [log] : log);
}

/**
 * The latest line that the evidence proves safe, checked by the verifier. Throws RL_UNKNOWN_PROCESS, RL_REFUSED (no process, or released
 * output would be undone), RL_REJECTED (a bug of ours: the verifier disagrees).
 */
export function recoveryLine(evidence: Evidence, options: LineOptions = {}): RecoveryLine {
  const { released, unrecorded = [] } = options;
  requireFailed(options.failed);
  const failed = withUnrecorded(options.failed, unrecorded);
  const asked: ComputeOptions = {
    ...filled(options),
    ...(failed === undefined ? {} : { failed }),
    ...(released === undefined ? {} : { released }),
  };
  const line = computeLine(evidence, asked);
  return countedAsFailed(options.failed, unrecorded).length > 0 ? tainted(line) : line;
}

/**
 * The same where a page copy depends on who wrote what it brings, as far as `versions` (filled while `evidence` was read) knows. Throws as
 * `recoveryLine` does.
 */
export function exactLine(
  evidence: Evidence,
  versions: PageVersions,
  { failed: named, unrecorded = [] }: Pick<LineOptions, "failed" | "unrecorded"> = {},
): RecoveryLine {
  requireFailed(named);
  const failed = withUnrecorded(named, unrecorded);
  const line = computeExactLine(evidence, versions, failed === undefined ? {} : { failed });
  return countedAsFailed(named, unrecorded).length > 0 ? tainted(line) : line;
}

/** Checks a line, whoever computed it, with the code of the verifier alone. Throws RL_REJECTED naming the first thing that does not hold. */
export function verify(evidence: Evidence, line: RecoveryLine, options: FailureOptions = {}): void {
  requireFailed(options.failed);
  verifyLine(evidence, { ...filled(options), failed: options.failed ?? evidence.processes }, line);
}

/** Why a process goes on from where the line says, by the shortest chain of messages. Throws RL_UNKNOWN_PROCESS. */
export function explain(evidence: Evidence, line: RecoveryLine, process: string): Explanation {
  return explanation(evidence, line, process);
}

/** What failures would cost, asked one by one: single ones by number of the process, several together by name. */
export function lossReport(evidence: Evidence, rules?: RuleOptions): LossReport {
  return new LossReport(modelOf(evidence, rules));
}

/** What each single failure would cost, one after the other, in the evidence's order of processes. */
export function* failures(evidence: Evidence, rules?: RuleOptions): Generator<Loss> {
  const report = lossReport(evidence, rules);
  for (let process = 0; process < evidence.processes.length; process += 1) yield report.single(process);
}

/** What the failure of several processes together would cost; absent: of all. Throws RL_UNKNOWN_PROCESS. */
export function failureOf(evidence: Evidence, options: FailureOptions = {}): Loss {
  const { failed } = options;
  requireFailed(failed);
  if (failed !== undefined) processNumbers(evidence, failed);
  return lossReport(evidence, options).together(failed);
}

/** Where what the line leaves in transit can be taken from, as far as the logs tell. Throws what reading a payload log throws. */
export function payloadPlaces(
  evidence: Evidence,
  line: RecoveryLine,
  app: string,
  options: Pick<LogOptions, "log"> = {},
): Promise<PlacedPayload[]> {
  const folders = homes(options).map((home) => appDirectory(home, app));
  return placePayloads(evidence, line, folders);
}

/** How far a line throws the application back, in checkpoints. */
export function domino(evidence: Evidence, line: RecoveryLine): Domino {
  return dominoOf(evidence, line.line);
}

/** Checkpoints that are in no consistent line whatever happens (Z-cycles; Netzer & Xu 1995), each with its path. */
export function uselessCheckpoints(evidence: Evidence, rules?: RuleOptions): Promise<UselessReport> {
  return uselessReport(modelOf(evidence, rules));
}

/**
 * What no line of any future needs (Wang et al. 1995): checkpoints, and ranges of the message log. Without rules those that stay safe for
 * whatever rules are used later.
 */
export function obsolete(evidence: Evidence, { dsm, inTransit }: RuleOptions = {}): CollectPlan {
  return planCollection(evidence, rulesToKeep(evidence, dsm, inTransit));
}

/**
 * The greatest or the least consistent cut that contains places, each "P:CHECKPOINT", "P@POSITION" or "P:now" (Wang 1997). Throws RL_USAGE for
 * what is no place, RL_UNKNOWN_PROCESS, RL_REFUSED with the chain of messages where there is no such cut, and where events are missing.
 */
export async function consistentCut(
  evidence: Evidence,
  containing: readonly string[],
  options: FailureOptions & { readonly which?: "greatest" | "least" } = {},
): Promise<LineEntry[]> {
  requireTexts("containing", containing ?? null, '["P:3"]');
  requireFailed(options.failed);
  const model = modelOf(evidence, options);
  const failed = processNumbers(evidence, options.failed ?? []);
  return cutEntries(model, await membersOf(model, containing), failed, options.which ?? "greatest");
}

/** The graph that rollback follows, condensed: intervals and what undoing them undoes. */
export function dependencyGraph(evidence: Evidence, rules?: RuleOptions): { json(): object; dot(): string } {
  const graph = exportGraph(modelOf(evidence, rules));
  return { json: () => graphJson(graph), dot: () => graphDot(graph, printable) };
}

/** A space-time diagram with the line in it, as text; `width` in characters. */
export function diagram(
  evidence: Evidence,
  line: RecoveryLine,
  options: FailureOptions & { readonly width?: number } = {},
): string {
  const { failed, width } = options;
  requireFailed(failed);
  return spaceTimeDiagram(evidence, line, {
    dsm: filled(options).dsm,
    show: printable,
    failed,
    ...(width === undefined ? {} : { width }),
  });
}
