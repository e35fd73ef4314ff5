/**
 * `recovery-line demo dsm`: red-black SOR in distributed shared memory on four processes that checkpoint independently; one is
 * killed, the others keep their state, and the line comes out with page evidence.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { readDsmTraces } from "../analysis/importers/dsm-trace.ts";
import { computeLine, processNumbers } from "../engine/compute.ts";
import { EvidenceBuilder } from "../graph/evidence.ts";
import { exactPageModel, survivingCopies } from "../graph/page-transfers.ts";
import { keptPositions, undoneBy } from "../graph/rollback-model.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { DsmEvent } from "../model/event.ts";
import type { RecoveryLine } from "../model/recovery-line.ts";
import { packageRoot } from "../ring/binding.ts";
import { lineReport } from "./line-report.ts";
import { counted, table, write } from "./print.ts";

const PROCESSES = 4;
const GRID = 256;
/** After each iteration, in µs: time for an image to reach the disk. */
const PAUSE_US = 60_000;
/** How long the processes compute before one is killed, in ms. */
const RUN_MS = 3_000;
/** Longest wait for the survivors to notice, in ms. */
const NOTICE_MS = 5_000;
const VICTIM = 2;

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
    const files = Array.from({ length: PROCESSES }, (_, rank) => join(folder, `rank-${rank}.jsonl`));
    await explain(await readDsmTraces(files), join(folder, "images"));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

// ---- the run

function start(program: string, folder: string): ChildProcess {
  const size = ["--processes", `${PROCESSES}`, "--n", `${GRID}`, "--iterations", "100000"];
  const checkpoints = ["--every", "1", "--pause-us", `${PAUSE_US}`, "--images", join(folder, "images")];
  return spawn(program, ["sor", ...size, ...checkpoints, "--trace", folder, "--hold"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Starts the processes, kills one, and waits until the others have noticed. Nothing of it runs on return. */
async function crash(program: string, folder: string): Promise<void> {
  const launcher = start(program, folder);
  try {
    const pids = await firstPids(launcher);
    await write(
      `SOR on a ${GRID} × ${GRID} grid in distributed shared memory, ${PROCESSES} processes (pids ${pids.join(", ")}).\n` +
        "Each process p and each home h (master pages, directory, locks) checkpoints for itself after every iteration.\n",
    );
    await sleep(RUN_MS);
    process.kill(pids[VICTIM] as number, "SIGKILL");
    await write(`Killed process p${VICTIM} with SIGKILL; its home h${VICTIM} dies with it.\n`);
    await noticed(launcher);
  } finally {
    launcher.kill("SIGKILL"); // the workers die with it
  }
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

async function explain(events: readonly DsmEvent[], images: string): Promise<void> {
  const builder = new EvidenceBuilder();
  for (const event of events) builder.addEvent(event);
  const failed = [`p${VICTIM}`, `h${VICTIM}`];
  const answer = computeLine(builder.build(), { failed, dsm: "sequential", inTransit: "any" });
  await write(`\n${lineReport("sor", answer)}\n`);
  await write(`${pageEvidence(events, answer)}\n${exactComparison(events, failed, answer)}`);
  await write(await verifiedImages(events, answer, images));
}

const MOVES = ["page-fault", "page-copy", "page-invalidate"] as const;

/** Per process: page events the line keeps, of those that happened; then who holds the newest versions. */
function pageEvidence(events: readonly DsmEvent[], { line }: RecoveryLine): string {
  const kept = new Map(line.map(({ process, position }) => [process, position]));
  const counts = new Map<string, { all: number; kept: number }>();
  const lines = new Map<string, number>();
  for (const { process, type } of events) {
    const at = (lines.get(process) ?? 0) + 1;
    lines.set(process, at);
    const count = counts.get(`${type} ${process}`) ?? { all: 0, kept: 0 };
    counts.set(`${type} ${process}`, count);
    count.all += 1;
    if (at <= (kept.get(process) ?? 0)) count.kept += 1;
  }
  const rows = line.map(({ process }) => [
    process,
    ...MOVES.map((type) => {
      const count = counts.get(`${type} ${process}`);
      return count === undefined ? "-" : `${count.kept}/${count.all}`;
    }),
  ]);
  return `Page evidence, kept by the line / recorded:\n${table(["PROCESS", "FAULTS", "COPIES", "INVALIDATIONS"], rows)}${survivors(events, kept)}`;
}

function survivors(events: readonly DsmEvent[], kept: ReadonlyMap<string, number>): string {
  const pages = survivingCopies(events, (process) => kept.get(process) ?? 0);
  const lost = pages.filter(({ holders }) => holders.length === 0);
  if (lost.length > 0)
    throw new RecoveryLineError(
      "RL_REJECTED",
      `page ${lost[0]?.page} has no copy of version ${lost[0]?.version} in the line`,
    );
  const retained = pages.filter((page) => page.holders.length === page.retained.length).length;
  const newest = Math.max(0, ...pages.map(({ version }) => version));
  return `${counted(pages.length, "page")} in the line, up to version ${newest}; each has a surviving copy of its newest version, ${retained} of them only because invalidation retains it.\n`;
}

/** The same failure with exact last-writer dependencies instead of conservative ones. */
function exactComparison(
  events: readonly DsmEvent[],
  failed: readonly string[],
  { line }: RecoveryLine,
): string {
  const model = exactPageModel(events, "any");
  const kept = keptPositions(model.evidence, undoneBy(model, processNumbers(model.evidence, failed)));
  const exact = kept.reduce((sum, position) => sum + position, 0);
  const conservative = line.reduce((sum, { position }) => sum + position, 0);
  return `Page versions are known: with exact last-writer dependencies ${exact} events are kept, with conservative ones ${conservative} (of ${events.length}).\n`;
}

interface Manifest {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** Every image that the line restores, read and compared with its manifest. */
async function verifiedImages(
  events: readonly DsmEvent[],
  { line }: RecoveryLine,
  folder: string,
): Promise<string> {
  let images = 0;
  let size = 0;
  for (const event of events) {
    const entry = line.find(({ process }) => process === event.process);
    if (event.type !== "checkpoint" || event.checkpoint !== entry?.checkpoint) continue;
    const manifest = JSON.parse(await readFile(join(folder, `${event.image}.json`), "utf8")) as Manifest;
    const bytes = await readFile(join(folder, manifest.file));
    const sum = createHash("sha256").update(bytes).digest("hex");
    if (sum !== manifest.sha256 || bytes.length !== manifest.bytes)
      throw new RecoveryLineError("RL_DRIVER", `image ${manifest.file} is not what its manifest says`);
    images += 1;
    size += bytes.length;
  }
  return `${counted(images, "image")} of the line read and equal to the SHA-256 of their manifests (${Math.round(size / 1024)} KiB).\n`;
}
