/** `recovery-line policy plug|show|log|unplug`: policies of running applications. */
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { appDirectory, checkedAppName, resolveHome } from "../logs/home.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_SHADOW_S } from "../model/limits.ts";
import type { PlugBody, PolicyLogLine, PolicyStatus } from "../model/plugged-policy.ts";
import { ALLOWABLE, type Allowable, POLICY_DRIVERS } from "../model/policy-terms.ts";
import { counted, printable, printableSentence, shellWord } from "../model/printable.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import { repeated } from "./failed-names.ts";
import { LOG_DEFAULT } from "./log-option.ts";
import { integerOption } from "./numbers.ts";

interface LiveFlags {
  readonly log?: string;
  readonly json?: boolean;
}
interface PlugFlags extends LiveFlags {
  readonly set: readonly string[];
  readonly allow?: readonly Allowable[];
  readonly fallback: string;
  readonly driver: PlugBody["driver"];
  readonly hooks?: string;
  readonly mostLoss?: string;
  readonly lineEvery?: string;
  readonly shadow: number;
  readonly dryRun?: boolean;
}
interface LogFlags extends LiveFlags {
  readonly last: number;
}

const PERIODIC_S = 60;
const DEFAULT_LAST = 20;
const MAX_LAST = 100_000;

const PLUG_HELP = `
POLICY is a file, or the name of a shipped policy. Once plugged it decides when processes take checkpoints and what happens on
failures; what was plugged before decides until then, and states of equal name, type and scope go over to the new one.
First it only watches (--shadow): what it would do is printed; where it fails there it is refused, and nothing has changed.

restart, roll-back and collect can hurt: a policy that may do one of them is refused until --allow says which (none: it never does).
A policy that crashes, hangs or answers nonsense is started again with its state, at most three times a minute; then, and where it asks for
too much, the fallback takes over: the built-in periodic (:interval, 1min by default), or none. --most-loss bounds what one failure may cost:
beyond it the host takes the checkpoints itself, and the third time the policy ends.

It comes back with the collector, at whatever step that was killed. A policy's process runs as nobody without files, children and environment; that keeps its
faults from others, and is no prison for malice.

Examples:
  recovery-line policy plug shop periodic --set interval=30s
  recovery-line policy plug shop mine.xml --allow restart,collect --dry-run
  recovery-line policy plug shop bounded-loss --set bound=1min --allow restart,collect --most-loss 2min`;

export function registerLive(policy: Command): void {
  plugCommand(policy);
  for (const [name, description, action] of [
    ["show", "Shows what is plugged into an application, with its parameters and what it did.", show],
    ["unplug", "Takes an application's policy out: from then on nothing is done by itself.", unplug],
  ] as const)
    policy
      .command(name)
      .argument("<app>", "application")
      .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
      .option("--json", "print one JSON object")
      .description(description)
      .action(action);
  policy
    .command("log")
    .argument("<app>", "application")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option(
      "--last <n>",
      "how many lines",
      (text: string) => integerOption("--last", text, 1, MAX_LAST),
      DEFAULT_LAST,
    )
    .option("--json", "print one JSON object, with all lines")
    .description(
      "Prints what an application's policies did: event, line of the policy, action, what came of it.",
    )
    .action(log);
}

function plugCommand(policy: Command): void {
  policy
    .command("plug")
    .argument("<app>", "application")
    .argument("<policy>", "policy file, or the name of a shipped policy")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .option("--set <name=value>", "a parameter; repeatable", repeated, [])
    .option("--allow <words>", `of ${ALLOWABLE.join(", ")}, separated by commas; or none`, allowed)
    .option(
      "--fallback <what>",
      "what takes over from a policy that failed: periodic, periodic:30s, none",
      "periodic",
    )
    .addOption(
      new Option("--driver <name>", "what takes the images (see checkpoint)")
        .choices([...POLICY_DRIVERS])
        .default("auto"),
    )
    .option("--hooks <file>", "driver hook: JSON file with the commands of each process")
    .option("--most-loss <duration>", "most work that one failure may cost, as 5min")
    .option("--line-every <duration>", "least time between computations of all failures' lines (default: 5s)")
    .option(
      "--shadow <seconds>",
      "how long it only watches first, after one beat",
      (text: string) => integerOption("--shadow", text, 0, MAX_SHADOW_S),
      0,
    )
    .option("--dry-run", "watch only, plug nothing")
    .option("--json", "print one JSON object")
    .description("Plugs a policy into a running application, in place of what is plugged there.")
    .addHelpText("after", PLUG_HELP)
    .action(plug);
}

function allowed(text: string): Allowable[] {
  if (text === "none") return [];
  return text.split(",").map((word) => {
    const known = ALLOWABLE.find((one) => one === word);
    if (known === undefined) throw new InvalidArgumentError(`It is none, or of ${ALLOWABLE.join(", ")}.`);
    return known;
  });
}

async function plug(app: string, policy: string, flags: PlugFlags): Promise<void> {
  checkedAppName(app);
  const body = await bodyOf(app, policy, flags);
  const { requireCollector } = await import("../client/client.ts");
  const collector = await requireCollector(resolveHome(flags.log));
  try {
    const answer = await collector.plugPolicy(body);
    if (flags.json === true) return await writeJson({ application: app, ...answer });
    const what = `${answer.policy} ${answer.version} (${answer.hash.slice(0, 16)})`;
    const before = answer.replaced === undefined ? "" : ` in place of ${answer.replaced}`;
    const plugged = `${printable(app)}: ${what} is plugged${before}, epoch ${answer.epoch}\n`;
    await write(
      `${wouldText(answer.would, body.shadow)}${answer.dryRun ? `${what} is not plugged (--dry-run)\n` : plugged}`,
    );
  } finally {
    collector.close();
  }
}

async function bodyOf(app: string, policy: string, flags: PlugFlags): Promise<PlugBody> {
  const { loadPolicy } = await import("../policy/shipped.ts");
  const { encodeComponent, hashOf } = await import("../policy/component.ts");
  const { constantOf, parseSettings } = await import("../policy/settings.ts");
  const { toWire } = await import("../policy/host-protocol.ts");
  const { typeOf } = await import("../policy/types.ts");
  refuseSettings(policy);
  const { component, lines } = loadPolicy(policy);
  const duration = (option: string, text: string): number =>
    constantOf(text, typeOf("duration"), `${option} ${text}`);
  return {
    app,
    component: new TextDecoder().decode(encodeComponent(component)),
    hash: hashOf(component),
    lines,
    set: [...parseSettings(component, flags.set)].map(([name, value]) => [name, toWire(value)] as const),
    ...(flags.allow === undefined ? {} : { allow: flags.allow }),
    fallback: fallbackOf(flags.fallback, duration),
    driver: flags.driver,
    ...(flags.hooks === undefined ? {} : { hooks: resolve(flags.hooks) }),
    ...(flags.mostLoss === undefined ? {} : { mostLoss: duration("--most-loss", flags.mostLoss) }),
    ...(flags.lineEvery === undefined ? {} : { lineEvery: lineEveryOf(flags.lineEvery, duration) }),
    shadow: flags.shadow,
    dryRun: flags.dryRun === true,
  };
}

/** Comparisons take settings with the name, since there are several policies; here they are options. */
function refuseSettings(policy: string): void {
  const [, name, settings] = /^([^/:]+):(\w+=.*)$/.exec(policy) ?? [];
  if (name === undefined || settings === undefined) return;
  const set = settings.split(",").map((one) => `--set ${shellWord(one)}`);
  throw new RecoveryLineError(
    "RL_USAGE",
    `${policy}: parameters of what is plugged are options`,
    `Write ${name} ${set.join(" ")}`,
  );
}

function lineEveryOf(text: string, duration: (option: string, text: string) => number): number {
  const seconds = duration("--line-every", text);
  if (seconds >= 1) return seconds;
  throw new RecoveryLineError(
    "RL_USAGE",
    `--line-every ${text} is less than a second, which is a policy's beat`,
  );
}

function fallbackOf(text: string, duration: (option: string, text: string) => number): number | null {
  if (text === "none") return null;
  if (text === "periodic") return PERIODIC_S;
  const interval = /^periodic:(.+)$/.exec(text)?.[1];
  const seconds = interval === undefined ? 0 : duration("--fallback", interval);
  if (seconds >= 1) return seconds;
  throw new RecoveryLineError(
    "RL_USAGE",
    `--fallback ${text}: not a fallback`,
    "It is periodic, periodic:30s (at least 1s), or none.",
  );
}

function wouldText(would: readonly PolicyLogLine[], shadow: number): string {
  const when = shadow === 0 ? "now" : `within ${shadow} s`;
  if (would.length === 0) return `it would have done nothing ${when}\n`;
  return `it would have done ${when}:\n${logTable(would)}`;
}

async function unplug(app: string, flags: LiveFlags): Promise<void> {
  checkedAppName(app);
  const { requireCollector } = await import("../client/client.ts");
  const collector = await requireCollector(resolveHome(flags.log));
  try {
    const answer = await collector.unplugPolicy(app);
    if (flags.json === true) await writeJson({ application: app, ...answer });
    else await write(`${printable(app)}: ${answer.policy} is unplugged, epoch ${answer.epoch}\n`);
  } finally {
    collector.close();
  }
}

/** What is plugged; undefined where no collector runs. */
export async function pluggedIn(log: string | undefined): Promise<PolicyStatus[] | undefined> {
  const { connectCollector } = await import("../client/client.ts");
  const collector = await connectCollector(resolveHome(log));
  const policies = await collector?.policies();
  collector?.close();
  return policies;
}

export function pluggedTable(plugged: readonly PolicyStatus[]): string {
  if (plugged.length === 0) return "";
  const rows = plugged.map(({ app, policy, version, state, epoch, since }) => [
    printable(app),
    `${policy} ${version}`,
    state,
    String(epoch),
    since,
  ]);
  return `\n${table(["application", "policy", "state", "epoch", "since"], rows)}`;
}

/** `policy list APP`: in short. */
export async function showPlugged(app: string, flags: LiveFlags): Promise<void> {
  const found = await pluggedOf(app, flags);
  if (flags.json === true) await writeJson({ plugged: found === undefined ? [] : [found] });
  else
    await write(
      found === undefined
        ? `no policy is plugged into ${printable(app)}\n`
        : pluggedTable([found]).trimStart(),
    );
}

async function pluggedOf(app: string, flags: LiveFlags): Promise<PolicyStatus | undefined> {
  checkedAppName(app);
  const { requireCollector } = await import("../client/client.ts");
  const collector = await requireCollector(resolveHome(flags.log));
  try {
    return (await collector.policies()).find((one) => one.app === app);
  } finally {
    collector.close();
  }
}

async function show(app: string, flags: LiveFlags): Promise<void> {
  const found = await pluggedOf(app, flags);
  if (flags.json === true) return writeJson({ application: app, plugged: found ?? null });
  await write(found === undefined ? `no policy is plugged into ${printable(app)}\n` : statusText(found));
}

function statusText(one: PolicyStatus): string {
  const { over, fallback, allow, mostLoss, faults, stalls } = one;
  const parameters = Object.entries(one.parameters).map(([name, value]) => `  ${name.padEnd(14)} ${value}\n`);
  const actions = Object.entries(one.actions).map(([what, count]) => `  ${what.padEnd(24)} ${count}\n`);
  const lines = [
    `${printable(one.app)}: ${one.policy} ${one.version}, epoch ${one.epoch}, since ${one.since}`,
    `  ${printableSentence(one.title)}`,
    over === undefined
      ? "it decides"
      : `it decides no more (${over.reason}: ${printableSentence(over.why)})${fallback === null ? "" : "; periodic checkpoints have taken over"}`,
    `allowed: ${allow.length === 0 ? "none" : allow.join(", ")}; driver ${one.driver}; fallback ${fallback === null ? "none" : `periodic, ${fallback.interval} s`}${mostLoss === undefined ? "" : `; at most ${mostLoss} s lost`}`,
    `since the collector began: ${counted(faults, "fault")}, ${counted(stalls, "stall")}, ${counted(one.restarts, "restart")} in ten minutes, ${counted(one.checkpoints, "checkpoint")} that stood still for ${one.frozenMs.toFixed(0)} ms`,
  ];
  return `${lines.join("\n")}\n${parameters.length === 0 ? "" : `parameters (seconds, bytes):\n${parameters.join("")}`}${actions.length === 0 ? "" : `actions:\n${actions.join("")}`}`;
}

async function log(app: string, flags: LogFlags): Promise<void> {
  const { readPolicyLog } = await import("../daemon/policy-log.ts");
  const lines = readPolicyLog(appDirectory(resolveHome(flags.log), app));
  if (flags.json === true) return writeJson({ application: app, lines });
  await write(
    lines.length === 0
      ? `no policy was ever plugged into ${printable(app)}\n`
      : logTable(lines.slice(-flags.last)),
  );
}

function logTable(lines: readonly PolicyLogLine[]): string {
  const rows = lines.map((one) => [
    one.time.slice(0, 19),
    String(one.epoch),
    one.policy,
    one.line === undefined ? "-" : String(one.line),
    one.event,
    printable(one.process ?? "-"),
    one.action ?? "-",
    one.outcome ?? "-",
    printableSentence(one.detail ?? ""),
  ]);
  return table(["time", "epoch", "policy", "line", "event", "process", "action", "outcome", "detail"], rows);
}
