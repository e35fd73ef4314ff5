/** One collector of one home: lock, metrics port, capture, logs, socket, memory rings, watch over processes; started in this order, ended in the reverse. */
import { Collector } from "../collect/collect.ts";
import type { OnFull } from "../collect/collect-options.ts";
import { ensureBpffs } from "../host/bpffs.ts";
import { applicationRuns, processCgroupLevel } from "../host/cgroups.ts";
import { lockHome, prepareHome } from "../host/home-lock.ts";
import type { NodeNames } from "../model/collector-answers.ts";
import { REAP_INTERVAL_MS } from "../model/limits.ts";
import { PayloadLoggers } from "../payload/payload-loggers.ts";
import { BackPressure } from "./back-pressure.ts";
import { FollowWatch } from "./follow-watch.ts";
import { HoldWatch } from "./hold-watch.ts";
import { KeepWatch, type Retention } from "./keep-watch.ts";
import { otherCollectors } from "./leftovers.ts";
import { inOwnCgroup, Membership } from "./membership.ts";
import { collectorMetrics } from "./metrics.ts";
import { type MetricsPort, openMetricsPort } from "./metrics-port.ts";
import { OutputCommitter } from "./output-committer.ts";
import { Policies, type PoliciesOptions } from "./policies.ts";
import type { Service } from "./routes.ts";
import { CollectorServer } from "./server.ts";
import { takeMemoryRings } from "./take-memory-rings.ts";
import { UnseenWatch } from "./unseen-watch.ts";

export interface DaemonOptions {
  readonly home: string;
  readonly pinDir: string;
  /** Size of the kernel ring in bytes, a power of two; used only when it is created. */
  readonly ringBytes: number;
  /** Longest time from reading a record to its commit, in ms. */
  readonly commitIntervalMs: number;
  /** True: also page faults that processes handle by userfaultfd; it slows every system call of the machine. */
  readonly userfaults?: boolean;
  /** Parts of the capture that are forced. */
  readonly variant?: string;
  /** Socket of the attach helper that holds the capture; this process has no rights then (attach.ts). */
  readonly helper?: number;
  /** What happens where a log can't be written and the ring fills up. */
  readonly onFull: OnFull;
  /** This node and all that applications run on. */
  readonly node?: NodeNames;
  /** TCP port on 127.0.0.1 for metrics, 0 = any; absent: none. */
  readonly metricsPort?: number;
  /** Payloads kept of one application, in MiB. */
  readonly payloadLimitMib: number;
  /** What starts the command line, node and its main file: policies act by its commands. */
  readonly program: readonly [string, ...string[]];
  /** When it ends, policies hear that the node is about to go, with so many seconds left; absent: they do not. */
  readonly leavingSeconds?: number;
  /** Absent: logs grow until somebody runs `gc --apply`. */
  readonly retention?: Retention;
  readonly version: string;
  /** For tests: another clock of policies, others who run what they ask for. */
  readonly policyParts?: Partial<PoliciesOptions>;
  /** Called once when collection cannot go on. */
  readonly onFatal: (error: unknown) => void;
  /** Something that goes on by itself but should be seen; one sentence. */
  readonly onTrouble: (sentence: string) => void;
}

export interface Daemon {
  readonly ringBytes: number;
  readonly metricsPort: number | undefined;
  readonly policies: Policies;
  /** Everything that was captured is in the logs on return, unless that throws (RL_LOG_WRITE): then it waits in the ring. */
  close(): Promise<void>;
}

type Undo = () => void | Promise<void>;

/** Throws RL_LOCKED, RL_NO_RIGHTS, RL_NOT_SUPPORTED, RL_USAGE and what opening a log throws; nothing is left behind then. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const undo: Undo[] = [];
  try {
    return await start(options, undo);
  } catch (error) {
    await undoAll(undo).catch(() => undefined);
    throw error;
  }
}

async function start(options: DaemonOptions, undo: Undo[]): Promise<Daemon> {
  const { home, pinDir, ringBytes, commitIntervalMs, onFatal, onTrouble, version } = options;
  const node = options.node === undefined ? {} : { node: options.node };
  prepareHome(home);
  undo.push(lockHome(home));
  const metricsPort = await openMetrics(options, undo); // what can be refused comes before anything is pinned
  if (options.helper === undefined) ensureBpffs(pinDir);
  const cgroupLevel = processCgroupLevel();
  const collector = await Collector.start({
    home,
    pinDir,
    ringBytes,
    cgroupLevel,
    userfaults: options.userfaults ?? false,
    ...(options.helper === undefined ? {} : { helper: options.helper }),
    commitIntervalMs,
    onFatal,
    onTrouble,
    runs: applicationRuns,
    populated: inOwnCgroup,
    ...(options.variant === undefined ? {} : { variant: options.variant }),
    onFull: options.onFull,
    ...node,
  });
  undo.push(() => collector.close());
  for (const other of otherCollectors(pinDir))
    onTrouble(
      `process ${other.pid} records on this machine already, through ${other.pinDir}: an application belongs to the collector of the log directory that its processes were started with, and what both captures hook costs twice`,
    );
  undo.push(() => collector.drain());
  const membership = new Membership(collector);
  const unseen = new UnseenWatch(collector);
  const payloads = new PayloadLoggers({
    ...options,
    limitMib: options.payloadLimitMib,
    withoutRights: options.helper !== undefined,
  });
  undo.push(() => payloads.close());
  const pressure = options.onFull === "stop" ? await BackPressure.start(collector, onTrouble) : undefined;
  if (pressure !== undefined) undo.push(() => pressure.close());
  let keeping: KeepWatch | undefined;
  const policies = new Policies({
    home,
    collector,
    payloads,
    program: options.program,
    withoutRights: options.helper !== undefined,
    onTrouble,
    ...options.policyParts,
  });
  undo.push(() => policies.close());
  const holds = new HoldWatch({
    outputs: collector.outputs,
    collector,
    committer: new OutputCommitter(options.program, home),
    onTrouble,
  });
  undo.push(() => holds.close());
  const metrics = collectorMetrics(
    () => collector.stats(),
    pressure,
    () => keeping,
    policies,
  );
  metricsPort?.serve(() => metrics.text());
  const since = new Date().toISOString();
  const ping = { pid: process.pid, version, home, cgroupLevel, pinDir, since, ...node };
  const server = await CollectorServer.listen(
    { collector, membership, payloads, unseen, policies, holds, ping, metrics: () => metrics.text() },
    home,
  );
  undo.push(() => server.close());
  if (options.retention !== undefined) {
    const watch = new KeepWatch(collector, options.retention, onTrouble);
    keeping = watch;
    undo.push(() => watch.close());
  }
  const endRings = takeMemoryRings(collector, home, onTrouble);
  undo.push(() => endRings?.());
  await policies.comeBack(); // before anybody is found dead
  const follows = new FollowWatch({ home, collector, program: options.program, onTrouble });
  undo.push(watchProcesses({ collector, membership, payloads, unseen, policies }, follows, options));
  undo.push(() => follows.close());
  undo.push(() => endPolicies(policies, options));
  await resumePayloads(collector, payloads, options);
  const actualBytes = collector.stats().ringBytes;
  return { ringBytes: actualBytes, metricsPort: metricsPort?.port, policies, close: () => undoAll(undo) };
}

async function openMetrics({ metricsPort }: DaemonOptions, undo: Undo[]): Promise<MetricsPort | undefined> {
  if (metricsPort === undefined) return undefined;
  const opened = await openMetricsPort(metricsPort);
  undo.push(() => opened.close());
  return opened;
}

function liveApps(collector: Collector): Set<string> {
  return new Set(collector.processes().flatMap(({ app, live }) => (live ? [app] : [])));
}

/** Processes that an earlier collector recorded and that live on; what they sent meanwhile is a hole. */
async function resumePayloads(
  collector: Collector,
  payloads: PayloadLoggers,
  { onTrouble }: DaemonOptions,
): Promise<void> {
  for (const app of liveApps(collector))
    await payloads.ensure(app).catch((error: unknown) => onTrouble((error as Error).message));
}

/**
 * Looks for ended processes at once and then again and again; a log that can't be written now is tried again. And at the end, so that the
 * log does not call recorded what has ended before the collector.
 */
function watchProcesses(
  { collector, membership, payloads, unseen, policies }: Omit<Service, "ping" | "metrics" | "holds">,
  follows: FollowWatch,
  { onTrouble }: DaemonOptions,
): Undo {
  let running: Promise<void> = Promise.resolve();
  let busy = false;
  const look = (last: boolean): void => {
    if (busy) return;
    busy = true;
    running = membership
      .reap(last)
      .then(() => payloads.retain(liveApps(collector)))
      .then(() => policies.look())
      .then(() => (last ? undefined : unseen.due()))
      .then(() => (last ? undefined : follows.look()))
      .catch((error: unknown) => onTrouble(`ended processes: ${(error as Error).message}`))
      .finally(() => {
        busy = false;
      });
  };
  const timer = setInterval(look, REAP_INTERVAL_MS, false);
  look(false);
  return async () => {
    clearInterval(timer);
    await running;
    look(true);
    await running;
  };
}

/** First of all: what they do needs everything else. */
async function endPolicies(policies: Policies, { leavingSeconds, onTrouble }: DaemonOptions): Promise<void> {
  if (leavingSeconds !== undefined)
    await policies.leaving(leavingSeconds).catch((error: unknown) => onTrouble((error as Error).message));
  await policies.close();
}

/** Newest first; every step runs, the first failure is thrown at the end. */
async function undoAll(undo: Undo[]): Promise<void> {
  const failures: unknown[] = [];
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
