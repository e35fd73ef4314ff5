/**
 * The line of an application from the logs of its nodes: from all events of a small log, so that witnesses name single messages; of a
 * larger one from checkpoint cuts where they prove it, else from all events by threads. `computeLine` verifies what it found every time.
 */
import { availableParallelism } from "node:os";
import type { NamedBlocks, NodeLog } from "../log/log-sources.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { SMALL_LOG_BLOCKS, SMALL_LOG_BYTES } from "../model/limits.ts";
import type { DsmModel, InTransitPolicy, RecoveryLine } from "../model/recovery-line.ts";
import { claimProcess } from "./assemble-stretches.ts";
import { buildEvidence } from "./build-evidence.ts";
import { computeLine } from "./compute.ts";
import { computeFromCuts } from "./compute-from-cuts.ts";

export interface ComputeAppOptions {
  /** Names of the failed processes out of all; absent: everybody failed. Not asked where there is no process. */
  readonly failed?: (processes: readonly string[]) => readonly string[] | undefined;
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
  /** Read all events, also where cuts would do. */
  readonly fromEvents?: boolean;
  /** Worker threads for reading events, count; 0 = none. Default: one a core, at most four. */
  readonly workers?: number;
  readonly signal?: AbortSignal;
  /** Told now and then while events are read: bytes of blocks so far. */
  readonly progress?: (bytes: number) => void;
}

export interface AppAnswer {
  readonly line: RecoveryLine;
  /** What was read: newer checkpoints and events from "cuts", ranges joined where nothing is lost by it from "events". */
  readonly evidence: Evidence;
  /** What the line was computed from. The line is the same; only witnesses of "all events" name single messages, others ranges. */
  readonly from: "all events" | "cuts" | "events";
  /** Why cuts did not do; with "events". */
  readonly reason?: string;
}

const DEFAULT_WORKERS = 4;

/**
 * The line of the application whose logs these are, one a node; closing them is the caller's part.
 *
 * Throws RL_REFUSED without any process, RL_CONTRADICTION for a process in two logs, RL_CORRUPT_LOG and RL_BAD_BLOCK, RL_WORKER,
 * RL_REJECTED where the verifier disagrees, the signal's reason where it was aborted.
 */
export async function computeApp(logs: readonly NodeLog[], options: ComputeAppOptions): Promise<AppAnswer> {
  const { dsm, inTransit } = options;
  const small = await smallLogs(logs);
  if (small !== undefined) {
    const evidence = await buildEvidence(small, { workers: 0, join: false });
    const line = computeLine(evidence, { dsm, inTransit, ...failedOf(options, evidence.processes) });
    return { line, evidence, from: "all events" };
  }
  const fast = options.fromEvents ? { reason: "told to read all events" } : await fromCuts(logs, options);
  if ("line" in fast) return { ...fast, from: "cuts" };
  const evidence = await buildEvidence(logs, {
    workers: options.workers ?? Math.min(DEFAULT_WORKERS, availableParallelism()),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.progress === undefined ? {} : { progress: options.progress }),
  });
  options.signal?.throwIfAborted();
  const line = computeLine(evidence, { dsm, inTransit, ...failedOf(options, evidence.processes) });
  return { line, evidence, from: "events", reason: fast.reason };
}

/** The logs in memory if they are small. */
async function smallLogs(logs: readonly NodeLog[]): Promise<NamedBlocks[] | undefined> {
  let bytes = 0;
  const small: NamedBlocks[] = [];
  for (const log of logs) {
    const { name, ends, cuts } = log;
    if (cuts !== undefined && cuts.lastChain - cuts.firstChain >= SMALL_LOG_BLOCKS) return undefined;
    const all: Uint8Array[] = [];
    for await (const block of log.blocks()) {
      bytes += block.length;
      if (bytes > SMALL_LOG_BYTES) return undefined;
      all.push(block);
    }
    const blocks = async function* (): AsyncGenerator<Uint8Array> {
      yield* all;
    };
    small.push({ name, blocks, ...(ends === undefined ? {} : { ends }) });
  }
  return small;
}

function failedOf(
  { failed }: ComputeAppOptions,
  processes: readonly string[],
): { readonly failed?: readonly string[] } {
  const names = processes.length === 0 ? undefined : failed?.(processes);
  return names === undefined ? {} : { failed: names };
}

async function fromCuts(
  logs: readonly NodeLog[],
  options: ComputeAppOptions,
): Promise<Pick<AppAnswer, "line" | "evidence"> | { readonly reason: string }> {
  const sources = logs.flatMap(({ cuts }) => (cuts === undefined ? [] : [cuts]));
  if (sources.length < logs.length) return { reason: "a log comes as a stream" };
  const owners = new Map<string, string>();
  for (const { name, cuts } of logs)
    for (const process of cuts?.heads().keys() ?? []) claimProcess(owners, process, name);
  if (owners.size === 0) return { reason: "there is no process" };
  const processes = [...owners.keys()].sort();
  const { dsm, inTransit } = options;
  const found = await computeFromCuts(sources, { dsm, inTransit, ...failedOf(options, processes) });
  if (found.line === undefined) return { reason: found.reason };
  return { line: found.line, evidence: found.evidence };
}
