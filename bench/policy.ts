// bench: policy — a beat of 1 000 processes, the lines of all single failures of 10, 100, 1 000, plug and swap at a live collector, and
// comparing six policies over 1 M events of 16 processes (RL_BENCH_POLICY_EVENTS).
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { KernelSource } from "../src/capture/kernel-source.ts";
import { requireCollector } from "../src/client/client.ts";
import type { ProcessInfo } from "../src/client/protocol.ts";
import { LineFacts } from "../src/daemon/line-facts.ts";
import { answerOf } from "../src/daemon/line-worker.ts";
import { FactTable } from "../src/daemon/policy-facts.ts";
import { EvidenceBuilder } from "../src/graph/evidence/evidence-builder.ts";
import { ProcessCgroup } from "../src/host/cgroups.ts";
import type { Evidence } from "../src/model/evidence-layout.ts";
import type { PlugBody } from "../src/model/plugged-policy.ts";
import { compiledFile, packageRoot } from "../src/native/binding.ts";
import { buildPolicy } from "../src/policy/build.ts";
import { comparePolicies } from "../src/policy/compare.ts";
import { encodeComponent, hashOf } from "../src/policy/component.ts";
import { Program } from "../src/policy/program.ts";
import { Recorder, type Recording } from "../src/policy/recording.ts";
import { parseSettings } from "../src/policy/settings.ts";
import { loadPolicy, readPolicy } from "../src/policy/shipped.ts";
import { FACTS, type FactName } from "../src/policy/vocabulary.ts";
import { type Figure, median, report } from "./report.ts";

const EVENTS = Number(process.env["RL_BENCH_POLICY_EVENTS"] ?? 1_000_000);
const PROCESSES = 16;
const LABELS = ["periodic", "coordinated", "bounded-loss", "index-based", "hmnr", "fdas"];

/** The same numbers each time, below a bound. */
function numbers(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

/** Everybody sends to random others and takes what has come: the densest pattern there is. */
function randomRecording(seed: number): Recording {
  const below = numbers(seed);
  const sent = new Float64Array(PROCESSES * PROCESSES);
  const received = new Float64Array(PROCESSES * PROCESSES);
  const recorder = new Recorder();
  for (let event = 0; event < EVENTS; ) {
    const p = below(PROCESSES);
    const q = (p + 1 + below(PROCESSES - 1)) % PROCESSES;
    const into = q * PROCESSES + p;
    const begin = received[into] as number;
    if (begin < (sent[into] as number)) {
      received[into] = begin + 1;
      recorder.addEvent({ type: "receive", process: `p${p}`, channel: `c${into}`, begin, end: begin + 1 });
      event += 1;
      continue;
    }
    const out = p * PROCESSES + q;
    const at = sent[out] as number;
    sent[out] = at + 1;
    recorder.addEvent({ type: "send", process: `p${p}`, channel: `c${out}`, begin: at, end: at + 1 });
    event += 1;
  }
  return recorder.build();
}

/** 62 500 events a process are a minute; basic checkpoints every 5 s. */
const cost = { checkpoint: 0.05, restart: 1, imageBytes: 2 ** 26, mtbf: 86_400, event: 0.001 };
const rules = { dsm: "sequential", inTransit: "any" } as const;

function compared(name: string) {
  const { component } = loadPolicy(name);
  const setting = name === "bounded-loss" ? "bound=60s" : "interval=5s";
  return { label: name, component, parameters: parseSettings(component, [setting]) };
}

async function compareFigures(): Promise<Figure[]> {
  const recording = randomRecording(1);
  const workers = Math.min(2, availableParallelism());
  const policies = LABELS.map(compared);
  const begin = performance.now();
  const made = await comparePolicies(recording, policies, { seeds: 1, instants: 100, cost, rules, workers });
  const seconds = (performance.now() - begin) / 1000;
  for (const { label, frozen } of made.policies)
    console.log(
      `# ${label}: ${frozen.basic.mean} basic, ${frozen.forced.mean} forced, ${frozen.useless.mean} useless`,
    );
  const name = `${EVENTS / 1e6} M events of ${PROCESSES} processes, ${LABELS.length} policies, 100 instants, both columns, ${workers} threads`;
  return [{ name, value: seconds, unit: "s", goal: "≤ 60 s", met: seconds <= 60 }];
}

async function textFigures(): Promise<Figure[]> {
  const file = join(packageRoot(), "policies", "bounded-loss.xml");
  const text = readPolicy(file);
  const check = await median(21, () => timed(() => buildPolicy(file, text)));
  const program = new Program(buildPolicy(file, text).component);
  const facts = [1, 30, 60];
  const state = program.initialState();
  const beats = 1_000_000;
  const beat = await median(5, () =>
    timed(() => {
      for (let at = 0; at < beats; at += 1) program.step("beat", "process", facts, state);
    }),
  );
  return [
    { name: "bounded-loss: parsed, checked, built", value: check, unit: "ms" },
    { name: "bounded-loss: one beat of one process", value: (beat / beats) * 1e6, unit: "ns" },
  ];
}

/** Events a process, and between two of its checkpoints; each talks with four neighbours. */
const LINE_EVENTS = 200;
const LINE_INTERVAL = 20;

function randomEvidence(processes: number): Evidence {
  const below = numbers(7);
  const builder = new EvidenceBuilder();
  const sent = new Map<string, number>();
  const received = new Map<string, number>();
  const done = new Float64Array(processes);
  for (let step = 0; step < processes * LINE_EVENTS; step += 1) {
    const p = below(processes);
    const q = (p + 1 + below(Math.min(4, processes - 1))) % processes;
    const into = `${q}>${p}`;
    const begin = received.get(into) ?? 0;
    const gets = begin < (sent.get(into) ?? 0);
    const channel = gets ? into : `${p}>${q}`;
    const at = gets ? begin : (sent.get(channel) ?? 0);
    (gets ? received : sent).set(channel, at + 1);
    builder.addEvent({ type: gets ? "receive" : "send", process: `p${p}`, channel, begin: at, end: at + 1 });
    done[p]! += 1;
    if (done[p]! % LINE_INTERVAL === 0)
      builder.addEvent({
        type: "checkpoint",
        process: `p${p}`,
        checkpoint: done[p]! / LINE_INTERVAL,
        usable: true,
      });
  }
  return builder.build();
}

async function lineFigures(): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const processes of [10, 100, 1000]) {
    const evidence = randomEvidence(processes);
    const value = await median(3, () => timed(() => answerOf(evidence, false)));
    const name = `lines of all ${processes} single failures, ${(processes * LINE_EVENTS) / 1000} k events`;
    figures.push({ name, value, unit: "ms" });
  }
  return figures;
}

/** What a beat does for 1 000 processes: what the collector knows is taken over, and every fact of every process is read. */
function beatFigures(): Figure[] {
  const processes = 1000;
  const names = Array.from({ length: processes }, (_, at) => `p${at}`);
  const infos = names.map((process, at) => ({ ...INFO, process, cgroupId: at + 1 }));
  let received = 0;
  const counts = () =>
    names.map((process) => ({
      process,
      sent: received,
      received,
      sentSince: 1,
      receivedSince: 1,
      hidden: false,
      changed: true,
      checkpoints: 3,
      newest: 3,
    }));
  const table = new FactTable(() => 0.01);
  table.look(infos, counts(), 0);
  table.line = new LineFacts(answerOf(randomEvidence(processes), false), 0);
  const all = Object.keys(FACTS) as FactName[];
  const node = { free: 1e9, memory: 1e9 };
  const scene = () => ({ nowMs: received * 1000, node, event: {} });
  const beats = (facts: readonly FactName[]): number => {
    let spent = 0;
    for (let beat = 0; beat < BEATS; beat += 1) {
      received += 1;
      const now = counts();
      const { user, system } = process.cpuUsage();
      table.look(infos, now, received * 1000);
      table.beat();
      table.rows(names, facts, scene());
      const after = process.cpuUsage();
      spent += after.user - user + after.system - system;
    }
    return spent / BEATS / 1000;
  };
  beats(BOUNDED);
  const goal = { unit: "ms of processor time", goal: "≤ 5 ms" };
  return [
    ["facts of bounded-loss", beats(BOUNDED)] as const,
    [`all ${all.length} facts`, beats(all)] as const,
  ].map(([what, value]) => ({
    name: `one beat of 1 000 processes, ${what}`,
    value,
    ...goal,
    met: value <= 5,
  }));
}

const BEATS = 100;
const BOUNDED = loadPolicy("bounded-loss").component.facts;
const INFO: Omit<ProcessInfo, "process" | "cgroupId"> = {
  app: "a",
  live: true,
  rings: false,
  incarnation: 1,
  uncaptured: [],
  failed: false,
  left: [],
  lines: 10,
  checkpoints: 3,
  newestCheckpoint: 3,
};

const MAIN = compiledFile("cli/main.js");
const APP = `bench-policy-${process.pid}`;
const PLUGS = 7;

/** At a collector of its own that records one process: from the request to the answer, the durable record in between. */
async function plugFigures(): Promise<Figure[]> {
  const home = mkdtempSync(join(tmpdir(), "rl-bench-policy-"));
  const pinDir = `/sys/fs/bpf/rl-${APP}`;
  const collector = spawn(process.execPath, [MAIN, "collect", "--log", home, "--pin-dir", pinDir], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    await once(collector.stdout!, "data");
    execFileSync(process.execPath, [MAIN, "run", APP, "p", "--log", home, "--detach", "--", "sleep", "600"]);
    const client = await requireCollector(home);
    const plug = async (name: string): Promise<number> => {
      const begin = performance.now();
      await client.plugPolicy(bodyOf(name));
      return performance.now() - begin;
    };
    const plugs = await median(PLUGS, async () => {
      const took = await plug("periodic");
      await client.unplugPolicy(APP);
      return took;
    });
    await plug("periodic");
    let turn = 0;
    const swaps = await median(PLUGS, () => plug(turn++ % 2 === 0 ? "staggered" : "periodic"));
    client.close();
    return [
      {
        name: "plug: check, start of its process, a beat of shadow, durable record",
        value: plugs,
        unit: "ms",
      },
      { name: "swap of one for another, none of the time without a policy", value: swaps, unit: "ms" },
    ];
  } finally {
    const cgroup = new ProcessCgroup(APP, "p");
    for (let tries = 0; tries < 100 && cgroup.id !== undefined && !cgroup.remove(); tries += 1) {
      cgroup.kill();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    collector.kill("SIGTERM");
    if (collector.exitCode === null) await once(collector, "exit");
    KernelSource.unpin(pinDir);
    rmSync(home, { recursive: true, force: true });
  }
}

function bodyOf(name: string): PlugBody {
  const { component, lines } = loadPolicy(name);
  const text = new TextDecoder().decode(encodeComponent(component));
  return {
    app: APP,
    component: text,
    hash: hashOf(component),
    lines,
    set: [],
    fallback: null,
    driver: "none",
    shadow: 0,
    dryRun: false,
  };
}

function timed(work: () => unknown): number {
  const begin = performance.now();
  work();
  return performance.now() - begin;
}

report("policy: what a policy's text costs", await textFigures());
report("policy: live", [...beatFigures(), ...(await lineFigures()), ...(await plugFigures())]);
report("policy: comparison", await compareFigures());
