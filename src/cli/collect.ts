/** `recovery-line collect`: the collector of one home, in the foreground, until SIGTERM or SIGINT. */
import { statSync } from "node:fs";
import { hostname } from "node:os";
import { type Command, Option } from "commander";
import type { OnFull } from "../collect/collect-options.ts";
import type { Retention } from "../daemon/keep-watch.ts";
import { nodeList } from "../logs/app-nodes.ts";
import { resolveHome } from "../logs/home.ts";
import type { NodeNames } from "../model/collector-answers.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { COLLECT_NICE, COMMIT_INTERVAL_MS, MAX_SHADOW_S, PAYLOAD_LIMIT_MIB } from "../model/limits.ts";
import { printableSentence } from "../model/printable.ts";
import type { InTransitPolicy } from "../model/recovery-line.ts";
import { outliveReaders } from "../terminal/outlive-readers.ts";
import { write } from "../terminal/print.ts";
import { MAIN } from "../terminal/run-command.ts";
import { repeated } from "./failed-names.ts";
import { keepBytes, keepHours, keepOf } from "./gc.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { integerOption } from "./numbers.ts";
import { packageVersion } from "./version.ts";

const DEFAULT_PIN_DIR = "/sys/fs/bpf/recovery-line";
const DEFAULT_RING_MIB = 16;
const MAX_RING_MIB = 2048;
const MAX_COMMIT_INTERVAL_MS = 10_000;
const MAX_PAYLOAD_LIMIT_MIB = 1024 * 1024 * 1024;

interface CollectFlags {
  readonly log?: string;
  readonly pinDir: string;
  readonly ringMib: number;
  readonly commitInterval: number;
  readonly metricsPort?: number;
  readonly payloadLimit: number;
  readonly dsm?: "userfaultfd";
  readonly unpin?: boolean;
  readonly user?: string;
  readonly capture?: string;
  readonly onFull: OnFull;
  readonly keepBytes?: number;
  readonly keepHours?: number;
  readonly keepInTransit?: InTransitPolicy;
  readonly node?: string;
  readonly nodes?: readonly string[];
  readonly leaving?: number;
  readonly nice?: number;
}

const HELP = `
The capture programs stay pinned and go on recording into the kernel's ring while no collector runs; the next one
takes up where the last one ended. What finds no room in the ring is recorded later, from the positions that the kernel keeps.
--unpin takes the programs out of the kernel.

A log that can't be written (no space, an I/O error) is tried again and again, and its records wait in the ring. --on-full says what
happens when they fill three quarters of it:
  taint  a log that is broken alone is given up, so that the others go on; what it misses is counted, and is a gap in it later
  stop   all recorded processes are held still (by the cgroup freezer) until half of the ring is free: nothing is lost, they wait
  halt   the collector ends with RL_LOG_WRITE, also after 30 s without success; the ring still holds everything
--keep-bytes and --keep-hours say how much of a log to keep: this collector removes whole segments (64 MiB) beyond that size, or sealed
longer ago, by \`gc --apply\`, as far as no future line needs them. No clock decides what is safe. Where
lines need more (a process that does not checkpoint, a message log, bytes sent to somebody who is not recorded: see
--keep-in-transit any), the log stays, a message here says why, and recovery_line_keep_unmet_logs counts it.

Whatever is acknowledged stays, and what was produced is either in the log or declared lost in it.
Runtimes with memory rings (native/dsm) hand them over at <log directory>/rings.sock: same logs, same metrics. They stop when this command
does, and what was in their rings by then is lost; their entities then count as failed.
--dsm userfaultfd is for distributed shared memory that was not made for this tool; it ends with this collector, and
\`recovery-line doctor --dsm\` measures what it costs. What it sees and what not: docs/userfaultfd.md.

--user, started by root: the collector runs as that user and can do nothing that user can't. A small helper beside it holds the two rights
it takes to capture, CAP_BPF and CAP_PERFMON, and does nothing but hand over the ring, select what \`run\` registered, and read cuts and
counters. If either dies the kernel goes on recording and the other ends. The log directory becomes the user's if it is new or empty. Not
with --user: --on-full stop, run --payload, run --hold-output, and by root there checkpoint, restart, data, import and gc --apply: they take
root's rights, or would make root act on what the user wrote.

Examples:
  recovery-line collect --user recovery-line
  recovery-line collect --log /var/lib/recovery-line --metrics-port 9464`;

export function register(program: Command): void {
  const command = program
    .command("collect")
    .summary("record registered processes until stopped (foreground)")
    .description(
      "Loads the capture into the kernel and appends what it records to the logs of the applications.",
    )
    .option("--log <dir>", `log directory; one that is there must be your own and mode 0700 ${LOG_DEFAULT}`);
  captureOptions(command);
  serviceOptions(command);
  logOptions(command);
  nodeOptions(command);
  command
    .option("--unpin", "take the capture out of the kernel, and end")
    .addHelpText("after", HELP)
    .action(collect);
}

function captureOptions(command: Command): void {
  command
    .option("--pin-dir <dir>", "directory of the pinned capture on a BPF file system", DEFAULT_PIN_DIR)
    .option(
      "--ring-mib <n>",
      "size of the kernel ring, a power of two; counts when it is created",
      ringSize,
      DEFAULT_RING_MIB,
    )
    .option(
      "--capture <variants>",
      "force parts of the capture, progress=exit,sockets=tables,… (`doctor` lists them; default: $RECOVERY_LINE_CAPTURE, else the best that runs here)",
    )
    .addOption(
      new Option(
        "--dsm <kind>",
        "record page faults that processes handle by userfaultfd, too (slows every system call of this machine)",
      ).choices(["userfaultfd"]),
    );
}

function serviceOptions(command: Command): void {
  command
    .option(
      "--metrics-port <n>",
      "serve Prometheus metrics on 127.0.0.1, too (0: any port)",
      (text: string) => integerOption("--metrics-port", text, 0, 65_535),
    )
    .option(
      "--user <name>",
      "as root: run as this user, without any right; a helper keeps the two it takes to capture",
    )
    .option(
      "--nice <n>",
      "priority of the thread that takes the records, -20 … 0 (default: -10 where it may): without one it falls behind where those who make them take all processors. Nobody else has it",
      niceness,
    )
    .option(
      "--leaving <seconds>",
      "when it is told to end, policies hear `leaving` first, and have so many seconds",
      (text: string) => integerOption("--leaving", text, 0, MAX_SHADOW_S),
    );
}

/** How the logs are written, and how much of them is kept. */
function logOptions(command: Command): void {
  command
    .option(
      "--commit-interval <ms>",
      "longest time from a record to its commit on disk",
      (text: string) => integerOption("--commit-interval", text, 1, MAX_COMMIT_INTERVAL_MS),
      COMMIT_INTERVAL_MS,
    )
    .addOption(
      new Option(
        "--on-full <policy>",
        "where a log can't be written and the ring fills up: go on and declare the loss, hold the processes still, or end",
      )
        .choices(["taint", "stop", "halt"])
        .default("taint"),
    )
    .option(
      "--payload-limit <mib>",
      "room for the payloads of one application (run --payload); beyond it the oldest are dropped",
      (text: string) => integerOption("--payload-limit", text, 1, MAX_PAYLOAD_LIMIT_MIB),
      PAYLOAD_LIMIT_MIB,
    )
    .option(
      "--keep-bytes <n>",
      "keep about so many bytes of each log, as far as no line needs more",
      keepBytes,
    )
    .option(
      "--keep-hours <n>",
      "keep segments of the log for so many hours, as far as no line needs them longer",
      keepHours,
    )
    .addOption(
      new Option(
        "--keep-in-transit <rule>",
        "keep what lines by this rule of compute need (default: by either)",
      ).choices(["any", "logged"]),
    );
}

function nodeOptions(command: Command): void {
  command
    .option("--node <name>", "name of this node, kept in the logs (default with --nodes: the host's name)")
    .option("--nodes <names>", "all nodes that the applications run on, A,B; kept in the logs", repeated);
}

function ringSize(text: string): number {
  const mib = integerOption("--ring-mib", text, 1, MAX_RING_MIB);
  if ((mib & (mib - 1)) === 0) return mib;
  throw new RecoveryLineError("RL_USAGE", `--ring-mib ${text}: the size of a ring is a power of two`);
}

function niceness(text: string): number {
  const nice = Number(text);
  if (/^-?\d+$/.test(text) && nice >= -20 && nice <= 0) return nice;
  throw new RecoveryLineError("RL_USAGE", `--nice ${text}: it is a number from -20 to 0`);
}

/** Without the right to it (CAP_SYS_NICE) it has the priority that it was started with, and says so where one was asked for. */
async function takePriority(asked: number | undefined): Promise<void> {
  const nice = asked ?? COLLECT_NICE;
  if (nice === 0) return;
  const { native } = await import("../native/binding.ts");
  try {
    native().setOwnNice(nice);
  } catch (error) {
    if (error instanceof TypeError) throw error;
    if (asked !== undefined)
      await write(
        `recovery-line: --nice ${asked} is not to be had (${(error as Error).message}): it takes CAP_SYS_NICE\n`,
        process.stderr,
      );
  }
}

async function collect(flags: CollectFlags): Promise<void> {
  if (flags.unpin) return unpin(flags.pinDir);
  await refuseWrongUse(flags);
  await takePriority(flags.nice);
  const { home, helper } = await placeOf(flags);
  const { becomeSmall } = await import("../host/small-heap.ts");
  becomeSmall();
  outliveReaders(); // recording does not end because nobody reads a warning
  const { startDaemon } = await import("../daemon/daemon.ts");
  const { notifyManager } = await import("../host/notify.ts");
  const stop = stopRequest();
  const daemon = await startDaemon({
    home,
    pinDir: flags.pinDir,
    ringBytes: flags.ringMib * 1024 * 1024,
    commitIntervalMs: flags.commitInterval,
    onFull: flags.onFull,
    ...nodeOf(flags),
    payloadLimitMib: flags.payloadLimit,
    ...retentionOf(flags, home),
    version: packageVersion(),
    program: [process.execPath, MAIN],
    ...(flags.leaving === undefined ? {} : { leavingSeconds: flags.leaving }),
    userfaults: flags.dsm !== undefined,
    ...(flags.capture === undefined ? {} : { variant: flags.capture }),
    ...(helper === undefined ? {} : { helper }),
    ...(flags.metricsPort === undefined ? {} : { metricsPort: flags.metricsPort }),
    onFatal: stop.fail,
    onTrouble: (sentence) => process.stderr.write(`recovery-line: ${printableSentence(sentence)}\n`),
  });
  try {
    await write(readyLine(home, flags.user, daemon));
    await notifyManager("READY=1");
    await stop.requested;
    await notifyManager("STOPPING=1");
  } finally {
    await daemon.close();
  }
}

/** All that can be wrong with the words alone, before anything is made. Throws RL_USAGE. */
async function refuseWrongUse(flags: CollectFlags): Promise<void> {
  retentionOf(flags, resolveHome(flags.log));
  const { requirePinPlace } = await import("../host/bpffs.ts");
  requirePinPlace(flags.pinDir);
  const { captureVariant } = await import("../capture/kernel-source.ts");
  captureVariant(flags.capture);
}

/** With the names of all nodes in its logs, whoever computes from them is told which log is missing. */
function nodeOf({ node, nodes }: CollectFlags): { readonly node?: NodeNames } {
  if (node === undefined && nodes === undefined) return {};
  const name = node ?? hostname();
  return { node: { name, all: [...new Set([name, ...nodeList(nodes ?? [])])].sort() } };
}

/** What is wanted of retention, and how it is done: by `gc --apply`. Throws RL_USAGE for what can't be done on one node alone. */
function retentionOf(flags: CollectFlags, home: string): { readonly retention?: Retention } {
  const keep = keepOf(flags);
  if (keep === undefined && flags.keepInTransit !== undefined)
    throw new RecoveryLineError("RL_USAGE", "--keep-in-transit needs --keep-bytes or --keep-hours");
  if (keep === undefined) return {};
  if ((flags.nodes?.length ?? 0) > 0)
    throw new RecoveryLineError(
      "RL_USAGE",
      "how much of this node's log recovery lines need can be told only from the logs of all --nodes together",
      "Leave --keep-bytes and --keep-hours out, and run `gc --apply --keep-bytes` with a --log for each node.",
    );
  const rest = ["--log", home, "--apply", "--json"];
  if (keep.bytes !== undefined) rest.push("--keep-bytes", String(keep.bytes));
  if (keep.hours !== undefined) rest.push("--keep-hours", String(keep.hours));
  if (flags.keepInTransit !== undefined) rest.push("--in-transit", flags.keepInTransit);
  return { retention: { keep, command: (app) => [process.execPath, MAIN, "gc", app, ...rest] } };
}

/** With --user the first call of two ends in there: this process becomes another one, which calls it again. */
async function placeOf(flags: CollectFlags): Promise<{ readonly home: string; readonly helper?: number }> {
  const home = resolveHome(flags.log);
  const { user, pinDir } = flags;
  if (user === undefined) return { home };
  if (flags.onFull === "stop")
    throw new RecoveryLineError(
      "RL_USAGE",
      "--on-full stop freezes processes through their cgroups, and --user gives the right to do so away",
      "Take --on-full taint or halt, or leave --user out.",
    );
  const { attach, attached } = await import("../daemon/attach.ts");
  const place = attached();
  if (place !== undefined) return place;
  const { requireFreePort } = await import("../daemon/metrics-port.ts");
  await requireFreePort(flags.metricsPort); // the helper pins before it calls us again
  const ringBytes = flags.ringMib * 1024 * 1024;
  const { captureVariant } = await import("../capture/kernel-source.ts");
  const variant = captureVariant(flags.capture);
  return attach({ user, home, pinDir, ringBytes, userfaults: flags.dsm !== undefined, variant });
}

function readyLine(
  home: string,
  user: string | undefined,
  daemon: { readonly ringBytes: number; readonly metricsPort: number | undefined },
): string {
  const who = `process ${process.pid}${user === undefined ? "" : ` as ${user} without rights`}`;
  const ring = `ring ${daemon.ringBytes / 1024 / 1024} MiB`;
  const { metricsPort } = daemon;
  const metrics = metricsPort === undefined ? "" : `, metrics http://127.0.0.1:${metricsPort}/metrics`;
  return `recovery-line: collecting into ${printableSentence(home)} (${printableSentence(who)}, ${ring}${metrics})\n`;
}

/** Resolves at the first SIGTERM or SIGINT, rejects where collection fails. Further signals change nothing: it is stopping. */
function stopRequest(): { requested: Promise<void>; fail: (error: unknown) => void } {
  let fail: (error: unknown) => void = () => undefined;
  const requested = new Promise<void>((resolve, reject) => {
    fail = reject;
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => resolve());
  });
  requested.catch(() => undefined); // it may fail before anybody waits
  return { requested, fail };
}

async function unpin(pinDir: string): Promise<void> {
  const { isOnBpffs } = await import("../host/bpffs.ts");
  if (!isOnBpffs(pinDir) || isGone(pinDir)) {
    await write(`recovery-line: there was nothing: no capture is pinned in ${printableSentence(pinDir)}\n`);
    return;
  }
  const { KernelSource } = await import("../capture/kernel-source.ts");
  KernelSource.unpin(pinDir);
  await write(`recovery-line: nothing is captured through ${printableSentence(pinDir)} any more\n`);
}

/** False also where nobody may look. */
function isGone(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}
