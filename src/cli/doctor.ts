/** `recovery-line doctor`: what this machine can do, with reasons, and a test that really captures something. */
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import type { SystemCallCost } from "../capture/system-call-cost.ts";
import { hasCapability } from "../host/capabilities.ts";
import type { Engine } from "../host/containers.ts";
import { resolveHome } from "../logs/home.ts";
import type { CapturePart } from "../model/event-source.ts";
import { printableSentence } from "../model/printable.ts";
import { EXIT } from "../terminal/exit-codes.ts";
import { table, write, writeJson } from "../terminal/print.ts";
import { LOG_DEFAULT } from "./log-option.ts";

interface DoctorFlags {
  readonly log?: string;
  readonly json?: boolean;
  readonly dsm?: boolean;
  readonly sweep?: boolean;
}

interface Finding {
  readonly name: string;
  readonly supported: boolean;
  readonly reason: string;
  /** What does not work without it. */
  readonly needed: string;
}

/** What of the whole machine is taxed while the capture is loaded; measured on the project's machine kind (facts.md of the measurements). */
const NOTES = [
  "Loaded capture: about 0.1 µs for every TCP call of any process on this machine, about 0.3 µs for a recorded one.",
  "Each part takes the first variant whose programs this kernel loads, attaches and runs; collect --capture forces others.",
  "The programs stay loaded until `recovery-line collect --unpin`, also while no collector runs.",
  "MPTCP, kernel TLS, and datagrams between recorded processes are not matched: they are gaps (see run --trust).",
];

export function register(program: Command): void {
  program
    .command("doctor")
    .summary("tell what works on this machine, and prove it")
    .description(
      "Probes kernel and rights, tries CRIU, nftables, ss, hooks and SDK for real, captures a short conversation over the loopback device, and lists what dead programs left in the kernel.",
    )
    .option("--log <dir>", `log directory, where a private CRIU may lie ${LOG_DEFAULT}`)
    .option("--dsm", "load the hook of `collect --dsm userfaultfd` for a moment and measure what it costs")
    .option("--sweep", "remove what dead programs left: their captures, empty cgroups, blocked connections")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
Exit codes: 0 capture works, 1 it does not.

Examples:
  recovery-line doctor
  recovery-line doctor --sweep`,
    )
    .action(doctor);
}

async function doctor(flags: DoctorFlags): Promise<void> {
  const home = resolveHome(flags.log);
  const capture = [...(await kernel()), ...(await captureRows()), ...(await cgroups()), rights()];
  const checkpoints = [...(await restart(home)), ...(await sdk())];
  const dsm = flags.dsm ? await systemCalls() : undefined;
  if (dsm !== undefined) capture.push(dsm.finding);
  const { loopbackSelfTest } = await import("../daemon/self-test.ts");
  const selfTest = await loopbackSelfTest();
  const { leftBehind } = await import("./doctor-leftovers.ts");
  const left = await leftBehind(home, flags.sweep === true);
  process.exitCode = selfTest.passed ? EXIT.clean : EXIT.other;
  if (flags.json)
    return writeJson({
      capabilities: [...capture, ...checkpoints],
      selfTest,
      ...(dsm?.cost === undefined ? {} : { systemCalls: dsm.cost }),
      leftovers: left,
      notes: NOTES,
    });
  const rows = [...capture, ...checkpoints].map((one) => [
    one.name,
    one.supported ? "yes" : "NO",
    one.needed,
    printableSentence(one.reason),
  ]);
  const verdict = `${selfTest.passed ? "passed" : "FAILED"}: ${printableSentence(selfTest.reason)}`;
  await write(
    `${table(["capability", "here", "needed for", "why"], rows)}\nloopback self-test ${verdict}\n\n`,
  );
  const { leftoverReport } = await import("./doctor-leftovers.ts");
  await write(leftoverReport(left));
  await write(NOTES.map((note) => `note: ${note}\n`).join(""));
}

async function kernel(): Promise<Finding[]> {
  const { kernelSupport } = await import("../capture/kernel-support.ts");
  return kernelSupport().map((one) => ({ ...one, needed: "capture" }));
}

/** A row a part: the variant that a collector takes here, and of each better one the kernel's own answer. */
async function captureRows(): Promise<Finding[]> {
  const { captureParts } = await import("../capture/kernel-support.ts");
  const parts = captureParts();
  return [...new Set(parts.map(({ part }) => part))].map((part) =>
    captureRow(
      part,
      parts.filter((one) => one.part === part),
    ),
  );
}

/** `variants`: best first. */
export function captureRow(part: string, variants: readonly CapturePart[]): Finding {
  const common = { name: `capture: ${part}`, needed: "capture" };
  const taken = variants.find(({ usable }) => usable);
  const refused = variants
    .slice(0, taken === undefined ? variants.length : variants.indexOf(taken))
    .map(({ variant, reason }) => `${variant}: ${asSentence(reason)}`);
  if (taken === undefined)
    return { ...common, supported: false, reason: `Nothing works. ${refused.join(" ")}` };
  const better = refused.length === 0 ? "" : ` Better, but not here: ${refused.join(" ")}`;
  return { ...common, supported: true, reason: `${taken.variant}: ${asSentence(taken.reason)}${better}` };
}

function asSentence(reason: string): string {
  return reason.endsWith(".") ? reason : `${reason}.`;
}

const ROUNDS = 11;
const CALLS_A_ROUND = 100_000;

/** The hook of `collect --dsm`: whether it loads, and what every system call of the machine pays while it is there. */
async function systemCalls(): Promise<{ finding: Finding; cost?: SystemCallCost }> {
  const { systemCallCost } = await import("../capture/system-call-cost.ts");
  const common = { name: "userfaultfd", needed: "collect --dsm" };
  try {
    const cost = systemCallCost(ROUNDS, CALLS_A_ROUND);
    const extra = (cost.withNs - cost.withoutNs).toFixed(0);
    const reason =
      `The hook adds ${extra} ns to every system call of this machine while it is loaded: getppid ` +
      `${cost.withoutNs.toFixed(0)} ns without, ${cost.withNs.toFixed(0)} ns with it (medians of ${ROUNDS} rounds each).`;
    return { finding: { ...common, supported: true, reason }, cost };
  } catch (error) {
    return { finding: { ...common, supported: false, reason: (error as Error).message } };
  }
}

async function cgroups(): Promise<Finding[]> {
  const { cgroup2Root } = await import("../host/cgroups.ts");
  try {
    const root = cgroup2Root();
    return [
      { name: "cgroup2-mount", supported: true, reason: `Mounted on ${root}.`, needed: "capture, run" },
    ];
  } catch (error) {
    return [
      { name: "cgroup2-mount", supported: false, reason: (error as Error).message, needed: "capture, run" },
    ];
  }
}

function rights(): Finding {
  const supported =
    hasCapability("CAP_SYS_ADMIN") || (hasCapability("CAP_BPF") && hasCapability("CAP_PERFMON"));
  const who = `User ${process.geteuid!()}`;
  const reason = supported
    ? `${who} may load BPF programs.`
    : `${who} has neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON.`;
  return { name: "rights", supported, reason, needed: "capture" };
}

/** One after the other: each is tried for real. */
async function restart(home: string): Promise<Finding[]> {
  const { testBlocking, testHook, testTimeWait, testWithoutIoUring } = await import(
    "../restart/self-tests.ts"
  );
  const { testPayloadLogger } = await import("../payload/payload-logger.ts");
  return [
    await criu(home),
    await engine("podman", home),
    await engine("docker", home),
    finding("payload-logger", "run --payload", await testPayloadLogger()),
    finding("nftables", "restart, checkpoint --coordinated", await testBlocking()),
    finding("ss", "restart of listeners without SO_REUSEADDR", await testTimeWait()),
    finding("hook", "images by a program's own command", await testHook()),
    finding("io_uring", "images of programs that would use it", await testWithoutIoUring()),
    freezer(),
  ];
}

async function sdk(): Promise<Finding[]> {
  const { testSdk, testSdkInC } = await import("../sdk/self-test.ts");
  return [
    finding("sdk", "programs that replay themselves", await testSdk()),
    finding("sdk-c", "the same in C", await testSdkInC()),
  ];
}

function finding(
  name: string,
  needed: string,
  { works, reason }: { works: boolean; reason: string },
): Finding {
  return { name, needed, supported: works, reason: reason.endsWith(".") ? reason : `${reason}.` };
}

async function criu(home: string): Promise<Finding> {
  const { findCriu } = await import("../images/criu/driver-criu-find.ts");
  const { CriuDriver } = await import("../images/criu/driver-criu.ts");
  const common = { name: "criu", needed: "images, restart" };
  const search = await findCriu(home);
  if (search.found === undefined)
    return { ...common, supported: false, reason: `${search.reason} scripts/get-criu.sh fetches one.` };
  const { works, reason } = await new CriuDriver(search.found).check();
  return { ...common, supported: works, reason };
}

async function engine(name: Engine, home: string): Promise<Finding> {
  const { findEngine } = await import("../checkpoint/driver-choice.ts");
  const { found, reason } = await findEngine(name, home);
  return { name, needed: "images of containers", supported: found !== undefined, reason };
}

function freezer(): Finding {
  const [major = 0, minor = 0] = readFileSync("/proc/sys/kernel/osrelease", "utf8").split(".").map(Number);
  const supported = major > 5 || (major === 5 && minor >= 14);
  return {
    name: "cgroup-freezer",
    supported,
    reason: supported
      ? "Linux 5.14 or newer freezes and kills whole cgroups."
      : "cgroup.freeze and cgroup.kill need Linux 5.14.",
    needed: "checkpoint, run",
  };
}
