/**
 * All events of a log → evidence, by worker threads that decode blocks, check them and reduce their ranges.
 *
 * The same evidence for any number of workers, any partition and any order of arrival: joins are maximal (reduced-lines.ts) and stretches
 * are put together in the order of the log.
 */

import { WorkerPool } from "../host/worker-pool.ts";
import type { NamedBlocks } from "../log/log-sources.ts";
import { type ErrorCode, RecoveryLineError } from "../model/errors.ts";
import type { Evidence } from "../model/evidence-layout.ts";
import { compiledFile } from "../native/binding.ts";
import { StretchAssembler } from "./assemble-stretches.ts";
import { type Partition, partition } from "./partition.ts";
import { type ReduceAnswer, type ReduceTask, reduceBlocks } from "./worker-protocol.ts";

export interface BuildOptions {
  /** Worker threads, count; 0 = none, this thread does the work. */
  readonly workers: number;
  readonly signal?: AbortSignal;
  /** Told now and then: bytes of blocks handed to workers so far. */
  readonly progress?: (bytes: number) => void;
  /** False: every range stays a row of its own, so that witnesses name single messages. Default true. */
  readonly join?: boolean;
  /** Bytes of blocks a task. */
  readonly taskBytes?: number;
}

/**
 * Throws what the source throws, RL_BAD_BLOCK and RL_CORRUPT_LOG for damaged blocks, RL_WORKER where a worker died, what
 * `EvidenceBuilder` throws, the signal's reason where it was aborted. Never a part of the evidence.
 */
export async function buildEvidence(logs: readonly NamedBlocks[], options: BuildOptions): Promise<Evidence> {
  const joined = options.join === false ? undefined : await scan(logs, options, true);
  return joined ?? ((await scan(logs, options, false)) as Evidence);
}

/** So many are done sooner here than threads are started and told. */
const FEW_TASKS = 4;

/** Undefined if a `stable` line forbids joining. */
async function scan(
  logs: readonly NamedBlocks[],
  options: BuildOptions,
  join: boolean,
): Promise<Evidence | undefined> {
  const parts = partition(logs, options.taskBytes);
  const assembler = new StretchAssembler(join, logs);
  const begun: Partition[] = [];
  let isWhole = false;
  while (!isWhole && begun.length <= FEW_TASKS) {
    const next = await parts.next();
    if (next.done) isWhole = true;
    else begun.push(next.value);
  }
  const all = follow(begun, parts);
  const whole =
    options.workers === 0 || isWhole
      ? await scanHere(all, assembler, options, join)
      : await scanInPool(all, assembler, options, join);
  return whole ? assembler.build() : undefined;
}

async function* follow(
  begun: readonly Partition[],
  rest: AsyncGenerator<Partition>,
): AsyncGenerator<Partition> {
  try {
    yield* begun;
    yield* rest;
  } finally {
    await rest.return(undefined);
  }
}

async function scanHere(
  parts: AsyncIterable<Partition>,
  assembler: StretchAssembler,
  { signal, progress }: BuildOptions,
  join: boolean,
): Promise<boolean> {
  let bytes = 0;
  for await (const part of parts) {
    signal?.throwIfAborted();
    if (!settle(assembler, part, reduceBlocks({ blocks: part.blocks, join }))) return false;
    bytes += sizeOf(part.blocks);
    progress?.(bytes);
  }
  return true;
}

/** Hands an answer on. False if joining is forbidden. Throws what the answer says went wrong. */
export function settle(
  assembler: StretchAssembler,
  { index, log, first }: Partition,
  answer: ReduceAnswer,
): boolean {
  if (answer.kind === "error")
    throw new RecoveryLineError(
      answer.code satisfies ErrorCode,
      `the log in ${log}, block ${first + answer.block}: ${answer.message}`,
      answer.advice,
    );
  if (answer.kind === "stable") return false;
  assembler.accept(index, answer.stretches, log);
  return true;
}

async function scanInPool(
  parts: AsyncIterable<Partition>,
  assembler: StretchAssembler,
  { workers, signal, progress }: BuildOptions,
  join: boolean,
): Promise<boolean> {
  const pool = new WorkerPool<ReduceTask, ReduceAnswer>(
    workers,
    compiledFile("compute/build-graph-worker.js"),
  );
  const running = new Set<Promise<void>>();
  let stopped: { readonly error?: unknown } | undefined;
  let bytes = 0;
  const run = async (part: Partition): Promise<void> => {
    try {
      const given = part.blocks.map(own);
      const transfer = given.map(({ buffer }) => buffer as ArrayBuffer);
      const answer = await pool.run({ blocks: given, join }, transfer, signal);
      if (stopped === undefined && !settle(assembler, part, answer)) stopped = {};
    } catch (error) {
      stopped ??= { error };
    }
  };
  try {
    for await (const part of parts) {
      signal?.throwIfAborted();
      if (stopped !== undefined) break;
      bytes += sizeOf(part.blocks);
      const task: Promise<void> = run(part).then(() => void running.delete(task));
      running.add(task);
      if (running.size >= pool.capacity) await Promise.race(running);
      progress?.(bytes);
    }
    if (stopped === undefined) await Promise.all(running);
  } finally {
    await pool.close();
    await Promise.all(running);
  }
  if (stopped !== undefined && "error" in stopped) throw stopped.error;
  return stopped === undefined;
}

function sizeOf(blocks: readonly Uint8Array[]): number {
  return blocks.reduce((sum, { length }) => sum + length, 0);
}

/** The same bytes in memory of their own, so that the memory can be given away. */
function own(bytes: Uint8Array): Uint8Array {
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return whole && bytes.buffer instanceof ArrayBuffer ? bytes : Uint8Array.from(bytes);
}
