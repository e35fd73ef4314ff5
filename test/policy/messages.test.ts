/**
 * Whatever becomes of what policies are told and say: random policies in the real host over random executions with kills, where facts, answers and
 * commands are lost, late and doubled. Each line, of every restart and of all failures afterwards, is that of the reference.
 */
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { answerOf } from "../../src/daemon/line-worker.ts";
import type { CommandAnswer } from "../../src/daemon/own-commands.ts";
import { EvidenceBuilder } from "../../src/graph/evidence/evidence-builder.ts";
import { hasCode } from "../../src/model/errors.ts";
import type { Event } from "../../src/model/event.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import type { BuiltPolicy, Component } from "../../src/policy/component.ts";
import { PolicyProcesses } from "../../src/policy/host.ts";
import { PolicyFault, type PolicyProcess } from "../../src/policy/host-process.ts";
import type { Answer, Request } from "../../src/policy/host-protocol.ts";
import type { EventName } from "../../src/policy/vocabulary.ts";
import { canonical } from "../reference/answer.ts";
import { fixpointLine } from "../reference/fixpoint.ts";
import { appendLine } from "../reference/history.ts";
import { answerAt, buildInstance } from "../reference/instance.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { RULES } from "./executions.ts";
import { LiveRig, PlayedProcess } from "./live-rig.ts";
import { randomPolicy } from "./random-policy.ts";

/** test/exhaustive/policies.test.ts takes 10 000. */
const RUNS = Number(process.env["RL_POLICY_RUNS"] ?? sized(100, 40));
const FIRST = Number(process.env["RL_POLICY_SEED"] ?? 1);
const HEARD: readonly EventName[] = ["plugged", "beat", "checkpointed", "line", "failed", "told", "pressure"];
const BEATS = 12;
const STEPS_A_BEAT = 8;

/** What can become of a message. */
type Fate = "well" | "lost" | "answer lost" | "late" | "doubled";
/** By what it is; "well" as often as it stands there. */
const FATES = {
  fact: ["well", "well", "lost", "late"],
  command: ["well", "well", "lost", "answer lost", "late", "doubled"],
  answer: ["well", "well", "well", "well", "lost", "late", "doubled"],
} as const satisfies Record<string, readonly Fate[]>;

interface Sums {
  checkpoints: number;
  restarts: number;
  readonly fates: Map<string, number>;
}

class World {
  readonly random: Random;
  readonly names: readonly string[];
  readonly events: Event[] = [];
  readonly dead = new Set<string>();
  readonly rig: LiveRig;
  readonly #seed: number;
  readonly #sums: Sums;
  readonly #histories = new Map<string, Event[]>();
  /** What is done in some beats. */
  #later: { readonly beat: number; readonly work: () => void }[] = [];
  #beat = 0;
  #plugged = false;
  readonly #last = new Map<string, Answer>();

  constructor(seed: number, sums: Sums) {
    this.#seed = seed;
    this.#sums = sums;
    this.random = new Random(seed);
    this.names = Array.from({ length: 2 + this.random.below(3) }, (_, at) => `p${at}`);
    for (const name of this.names) this.#histories.set(name, []);
    this.rig = new LiveRig(this.names, {
      processes: new PolicyProcesses(async (one) => this.#process(one)),
      commands: { run: (args) => this.#command(args), close: async () => undefined },
    });
  }

  async run(policy: BuiltPolicy): Promise<void> {
    const allow = ["restart", "roll-back", "collect"] as const;
    const mostLoss = this.random.oneIn(3) ? { mostLoss: 5 + this.random.below(30) } : {};
    await this.rig.plug(policy, { allow, fallback: { interval: 3 }, ...mostLoss });
    this.#plugged = true;
    for (; this.#beat < BEATS; this.#beat += 1) {
      for (let step = 0; step < STEPS_A_BEAT; step += 1) this.#step();
      if (this.random.oneIn(6)) this.#kill();
      this.#tellFacts();
      this.#doDue();
      this.rig.nowMs += 1000 * (1 + this.random.below(3));
      await this.rig.policies.beat();
      for (let turn = 0; turn < 8; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
    for (const { work } of this.#later) work();
    for (const name of this.names) this.line([name]);
    this.line(this.names);
  }

  /** The engine's line, which must be the reference's. */
  line(failed: readonly string[]) {
    const options = { failed: failed.filter((name) => this.#histories.get(name)!.length > 0), ...RULES };
    const answer = computeLine(this.#evidence(), options);
    const instance = buildInstance(this.events, options);
    const reference = answerAt(instance, fixpointLine(instance));
    expect(canonical(answer), `seed ${this.#seed} (RL_POLICY_SEED)`).toBe(canonical(reference));
    return answer.line;
  }

  #evidence() {
    const builder = new EvidenceBuilder();
    for (const event of this.events) builder.addEvent(event);
    return builder.build();
  }

  // ---- what the processes do

  #happen(event: Event): void {
    this.events.push(event);
    appendLine(this.#histories.get(event.process)!, event);
  }

  /** How far it has come on a channel along its effective history. */
  #reached(process: string, type: "send" | "receive", channel: string): number {
    return this.#histories
      .get(process)!
      .reduce((end, one) => (one.type === type && one.channel === channel ? Math.max(end, one.end) : end), 0);
  }

  #step(): void {
    const process = this.random.pick(this.names);
    if (this.dead.has(process)) return;
    const peer = this.random.pick(this.names.filter((name) => name !== process));
    const into = `${peer}>${process}`;
    const begin = this.#reached(process, "receive", into);
    const waiting = this.#reached(peer, "send", into) - begin;
    if (waiting > 0 && !this.random.oneIn(3)) {
      const end = begin + 1 + this.random.below(waiting);
      this.#happen({ type: "receive", process, channel: into, begin, end });
    } else {
      const channel = `${process}>${peer}`;
      const from = this.#reached(process, "send", channel);
      this.#happen({ type: "send", process, channel, begin: from, end: from + 1 + this.random.below(3) });
    }
  }

  #kill(): void {
    const process = this.random.pick(this.names);
    this.dead.add(process);
    Object.assign(this.rig.processes.get(process)!, { live: false, code: 137 });
  }

  #newest(process: string): number {
    return this.#histories
      .get(process)!
      .reduce((newest, one) => (one.type === "checkpoint" ? one.checkpoint : newest), 0);
  }

  #checkpoint(process: string): number | undefined {
    if (this.dead.has(process)) return undefined;
    const checkpoint = this.#newest(process) + 1;
    this.#happen({ type: "checkpoint", process, checkpoint, usable: true });
    this.#sums.checkpoints += 1;
    return checkpoint;
  }

  #restart(named: readonly string[]): CommandAnswer {
    for (const name of named) expect(this.names, `seed ${this.#seed}: restart ${named}`).toContain(name);
    const failed = [...new Set([...named, ...this.dead])].sort();
    if (this.random.oneIn(8)) return { code: 1, answer: undefined, why: "the image is gone" };
    for (const { process, checkpoint } of this.line(failed))
      if (checkpoint !== null) this.#happen({ type: "rollback", process, checkpoint });
    for (const name of this.dead) {
      const one = this.rig.processes.get(name)!;
      Object.assign(one, { live: true, incarnation: one.incarnation + 1 });
    }
    this.dead.clear();
    this.#sums.restarts += 1;
    return { code: 0, answer: {}, why: "" };
  }

  // ---- what becomes of messages

  #fate(what: keyof typeof FATES): Fate {
    const fate = this.#plugged ? this.random.pick<Fate>(FATES[what]) : "well"; // one that fails in its shadow phase is never plugged
    const key = `${what} ${fate}`;
    this.#sums.fates.set(key, (this.#sums.fates.get(key) ?? 0) + 1);
    return fate;
  }

  #laterOn(work: () => void): void {
    this.#later.push({ beat: this.#beat + 1 + this.random.below(3), work });
  }

  #doDue(): void {
    const due = this.#later.filter(({ beat }) => beat <= this.#beat);
    this.#later = this.#later.filter((one) => !due.includes(one));
    for (const { work } of due) work();
  }

  /** What the collector knows of each; some beats it does not hear anything, others it hears later. */
  #tellFacts(): void {
    for (const name of this.names) {
      const history = this.#histories.get(name)!;
      const now = {
        newest: this.#newest(name),
        received: history.length,
        changed: history.at(-1)?.type !== "checkpoint",
      };
      const tell = (): void => void Object.assign(this.rig.processes.get(name)!, now);
      const fate = this.#fate("fact");
      if (fate === "late") this.#laterOn(tell);
      else if (fate !== "lost") tell();
    }
    if (this.events.length > 0 && this.random.oneIn(2)) this.rig.line = answerOf(this.#evidence(), true);
  }

  #command(args: readonly string[]): Promise<CommandAnswer> {
    const lost: CommandAnswer = { code: null, answer: undefined, why: "nobody answered" };
    switch (this.#fate("command")) {
      case "lost":
        return Promise.resolve(lost);
      case "answer lost":
        this.#done(args);
        return Promise.resolve(lost);
      case "late":
        return new Promise((resolve) => this.#laterOn(() => resolve(this.#done(args))));
      case "doubled":
        this.#done(args);
        return Promise.resolve(this.#done(args));
      default:
        return Promise.resolve(this.#done(args));
    }
  }

  #done(args: readonly string[]): CommandAnswer {
    if (args[0] === "restart") return this.#restart(args[args.indexOf("--failed") + 1]!.split(","));
    if (args[0] !== "checkpoint") return { code: 0, answer: {}, why: "" };
    const checkpoints = args.slice(2, args.indexOf("--driver")).flatMap((process) => {
      const checkpoint = this.#checkpoint(process);
      return checkpoint === undefined ? [] : [{ process, checkpoint, frozenMs: this.random.below(50) }];
    });
    return { code: 0, answer: { checkpoints, failed: [] }, why: "" };
  }

  /** The answer of an earlier event, or what it wants twice over, come to the host as they are: worse than anything that its gateway lets through. */
  #process(component: Component): PolicyProcess {
    const played = new PlayedProcess(component);
    const ask = played.ask.bind(played);
    played.ask = async (request: Request): Promise<Answer> => {
      const answer = await ask(request);
      const key = `${request.event} ${request.each}`;
      const before = this.#last.get(key);
      this.#last.set(key, answer);
      switch (this.#fate("answer")) {
        case "lost":
          throw new PolicyFault("hang", "no answer within 2000 ms");
        case "late":
          return before?.rows.length === answer.rows.length ? before : answer;
        case "doubled":
          return {
            ...answer,
            rows: answer.rows.map((row) => ({ ...row, actions: [...row.actions, ...row.actions] })),
          };
        default:
          return answer;
      }
    };
    return played as unknown as PolicyProcess;
  }
}

function randomLivePolicy(random: Random): BuiltPolicy {
  for (;;)
    try {
      const built = buildPolicy("random.xml", randomPolicy(random, HEARD));
      if (built.component.refused.live.length === 0) return built;
    } catch (error) {
      if (!hasCode(error, "RL_BAD_INPUT")) throw error;
    }
}

test(`${RUNS} random policies, what they are told and say lost, late and doubled: every line is the reference's`, async () => {
  const sums: Sums = { checkpoints: 0, restarts: 0, fates: new Map() };
  for (let seed = FIRST; seed < FIRST + RUNS; seed += 1) {
    const world = new World(seed, sums);
    try {
      await world.run(randomLivePolicy(new Random(seed)));
    } finally {
      await world.rig.remove();
    }
  }
  console.log(
    `${RUNS} policies, seeds from ${FIRST}: ${sums.checkpoints} checkpoints, ${sums.restarts} restarts; ${[...sums.fates].map(([fate, count]) => `${fate} ${count}`).join(", ")}`,
  );
  expect(sums.checkpoints).toBeGreaterThan(RUNS);
  expect(sums.restarts).toBeGreaterThan(RUNS / 20);
  for (const [what, fates] of Object.entries(FATES))
    for (const fate of fates) expect(sums.fates.get(`${what} ${fate}`), `${what} ${fate}`).toBeGreaterThan(0);
}, 3_600_000);
