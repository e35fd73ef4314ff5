/** What a running collector tells Prometheus; values are read when they are asked for. */
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { RING_KIND_NAMES } from "../format/ring-layout.ts";
import type { AppStats, CollectorStats } from "../model/collector-answers.ts";
import { definePolicyMetrics, type PoliciesToldOf } from "./policy-metrics.ts";
import { defineUserfaultMetrics } from "./userfault-metrics.ts";

interface Metric<T> {
  readonly help: string;
  readonly of: (stats: CollectorStats) => T;
}

/** Since the collector's start (lost: since the capture programs were loaded), by kind of record. */
const BY_KIND: Readonly<Record<string, Metric<readonly number[]>>> = {
  events_total: { help: "Records that are in a log and acknowledged.", of: (s) => s.events },
  bytes_total: { help: "Bytes of the ranges of acknowledged records.", of: (s) => s.bytes },
  lost_total: { help: "Records that found no room; later ones told the same.", of: (s) => s.lost },
};

const COUNTERS: Readonly<Record<string, Metric<number>>> = {
  lost_declared_total: { help: "Lost records that stand in the logs as gaps.", of: (s) => s.lostDeclared },
  gaps_total: { help: "Gap events written.", of: (s) => s.gaps },
  unknown_total: { help: "Records of cgroups that nobody registered.", of: (s) => s.unknown },
  stale_total: { help: "Records of a life of a process that was over.", of: (s) => s.stale },
  skipped_total: { help: "Records that a log held already.", of: (s) => s.skipped },
  bad_total: { help: "Records that broke the layout.", of: (s) => s.bad },
  recursion_misses_total: {
    help: "Times a capture program interrupted itself.",
    of: (s) => s.recursionMisses,
  },
  commits_total: { help: "Group commits of all logs.", of: (s) => s.commits },
  missed_total: {
    help: "Events that went by logs given up, declared when they are back.",
    of: (s) => s.missed,
  },
  log_errors_total: { help: "Failed writes of a log.", of: (s) => s.logErrors },
};

const GAUGES: Readonly<Record<string, Metric<number>>> = {
  ring_size_bytes: { help: "Size of the kernel ring.", of: (s) => s.ringBytes },
  ring_fill_bytes: { help: "Bytes of the ring that are not yet committed.", of: (s) => s.ringFillBytes },
  lag_seconds: {
    help: "Age of the oldest record of the last commit when it returned.",
    of: (s) => s.lagMs / 1000,
  },
  live_processes: { help: "Processes that are recorded.", of: (s) => s.liveProcesses },
  broken_logs: { help: "Applications whose log cannot be written now.", of: (s) => s.brokenApps.length },
  given_up_logs: { help: "Broken logs that the ring waits for no longer.", of: (s) => s.givenUpApps },
  unreadable_logs: {
    help: "Logs passed over when the collector started.",
    of: (s) => s.unreadableLogs.length,
  },
};

/** What each application costs whose log is open, since it was opened. */
const BY_APP: Readonly<Record<string, { readonly help: string; readonly of: (app: AppStats) => number }>> = {
  events_total: { help: "Records of the application that are in its log.", of: (app) => app.events },
  bytes_total: { help: "Bytes of the ranges of those records.", of: (app) => app.bytes },
  commits_total: { help: "Group commits of its log.", of: (app) => app.commits },
  commit_seconds_total: { help: "Time that those commits took.", of: (app) => app.commitMs / 1000 },
  buffer_bytes: {
    help: "Memory of its events on their way and of channel names.",
    of: (app) => app.bufferBytes,
  },
  live_processes: { help: "Processes of it that are recorded.", of: (app) => app.liveProcesses },
};

/** What is held still while the ring is nearly full. */
interface Holding {
  readonly heldProcesses: number;
  readonly heldMs: number;
}

/** What `--keep-bytes` and `--keep-hours` came to. */
interface Keeping {
  readonly unmetLogs: number;
  readonly prunedBytes: number;
}

export interface CollectorMetrics {
  /** Prometheus text, all values of one instant. */
  text(): Promise<string>;
}

/** Node's own measure of the event loop's delay wakes the process at this interval, ms; at 10, its default, an idle collector is never idle. */
const LOOP_PRECISION_MS = 1000;
/** What is said of that delay is of no use at such a precision. */
const LOOP_DELAYS = ["min", "max", "mean", "stddev", "p50", "p90", "p99"];

/** A registry of its own: two collectors in one program do not meet. */
export function collectorMetrics(
  read: () => CollectorStats,
  holding?: Holding,
  keeping?: () => Keeping | undefined,
  policies?: PoliciesToldOf,
): CollectorMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_PRECISION_MS });
  for (const what of LOOP_DELAYS) registry.removeSingleMetric(`nodejs_eventloop_lag_${what}_seconds`);
  let stats: CollectorStats | undefined;
  const now = (): CollectorStats => stats!;
  if (read().userfaults !== undefined) defineUserfaultMetrics(registry, () => now().userfaults!);
  defineByKind(registry, now);
  defineTotals(registry, now);
  defineByApp(registry, now);
  defineKeeping(registry, () => keeping?.());
  defineHolding(registry, holding);
  if (policies !== undefined) definePolicyMetrics(registry, policies);
  return {
    text() {
      stats = read();
      return registry.metrics();
    },
  };
}

/** What each metric is told: its name, its sentence, its registry. */
function named(registry: Registry, name: string, help: string) {
  return { name: `recovery_line_${name}`, help, registers: [registry] };
}

function defineByKind(registry: Registry, now: () => CollectorStats): void {
  for (const [name, { help, of }] of Object.entries(BY_KIND))
    new Counter({
      ...named(registry, name, help),
      labelNames: ["kind"],
      collect() {
        this.reset();
        of(now()).forEach((value, kind) => {
          if (kind > 0) this.inc({ kind: RING_KIND_NAMES[kind] ?? String(kind) }, value);
        });
      },
    });
}

function defineTotals(registry: Registry, now: () => CollectorStats): void {
  for (const [name, { help, of }] of Object.entries(COUNTERS)) counter(registry, name, help, () => of(now()));
  for (const [name, { help, of }] of Object.entries(GAUGES)) gauge(registry, name, help, () => of(now()));
}

function defineByApp(registry: Registry, now: () => CollectorStats): void {
  for (const [name, { help, of }] of Object.entries(BY_APP)) {
    const options = { ...named(registry, `app_${name}`, help), labelNames: ["app"] };
    const Kind = name.endsWith("_total") ? Counter : Gauge;
    new Kind({
      ...options,
      collect() {
        this.reset();
        for (const app of now().apps) this.inc({ app: app.app }, of(app));
      },
    });
  }
}

function defineKeeping(registry: Registry, keeping: () => Keeping | undefined): void {
  const unmet = "Logs beyond --keep-bytes or --keep-hours that a line may need.";
  gauge(registry, "keep_unmet_logs", unmet, () => keeping()?.unmetLogs ?? 0);
  const pruned = "Bytes of blocks that --keep-bytes and --keep-hours removed.";
  counter(registry, "pruned_bytes_total", pruned, () => keeping()?.prunedBytes ?? 0);
}

function defineHolding(registry: Registry, holding: Holding | undefined): void {
  const held = "Processes held still because the ring is nearly full.";
  gauge(registry, "held_processes", held, () => holding?.heldProcesses ?? 0);
  const seconds = "How long processes were held still.";
  counter(registry, "held_seconds_total", seconds, () => (holding?.heldMs ?? 0) / 1000);
}

function counter(registry: Registry, name: string, help: string, value: () => number): void {
  new Counter({
    ...named(registry, name, help),
    collect() {
      this.reset();
      this.inc(value());
    },
  });
}

function gauge(registry: Registry, name: string, help: string, value: () => number): void {
  new Gauge({
    ...named(registry, name, help),
    collect() {
      this.set(value());
    },
  });
}
