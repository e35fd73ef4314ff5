/**
 * `recovery-line commit-output`: what a collector runs for processes whose output waits (`run --hold-output`). One process for all rounds, so
 * that none waits for a program to start; images are written and logs are read here and not on the collector's thread.
 *
 * A line of standard input is a CommitRequest, a line of standard output its CommitAnswer; it ends with its input.
 */
import { createInterface } from "node:readline";
import type { Command } from "commander";
import type { CheckpointTarget } from "../checkpoint/checkpoint.ts";
import type { DriverChoice } from "../checkpoint/driver-choice.ts";
import type { CollectorClient } from "../client/client.ts";
import type { CommitAnswer, CommitRequest } from "../client/protocol.ts";
import type { GrowingEvidence } from "../compute/growing-evidence.ts";
import { resolveHome } from "../logs/home.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { MAX_KEPT_ENTRIES } from "../model/limits.ts";
import { write } from "../terminal/print.ts";
import {
  dependentsToo,
  drivenTargets,
  firstThen,
  notWhileRestarting,
  tiedToo,
} from "./checkpoint-targets.ts";
import { LOG_DEFAULT } from "./log-option.ts";

export function register(program: Command): void {
  program
    .command("commit-output", { hidden: true })
    .summary("used by collect: checkpoints that held output waits for")
    .option("--log <dir>", `log directory of the collector ${LOG_DEFAULT}`)
    .action(commitOutput);
}

interface Place {
  readonly home: string;
  readonly log: CollectorClient;
  readonly choice: DriverChoice;
  /** By application: what was read in earlier rounds is not read again. */
  readonly evidence: Map<string, GrowingEvidence>;
}

async function commitOutput(flags: { readonly log?: string }): Promise<void> {
  const { requireCollector } = await import("../client/client.ts");
  const { chooseDriver } = await import("../checkpoint/driver-choice.ts");
  const home = resolveHome(flags.log);
  const log = await requireCollector(home);
  const place = { home, log, choice: await chooseDriver("auto", home), evidence: new Map() };
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await round(place, JSON.parse(line) as CommitRequest);
    await write(`${JSON.stringify(answer)}\n`);
  }
  log.close();
}

/** The line is looked at also where the checkpoint fails: another one may cover what waits. */
async function round(place: Place, request: CommitRequest): Promise<CommitAnswer> {
  const began = performance.now();
  const unheld: [string, string][] = [];
  const failed =
    request.taken === true ? undefined : await takeTogether(place, request, unheld).catch(reasonOf);
  try {
    const { committed, why } = await lineOfAll(place, request);
    return { committed, unheld, why: failed ?? why, tookMs: performance.now() - began };
  } catch (error) {
    return { committed: [], unheld, why: failed ?? reasonOf(error), tookMs: performance.now() - began };
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error instanceof RecoveryLineError ? `${error.message}. ${error.advice}`.trim() : error.message;
}

/** Of those whose output waits, and of all they depend on. */
async function takeTogether(
  place: Place,
  { app, processes }: CommitRequest,
  unheld: [string, string][],
): Promise<undefined> {
  const { home, log, choice } = place;
  const { checkpointAtSomeMoment } = await import("../checkpoint/checkpoint.ts");
  if (choice.fallback !== undefined) throw new RecoveryLineError("RL_NOT_SUPPORTED", choice.fallback);
  await notWhileRestarting(home, app);
  const more = firstThen(
    await dependentsToo(app, processes, log, home, await evidenceOf(place, app)),
    tiedToo(app, log, home),
  );
  const targets = await drivenTargets(app, processes, log, home);
  for (const target of targets)
    for (const path of await filesOutside(target)) unheld.push([target.process, `the file ${path}`]);
  await checkpointAtSomeMoment(targets, { home, log, driver: choice.driver, usable: true, more });
}

/** Open for writing, and in no folder that goes back with the process. */
async function filesOutside({ cgroup, data }: CheckpointTarget): Promise<string[]> {
  const { writtenFiles } = await import("../host/open-files.ts");
  const { isBelowAny } = await import("../images/data/tree-users.ts");
  try {
    return writtenFiles(cgroup.pids())
      .map(({ path }) => path)
      .filter((path) => !isBelowAny(data?.roots ?? [], path));
  } catch {
    return []; // it is running: something has ended or been closed meanwhile, and the next round looks again
  }
}

async function evidenceOf({ evidence }: Place, app: string): Promise<GrowingEvidence> {
  const { GrowingEvidence } = await import("../compute/growing-evidence.ts");
  const growing = evidence.get(app) ?? new GrowingEvidence(MAX_KEPT_ENTRIES);
  evidence.set(app, growing);
  return growing;
}

async function lineOfAll(
  place: Place,
  { app, processes }: CommitRequest,
): Promise<Pick<CommitAnswer, "committed" | "why">> {
  const { log } = place;
  const { computeLine } = await import("../compute/compute.ts");
  const { committedOutput } = await import("../graph/questions/committed-output.ts");
  const evidence = await (await evidenceOf(place, app)).ofApp(log, app);
  const { line } = computeLine(evidence, { dsm: "sequential", inTransit: "any" });
  const committed = committedOutput(evidence, (process) => line[process]!.position);
  const known = await log.processes();
  const holds = new Set(known.filter((one) => one.live && one.hold !== undefined).map((one) => one.app));
  for (const other of place.evidence.keys()) if (!holds.has(other)) place.evidence.delete(other);
  const behind = line.filter(({ process, checkpoint }) => {
    const newest = known.find((one) => one.app === app && one.process === process)?.newestCheckpoint ?? 0;
    return processes.includes(process) && (checkpoint ?? 0) < newest;
  });
  const [first] = behind;
  if (first === undefined) return { committed: [...committed] };
  const why = `its newest checkpoint lies on no line of all, which keeps ${first.process} up to ${first.checkpoint || "its start"}: recovery-line explain ${app} ${first.process}`;
  return { committed: [...committed], why };
}
