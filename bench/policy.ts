// bench: policy — comparing six policies over 1 M events of 16 processes (RL_BENCH_POLICY_EVENTS), and what a policy's text costs.
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../src/native/binding.ts";
import { buildPolicy } from "../src/policy/build.ts";
import { comparePolicies } from "../src/policy/compare.ts";
import { Program } from "../src/policy/program.ts";
import { Recorder, type Recording } from "../src/policy/recording.ts";
import { parseSettings } from "../src/policy/settings.ts";
import { loadPolicy, readPolicy } from "../src/policy/shipped.ts";
import { type Figure, median, report } from "./report.ts";

const EVENTS = Number(process.env["RL_BENCH_POLICY_EVENTS"] ?? 1_000_000);
const PROCESSES = 16;
const LABELS = ["periodic", "coordinated", "bounded-loss", "index-based", "hmnr", "fdas"];

/** Everybody sends to random others and takes what has come: the densest pattern there is. */
function randomRecording(seed: number): Recording {
  let state = seed;
  const below = (bound: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
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

function timed(work: () => unknown): number {
  const begin = performance.now();
  work();
  return performance.now() - begin;
}

report("policy: what a policy's text costs", await textFigures());
report("policy: comparison", await compareFigures());
