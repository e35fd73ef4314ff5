/** One collector of one home: lock, metrics port, capture, logs, socket, memory rings, watch over processes; started in this order, ended in the reverse. */
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "../collect/collect.ts";
import type { OnFull } from "../collect/collect-options.ts";
import { ensureBpffs } from "../host/bpffs.ts";
import { applicationRuns, processCgroupLevel } from "../host/cgroups.ts";
import { lockHome, prepareHome } from "../host/home-lock.ts";
import { removeFolders } from "../host/make-folders.ts";
import { Pause } from "../host/pause.ts";
import type { NodeNames } from "../model/collector-answers.ts";
import { REAP_IDLE_MS, REAP_INTERVAL_MS, REAP_SOON_MS } from "../model/limits.ts";
import { PayloadLoggers } from "../payload/payload-loggers.ts";
import { BackPressure } from "./back-pressure.ts";
import { FollowWatch } from "./follow-watch.ts";
import { HoldWatch } from "./hold-watch.ts";
import { KeepWatch, type Retention } from "./keep-watch.ts";
import { otherCollectors } from "./leftovers.ts";
import { inOwnCgroup, Membership } from "./membership.ts";
import type { CollectorMetrics, collectorMetrics } from "./metrics.ts";
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

/** `failed`: of a start that came to nothing. */
type Undo = (failed: boolean) => void | Promise<void>;

/** Throws RL_LOCKED, RL_NO_RIGHTS, RL_NOT_SUPPORTED, RL_USAGE and what opening a log throws; nothing is left behind then. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const undo: Undo[] = [];
  try {
    return await start(options, undo);
  } catch (error) {
    await undoAll(undo, true).catch(() => undefined);
    throw error;
  }
}

async function start(options: DaemonOptions, undo: Undo[]): Promise<Daemon> {
  const { home, onTrouble } = options;
  const made = prepareHome(home);
  undo.push((failed) => {
    if (failed) removeFolders(made);
  });
  undo.push(lockHome(home));
  const metricsPort = await openMetrics(options, undo); // what can be refused comes before anything is pinned
  const collector = await startCollector(options, undo);
  const pressure = await startBackPressure(collector, options, undo);
  const parts = startParts(collector, options, undo);
  const { policies, payloads } = parts;
  let keeping: KeepWatch | undefined;
  const stats = () => collector.stats();
  const metrics = metricsWhenAsked(stats, pressure, () => keeping, policies);
  if (metricsPort !== undefined) {
    await metrics(); // who is asked regularly counts from its start
    metricsPort.serve(metrics);
  }
  const service = { ...parts, ping: pingOf(options), metrics };
  const server = await CollectorServer.listen(service, home);
  undo.push(() => server.close());
  keeping = startKeeping(collector, options, undo);
  const endRings = takeMemoryRings(collector, home, onTrouble);
  undo.push(() => endRings?.());
  await policies.comeBack(); // before anybody is found dead
  const follows = new FollowWatch({ home, collector, program: options.program, onTrouble });
  undo.push(watchProcesses(parts, follows, options));
  undo.push(() => follows.close());
  undo.push(() => endPolicies(policies, options));
  for (const app of liveApps(collector)) await payloads.resume(app); // what they sent meanwhile is a hole
  const { ringBytes } = stats();
  return { ringBytes, metricsPort: metricsPort?.port, policies, close: () => undoAll(undo, false) };
}

/** The registry and its library come with the first question: most collectors are never asked, and start sooner without. */
function metricsWhenAsked(...parts: Parameters<typeof collectorMetrics>): () => Promise<string> {
  let made: Promise<CollectorMetrics> | undefined;
  return async () => {
    made ??= import("./metrics.ts").then((module) => module.collectorMetrics(...parts));
    return (await made).text();
  };
}

async function openMetrics({ metricsPort }: DaemonOptions, undo: Undo[]): Promise<MetricsPort | undefined> {
  if (metricsPort === undefined) return undefined;
  const opened = await openMetricsPort(metricsPort);
  undo.push(() => opened.close());
  return opened;
}

async function startCollector(options: DaemonOptions, undo: Undo[]): Promise<Collector> {
  const { home, pinDir, ringBytes, commitIntervalMs, onFatal, onTrouble, onFull } = options;
  if (options.helper === undefined) ensureBpffs(pinDir);
  const collector = await Collector.start({
    home,
    pinDir,
    ringBytes,
    commitIntervalMs,
    onFatal,
    onTrouble,
    onFull,
    cgroupLevel: processCgroupLevel(),
    userfaults: options.userfaults ?? false,
    runs: applicationRuns,
    populated: inOwnCgroup,
    ...(options.helper === undefined ? {} : { helper: options.helper }),
    ...(options.variant === undefined ? {} : { variant: options.variant }),
    ...(options.node === undefined ? {} : { node: options.node }),
  });
  undo.push(() => collector.close());
  tellOtherCollectors(options);
  undo.push(() => collector.drain());
  return collector;
}

function tellOtherCollectors({ pinDir, onTrouble }: DaemonOptions): void {
  for (const other of otherCollectors(pinDir))
    onTrouble(
      `process ${other.pid} records on this machine already, through ${other.pinDir}: an application belongs to the collector of the log directory that its processes were started with, and what both captures hook costs twice`,
    );
}

/** Only --on-full stop holds processes still. */
async function startBackPressure(
  collector: Collector,
  { onFull, onTrouble }: DaemonOptions,
  undo: Undo[],
): Promise<BackPressure | undefined> {
  if (onFull !== "stop") return undefined;
  const pressure = await BackPressure.start(collector, onTrouble);
  undo.push(() => pressure.close());
  return pressure;
}

type Parts = Omit<Service, "ping" | "metrics">;

/** What the routes of the socket act through. */
function startParts(collector: Collector, options: DaemonOptions, undo: Undo[]): Parts {
  const { home, program, onTrouble } = options;
  const withoutRights = options.helper !== undefined;
  const payloads = new PayloadLoggers({ ...options, limitMib: options.payloadLimitMib, withoutRights });
  undo.push(() => payloads.close());
  const policies = new Policies({
    home,
    collector,
    payloads,
    program,
    withoutRights,
    onTrouble,
    ...options.policyParts,
  });
  undo.push(() => policies.close());
  const committer = new OutputCommitter(program, home);
  const holds = new HoldWatch({
    outputs: collector.outputs,
    collector,
    committer,
    policies,
    onTrouble,
  });
  undo.push(() => holds.close());
  const [membership, unseen] = [new Membership(collector), new UnseenWatch(collector)];
  return { collector, membership, unseen, payloads, policies, holds };
}

function pingOf({ version, home, pinDir, node }: DaemonOptions): Service["ping"] {
  const since = new Date().toISOString();
  const named = node === undefined ? {} : { node };
  return { pid: process.pid, version, home, cgroupLevel: processCgroupLevel(), pinDir, since, ...named };
}

function startKeeping(
  collector: Collector,
  { retention, onTrouble }: DaemonOptions,
  undo: Undo[],
): KeepWatch | undefined {
  if (retention === undefined) return undefined;
  const watch = new KeepWatch(collector, retention, onTrouble);
  undo.push(() => watch.close());
  return watch;
}

function liveApps(collector: Collector): Set<string> {
  return new Set(collector.processes().flatMap(({ app, live }) => (live ? [app] : [])));
}

/**
 * Looks for ended processes at once and then again and again, seldom while nothing changes; a log that can't be written now is tried again.
 * And at the end, so that the log does not call recorded what has ended before the collector.
 */
function watchProcesses(
  service: Parts,
  follows: FollowWatch,
  { onTrouble }: DaemonOptions,
): () => Promise<void> {
  const { membership } = service;
  const pause = new Pause();
  let [told, ended] = [false, false];
  membership.onChange(() => {
    told = true;
    pause.end();
  });
  const look = (last: boolean): Promise<boolean> =>
    lookAtProcesses(service, follows, last).then(
      () => true,
      (error: unknown) => {
        onTrouble(`ended processes: ${(error as Error).message}`);
        return false;
      },
    );
  const running = (async () => {
    for (let waitMs = REAP_INTERVAL_MS; !ended; ) {
      const changes = told;
      told = false;
      const isWell = await look(false);
      waitMs = changes || !isWell ? REAP_INTERVAL_MS : Math.min(2 * waitMs, REAP_IDLE_MS);
      await pause.wait(membership.isTold ? waitMs : REAP_INTERVAL_MS);
      if (told) await sleep(REAP_SOON_MS); // more may change at the same moment
    }
  })();
  return async () => {
    ended = true;
    pause.end();
    await running;
    await look(true);
  };
}

async function lookAtProcesses(
  { collector, membership, payloads, unseen, policies }: Parts,
  follows: FollowWatch,
  last: boolean,
): Promise<void> {
  await membership.reap(last);
  await payloads.retain(liveApps(collector));
  await policies.look();
  if (last) return;
  await unseen.due();
  follows.look();
}

/** First of all: what they do needs everything else. */
async function endPolicies(policies: Policies, { leavingSeconds, onTrouble }: DaemonOptions): Promise<void> {
  if (leavingSeconds !== undefined)
    await policies.leaving(leavingSeconds).catch((error: unknown) => onTrouble((error as Error).message));
  await policies.close();
}

/** Newest first; every step runs, the first failure is thrown at the end. */
async function undoAll(undo: Undo[], failed: boolean): Promise<void> {
  const failures: unknown[] = [];
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) {
    try {
      await step(failed);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
