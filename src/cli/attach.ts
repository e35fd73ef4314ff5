/** `recovery-line attach` and `detach`: what runs already is recorded as a process of an application, or no longer. */
import type { Command } from "commander";
import type { ProcessAttachment } from "../client/attach-process.ts";
import type { CollectorClient } from "../client/client.ts";
import { answerOf } from "../host/answer-of.ts";
import { checkCgroupNames, checkedAppName, resolveHome } from "../logs/home.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { printableSentence, shellWord } from "../model/printable.ts";
import { write, writeJson } from "../terminal/print.ts";
import { checkpoint } from "./checkpoint.ts";
import { type DataFlags, dataLimit } from "./data-options.ts";
import { repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { integerOption } from "./numbers.ts";
import { rulesOf, trusted } from "./run.ts";

interface AttachFlags extends DataFlags {
  readonly log?: string;
  readonly pid?: number;
  readonly cgroup?: string;
  readonly container?: string;
  readonly pod?: string;
  readonly unit?: string;
  readonly follow?: boolean;
  readonly trust?: readonly string[];
  readonly outside?: readonly string[];
  readonly inside?: readonly string[];
  readonly group?: string;
  readonly checkpoint: boolean;
  readonly json?: boolean;
}

const MAX_PID = 2 ** 22;
const INSPECT_LIMIT_MS = 10_000;

const HELP = `
--pid moves the process and all its descendants into a cgroup of ours. --cgroup, --container, --pod and --unit record what runs in the
cgroup that is there, and in those below it. The process stands still for a moment. Connections that are open already are followed
from then on.

An attached process has no initial state: until its first checkpoint, a line that needs one is refused (exit code 4). So
attaching ends with a coordinated checkpoint of all running processes of the application, unless --no-checkpoint.
With --follow the collector looks for a container of that name when this one has ended: one that was made anew, or started again, is the
next life of the same process. What its predecessor did stays done, and the new life begins with a checkpoint.

--data names folders of this machine that go back with it: its working files, or what a container mounts of them (bind mounts, volumes).

A container of podman or docker is checkpointed and restored by that engine, under its name, id and addresses; see checkpoint --help. A
pod as one process, or a unit, is its runtime's to bring back: cuts and lines are complete, but its checkpoints can't be restored from here.

Examples:
  recovery-line attach shop db --pid $(pidof redis-server)
  recovery-line attach shop web --container web
  recovery-line detach shop web`;

export function register(program: Command): void {
  program
    .command("attach")
    .summary("record what runs already as a process of an application")
    .description(
      "Records a running process tree, cgroup, container or systemd unit as a process of an application.",
    )
    .argument("<app>", "application")
    .argument("<process>", "name of the process in it")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option("--pid <pid>", "a process with all its descendants", (text: string) =>
      integerOption("--pid", text, 1, MAX_PID),
    )
    .option("--cgroup <path>", "all that runs in a cgroup of version 2")
    .option("--container <name>", "a running container of podman or docker")
    .option(
      "--follow",
      "with --container: one of that name that is made anew is the next life of the same process",
    )
    .option("--pod <name>", "all containers of a running pod of podman, as one process")
    .option("--unit <name>", "a running unit of systemd")
    .option("--trust <reasons>", "unrecorded communication that is harmless, separated by commas", trusted)
    .option("--outside <cidr...>", "CIDR[:PORT]: who is there is not of the application and never goes back")
    .option("--inside <cidr...>", "CIDR[:PORT]: who is there is of the application")
    .option("--group <name>", "group of processes that belong together, for HA policies")
    .option(
      "--data <dir>",
      "a folder of this machine that is part of its state, also what a container mounts; repeatable",
      repeated,
    )
    .option("--data-limit <bytes>", "most bytes to copy while it stands still (default: 1 GiB)", dataLimit)
    .option("--no-checkpoint", "take none now; later: recovery-line checkpoint APP --coordinated")
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP)
    .action(attach);
  program
    .command("detach")
    .summary("record a process no longer, and leave it running")
    .description("Ends the recording of a process that goes on untouched, in the cgroup that it came from.")
    .argument("<app>", "application")
    .argument("<process>", "its name")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .action(detach);
}

async function attach(app: string, name: string, flags: AttachFlags): Promise<void> {
  checkCgroupNames(app, name);
  if (flags.group !== undefined) checkedAppName(flags.group, "group");
  const what = oneOf(flags);
  if (flags.follow === true && flags.container === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      "--follow takes the name of a container: --container NAME --follow",
    );
  const rules = rulesOf(flags);
  const { requireCollector } = await import("../client/client.ts");
  const home = resolveHome(flags.log);
  const collector = await requireCollector(home);
  const wanted: ProcessAttachment = {
    app,
    process: name,
    trust: flags.trust ?? [],
    ...(rules === undefined ? {} : { rules }),
    ...(flags.group === undefined ? {} : { group: flags.group }),
    ...(flags.follow === true ? { follows: await followedName(home, app, flags.container!) } : {}),
    ...(await ownData(name, flags, home)),
  };
  const pids = await attached(collector, wanted, flags);
  collector.close();
  const { length } = pids;
  if (flags.json) await writeJson({ application: app, process: name, pids });
  else
    await write(
      `${name} of ${app} is recorded: ${length === 1 ? `process ${pids[0]}` : `${length} processes`}\n`,
    );
  if (flags.checkpoint) await firstCheckpoint(app, name, what, flags);
}

/** What it held before nobody has saved: a restart from the beginning there is none. Throws RL_USAGE, RL_REFUSED. */
async function ownData(
  process: string,
  flags: DataFlags,
  home: string,
): Promise<Pick<ProcessAttachment, "data">> {
  if (flags.data === undefined && flags.dataLimit === undefined) return {};
  const { dataOf } = await import("./data-roots.ts");
  const { refuseUnfinished } = await import("../images/data/exchange-tree.ts");
  const data = dataOf(process, flags, home);
  for (const root of data.roots) refuseUnfinished(root);
  return { data };
}

/** Throws RL_USAGE unless one thing is named. */
function oneOf({ pid, cgroup, container, pod, unit }: AttachFlags): "ours" | "container" | "unit" {
  const named = [pid, cgroup, container, pod, unit].filter((one) => one !== undefined);
  if (named.length !== 1)
    throw new RecoveryLineError(
      "RL_USAGE",
      `attach takes one of --pid, --cgroup, --container, --pod and --unit${named.length === 0 ? "" : `, not ${named.length}`}`,
    );
  if (container !== undefined) return "container";
  if (pod !== undefined) return "unit"; // its containers share namespaces, and no runtime takes an image of them together
  return unit === undefined ? "ours" : "unit";
}

async function attached(
  collector: CollectorClient,
  wanted: ProcessAttachment,
  { pid, cgroup, container, pod, unit }: AttachFlags,
): Promise<number[]> {
  const { attachCgroupAt, attachTree } = await import("../client/attach-process.ts");
  if (pid !== undefined) return attachTree(collector, wanted, pid);
  const { cgroupOf } = await import("../host/cgroups.ts");
  if (cgroup !== undefined) return attachCgroupAt(collector, wanted, cgroup);
  if (unit !== undefined) return attachCgroupAt(collector, wanted, unitCgroup(unit));
  if (pod !== undefined) return attachCgroupAt(collector, wanted, podCgroup(pod));
  const place = cgroupOf(containerPid(container!));
  if (place === undefined) throw notRunning(container!);
  return attachCgroupAt(collector, wanted, place);
}

/** A container has a name for good, an id once. Throws RL_USAGE, RL_NOT_SUPPORTED, and RL_LOCKED while a restart brings it back. */
async function followedName(home: string, app: string, container: string): Promise<string> {
  const { notWhileRestarting } = await import("./checkpoint-targets.ts");
  await notWhileRestarting(home, app);
  const { inspectContainers } = await import("../host/containers.ts");
  const name = inspectContainers("podman", [container])[0]?.name;
  if (name === container) return name;
  if (name !== undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      `--follow takes a container's name, and ${container} is named ${name}`,
    );
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `not supported here: podman knows no container ${JSON.stringify(container)}, and --follow is for podman's`,
    "Leave --follow out, and attach the container again under another name when it is made anew.",
  );
}

/** Of its first process. Throws RL_USAGE, RL_NOT_SUPPORTED. */
function containerPid(name: string): number {
  const asked = ["podman", "docker"].map((runtime) =>
    inspected(runtime, ["container", "inspect", "--format", "{{.State.Pid}}", name]),
  );
  const pid = asked.map(Number).find((number) => number > 0);
  if (pid !== undefined) return pid;
  if (asked.includes("0")) throw notRunning(name);
  throw new RecoveryLineError(
    "RL_USAGE",
    `neither podman nor docker knows a container ${JSON.stringify(name)}`,
    "podman ps --all, as the user whose container it is, lists them.",
  );
}

function notRunning(name: string): RecoveryLineError {
  return new RecoveryLineError("RL_USAGE", `the container ${name} does not run`, "Start it first.");
}

/** Throws RL_USAGE, RL_NOT_SUPPORTED. */
function podCgroup(name: string): string {
  const answer = inspected("podman", ["pod", "inspect", "--format", "{{.State}} {{.CgroupPath}}", name]);
  const [, state, cgroup] = /^(\S+) ?(.*)$/.exec(answer ?? "") ?? [];
  if (state === undefined)
    throw new RecoveryLineError(
      "RL_USAGE",
      `podman knows no pod ${JSON.stringify(name)}`,
      "podman pod ps, as the user whose pod it is, lists them.",
    );
  if (state !== "Running" && state !== "Degraded")
    throw new RecoveryLineError(
      "RL_USAGE",
      `the pod ${name} does not run (${state})`,
      `podman pod start ${name}`,
    );
  if (cgroup !== undefined && cgroup !== "") return cgroup;
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `not supported here: the pod ${name} has no cgroup of its own (it was made with --infra=false or --share-parent=false)`,
    "Attach each of its containers as a process: --container NAME.",
  );
}

function unitCgroup(name: string): string {
  if (
    inspected("systemctl", ["is-system-running"]) === undefined &&
    inspected("systemctl", ["show"]) === undefined
  )
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      "not supported here: systemd does not run this machine",
      "Attach it with --cgroup or --pid.",
    );
  const place = inspected("systemctl", ["show", "--property", "ControlGroup", "--value", name]);
  if (place !== undefined && place !== "") return place;
  throw new RecoveryLineError("RL_USAGE", `the unit ${name} does not run`, "systemctl status tells more.");
}

function inspected(program: string, args: readonly string[]): string | undefined {
  return answerOf(program, args, INSPECT_LIMIT_MS);
}

/** With an image where there can be one; else the cut alone, which makes its end certain. */
async function firstCheckpoint(
  app: string,
  name: string,
  what: ReturnType<typeof oneOf>,
  { log, json }: AttachFlags,
): Promise<void> {
  const flags = {
    ...(log === undefined ? {} : { log }),
    ...(json === undefined ? {} : { json }),
    coordinated: true,
    limit: FIRST_LIMIT_S,
  };
  try {
    if (what !== "unit") return await checkpoint(app, [], { ...flags, driver: "auto" });
  } catch (error) {
    if (!(error instanceof RecoveryLineError)) throw error;
    await write(
      `recovery-line: no image of ${app} as it stands can be taken: ${printableSentence(`${error.message}. ${error.advice}`.trim())}\n`,
      process.stderr,
    );
  }
  await checkpoint(app, [], { ...flags, driver: "none", cutsOnly: true });
  await write(
    `recovery-line: only cuts are recorded: ${name} can't be brought back from here until a checkpoint with an image is taken\n`,
    process.stderr,
  );
}

const FIRST_LIMIT_S = 60;

async function detach(app: string, name: string, { log }: { readonly log?: string }): Promise<void> {
  checkedAppName(app);
  checkedAppName(name, "process");
  const { requireCollector } = await import("../client/client.ts");
  const collector = await requireCollector(resolveHome(log));
  const { detach: endRecording } = await import("../client/attach-process.ts");
  try {
    await endRecording(collector, app, name);
  } catch (error) {
    if (!hasCode(error, "RL_UNKNOWN_APP") && !hasCode(error, "RL_UNKNOWN_PROCESS")) throw error;
    return await detachLost(collector, app, name, error);
  }
  collector.close();
  await write(`${name} of ${app} is recorded no longer\n`);
}

/** What was recorded into a log directory that is gone leaves our cgroup all the same. Throws `unknown` where nothing has that name. */
async function detachLost(
  collector: CollectorClient,
  app: string,
  name: string,
  unknown: RecoveryLineError,
): Promise<void> {
  const { home, pinDir } = await collector.ping();
  collector.close();
  await refuseRecordedElsewhere(app, name, pinDir);
  const { detachUnknown } = await import("../client/attach-process.ts");
  if (!detachUnknown(app, name)) throw unknown;
  await write(
    `${name} of ${app}, of which ${printableSentence(home)} knows nothing, is in no cgroup of ours any more\n`,
  );
}

/** Throws RL_USAGE where the collector of another log directory records it. */
async function refuseRecordedElsewhere(app: string, name: string, pinDir: string): Promise<void> {
  const { homeOfCollector, otherCollectors } = await import("../daemon/leftovers.ts");
  const { connectCollector } = await import("../client/client.ts");
  for (const { pid } of otherCollectors(pinDir)) {
    const home = homeOfCollector(pid);
    const other = home === undefined ? undefined : await connectCollector(home);
    const known = await other?.processes();
    other?.close();
    if (known?.some((one) => one.live && one.app === app && one.process === name))
      throw new RecoveryLineError(
        "RL_USAGE",
        `${name} of ${app} is recorded into ${home}, by process ${pid}`,
        `recovery-line detach ${app} ${name} --log ${shellWord(home!)}`,
      );
  }
}
