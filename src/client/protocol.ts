/**
 * What goes over `<home>/collector.sock`: HTTP with JSON bodies both ways, blocks as frames.
 *
 *   GET  /v1/ping                             → Ping
 *   GET  /v1/processes                        → ProcessInfo[]
 *   GET  /v1/stats                            → CollectorStats
 *   POST /v1/register         RegisterRequest → { incarnation }
 *   GET  /v1/policies                         → PolicyStatus[]     what is plugged
 *   POST /v1/policy/plug      PlugBody        → PlugAnswer         plugs, or swaps; the switch is durable on return
 *   POST /v1/policy/unplug    { app }         → { policy, epoch }
 *   POST /v1/leaving          { within }      → {}                 the node goes in so many seconds: policies hear it
 *   POST /v1/dependents       { app, processes } → WireDependents  who must take a checkpoint with them
 *   POST /v1/unseen           { app }         → WireUnseen         looks now what processes use together; durable as verdicts
 *   POST /v1/unseen           { app, found }  → {}                 the same, FoundChannel[] that the caller saw
 *   POST /v1/unregister       ProcessRequest & { follow? } → {}    `follow: false`: a container made anew is not its next life any more
 *   POST /v1/ended            ProcessRequest & { status } → {}     what `run` saw when it waited for the command; as a shell tells it
 *   POST /v1/cut              ProcessRequest  → WireCut
 *   POST /v1/append          { app, events, held?, lives? } → { positions }     several at one moment: all of them are in the log, or none.
 *        `held`: their processes must stand still, and have these incarnations still (`lives`, by event)
 *   POST /v1/append          { app, event }  → { position }      `event`: a line of interchange.md
 *   POST /v1/next-checkpoint  ProcessRequest  → { checkpoint }
 *   POST /v1/start-recipe     ProcessRequest  → { start? }         how to start it again
 *   POST /v1/data            ProcessRequest & { data? } → { data? }   trees that are part of its state; with `data`: from now on
 *   POST /v1/expect-restore  { entries }     → {}
 *   POST /v1/drain            {}              → {}
 *   POST /v1/rotate           { app }         → {}
 *   POST /v1/prune            PruneRequest    → Pruned             removes what no line of any future needs
 *   GET  /v1/apps/<app>/blocks?since=<chain>  → frames: u32 LE length, block; ended by length 0. `since`: chain number of the
 *        last block the reader has; only later ones are sent. A stream without its end is truncated, whatever HTTP says; if the
 *        collector knows why, the trailer `x-recovery-line-error` holds a WireError, JSON, percent-encoded. Who takes nothing for
 *        BLOCK_READER_LIMIT_MS is cut off.
 *   GET  /v1/apps/<app>/committed             → WireCommitted: what the log holds at one moment
 *   GET  /v1/apps/<app>/blocks/<chain>        → the block with that number, application/octet-stream
 *   GET  /v1/apps/<app>/blocks/<first>-<last> → those blocks, as frames; of one window (model/block-window.ts)
 *   GET  /metrics                             → Prometheus text
 *
 * Errors: status 4xx or 5xx with a WireError. Only root and the collector's own user are served.
 */

import type { ProcessHead } from "../format/log-commit.ts";
import type { Keep } from "../log/keep.ts";
import type {
  CollectedProcess,
  CutAnswer,
  CutDetail,
  NodeNames,
  Registration,
} from "../model/collector-answers.ts";
import { type ErrorCode, RecoveryLineError } from "../model/errors.ts";
import type { Cut } from "../model/event.ts";
import type { FoundChannel } from "../model/unseen-channel.ts";

export const ERROR_TRAILER = "x-recovery-line-error";
export const FRAME_HEADER_BYTES = 4;

export interface Ping {
  readonly pid: number;
  readonly version: string;
  readonly home: string;
  /** Depth of the process cgroups below the cgroup2 root. */
  readonly cgroupLevel: number;
  readonly pinDir: string;
  /** When collection began, ISO 8601. */
  readonly since: string;
  /** Absent where the collector was not told. */
  readonly node?: NodeNames;
}

/** Of `POST /v1/dependents`. Absent: the collector has not read the log, whoever asks does; null: nobody can be left out. */
export interface WireDependents {
  readonly dependents?: readonly string[] | null;
}

export interface PruneRequest {
  readonly app: string;
  /** [process, position of a checkpoint or 0 that no line of any future starts before], from the evidence of all nodes. */
  readonly oldest: readonly (readonly [string, number])[];
  /** No more goes than this wants gone; absent: all that can. */
  readonly keep?: Keep;
}

export type ProcessInfo = CollectedProcess;

/**
 * `first`: the process must be new to the application. `fresh`: it starts again from its initial state; a rollback to 0 is logged,
 * which undoes all it did before. `resume`: the caller restores it and logs the rollback itself. `attach`: the process must be new, and
 * runs already: a gap is its first line. Or it follows a container's name (`follows`), and did so before: then it is the next life of the
 * same process, without a rollback.
 */
export type RegisterMode = "first" | "fresh" | "resume" | "attach";

export interface RegisterRequest extends Registration {
  /** From now on what the application sends is kept (payload/payload-loggers.ts). Absent: as it was decided before. */
  readonly payload?: boolean;
  readonly mode?: RegisterMode;
}

export interface WireUnseen {
  readonly channels: readonly FoundChannel[];
  /** True: the collector has no right to look at some processes. */
  readonly hidden: boolean;
}

/** What a collector asks of `commit-output`: checkpoints of these, and of all whom they depend on; then what the line of all keeps. */
export interface CommitRequest {
  readonly app: string;
  readonly processes: readonly string[];
  /** A policy decides about their checkpoints: none is taken, the line is looked at. */
  readonly taken?: true;
}

export interface CommitAnswer {
  /** By channel: the offset before which all that was sent lies on the line of all. */
  readonly committed: readonly (readonly [channel: string, offset: number])[];
  /** Of those whose output waits: what they may write that goes out by itself. */
  readonly unheld: readonly (readonly [process: string, what: string])[];
  /** Why that may not be what was hoped for. */
  readonly why?: string | undefined;
  readonly tookMs: number;
}

export interface WireCommitted {
  readonly firstChain: number;
  readonly lastChain: number;
  readonly heads: readonly (readonly [process: string, head: ProcessHead])[];
  /** Each process's first block in the base. */
  readonly firstCarried: readonly (readonly [process: string, chain: number])[];
}

export interface ProcessRequest {
  readonly app: string;
  readonly process: string;
}

export interface WireCut {
  readonly sent: readonly (readonly [string, number])[];
  readonly received: readonly (readonly [string, number])[];
  readonly seen: readonly (readonly [string, number])[];
  readonly details: readonly CutDetail[];
  readonly complete: boolean;
  readonly uncaptured: readonly string[];
}

export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly advice: string;
}

export function wireCut({ cut, details, complete, uncaptured }: CutAnswer): WireCut {
  const { sent, received, seen = [] } = cut;
  return { sent: [...sent], received: [...received], seen: [...seen], details, complete, uncaptured };
}

export function cutFromWire({ sent, received, seen, ...rest }: WireCut): CutAnswer {
  const cut: Cut = {
    sent: new Map(sent),
    received: new Map(received),
    ...(seen.length === 0 ? {} : { seen: new Map(seen) }),
  };
  return { cut, ...rest };
}

/** Our errors keep their code; a bug of the collector is told as one. */
export function wireError(error: unknown): WireError {
  if (error instanceof RecoveryLineError)
    return { code: error.code, message: error.message, advice: error.advice };
  const message = error instanceof Error ? error.message : String(error);
  return { code: error instanceof TypeError ? "RL_USAGE" : "RL_INTERNAL", message, advice: "" };
}

export function errorFromWire({ code, message, advice }: WireError): Error {
  if (code === "RL_INTERNAL") return new Error(`the collector failed: ${message}`);
  return new RecoveryLineError(code as ErrorCode, message, advice);
}

/** HTTP status of an error; the code in the body is what counts. */
export function statusOf(code: string): number {
  if (code === "RL_UNKNOWN_APP" || code === "RL_UNKNOWN_PROCESS") return 404;
  if (code === "RL_LOCKED" || code === "RL_CONTRADICTION") return 409;
  if (code === "RL_LIMIT") return 429;
  if (code === "RL_NO_RIGHTS") return 403;
  if (code === "RL_USAGE" || code === "RL_BAD_INPUT") return 400;
  if (code === "RL_NOT_SUPPORTED") return 501;
  return 500;
}
