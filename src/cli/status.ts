/** `recovery-line status`: the collector and the processes it knows. */
import { readdirSync } from "node:fs";
import type { Command } from "commander";
import type { CollectorClient } from "../client/client.ts";
import type { Ping, ProcessInfo } from "../client/protocol.ts";
import type { TaskElsewhere } from "../host/process-end.ts";
import type { ImageSize } from "../images/image-store.ts";
import { checkedAppName, resolveHome } from "../logs/home.ts";
import type { CollectorStats, HoldInfo } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { isAppName } from "../model/names.ts";
import type { PolicyStatus } from "../model/plugged-policy.ts";
import { counted, printable, printableSentence, shellWord } from "../model/printable.ts";
import type { PeerNote, SharedSocket } from "../model/stored-process.ts";
import type { UnseenChannel } from "../model/unseen-channel.ts";
import { EXIT } from "../terminal/exit-codes.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import { type LifeState, lifeText, livesOf, whereText } from "../terminal/process-life.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { notCapturedText } from "./not-captured.ts";

/** Rows a process, count; --json tells all. */
const MAX_IMAGES = 10;

interface StatusFlags {
  readonly log?: string;
  readonly json?: boolean;
}

interface ProcessStatus {
  readonly application: string;
  readonly process: string;
  /** As its cgroup says now. */
  readonly state: LifeState;
  readonly exitCode?: number;
  readonly signal?: number;
  readonly pids: readonly number[];
  /** Its tasks that live outside of its cgroup, unrecorded. */
  readonly left: readonly TaskElsewhere[];
  readonly incarnation: number;
  readonly lines: number;
  readonly checkpoints: number;
  readonly newestCheckpoint: number;
  readonly uncaptured: readonly string[];
  readonly shared?: SharedSocket;
  readonly peers?: readonly PeerNote[];
  /** Directory trees that are part of its state. */
  readonly data: readonly string[];
  /** Images that are stored. */
  readonly images: readonly ImageSize[];
  readonly unseen?: readonly UnseenChannel[];
  /** Its output to outside waits for the line. */
  readonly hold?: HoldInfo;
  /** What decides when it takes checkpoints; absent: nobody but people. */
  readonly policy?: ProcessPolicy;
}

interface ProcessPolicy {
  readonly name: string;
  readonly version: number;
  readonly epoch: number;
  /** fallback: it has failed, and something built in decides, or nothing. */
  readonly state: "active" | "fallback";
}

export function register(program: Command): void {
  program
    .command("status")
    .summary("show the collector and its processes")
    .description("Shows whether a collector is running, what it records, and whether anything was lost.")
    .argument("[app]", "only this application")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
--json always prints: collector, home, applications (logs in the directory), cutOffRestarts, processes. Without a collector the first
and the last are null. --json of compute and others is described in interchange.md.

Exit codes: 0 a collector is running, 1 none is, 2 it knows no such application.

Examples:
  recovery-line status
  recovery-line status shop --log /var/lib/recovery-line --json`,
    )
    .action(status);
}

async function status(app: string | undefined, flags: StatusFlags): Promise<void> {
  if (app !== undefined) checkedAppName(app);
  const { connectCollector } = await import("../client/client.ts");
  const home = resolveHome(flags.log);
  const collector = await connectCollector(home);
  const applications = foldersOf(home).filter(isAppName).sort();
  const cutOffRestarts = await cutOffIn(home, app === undefined ? applications : [app]);
  const onDisk = { home, applications, cutOffRestarts };
  if (collector === undefined) return withoutCollector(onDisk, flags);
  // Where a log can't be written the collector would try for long: it is told below, and what is known is.
  if ((await collector.stats()).brokenApps.length === 0) await collector.drain().catch(() => undefined);
  const [ping, stats] = [await collector.ping(), await collector.stats()];
  const policies = await collector.policies();
  const processes = (await statusOf(collector, home, app)).map((one) => withPolicy(one, policies));
  collector.close();
  if (flags.json) return writeJson({ collector: { ...ping, ...summary(stats) }, ...onDisk, processes });
  await write(
    `${headline(ping, stats)}${policyText(policies, app)}${cutOffText(cutOffRestarts)}${processTable(processes)}`,
  );
}

function withPolicy(one: ProcessStatus, policies: readonly PolicyStatus[]): ProcessStatus {
  const found = policies.find(({ app }) => app === one.application);
  if (found === undefined) return one;
  const { policy: name, version, epoch, state } = found;
  return { ...one, policy: { name, version, epoch, state } };
}

function policyText(policies: readonly PolicyStatus[], only: string | undefined): string {
  return policies
    .filter(({ app }) => only === undefined || app === only)
    .map(({ app, policy, version, over }) => {
      const failed =
        over === undefined ? "" : `, decides no more (${over.reason}): ${printableSentence(over.why)}`;
      return `policy:    ${printable(app)}: ${policy} ${version}${failed}\n`;
    })
    .join("");
}

interface CutOffRestart {
  readonly application: string;
  readonly phase: string;
  readonly processes: readonly string[];
}

/** Restarts that were begun and are not done: cut off, or under way now. */
async function cutOffIn(home: string, apps: readonly string[]): Promise<CutOffRestart[]> {
  const { interrupted } = await import("../restart/restart.ts");
  const found: CutOffRestart[] = [];
  for (const application of apps) {
    const journal = await interrupted(home, application);
    if (journal !== undefined)
      found.push({ application, phase: journal.phase, processes: journal.processes });
  }
  return found;
}

function cutOffText(restarts: readonly CutOffRestart[]): string {
  return restarts
    .map(
      ({ application, phase }) =>
        `restart:   ${application}: begun and not done (${phase}); if no restart runs now: recovery-line restart ${application}\n`,
    )
    .join("");
}

interface OnDisk {
  readonly home: string;
  readonly applications: readonly string[];
  readonly cutOffRestarts: readonly CutOffRestart[];
}

/** What is on disk stays readable without one; what only it knows is null. */
async function withoutCollector(onDisk: OnDisk, flags: StatusFlags): Promise<void> {
  const { home, applications, cutOffRestarts } = onDisk;
  process.exitCode = EXIT.other;
  if (flags.json) return writeJson({ collector: null, ...onDisk, processes: null });
  const place = flags.log === undefined ? "" : ` --log ${shellWord(home)}`;
  const logs = applications.length === 0 ? "no logs" : `logs of ${applications.join(", ")}`;
  await write(
    `no collector is running for ${printableSentence(home)} (${logs}); start one: recovery-line collect${place}\n${cutOffText(cutOffRestarts)}`,
  );
}

function foldersOf(home: string): string[] {
  try {
    const entries = readdirSync(home, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch {
    return [];
  }
}

async function statusOf(
  collector: CollectorClient,
  home: string,
  app: string | undefined,
): Promise<ProcessStatus[]> {
  if (app !== undefined) await open(collector, app);
  const lives = await livesOf(async () =>
    (await collector.processes()).filter((one) => app === undefined || one.app === app),
  );
  const known = lives.map(([one]) => one);
  if (app !== undefined && known.length === 0)
    throw new RecoveryLineError(
      "RL_UNKNOWN_APP",
      `the collector has recorded nothing of an application "${app}"`,
      "Its log, if there is one, is read by compute, export and verify.",
    );
  const { imageSizes } = await import("../images/image-store.ts");
  const sizes = await Promise.all(known.map((one) => imageSizes(home, one.app, one.process)));
  const images = new Map(known.map((one, at) => [one, sizes[at]!]));
  const { ProcessCgroup } = await import("../host/cgroups.ts");
  const key = (one: ProcessInfo): string => `${one.app}\0${one.process}`;
  lives.sort(([a], [b]) => (key(a) < key(b) ? -1 : 1));
  return lives.map(([one, life]) => {
    const {
      app: application,
      process,
      cgroupId: _,
      live,
      rings,
      failed,
      task,
      end,
      left,
      data,
      ...rest
    } = one;
    const here = life.state === "running" || life.state === "frozen";
    const pids = here ? new ProcessCgroup(application, process).pids() : [];
    const stored = { data: data?.roots ?? [], images: images.get(one) ?? [] };
    return { application, process, ...life, pids, ...rest, ...stored };
  });
}

/** A collector that began after all of it had ended has not looked into its log yet. */
async function open(collector: CollectorClient, app: string): Promise<void> {
  try {
    await collector.log(app);
  } catch (error) {
    if (!hasCode(error, "RL_UNKNOWN_APP") && !hasCode(error, "RL_LOG_WRITE")) throw error; // told below
  }
}

function summary(stats: CollectorStats) {
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const {
    ringBytes,
    ringFillBytes,
    lagMs,
    commits,
    gaps,
    lostDeclared,
    logErrors,
    brokenApps,
    unreadableLogs,
  } = stats;
  const [events, bytes, lost] = [sum(stats.events), sum(stats.bytes), sum(stats.lost)];
  return {
    events,
    bytes,
    lost,
    lostDeclared,
    gaps,
    ringBytes,
    ringFillBytes,
    lagMs,
    commits,
    logErrors,
    brokenApps,
    unreadableLogs,
  };
}

function headline(ping: Ping, stats: CollectorStats): string {
  const { events, bytes, gaps, ringBytes, ringFillBytes, lagMs } = summary(stats);
  const fill = ((100 * ringFillBytes) / ringBytes).toFixed(1);
  const lines = [
    `collector: process ${ping.pid}, version ${ping.version}, since ${ping.since}, ${printableSentence(ping.home)}`,
    `recorded:  ${counted(events, "event")}, ${(bytes / 1e6).toFixed(1)} MB, ${counted(gaps, "gap")}; lag ${lagMs.toFixed(1)} ms`,
    `ring:      ${fill} % of ${ringBytes / 1024 / 1024} MiB`,
    ...stats.brokenApps.map(({ app, message }) => `broken:    ${app}: ${printableSentence(message)}`),
    ...stats.unreadableLogs.map(({ app, message }) => `unreadable: ${app}: ${printableSentence(message)}`),
  ];
  return `${lines.join("\n")}\n`;
}

function processTable(processes: readonly ProcessStatus[]): string {
  if (processes.length === 0) return "no processes\n";
  const rows = processes.map((one) => [
    printable(one.application),
    printable(one.process),
    lifeText(one),
    String(one.incarnation),
    String(one.lines),
    one.checkpoints === 0 ? "0" : `${one.checkpoints} (newest ${one.newestCheckpoint})`,
    one.uncaptured.join(", ") || "-",
  ]);
  const head = ["application", "process", "state", "incarnation", "events", "checkpoints", "not captured"];
  const why = notCapturedText(processes.map(({ application, ...rest }) => ({ app: application, ...rest })));
  const away = processes.filter(({ left }) => left.length > 0);
  const notes = away.map(
    (one) =>
      `${printable(one.process)} of ${printable(one.application)} has left its cgroup, and nothing it does elsewhere is recorded: ${whereText(one)}\n`,
  );
  const held = processes.flatMap(({ process, hold }) => heldText(process, hold));
  return `\n${table(head, rows)}${notes.join("")}${held.join("")}${why === "" ? "" : `\n${why}`}${dataTable(processes)}`;
}

function heldText(process: string, hold: HoldInfo | undefined): string[] {
  if (hold?.waits === undefined) return [];
  const { connections, bytes, sinceMs, why } = hold.waits;
  const late = sinceMs > hold.limitMs ? ", longer than its limit" : "";
  const reason = why === undefined ? "" : `: ${printableSentence(why)}`;
  return [
    `output of ${printable(process)} waits: ${counted(bytes, "byte")} on ${counted(connections, "connection")}, for ${(sinceMs / 1000).toFixed(1)} s${late}${reason}\n`,
  ];
}

/** Checkpoints of processes with data: what each holds. */
function dataTable(processes: readonly ProcessStatus[]): string {
  const rows = processes
    .filter(({ data }) => data.length > 0)
    .flatMap(({ application, process, data, images }) =>
      images
        .slice(-MAX_IMAGES)
        .map(({ checkpoint, imageBytes, dataBytes }) => [
          printable(application),
          printable(process),
          String(checkpoint),
          `${(imageBytes / 1e6).toFixed(1)} MB`,
          `${(dataBytes / 1e6).toFixed(1)} MB`,
          data.map(printable).join(", "),
        ]),
    );
  const head = ["application", "process", "checkpoint", "image", "data", "folders"];
  return rows.length === 0 ? "" : `\n${table(head, rows)}`;
}
