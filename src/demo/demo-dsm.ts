/**
 * `recovery-line demo dsm`: red-black SOR in distributed shared memory on four processes that checkpoint independently; one is
 * killed, the line comes out with page evidence, and the application goes on from it to the result of a sequential run.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { computeLine } from "../compute/compute.ts";
import { EvidenceBuilder } from "../graph/evidence/evidence-builder.ts";
import { readDsmTraces } from "../import/dsm-trace.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { DsmEvent } from "../model/event.ts";
import { counted } from "../model/printable.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import { packageRoot } from "../native/binding.ts";
import { lineReport } from "../terminal/line-report.ts";
import { write } from "../terminal/print.ts";
import { exactComparison, pageEvidence, restartEvidence, verifiedImages } from "./demo-dsm-evidence.ts";

const PROCESSES = 4;
const GRID = 256;
/** More than RUN_MS leaves time for: each takes PAUSE_US at least. */
const ITERATIONS = 80;
/** After each iteration, in µs: time for an image to reach the disk. */
const PAUSE_US = 60_000;
/** How long the processes compute before one is killed, in ms. */
const RUN_MS = 3_000;
/** Longest wait for the survivors to notice, in ms. */
const NOTICE_MS = 5_000;
/** Longest that the restarted application may take to its end, in ms. */
const RESTART_MS = 60_000;
const VICTIM = 2;
/** What is read of the victim's trace to see what it does now: some hundred lines. */
const TAIL_BYTES = 32_768;

/** Builds native/dsm where it is not current. Throws RL_NOT_SUPPORTED without make or a C compiler. */
async function buildKernels(): Promise<string> {
  try {
    await promisify(execFile)("make", ["-s", "-C", join(packageRoot(), "native"), "dsm"]);
  } catch (cause) {
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `native/dsm does not build here: ${(cause as Error).message.split("\n")[1] ?? (cause as Error).message}`,
      "It needs Linux, make and a C compiler: run scripts/setup.sh.",
      cause,
    );
  }
  return join(packageRoot(), "build/dsm/dsm-kernels");
}

/** Runs the whole demo and prints it. Throws RL_NOT_SUPPORTED, RL_DRIVER where the programs do not run as they should. */
export async function runDsmDemo(): Promise<void> {
  const program = await buildKernels();
  const folder = await mkdtemp(join(tmpdir(), "recovery-line-dsm-"));
  try {
    await mkdir(join(folder, "images"));
    await crash(program, folder);
    const before = await traces(folder);
    await explain(before, folder);
    await goOn(program, folder, before);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function traces(folder: string): Promise<DsmEvent[]> {
  return readDsmTraces(Array.from({ length: PROCESSES }, (_, rank) => join(folder, `rank-${rank}.jsonl`)));
}

function start(program: string, folder: string, ...more: readonly string[]): ChildProcess {
  const size = ["--processes", `${PROCESSES}`, "--n", `${GRID}`, "--iterations", `${ITERATIONS}`];
  const checkpoints = ["--every", "1", "--images", join(folder, "images")];
  return spawn(program, ["sor", ...size, ...checkpoints, "--trace", folder, ...more], {
    stdio: ["ignore", "pipe", "pipe"],
  });
}

// ---- the crash

/** Starts the processes, kills one, and waits until the others have noticed. Nothing of it runs on return. */
async function crash(program: string, folder: string): Promise<void> {
  const launcher = start(program, folder, "--pause-us", `${PAUSE_US}`, "--hold");
  try {
    const pids = await firstPids(launcher);
    await write(
      `SOR on a ${GRID} × ${GRID} grid in distributed shared memory, ${ITERATIONS} iterations, ${PROCESSES} processes (pids ${pids.join(", ")}).\n` +
        "Each process p and each home h (master pages, directory, locks) checkpoints for itself after every iteration.\n",
    );
    await sleep(RUN_MS);
    const victim = pids[VICTIM] as number;
    await stopMidIteration(victim, join(folder, `rank-${VICTIM}.jsonl`));
    process.kill(victim, "SIGKILL");
    await write(`Killed process p${VICTIM} with SIGKILL; its home h${VICTIM} dies with it.\n`);
    await noticed(launcher);
  } finally {
    await end(launcher);
  }
}

/**
 * Stops the victim while it moves pages, some of them since its last checkpoint: else there would be nothing to undo. What a running
 * one's trace says is no longer true when the signal comes.
 */
async function stopMidIteration(pid: number, trace: string): Promise<void> {
  const file = await open(trace);
  try {
    const tail = Buffer.alloc(TAIL_BYTES);
    for (const end = Date.now() + NOTICE_MS; Date.now() < end; await sleep(1)) {
      process.kill(pid, "SIGSTOP");
      while (!isStopped(pid) && Date.now() < end) await sleep(1);
      const { size } = await file.stat();
      const { bytesRead } = await file.read(tail, 0, TAIL_BYTES, Math.max(0, size - TAIL_BYTES));
      const own = tail.toString("utf8", 0, bytesRead).split("\n").reverse();
      if (own.find((line) => line.includes(`"process":"p${VICTIM}"`))?.includes('"page-copy"')) return;
      process.kill(pid, "SIGCONT");
    }
  } finally {
    await file.close();
  }
}

/** The signal reaches each thread by itself; one that waits for the disk goes on until then. */
function isStopped(pid: number): boolean {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).every((tid) => readFileSync(`${tasks}/${tid}/stat`, "latin1").includes(") T "));
}

/** The workers die with their launcher; they hold its pipes open until then. */
async function end(launcher: ChildProcess): Promise<void> {
  launcher.stdout?.resume();
  launcher.stderr?.resume();
  const closed = once(launcher, "close");
  launcher.kill("SIGKILL");
  await closed;
}

async function firstPids(launcher: ChildProcess): Promise<number[]> {
  const pids: number[] = [];
  for await (const line of createInterface({ input: launcher.stdout as NodeJS.ReadableStream })) {
    pids.push((JSON.parse(line) as { pid: number }).pid);
    if (pids.length === PROCESSES) return pids;
  }
  throw new RecoveryLineError("RL_DRIVER", "the DSM programs ended before they began");
}

/** Prints what the survivors say, until each has said something. */
async function noticed(launcher: ChildProcess): Promise<void> {
  const lines = createInterface({ input: launcher.stderr as NodeJS.ReadableStream });
  const timer = setTimeout(() => lines.close(), NOTICE_MS);
  const seen = new Set<string>();
  for await (const line of lines) {
    await write(`  ${line}\n`);
    seen.add(line.split(":")[1] ?? line);
    if (seen.size === PROCESSES - 1) break;
  }
  clearTimeout(timer);
}

// ---- the line

function lineOf(events: readonly DsmEvent[], failed?: readonly string[]): RecoveryLine {
  const builder = new EvidenceBuilder();
  for (const event of events) builder.addEvent(event);
  return computeLine(builder.build(), { ...(failed && { failed }), dsm: "sequential", inTransit: "any" });
}

async function explain(events: readonly DsmEvent[], folder: string): Promise<void> {
  const failed = [`p${VICTIM}`, `h${VICTIM}`];
  const answer = lineOf(events, failed);
  await write(`\n${lineReport("sor", answer)}\n`);
  await write(`${pageEvidence(events, answer)}\n${exactComparison(events, failed, answer)}`);
  await write(await verifiedImages(events, answer, join(folder, "images")));
}

// ---- the restart

/** What the launcher prints at the end (native/dsm/kernels/main.c). */
interface Result {
  readonly correct: boolean;
  readonly firstStep: number;
  readonly iterations: number;
  readonly seconds: number;
}

/** From the line of everybody to the end. This runtime restarts all of its processes: it has no way back for survivors. */
async function goOn(program: string, folder: string, before: readonly DsmEvent[]): Promise<void> {
  const line = lineOf(before);
  const where = line.line.map(({ process, checkpoint }) => `${process}:${checkpoint}`).join(",");
  await write(`\nEverybody is started again from the line of all: dsm-kernels sor … --restore ${where}\n`);
  const result = await finished(start(program, folder, "--restore", where));
  await write(
    `p0 went on with iteration ${result.firstStep + 1} of ${result.iterations} and came to the end in ${result.seconds.toFixed(1)} s.\n`,
  );
  await write(restartEvidence(before, await traces(folder), line));
  await write(
    `All ${counted(GRID * GRID, "point")} of the grid are compared with a sequential run: ${result.correct ? "equal, bit by bit" : "they DIFFER"}.\n`,
  );
  if (!result.correct)
    throw new RecoveryLineError("RL_REJECTED", "the restarted application came to another result");
}

/** Its result. Throws RL_DRIVER where it does not come to an end in time. */
async function finished(launcher: ChildProcess): Promise<Result> {
  const timer = setTimeout(() => launcher.kill("SIGKILL"), RESTART_MS);
  let out = "";
  let said = "";
  launcher.stdout?.on("data", (text: Buffer) => {
    out += text.toString();
  });
  launcher.stderr?.on("data", (text: Buffer) => {
    said += text.toString();
  });
  const [code] = (await once(launcher, "close")) as [number | null];
  clearTimeout(timer);
  const last = out.trim().split("\n").at(-1) ?? "";
  if ((code !== 0 && code !== 1) || !last.includes('"correct"'))
    throw new RecoveryLineError("RL_DRIVER", `the restart ended with ${code ?? "a signal"}: ${said.trim()}`);
  return JSON.parse(last) as Result;
}
