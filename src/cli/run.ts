/** `recovery-line run`: starts a command as a recorded process of an application. */
import type { ChildProcess } from "node:child_process";
import { closeSync, fstatSync, openSync, realpathSync } from "node:fs";
import { constants } from "node:os";
import { resolve } from "node:path";
import type { Command } from "commander";
import type { CollectorClient } from "../client/client.ts";
import type { ProcessStart, StartedProcess } from "../client/start-process.ts";
import type { RankJob } from "../client/start-ranks.ts";
import { PeerRules } from "../collect/peer-rules.ts";
import { VOUCHABLE_REASONS } from "../format/ring-layout.ts";
import { appDirectory, checkCgroupNames, checkedAppName, resolveHome } from "../logs/home.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { HOLD_LIMIT_MS, MAX_HOLD_LIMIT_MS } from "../model/limits.ts";
import type { ProcessData, ProcessEnd, StartRecipe, StoredPeerRules } from "../model/stored-process.ts";
import { type UnseenChannel, VOUCHABLE_UNSEEN } from "../model/unseen-channel.ts";
import { write } from "../terminal/print.ts";
import { type DataFlags, dataLimit } from "./data-options.ts";
import { repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";

interface RunFlags extends DataFlags {
  readonly log?: string;
  readonly trust?: readonly string[];
  readonly outside?: readonly string[];
  readonly inside?: readonly string[];
  readonly fresh?: boolean;
  readonly payload?: boolean;
  readonly group?: string;
  readonly ranks?: boolean;
  readonly detach?: boolean;
  readonly output?: string;
  readonly allowIoUring?: boolean;
  readonly ownIpc?: boolean;
  readonly criuOptions?: readonly string[];
  readonly ready?: string;
  readonly holdOutput?: boolean;
  readonly holdLimit?: string;
}

/** Passed on to the command; from a terminal it gets the first two by itself. */
const FORWARDED = ["SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
const FROM_TERMINAL = 2;

const HELP = `
Everything that the command and its children send and receive over TCP and unix sockets is recorded, from its first
instruction on. The exit status is the command's own; 128 + n if signal n ended it. A collector must be running.
--trust names communication that can't be recorded and that you vouch for (udp, mptcp, ktls, unix-dgram,
old-connection, other-socket, unix-oob, shared-file): without it the process counts as having gaps there.

Programs on this host that are not recorded are outside: what they send and get makes no dependency, nor do datagrams
(names, time, the system log). --outside and --inside say of addresses, as the command sees them, who is there, for connections
made from now on. They are kept with the application; the narrowest counts, and of equal ones the last. Each takes several, and is
repeatable. An address and port where one of the other side listens is refused; what is found later, status says.

--data names directory trees that are part of the process's state: they are saved now and with every checkpoint, and a restart puts
them back exactly. Nobody else may write there. More than --data-limit bytes to copy while it stands still: no checkpoint.

io_uring_setup answers ENOSYS in the command and its children (by seccomp, where root starts it), as in most containers: no image holds
a ring, and programs fall back by themselves. --allow-io-uring lets them use it. System V segments (ipcs) are in an image only if
they are the process's own: --own-ipc, which also gives it a /dev/shm of its own, all of it in its images. Removed files that are
still open are in images up to 1 MiB: --criu-options ghost-limit=64M raises that.

A restart that starts it from its command waits until --ready is true before it lets those go that connect to it: something in it
listens on a TCP port, a file has been made anew, or a shell command ends with 0.

--hold-output (output commit): what it sends to outside over TCP waits in the kernel until checkpoints cover it, whoever fails. The collector
takes them then, of it and of all that it depends on. So a client never sees what a restart undoes. What waits longer than --hold-limit
stays, and the collector and status report it with the reason. Nothing else is held: --detach is needed, and --output only into a folder
of --data. Datagrams, and sockets that it gets from others, go out, and are reported.

--ranks: the command is an mpirun of Open MPI on this machine, and each rank becomes a process of its own, NAME-rank-N; mpirun is NAME. Ranks
read nothing, and write to FILE.rank-N of --output FILE. With --mca btl self,tcp what they send each other is seen by channel; otherwise they
share memory, a verdict for both. Lines and cuts are those of ranks, but none comes back alone: restart refuses, and says why. For a job
that is to come back leave --ranks out: it is one process then.

Examples:
  recovery-line run heat job --ranks --detach --output heat.out -- mpirun --mca btl self,tcp -np 4 heat
  recovery-line run shop db --data /var/lib/shop -- redis-server --port 7001
  recovery-line run shop web --detach --output web.log -- node web.js`;

export function register(program: Command): void {
  program
    .command("run")
    .summary("start a command as a recorded process of an application")
    .description("Starts a command in a cgroup of its own and has the collector record it.")
    .argument("<app>", "application")
    .argument("<process>", "name of the process in it")
    .argument("<command...>", "-- and the command with its arguments")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option("--trust <reasons>", "unrecorded communication that is harmless, separated by commas", trusted)
    .option("--outside <cidr...>", "CIDR[:PORT]: who is there is not of the application and never goes back")
    .option("--inside <cidr...>", "CIDR[:PORT]: who is there is of the application")
    .option("--fresh", "the process has a history: undo it and start from the initial state")
    .option(
      "--payload",
      "keep all that processes of the application send over TCP, for restarts (readable by root)",
    )
    .option("--data <dir>", "a folder that is part of the process's state; repeatable", repeated)
    .option(
      "--data-limit <bytes>",
      "most bytes of it to copy while the process stands still (default: 1 GiB)",
      dataLimit,
    )
    .option(
      "--allow-io-uring",
      "io_uring_setup works in the command: no image can be taken while it has a ring",
    )
    .option(
      "--own-ipc",
      "System V segments, semaphores, queues and a /dev/shm of its own, as images need them (PostgreSQL)",
    )
    .option("--ready <rule>", "port:PORT, file:PATH or exec:COMMAND: when it can take connections")
    .option(
      "--criu-options <list>",
      "for its images and restores: ghost-limit=SIZE, the longest removed file in them",
      (text: string) => text.split(/[\s,]+/).filter((word) => word !== ""),
    )
    .option("--hold-output", "what it sends to outside over TCP waits until no failure can undo it any more")
    .option("--hold-limit <duration>", "with --hold-output: what waits longer is reported (default: 30s)")
    .option("--group <name>", "group of processes that belong together, for HA policies")
    .option("--ranks", "the command is Open MPI's mpirun: each rank is a process of its own, NAME-rank-N")
    .option("--detach", "start it, print its process id, and end")
    .option(
      "--output <file>",
      "append the command's output to a file (default: inherited; with --detach none)",
    )
    .addHelpText("after", HELP)
    .exitOverride((error) => {
      if (error.code === "commander.unknownOption")
        process.stderr.write(
          "Options of the command itself stand behind `--`: recovery-line run APP PROCESS -- COMMAND …\n",
        );
      throw error;
    })
    .action(run);
}

export function trusted(text: string): string[] {
  const reasons = text.split(",").filter((reason) => reason !== "");
  const known = [...VOUCHABLE_REASONS, ...VOUCHABLE_UNSEEN];
  const strange = reasons.find((reason) => !known.includes(reason));
  if (strange === undefined) return reasons;
  throw new RecoveryLineError(
    "RL_USAGE",
    `--trust "${strange}": no such kind of communication`,
    `It is one or more of ${known.join(", ")}, separated by commas.`,
  );
}

/** Throws RL_USAGE for what is no CIDR[:PORT] or contradicts itself. */
export function rulesOf({
  outside = [],
  inside = [],
}: Pick<RunFlags, "outside" | "inside">): StoredPeerRules | undefined {
  if (outside.length + inside.length === 0) return undefined;
  return new PeerRules({ outside, inside }).stored();
}

/** 0: nothing is held. Throws RL_USAGE. */
async function holdLimitOf({ holdOutput, holdLimit }: RunFlags): Promise<number> {
  if (holdLimit !== undefined && holdOutput !== true)
    throw new RecoveryLineError("RL_USAGE", "--hold-limit needs --hold-output");
  if (holdOutput !== true) return 0;
  if (holdLimit === undefined) return HOLD_LIMIT_MS;
  const { constantOf } = await import("../policy/settings.ts");
  const { typeOf } = await import("../policy/types.ts");
  const limitMs = 1000 * constantOf(holdLimit, typeOf("duration"), `--hold-limit ${holdLimit}`);
  if (limitMs >= 1 && limitMs <= MAX_HOLD_LIMIT_MS) return Math.ceil(limitMs);
  throw new RecoveryLineError(
    "RL_USAGE",
    `--hold-limit ${holdLimit} is not between 1 ms and ${MAX_HOLD_LIMIT_MS / 60_000} min`,
    "TCP itself gives a connection up after about 15 min.",
  );
}

/** What --hold-output can't keep from going out. Throws RL_REFUSED, and RL_NOT_SUPPORTED where there can be no checkpoint to wait for. */
async function refuseUnheld(flags: RunFlags, home: string): Promise<void> {
  if (flags.holdOutput !== true) return;
  const { isBelowAny } = await import("../images/data/tree-users.ts");
  const roots = (flags.data ?? []).map((folder) => resolve(folder));
  const goes = [
    ...(flags.detach === true ? [] : ["its standard output, input and errors are those of this command"]),
    ...(flags.output === undefined || isBelowAny(roots, resolve(flags.output))
      ? []
      : [`--output ${flags.output} lies in no folder of --data`]),
  ];
  if (goes.length > 0)
    throw new RecoveryLineError(
      "RL_REFUSED",
      `--hold-output holds what goes out over TCP, and ${goes.join("; ")}`,
      "Give --detach, and --output only into a folder that goes back with the process (--data).",
    );
  const { chooseDriver } = await import("../checkpoint/driver-choice.ts");
  const { fallback } = await chooseDriver("auto", home);
  if (fallback === undefined) return;
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `--hold-output: no checkpoint that brings the process back can be taken here: ${fallback}`,
    "Programs that bring their own state back commit their output themselves: docs/sdk.md.",
  );
}

async function run(
  app: string,
  processName: string,
  command: [string, ...string[]],
  flags: RunFlags,
): Promise<void> {
  const { ranks, ...wanted } = await checked(app, processName, flags);
  const { requireCollector } = await import("../client/client.ts");
  const place = { home: resolveHome(flags.log), app, process: processName };
  const collector = await requireCollector(place.home);
  if (wanted.rules !== undefined) {
    const { refuseContradicted } = await import("./rule-evidence.ts");
    await refuseContradicted(collector, app, wanted.rules);
  }
  await endOldRestart(collector, place, flags);
  const data = await startData(collector, place, flags);
  const output = flags.output === undefined ? undefined : openOutput(flags.output);
  const terminal = process.stdin.isTTY === true && !flags.detach;
  if (!flags.detach) await tellTerminal(terminal, output);
  const recipe = recipeOf(command, flags, output, ranks?.job);
  const forwarding = flags.detach ? undefined : new Forwarding(terminal ? FROM_TERMINAL : 0);
  const start = { app, process: processName, command, ...wanted, ...startOf(flags, output), recipe, data };
  const { startProcess } = await import("../client/start-process.ts");
  const started = await startedWith(data, place, () =>
    startProcess(collector, { ...start, detached: !terminal }),
  );
  if (output !== undefined) closeSync(output);
  await tellUnseen(app, processName, started.unseen, flags.trust);
  const ready = ranks?.take(collector, recipe);
  ready?.catch(() => undefined); // mpirun ends the job then; told below
  if (forwarding === undefined) await leave(started, ready);
  else await waitedFor(started, forwarding, collector, place, ready);
  collector.close();
}

interface Wanted {
  readonly rules?: StoredPeerRules;
  /** 0: nothing is held. */
  readonly holdLimitMs: number;
  readonly ranks?: RankStarts;
}

/** All that can be wrong with the words alone, before anything is asked or touched. */
async function checked(app: string, processName: string, flags: RunFlags): Promise<Wanted> {
  checkCgroupNames(app, processName);
  if (flags.group !== undefined) checkedAppName(flags.group, "group");
  const rules = rulesOf(flags);
  const holdLimitMs = await holdLimitOf(flags);
  const { criuOptions } = await import("../images/criu/criu-options.ts");
  criuOptions(flags.criuOptions ?? []);
  if (flags.ready !== undefined) (await import("../host/readiness.ts")).readyRule(flags.ready);
  await refuseUnheld(flags, resolveHome(flags.log));
  const ranks = flags.ranks ? await rankStarts(app, processName, flags, rules) : undefined;
  return {
    holdLimitMs,
    ...(rules === undefined ? {} : { rules }),
    ...(ranks === undefined ? {} : { ranks }),
  };
}

/** How the process is started and registered, as far as the options say it. */
function startOf(
  flags: RunFlags,
  output: number | undefined,
): Pick<ProcessStart, "trust" | "payload" | "group" | "mode" | "begun" | "stdio" | "unwatched"> {
  const unless = flags.detach ? "ignore" : "inherit";
  const written = output ?? unless;
  return {
    ...registrationOf(flags),
    ...(flags.detach ? {} : { begun: () => leaveStreams(output === undefined) }),
    stdio: [unless, written, written],
    unwatched: flags.detach === true,
  };
}

/** What is registered of a process, and of each rank of its job. */
function registrationOf(flags: RunFlags): Pick<RankJob, "trust" | "payload" | "group" | "mode"> {
  return {
    trust: flags.trust ?? [],
    payload: flags.payload === true,
    mode: flags.fresh ? "fresh" : "first",
    ...(flags.group === undefined ? {} : { group: flags.group }),
  };
}

async function leave({ child, task }: StartedProcess, ready: Promise<void> | undefined): Promise<void> {
  await ready;
  child.unref();
  await write(`${task.pid}\n`);
}

async function waitedFor(
  { child, task, cgroup }: StartedProcess,
  forwarding: Forwarding,
  collector: CollectorClient,
  { app, process: name }: Place,
  ready: Promise<void> | undefined,
): Promise<void> {
  const { leaveEnd } = await import("../host/process-end.ts");
  const { removeEnded } = await import("../host/freeze.ts");
  const end = await forwarding.untilEnd(child);
  leaveEnd(task, end);
  process.exitCode = "code" in end ? end.code : 128 + end.signal;
  await collector.ended(app, name, process.exitCode).catch(() => undefined); // it may have ended meanwhile
  removeEnded(cgroup); // unless children of the command go on in it, or a restart has it in hand
  await ready;
}

interface RankStarts {
  /** Of the job's processes, and what mpirun has in its environment. */
  readonly job: { readonly mpiJob: string; readonly env: Readonly<Record<string, string>> };
  take(collector: CollectorClient, recipe: StartRecipe): Promise<void>;
}

/** Throws RL_USAGE for options that ranks can't have, RL_LOCKED where old ones run still. */
async function rankStarts(
  app: string,
  name: string,
  flags: RunFlags,
  rules: StoredPeerRules | undefined,
): Promise<RankStarts> {
  const { rankEnvironment, removeOldRanks, takeRanks } = await import("../client/start-ranks.ts");
  if (flags.holdOutput || (flags.data ?? []).length > 0)
    throw new RecoveryLineError(
      "RL_USAGE",
      "--ranks goes with neither --data nor --hold-output: no checkpoint brings single ranks back",
      "Leave --ranks out: then the whole job is one process.",
    );
  checkedAppName(`${name}-rank-999999`, "process");
  const output = flags.output === undefined ? undefined : resolve(flags.output);
  const env = rankEnvironment(app, name, output, flags);
  removeOldRanks(app, name);
  return {
    job: { mpiJob: name, env },
    async take(collector, recipe) {
      const ruled = rules === undefined ? {} : { rules };
      await takeRanks(collector, { app, process: name, recipe, ...ruled, ...registrationOf(flags) });
    },
  };
}

interface Place {
  readonly home: string;
  readonly app: string;
  readonly process: string;
}

/**
 * A restart that was begun and is not done would be taken up one day, and kill what runs under its names. `--fresh` gives it up. Throws
 * RL_LOCKED without, or where it is at work.
 */
async function endOldRestart(
  collector: CollectorClient,
  { home, app, process: name }: Place,
  { fresh }: RunFlags,
): Promise<void> {
  const { readJournal, restartFolder } = await import("../restart/restart-journal.ts");
  const journal = await readJournal(restartFolder(home, app));
  if (journal === undefined || !journal.processes.includes(name)) return;
  if (!fresh)
    throw new RecoveryLineError(
      "RL_LOCKED",
      `a restart of ${app} that brings ${name} back was begun and is not done`,
      `Call recovery-line restart ${app}, or give it up: restart ${app} --abandon, or run --fresh.`,
    );
  const { abandon } = await import("../restart/restart.ts");
  const { withPayloadLog } = await import("../payload/payload-log.ts");
  const what = await withPayloadLog(appDirectory(home, app), (payload) =>
    abandon({ home, app, log: collector, payload }, journal),
  );
  await write(
    `recovery-line: ${what === "resumed" ? "a restart that was cut off is ended" : "a restart that was begun and not done is given up; dead, and failed"}: ${journal.processes.join(", ")}\n`,
    process.stderr,
  );
}

/** Saves the trees as they are now. Throws RL_LOCKED where one is a mixture, also one that an earlier life of the process had. */
async function startData(
  collector: CollectorClient,
  { home, app, process }: Place,
  flags: RunFlags,
): Promise<ProcessData> {
  const { dataOf } = await import("./data-roots.ts");
  const { refuseUnfinished } = await import("../images/data/exchange-tree.ts");
  const { saveStart } = await import("../checkpoint/process-data.ts");
  const data = dataOf(process, flags, home);
  const before = await collector.data(app, process).catch((error: unknown) => {
    if (hasCode(error, "RL_UNKNOWN_APP") || hasCode(error, "RL_UNKNOWN_PROCESS")) return undefined;
    throw error;
  });
  for (const root of before?.roots ?? []) refuseUnfinished(root);
  return data.roots.length === 0 ? data : saveStart(home, app, process, data);
}

/** What was saved of lives before goes once this one has begun; of one that does not begin nothing stays. */
async function startedWith<T>(
  data: ProcessData,
  { home, app, process }: Place,
  start: () => Promise<T>,
): Promise<T> {
  const { removeOtherStarts, removeStart } = await import("../checkpoint/process-data.ts");
  try {
    const started = await start();
    removeOtherStarts(home, app, process, data);
    return started;
  } catch (error) {
    removeStart(home, app, process, data);
    throw error;
  }
}

/** Pipes of a pipeline are the command's from now on: whoever else holds an end keeps the other side from hearing that it has ended. */
function leaveStreams(outputToo: boolean): void {
  for (const descriptor of outputToo ? [0, 1] : [0]) {
    if (!fstatSync(descriptor).isFIFO()) continue;
    closeSync(descriptor);
    openSync("/dev/null", descriptor === 0 ? "r" : "w"); // the lowest that is free: the same one
  }
}

async function tellTerminal(input: boolean, output: number | undefined): Promise<void> {
  const { stdout, stderr } = process;
  const held = input || (output === undefined && (stdout.isTTY === true || stderr.isTTY === true));
  if (held)
    await write(
      "recovery-line: the command has this terminal open: its checkpoints can't be restored; with --detach they can\n",
      stderr,
    );
}

/** Known before its first instruction, as both ends of a pipe from the shell are: then it can still be started otherwise. */
async function tellUnseen(
  app: string,
  processName: string,
  unseen: readonly UnseenChannel[],
  trust: readonly string[] = [],
): Promise<void> {
  const told = unseen.filter(({ reason }) => !trust.includes(reason));
  if (told.length === 0) return;
  const { notCapturedText } = await import("./not-captured.ts");
  const uncaptured = [...new Set(told.flatMap(({ reason, tied }) => (tied ? [] : [reason])))];
  const text = notCapturedText([{ app, process: processName, uncaptured, unseen: told }]);
  await write(`recovery-line: ${text}`, process.stderr);
}

function openOutput(path: string): number {
  try {
    return openSync(path, "a");
  } catch (cause) {
    throw new RecoveryLineError("RL_USAGE", `--output ${path}: ${(cause as Error).message}`, "", cause);
  }
}

/** What `restart` needs to start it again from its initial state; without --output its output then goes nowhere. */
function recipeOf(
  command: readonly string[],
  { output: path, allowIoUring, ownIpc, criuOptions, ready }: RunFlags,
  output: number | undefined,
  job: RankStarts["job"] | undefined,
): StartRecipe {
  const own = Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
  const start = {
    command,
    cwd: process.cwd(),
    env: { ...own, ...job?.env },
    ...(job === undefined ? {} : { mpiJob: job.mpiJob }),
    ...(allowIoUring ? { allowIoUring } : {}),
    ...(ownIpc ? { ownIpc } : {}),
    ...(criuOptions === undefined ? {} : { criuOptions }),
    ...(ready === undefined ? {} : { ready }),
  };
  if (path === undefined || output === undefined) return start;
  const stat = fstatSync(output);
  if (!stat.isFile()) return start;
  return {
    ...start,
    output: { path: realpathSync(path), sizeBytes: stat.size, inode: stat.ino, device: stat.dev },
  };
}

/** Signals that arrive before the command is there are not lost: they are passed on once it is. */
class Forwarding {
  #child: ChildProcess | undefined;
  readonly #waiting: NodeJS.Signals[] = [];

  constructor(skipped: number) {
    FORWARDED.forEach((signal, index) => {
      process.on(signal, () => {
        if (index < skipped) return; // the terminal has sent it to the command, too
        if (this.#child === undefined) this.#waiting.push(signal);
        else this.#child.kill(signal);
      });
    });
  }

  async untilEnd(child: ChildProcess): Promise<ProcessEnd> {
    this.#child = child;
    for (const signal of this.#waiting) child.kill(signal);
    if (child.exitCode === null && child.signalCode === null)
      await new Promise((resolve) => child.once("exit", resolve));
    if (child.signalCode !== null) return { signal: constants.signals[child.signalCode] };
    return { code: child.exitCode ?? 1 };
  }
}
