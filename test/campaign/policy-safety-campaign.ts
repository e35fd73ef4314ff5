/**
 * Random policies on live processes for a while: swapped under load, their processes killed, the collector killed.
 *
 *   npm run campaign:policy -- --safety [--seconds 3600] [--seed 1]
 *
 * After each round: nobody stands still, every answer came, no evidence is lost, and each line, of single failures and of all, is that of the
 * reference. Prints a line a round and a summary.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { seeded } from "../../src/demo/seeded.ts";
import { hasCode } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { END_WORD_MS } from "../../src/model/limits.ts";
import type { PolicyStatus } from "../../src/model/plugged-policy.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import type { EventName } from "../../src/policy/vocabulary.ts";
import { ECHO, freePort, type Rig, type Running, until, withBenchRig } from "../daemon/rig.ts";
import { randomPolicy } from "../policy/random-policy.ts";
import { canonical } from "../reference/answer.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { answerAt, buildInstance } from "../reference/instance.ts";
import { Random } from "../reference/random.ts";

const HEARD: readonly EventName[] = [
  "plugged",
  "beat",
  "checkpointed",
  "line",
  "told",
  "pressure",
  "leaving",
];
const POLICIES_A_ROUND = 3;
/** Longer than the word of an end is awaited. */
const QUIET_MS = 2 * END_WORD_MS;
const TICKS_A_SECOND = 100;
const CLIENTS = ["c0", "c1"];
const NAMES = [...CLIENTS, "server"];
/** Counts what it asks and checks every answer: one that is another ends it. */
const CLIENT = `exec 3<>/dev/tcp/127.0.0.1/$1; n=0; while printf '%d\\n' $n >&3 && read -r answer <&3; do [ "$answer" = $n ] || exit 7; n=$((n + 1)); read -rt 0.05 <> <(:); done; exit 8`;

interface Round {
  checkpoints: number;
  policyKills: number;
  collectorKills: number;
  events: number;
}

test("safety of random policies", async () => {
  const seconds = Number(process.env["CAMPAIGN_SECONDS"] ?? 3600);
  const seed = Number(process.env["CAMPAIGN_SEED"] ?? 1);
  const untilMs = Date.now() + seconds * 1000;
  const sums = { checkpoints: 0, policyKills: 0, collectorKills: 0, events: 0 };
  let rounds = 0;
  for (; Date.now() < untilMs; rounds += 1) {
    const done = await safeRound(seed + rounds);
    for (const key of ["checkpoints", "policyKills", "collectorKills", "events"] as const)
      sums[key] += done[key];
    console.log(JSON.stringify({ round: rounds + 1, seed: seed + rounds, ...done }));
  }
  console.log(
    `${rounds} rounds, ${processorSeconds()} s of processor time, seeds from ${seed}: ${rounds * POLICIES_A_ROUND} random policies, ${sums.checkpoints} checkpoints, ` +
      `${sums.policyKills} kills of policies' processes and ${sums.collectorKills} of the collector, ${sums.events} events: nobody left frozen, ` +
      "nothing lost, every line that of the reference",
  );
  expect(sums.checkpoints).toBeGreaterThan(rounds);
});

/** Of this process and of all that it started and has seen end: collectors, policies, commands; not of the recorded processes. */
function processorSeconds(): number {
  const fields = readFileSync("/proc/self/stat", "utf8").split(") ")[1]!.split(" ");
  const ticks = fields.slice(11, 15).reduce((sum, one) => sum + Number(one), 0);
  return Math.round(ticks / TICKS_A_SECOND);
}

async function safeRound(seed: number): Promise<Round> {
  const done: Round = { checkpoints: 0, policyKills: 0, collectorKills: 0, events: 0 };
  await withBenchRig(`safe-${seed}`, async (rig) => {
    const below = seeded(seed);
    let collector = await rig.collect();
    await talk(rig);
    for (let policy = 0; policy < POLICIES_A_ROUND; policy += 1) {
      await plugRandom(rig, new Random(seed * POLICIES_A_ROUND + policy));
      await sleep(500 + below(2000));
      if (below(2) === 0) done.policyKills += killPolicies(collector);
      if (below(3) === 0) {
        collector.child.kill("SIGKILL");
        await collector.ended;
        collector = await rig.collect();
        done.collectorKills += 1;
      }
      await sleep(below(1000));
    }
    done.checkpoints = await unplugged(rig);
    await nobodyStandsStill(rig);
    done.events = await judged(rig, seed);
  });
  return done;
}

async function talk(rig: Rig): Promise<void> {
  const port = String(await freePort());
  await rig.run("server", process.execPath, "-e", ECHO, port);
  await until("the server listens", () => rig.output("server").includes("listening"));
  for (const name of CLIENTS) await rig.run(name, "bash", "-c", CLIENT, "client", port);
}

/** One that an unmodified program can have. */
async function plugRandom(rig: Rig, random: Random): Promise<void> {
  for (;;) {
    const text = randomPolicy(random, HEARD);
    try {
      if (buildPolicy("random.xml", text).component.refused.live.length > 0) continue;
    } catch (error) {
      if (hasCode(error, "RL_BAD_INPUT")) continue;
      throw error;
    }
    const file = rig.path("random.xml");
    writeFileSync(file, text);
    const flags = ["--allow", "collect", "--driver", "none", "--fallback", "periodic:2s"];
    const mostLoss = random.oneIn(2) ? ["--most-loss", "10s"] : [];
    await rig.json("policy", "plug", rig.app, file, ...flags, ...mostLoss);
    return;
  }
}

function killPolicies({ child }: Running): number {
  const pids = readdirSync("/proc").filter((name) => {
    try {
      const status = /^\d+$/.test(name) ? readFileSync(`/proc/${name}/status`, "utf8") : "";
      return status.includes(`PPid:\t${child.pid}\n`) && /^Uid:\t65534\t/m.test(status);
    } catch {
      return false; // it has ended meanwhile
    }
  });
  for (const pid of pids) process.kill(Number(pid), "SIGKILL");
  return pids.length;
}

/** Returns how many checkpoints policies had taken since the collector began. */
async function unplugged(rig: Rig): Promise<number> {
  const { plugged } = await rig.json<{ plugged: readonly PolicyStatus[] }>("policy", "list", rig.app);
  await rig.json("policy", "unplug", rig.app);
  return plugged[0]?.checkpoints ?? 0;
}

/** And every client goes on: it has got every answer so far. */
async function nobodyStandsStill(rig: Rig): Promise<void> {
  await until("nobody stands still", () => NAMES.every((name) => !rig.cgroup(name).freezing));
  const client = await rig.client();
  const lines = async (): Promise<number[]> =>
    (await client.processes())
      .sort((a, b) => (a.process < b.process ? -1 : 1))
      .map((one) => (one.live ? one.lines : -1));
  const before = await lines();
  await until("all go on", async () => (await lines()).every((count, at) => count > before[at]!));
  client.close();
  for (const name of NAMES) expect(rig.cgroup(name).populated, name).toBe(true);
}

/** Endings of the dead are decided a moment later: until the log grows no more. */
async function lastEvents(rig: Rig): Promise<readonly Event[]> {
  for (let events = await rig.events(); ; ) {
    await sleep(QUIET_MS);
    const now = await rig.events();
    if (now.length === events.length) return now;
    events = now;
  }
}

/** All stand still by now, so that the log is that of the lines. Returns its events, count. */
async function judged(rig: Rig, seed: number): Promise<number> {
  for (const name of NAMES) rig.cgroup(name).kill();
  await until("all are dead", () => NAMES.every((name) => !rig.cgroup(name).populated));
  const events = await lastEvents(rig);
  const sets = [...NAMES.map((name) => [name]), NAMES];
  for (const failed of sets) {
    const answer = await rig.json<RecoveryLine>("compute", rig.app, "--failed", failed.join(","));
    const instance = buildInstance(events, { failed, dsm: "sequential", inTransit: "any" });
    const reference = answerAt(instance, fixpointLine(instance));
    expect(canonical(answer), `seed ${seed}: ${failed}`).toBe(canonical(reference));
    expect(answer.outcome, `seed ${seed}: evidence is lost`).toBe("clean");
  }
  return events.length;
}
