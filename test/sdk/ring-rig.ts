/** Runs the token application under kills at random moments, and judges what came out. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { expect } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import type { Event } from "../../src/model/event.ts";
import type { Action, LineEntry } from "../../src/model/recovery-line.ts";
import { sdkTrace } from "../../src/sdk/trace.ts";
import { type PlainLog, readPlainLog } from "./log-reader.ts";
import { seededRandom } from "./random.ts";

const PROGRAM = join(import.meta.dirname, "ring-program.mjs");
const RUN_LIMIT_MS = 120_000;

export interface Plan {
  readonly names: readonly string[];
  readonly tokens: number;
  readonly hops: number;
  readonly every: number;
  /** One entry a crash: who is killed, once the first of them has a log of so many bytes. */
  readonly kills: readonly { readonly victims: readonly string[]; readonly atBytes: number }[];
}

export interface Outcome {
  readonly plan: Plan;
  /** Action of each killed process in the line after its death. */
  readonly actions: readonly Action[];
  readonly deliveries: number;
  /** From the start of a killed process again to its join, with Node.js's own start, in ms. */
  readonly restartMs: readonly number[];
}

export function planOf(seed: number): Plan {
  const random = seededRandom(seed);
  const whole = (least: number, most: number): number => least + Math.floor(random() * (most - least + 1));
  const names = ["a", "b", "c", "d", "e"].slice(0, random() < 0.75 ? 3 : 5);
  const [tokens, hops, every] = [whole(2, 6), whole(4, 16), whole(2, 12)];
  // A delivery and its answer take about 150 bytes of the log.
  const logBytes = 150 * tokens * hops;
  const kills = Array.from({ length: whole(1, 2) }, () => {
    const first = names[whole(0, names.length - 1)]!;
    const second = names[whole(0, names.length - 1)]!;
    const victims = random() < 0.3 && second !== first ? [first, second] : [first];
    return { victims, atBytes: Math.floor(random() * 1.2 * logBytes) };
  });
  return { names, tokens, hops, every, kills };
}

class Ring {
  readonly home = mkdtempSync(join(tmpdir(), "rl-sdk-"));
  readonly plan: Plan;
  /** Runs every second process, if there is one. */
  readonly #program: string | undefined;
  readonly #running = new Map<string, { readonly child: ChildProcess; out: string }>();

  constructor(plan: Plan, program?: string) {
    this.plan = plan;
    this.#program = program;
  }

  start(name: string): void {
    const { names, tokens, hops, every } = this.plan;
    const args = [this.home, name, names.join(","), String(tokens), String(hops), String(every)];
    const foreign = this.#program !== undefined && names.indexOf(name) % 2 === 0;
    const child = foreign
      ? spawn(this.#program!, args, { stdio: ["ignore", "pipe", "pipe"] })
      : spawn(process.execPath, [PROGRAM, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    const one = { child, out: "" };
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (text: Buffer) => {
        one.out += text.toString();
      });
    this.#running.set(name, one);
  }

  output(name: string): string {
    return this.#running.get(name)!.out;
  }

  logPath(name: string): string {
    return join(this.home, "ring", "sdk", name, "log");
  }

  logBytes(name: string): number {
    return existsSync(this.logPath(name)) ? statSync(this.logPath(name)).size : 0;
  }

  /** Returns the exit code, null after SIGKILL. */
  async kill(name: string, signal: NodeJS.Signals = "SIGKILL"): Promise<number | null> {
    const { child } = this.#running.get(name)!;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
    return child.exitCode;
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    const deadline = Date.now() + RUN_LIMIT_MS;
    while (!condition()) {
      for (const [name, { child, out }] of this.#running)
        if (child.exitCode !== null) throw new Error(`${name} ended by itself: ${out}`);
      if (Date.now() > deadline) {
        const outputs = this.plan.names.map((name) => `${name}: ${this.output(name)}`);
        throw new Error(`not within ${RUN_LIMIT_MS} ms: ${what}\n${outputs.join("\n")}`);
      }
      await sleep(2);
    }
  }

  async remove(): Promise<void> {
    for (const name of this.#running.keys()) await this.kill(name);
    rmSync(this.home, { recursive: true, force: true });
  }
}

/** One run from a seed; every second process is the C `program` if there is one. Throws, naming the seed, whatever is wrong. */
export async function runRing(seed: number, program?: string): Promise<Outcome> {
  const plan = planOf(seed);
  const ring = new Ring(plan, program);
  try {
    return await run(ring);
  } catch (error) {
    throw new Error(`seed ${seed} (${JSON.stringify(plan)}): ${(error as Error).message}`, { cause: error });
  } finally {
    await ring.remove();
  }
}

async function run(ring: Ring): Promise<Outcome> {
  const { plan } = ring;
  const actions: Action[] = [];
  const restartMs: number[] = [];
  for (const name of plan.names) ring.start(name);
  for (const { victims, atBytes } of plan.kills) {
    const [first] = victims as [string];
    await ring.until(
      `the log of ${first} grows`,
      () => isFinished(ring, first) || ring.logBytes(first) > atBytes,
    );
    await Promise.all(victims.map((name) => ring.kill(name)));
    // Also a log that was only just made, with nothing in it: it stands in the trace, and its process is dead.
    const logged = victims.filter((name) => existsSync(ring.logPath(name)));
    if (logged.length > 0) actions.push(...expectLine(ring, logged));
    const fromMs = performance.now();
    for (const name of victims) ring.start(name);
    await ring.until("they join again", () => victims.every((name) => ring.output(name).includes("joined")));
    restartMs.push(performance.now() - fromMs);
  }
  await ring.until("all have results", () => plan.names.every((name) => isFinished(ring, name)));
  const deliveries = expectExact(ring);
  for (const name of plan.names)
    expect(await ring.kill(name, "SIGTERM"), `${name} ends well: ${ring.output(name)}`).toBe(0);
  return { plan, actions, deliveries, restartMs };
}

function isFinished(ring: Ring, name: string): boolean {
  return /^result .*\n/m.test(ring.output(name));
}

// ---- the line after a crash

/** Survivors go on, the killed come back from their logs, and nobody has received what is not sent. */
function expectLine(ring: Ring, failed: readonly string[]): Action[] {
  const traces = sdkTrace(ring.home, "ring");
  const builder = new EvidenceBuilder();
  for (const { events } of traces) for (const event of events) builder.addEvent(event);
  const answer = computeLine(builder.build(), { failed, dsm: "sequential", inTransit: "logged" });
  expect(answer.outcome).toBe("clean");
  const entries = new Map(answer.line.map((entry) => [entry.process, entry]));
  for (const { process, live } of traces) {
    expect(live, `${process} is alive`).toBe(!failed.includes(process));
    if (live) expect(entries.get(process)!.action).toBe("continue");
  }
  for (const name of failed) {
    const { events } = traces.find(({ process }) => process === name)!;
    expect(entries.get(name)!.position, `${name} loses nothing that it logged`).toBeGreaterThanOrEqual(
      events.length - 1, // the last line is the `stable` of the trace itself
    );
    expect(["replay", "restore"]).toContain(entries.get(name)!.action);
  }
  expectReceivedWithinSent(traces, entries);
  return failed.map((name) => entries.get(name)!.action);
}

function expectReceivedWithinSent(
  traces: readonly { readonly process: string; readonly events: readonly Event[] }[],
  entries: ReadonlyMap<string, LineEntry>,
): void {
  const [sent, received] = [new Map<string, number>(), new Map<string, number>()];
  for (const { process, events } of traces)
    for (const event of events.slice(0, entries.get(process)!.position)) {
      if (event.type === "send") sent.set(event.channel, event.end);
      if (event.type === "receive") received.set(event.channel, event.end);
    }
  for (const [channel, end] of received)
    expect(end, `received on ${channel}`).toBeLessThanOrEqual(sent.get(channel) ?? 0);
}

// ---- the result

/** Returns the number of deliveries. */
function expectExact(ring: Ring): number {
  const { names, tokens, hops } = ring.plan;
  const logs = new Map(names.map((name) => [name, readPlainLog(ring.logPath(name))]));
  let deliveries = 0;
  for (const [name, log] of logs) {
    expectEachOnce(name, log, logs);
    const { hash, count } = replayed(log, logs, name);
    const result = JSON.parse(/^result (.*)$/m.exec(ring.output(name))![1]!);
    expect(result, `the result of ${name}`).toEqual({ hash, count });
    deliveries += count;
  }
  // Each token is received hops + 1 times; those that end elsewhere than at the first process are told to it; then all others stop.
  const all = names.length * tokens;
  const told = [...logs.values()]
    .flatMap(({ sent }) => sent)
    .filter(({ payload }) => "done" in JSON.parse(payload));
  expect(new Set(told.map(({ payload }) => payload)).size).toBe(told.length);
  expect(deliveries).toBe(all * (hops + 1) + told.length + names.length - 1);
  return deliveries;
}

/** Every message of every channel is delivered once, in the order sent. */
function expectEachOnce(name: string, log: PlainLog, logs: ReadonlyMap<string, PlainLog>): void {
  expect(log.delivered.map(({ order }) => order)).toEqual(log.delivered.map((_, index) => index));
  for (const [peer, { sent }] of logs) {
    const toMe = sent.filter(({ to }) => to === name);
    expect(toMe.map(({ sequence }) => sequence)).toEqual(toMe.map((_, index) => index));
    const fromPeer = log.delivered.filter(({ from }) => from === peer);
    expect(
      fromPeer.map(({ sequence }) => sequence),
      `${peer} → ${name}`,
    ).toEqual(toMe.map((_, index) => index));
  }
}

/** What a run without any failure makes of the logged order. */
function replayed(
  log: PlainLog,
  logs: ReadonlyMap<string, PlainLog>,
  name: string,
): { hash: string; count: number } {
  let hash = "";
  for (const { from, sequence, sum } of log.delivered) {
    const { payload } = logs.get(from)!.sent.filter(({ to }) => to === name)[sequence]!;
    expect(crc32(payload)).toBe(sum);
    hash = createHash("sha256").update(`${hash} ${from} ${sequence} ${payload}`).digest("hex");
  }
  return { hash, count: log.delivered.length };
}
