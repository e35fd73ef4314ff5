/**
 * The engine for programs: events in, recovery lines and what else the command line answers out. docs/library.md shows it at work.
 *
 * Needs neither root nor the native part, and leaves no thread behind. Throws `RecoveryLineError` with a `code` for trouble from outside;
 * each function names its codes. Positions count the lines of a process, offsets bytes (or messages) of a channel.
 */

import { type ComputeOptions, computeLine, processNumbers } from "./compute/compute.ts";
import { type AppAnswer, computeApp } from "./compute/compute-app.ts";
import { cutEntries, membersOf } from "./compute/cut-through.ts";
import { type Explanation, explanation } from "./compute/explanation.ts";
import { type Loss, LossReport } from "./compute/losses.ts";
import { type UselessReport, uselessReport } from "./compute/useless.ts";
import { spaceTimeDiagram } from "./diagram/space-time-diagram.ts";
import { HistoryCheck, readEventBatches } from "./format/interchange.ts";
import { type CollectPlan, planCollection, rulesToKeep } from "./gc/gc.ts";
import { EvidenceBuilder } from "./graph/evidence/evidence-builder.ts";
import { type Domino, dominoOf } from "./graph/questions/domino.ts";
import { exportGraph, graphDot, graphJson } from "./graph/questions/graph-export.ts";
import { type RollbackModel, rollbackModel } from "./graph/rollback/rollback-model.ts";
import { verifyLine } from "./graph/verify/verify-line.ts";
import { type AppEvidence, evidenceOfLogs, homesOf } from "./logs/app-evidence.ts";
import { closeLogs, openAppLogs } from "./logs/app-logs.ts";
import type { Event } from "./model/event.ts";
import type { Evidence } from "./model/evidence-layout.ts";
import { printable } from "./model/printable.ts";
import type { DsmModel, InTransitPolicy, LineEntry, RecoveryLine } from "./model/recovery-line.ts";

export { printEvent } from "./format/interchange.ts";
export { type ErrorCode, hasCode, RecoveryLineError } from "./model/errors.ts";
export type * from "./model/event.ts";
export type { Evidence } from "./model/evidence-layout.ts";
export type * from "./model/recovery-line.ts";
export type { AppAnswer, AppEvidence, CollectPlan, Domino, Explanation, Loss, UselessReport };

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
}

export interface LogOptions {
  /** Log directory of a node, or of each; absent: $RECOVERY_LINE_HOME or the system's. */
  readonly log?: string | readonly string[];
  /** Go on where a node's log is missing: what rests on it is uncertain then. */
  readonly assumeLost?: boolean;
  /** Names of all nodes of the application, where the logs don't say. */
  readonly nodes?: readonly string[];
}

const filled = ({ dsm = "sequential", inTransit = "any" }: RuleOptions = {}): Required<RuleOptions> => ({
  dsm,
  inTransit,
});

function modelOf(evidence: Evidence, rules?: RuleOptions): RollbackModel {
  return rollbackModel(evidence, filled(rules));
}

/**
 * The events of a file (JSON Lines, interchange.md), in its order: text, bytes, or bytes as they come. `name` stands in errors.
 * Throws RL_BAD_INPUT and RL_CONTRADICTION with the line, and what the source throws.
 */
export async function* parseEvents(
  input: string | Uint8Array | AsyncIterable<Uint8Array>,
  name = "events",
): AsyncGenerator<Event> {
  const bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
  for await (const batch of readEventBatches(bytes instanceof Uint8Array ? [bytes] : bytes, name))
    yield* batch;
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

/**
 * An application's evidence from its log, event by event; a live collector is asked for it. Throws RL_UNKNOWN_APP, RL_REFUSED (a node's log
 * is missing), RL_LOCKED, RL_CORRUPT_LOG, RL_BAD_BLOCK, RL_CONTRADICTION.
 */
export function readLog(app: string, options: LogOptions = {}): Promise<AppEvidence> {
  return evidenceOfLogs(homes(options), app, options.assumeLost ?? false, options.nodes, true);
}

/**
 * The line of an application from its log: from cut vectors where they prove it, else from all events by `workers` threads (default one a
 * core, at most four; they end with the call). Throws what `readLog` and `recoveryLine` throw, RL_WORKER, the signal's reason.
 */
export async function computeLog(
  app: string,
  options: LogOptions & FailureOptions & { readonly workers?: number; readonly signal?: AbortSignal } = {},
): Promise<AppAnswer> {
  const { logs } = await openAppLogs(homes(options), app, options.assumeLost ?? false, options.nodes);
  const { failed, workers, signal } = options;
  try {
    return await computeApp(logs, {
      ...filled(options),
      ...(failed === undefined ? {} : { failed: () => failed }),
      ...(workers === undefined ? {} : { workers }),
      ...(signal === undefined ? {} : { signal }),
    });
  } finally {
    await closeLogs(logs);
  }
}

function homes({ log }: LogOptions): string[] {
  return homesOf(typeof log === "string" ? [log] : log);
}

/**
 * The latest line that the evidence proves safe, checked by the verifier. Throws RL_UNKNOWN_PROCESS, RL_REFUSED (no process, or released
 * output would be undone), RL_REJECTED (a bug of ours: the verifier disagrees).
 */
export function recoveryLine(evidence: Evidence, options: LineOptions = {}): RecoveryLine {
  const { failed, released } = options;
  const asked: ComputeOptions = {
    ...filled(options),
    ...(failed === undefined ? {} : { failed }),
    ...(released === undefined ? {} : { released }),
  };
  return computeLine(evidence, asked);
}

/** Checks a line, whoever computed it, with the code of the verifier alone. Throws RL_REJECTED naming the first thing that does not hold. */
export function verify(evidence: Evidence, line: RecoveryLine, options: FailureOptions = {}): void {
  verifyLine(evidence, { ...filled(options), failed: options.failed ?? evidence.processes }, line);
}

/** Why a process goes on from where the line says, by the shortest chain of messages. Throws RL_UNKNOWN_PROCESS. */
export function explain(evidence: Evidence, line: RecoveryLine, process: string): Explanation {
  return explanation(evidence, line, process);
}

/** What each single failure would cost, one after the other, in the evidence's order of processes. */
export function* failures(evidence: Evidence, rules?: RuleOptions): Generator<Loss> {
  const report = new LossReport(modelOf(evidence, rules));
  for (let process = 0; process < evidence.processes.length; process += 1) yield report.single(process);
}

/** What the failure of several processes together would cost; absent: of all. Throws RL_UNKNOWN_PROCESS. */
export function failureOf(evidence: Evidence, options: FailureOptions = {}): Loss {
  const { failed } = options;
  if (failed !== undefined) processNumbers(evidence, failed);
  return new LossReport(modelOf(evidence, options)).together(failed);
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
 * what is no place, RL_UNKNOWN_PROCESS, RL_REFUSED with the chain of messages where there is no such cut.
 */
export async function consistentCut(
  evidence: Evidence,
  containing: readonly string[],
  options: FailureOptions & { readonly which?: "greatest" | "least" } = {},
): Promise<LineEntry[]> {
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
  return spaceTimeDiagram(evidence, line, {
    dsm: filled(options).dsm,
    show: printable,
    failed,
    ...(width === undefined ? {} : { width }),
  });
}
