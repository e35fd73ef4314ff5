/** Retention changes no answer: of any failure set, by any rules, now and after whatever follows. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { buildEvidence } from "../../src/compute/build-evidence.ts";
import { computeLine } from "../../src/compute/compute.ts";
import { computeFromCuts } from "../../src/compute/compute-from-cuts.ts";
import { parseBlock } from "../../src/format/block-header.ts";
import type { LogBase } from "../../src/format/log-base.ts";
import { planCollection, rulesToKeep } from "../../src/gc/gc.ts";
import { planPrune } from "../../src/log/plan-prune.ts";
import { readEvidence } from "../../src/logs/read-evidence.ts";
import type { Cut, Event } from "../../src/model/event.ts";
import type { Evidence } from "../../src/model/evidence-layout.ts";
import { RECEIVER, SENDER } from "../../src/model/evidence-layout.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { type MemoryLog, memoryLog } from "../unit/memory-log.ts";
import { numRuns } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

/** Histories of the first test, most of which can be pruned, and of the second, most of which can't. */
const RUNS = numRuns * sized(1, 0.4);
const CLOSING_RUNS = numRuns * sized(1, 0.8);

async function* streamOf(base: LogBase | undefined, log: MemoryLog): AsyncGenerator<Uint8Array> {
  for (const block of base?.blocks ?? []) yield Uint8Array.from(block);
  for (const [chain, block] of log.bytes) if (chain >= (base?.boundary ?? 1)) yield Uint8Array.from(block);
}

/** The log pruned as far as the evidence so far allows; undefined: nothing can go. */
async function pruned(
  log: MemoryLog,
  base: LogBase | undefined,
  every: number,
): Promise<LogBase | undefined> {
  const evidence = await readEvidence(streamOf(base, log));
  const { oldest } = planCollection(evidence, rulesToKeep(evidence));
  const boundaries = [...log.bytes.keys()].filter(
    (chain) => chain % every === 0 && chain > (base?.boundary ?? 1),
  );
  const plan = await planPrune({ boundaries, blocks: () => streamOf(base, log) }, oldest, 0.9);
  return plan.base;
}

const told = ({ line, inTransit, lostInputs, unsayable, outcome, evidence }: RecoveryLine) => ({
  line,
  inTransit,
  lostInputs,
  unsayable,
  outcome,
  evidence,
});

/** How often the line came from cuts after pruning, and why not; count. */
const afterPruning = new Map<string, number>();

async function sameAnswers(full: Evidence, base: LogBase, log: MemoryLog): Promise<void> {
  const kept = await readEvidence(streamOf(base, log));
  const joined = await buildEvidence([{ name: "kept", blocks: () => streamOf(base, log) }], { workers: 0 });
  const carried = new Map(base.blocks.map((block) => [parseBlock(block).header.chain, parseBlock(block)]));
  const source = {
    firstChain: base.boundary,
    lastChain: log.lastChain,
    heads: () => log.heads(),
    block: (chain: number) => log.block(chain),
    carried: (chain: number) => carried.get(chain),
    firstCarried: new Map([...carried].reverse().map(([chain, { header }]) => [header.process, chain])),
  };
  const { processes } = full;
  for (let set = 0; set < 2 ** processes.length; set += 1) {
    const failed = processes.filter((_, process) => (set >> process) & 1);
    for (const inTransit of ["any", "logged"] as const) {
      const options = { failed, dsm: "sequential", inTransit } as const;
      const expected = told(computeLine(full, options));
      expect(told(computeLine(kept, options))).toEqual(expected);
      expect(told(computeLine(joined, options))).toEqual(expected);
      const cuts = await computeFromCuts([source], options);
      const way = cuts.line === undefined ? cuts.reason : "cuts";
      afterPruning.set(way, (afterPruning.get(way) ?? 0) + 1);
      if (cuts.line !== undefined) expect(told(cuts.line)).toEqual(expected);
    }
  }
}

/**
 * A true execution of processes that checkpoint with cuts. Now and then all are quiet and checkpoint, so that lines get on; some fail
 * and go back to the line; some events are lost to a gap.
 */
class Execution {
  readonly events: Event[] = [];
  readonly #random: Random;
  readonly #names: readonly string[];
  /** Lines in effect, and what really happened: a lost event is a gap in the one and itself in the other. */
  readonly #truth = new Map<string, Event[]>();
  readonly #indices = new Map<string, number>();
  readonly #lossy: boolean;
  /** Connections of each pair of processes so far, count; absent: they never close any. */
  readonly #connections: Map<string, number> | undefined;
  /** Channels that are closed for good, with their ends. */
  #closed: { readonly channel: string; readonly from: string; readonly to: string }[] = [];
  /** Channels that cuts name no longer. */
  readonly forgotten = new Set<string>();
  /** Processes look before they receive; they talk with somebody who is no process. */
  readonly #looks: boolean;
  readonly #outside: boolean;
  /** Channels that a line said are outside, and how many of a process are closed. */
  readonly #outsideTold = new Set<string>();
  readonly #hungUp = new Map<string, number>();

  constructor(seed: number, closing = false) {
    this.#connections = closing ? new Map() : undefined;
    this.#random = new Random(seed);
    this.#names = ["a", "b", "c", "d"].slice(0, 2 + this.#random.below(3));
    this.#lossy = this.#random.oneIn(3);
    this.#looks = this.#random.oneIn(2);
    this.#outside = this.#random.oneIn(closing ? 4 : 2);
    for (const name of this.#names) this.#truth.set(name, []);
  }

  #happen(event: Event): void {
    this.#truth.get(event.process)!.push(event);
    const loses = this.#lossy && event.type !== "checkpoint" && this.#random.oneIn(30);
    if (event.type === "outside" && !loses) this.#outsideTold.add(event.channel);
    if (!loses) this.events.push(event);
    else
      this.events.push({
        type: "gap",
        process: event.process,
        ...(this.#random.oneIn(2) ? { lost: 1 } : {}),
      });
  }

  /** How far the process is on the channel. */
  #at(process: string, type: "send" | "receive" | "peek", channel: string): number {
    let end = 0;
    for (const event of this.#truth.get(process)!)
      if (event.type === type && event.channel === channel) end = Math.max(end, event.end);
    return end;
  }

  step(): void {
    const random = this.#random;
    const from = random.pick(this.#names);
    const to = random.pick(this.#names.filter((name) => name !== from));
    if (this.#connections !== undefined && random.oneIn(6)) this.#close(from, to);
    if (this.#connections !== undefined && random.oneIn(40)) this.#forget();
    if (this.#outside && random.oneIn(5)) this.#exchange(from);
    if (this.#looks && random.oneIn(6)) this.#look(from, to);
    const dice = random.below(60);
    if (dice < 22) this.#send(from, to);
    else if (dice < 45) this.#receive(from, to);
    else if (dice < 56) this.#checkpoint(from);
    else if (dice < 59) this.#quiet();
    else if (random.oneIn(2)) this.#crash();
  }

  /** With somebody outside, over one connection after the other: the line that says so comes before, after, or much later again. */
  #exchange(process: string): void {
    const random = this.#random;
    const input = random.oneIn(2);
    const key = `${input ? "in" : "out"} ${process}`;
    const number = this.#hungUp.get(key) ?? 0;
    if (random.oneIn(6)) this.#hungUp.set(key, number + 1);
    const channel = `${input ? `w${process}` : `${process}w`}#${number}`;
    const begin = this.#at(process, input ? "receive" : "send", channel);
    const range = { process, channel, begin, end: begin + 1 + random.below(3) };
    const isTold = this.#outsideTold.has(channel);
    const [before, after] = isTold
      ? [random.oneIn(12), false]
      : random.pick([
          [true, false],
          [false, true],
        ]);
    if (before) this.#happen({ type: "outside", process, channel });
    if (input && this.#looks && random.oneIn(3)) this.#happen({ type: "peek", ...range });
    this.#happen({ type: input ? "receive" : "send", ...range });
    if (after) this.#happen({ type: "outside", process, channel });
  }

  #look(from: string, to: string): void {
    const channel = this.#connection(from, to);
    const begin = this.#at(to, "receive", channel);
    const end = this.#at(from, "send", channel);
    if (begin < end)
      this.#happen({
        type: "peek",
        process: to,
        channel,
        begin,
        end: begin + 1 + this.#random.below(end - begin),
      });
  }

  /** Cuts leave out what is outside and closed, and now and then what is not. */
  #isSilentAbout(process: string): (channel: string) => boolean {
    const open = new Set(
      ["in", "out"].map((way) => {
        const number = this.#hungUp.get(`${way} ${process}`) ?? 0;
        return `${way === "in" ? `w${process}` : `${process}w`}#${number}`;
      }),
    );
    // Bytes that were lost before would be told by a later cut alone.
    const anyhow = !this.#lossy && this.#random.oneIn(25);
    return (channel) => this.#outsideTold.has(channel) && (anyhow || !open.has(channel));
  }

  /** The last connection is closed, if all was received; the next send uses a new one. */
  #close(from: string, to: string): void {
    const channel = this.#connection(from, to);
    if (this.#at(from, "send", channel) > this.#at(to, "receive", channel)) return;
    this.#closed.push({ channel, from, to });
    this.#connections?.set(from + to, (this.#connections.get(from + to) ?? 0) + 1);
  }

  /** As the collector does when collection tells it where no line of any future starts before (log/complete-cut.ts). */
  #forget(): void {
    const evidence = evidenceOf(this.events, [...this.#names]);
    const { oldest } = planCollection(evidence, rulesToKeep(evidence));
    const settled = this.#closed.filter(({ channel, from, to }) => {
      const sent = cutAt(evidence, channel, SENDER, oldest.get(from) as number);
      const received = cutAt(evidence, channel, RECEIVER, oldest.get(to) as number);
      const all = this.#at(from, "send", channel);
      return sent === all && received === all && this.#at(to, "receive", channel) === all;
    });
    for (const { channel } of settled) this.forgotten.add(channel);
    this.#closed = this.#closed.filter(({ channel }) => !this.forgotten.has(channel));
  }

  #connection(from: string, to: string): string {
    const number = this.#connections?.get(from + to) ?? 0;
    return number === 0 ? from + to : `${from}${to}#${number}`;
  }

  #send(from: string, to: string): void {
    const channel =
      this.#connections === undefined && this.#random.oneIn(8)
        ? from + to + this.#random.below(3)
        : this.#connection(from, to);
    const begin = this.#at(from, "send", channel);
    this.#happen({ type: "send", process: from, channel, begin, end: begin + 1 + this.#random.below(3) });
  }

  #receive(from: string, to: string): void {
    for (const channel of [this.#connection(from, to), `${from}${to}0`, `${from}${to}1`, `${from}${to}2`]) {
      const begin = this.#at(to, "receive", channel);
      const end = this.#at(from, "send", channel);
      if (begin < end && this.#random.below(4) > 0)
        this.#happen({
          type: "receive",
          process: to,
          channel,
          begin,
          end: begin + 1 + this.#random.below(end - begin),
        });
    }
  }

  #checkpoint(process: string): void {
    const index = (this.#indices.get(process) ?? 0) + 1 + this.#random.below(2);
    this.#indices.set(process, index);
    const isSilent = this.#isSilentAbout(process);
    const named = (type: "send" | "receive" | "peek") =>
      new Map(
        this.#truth
          .get(process)!
          .flatMap((event) =>
            event.type === type && !this.forgotten.has(event.channel) && !isSilent(event.channel)
              ? [[event.channel, this.#at(process, type, event.channel)]]
              : [],
          ) as [string, number][],
      );
    const seen = [...named("peek")].filter(([channel, end]) => end > this.#at(process, "receive", channel));
    const all: Cut = {
      sent: named("send"),
      received: named("receive"),
      ...(seen.length > 0 ? { seen: new Map(seen) } : {}),
    };
    const cut = this.#random.oneIn(8) ? {} : { cut: all };
    this.#happen({ type: "checkpoint", process, checkpoint: index, usable: !this.#random.oneIn(6), ...cut });
  }

  #quiet(): void {
    for (const name of this.#random.shuffle([...this.#names])) this.#checkpoint(name);
  }

  /** Some fail; all go to the line that the evidence gives, which may be earlier than the true one. */
  #crash(): void {
    const evidence = evidenceOf(this.events, [...this.#names]);
    const failed = this.#random.subset(this.#names);
    const { line } = computeLine(evidence, { failed, dsm: "sequential", inTransit: "any" });
    for (const { process, checkpoint } of line) {
      if (checkpoint === null) continue;
      const truth = this.#truth.get(process)!;
      const base = truth.findLastIndex(
        (event) => event.type === "checkpoint" && event.checkpoint === checkpoint,
      );
      truth.length = base + 1;
      this.events.push({ type: "rollback", process, checkpoint });
    }
  }
}

/** What the newest cut in effect, at or before the position, says of a channel's end; undefined: nothing. */
function cutAt(
  { channels, cuts, segments }: Evidence,
  name: string,
  side: number,
  position: number,
): number | undefined {
  const end = channels.indexOf(name) * 2 + side;
  let found: number | undefined;
  if (end < 0) return undefined;
  for (let cut = cuts.start[end] as number; cut < (cuts.start[end + 1] as number); cut += 1)
    if ((segments.line[cuts.segment[cut] as number] as number) <= position) found = cuts.offset[cut];
  return found;
}

function history(seed: number, steps: number, closing = false): { events: Event[]; forgotten: number } {
  const execution = new Execution(seed, closing);
  for (let step = 0; step < steps; step += 1) execution.step();
  return { events: execution.events, forgotten: execution.forgotten.size };
}

test("after pruning, every failure set's line, in-transit ranges and outcome are the same, also after more events and a second pruning", async () => {
  let prunings = 0;
  let again = 0;
  let removed = 0;
  const seed = Date.now() % 1_000_000_000;
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 2 ** 31 }),
      fc.integer({ min: 20, max: 200 }),
      fc.double({ min: 0.2, max: 1, noNaN: true }),
      fc.array(fc.nat(4), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 7 }),
      async (execution, steps, share, sizes, every) => {
        const { events } = history(execution, steps);
        const past = events.slice(0, Math.floor(events.length * share));
        const early = await memoryLog(past, sizes);
        const base = await pruned(early, undefined, every);
        if (base === undefined) return;
        prunings += 1;
        removed += base.boundary - 1 - base.blocks.length;
        await sameAnswers(await readEvidence(early.blocks()), base, early);
        // Flushed at the same places first, so that the later log begins with the same blocks.
        const later = await memoryLog(past, sizes);
        for (const event of events.slice(past.length)) await later.appendEvent(event);
        const full = await readEvidence(later.blocks());
        await sameAnswers(full, base, later);
        const second = await pruned(later, base, every);
        if (second === undefined) return;
        again += 1;
        await sameAnswers(full, second, later);
      },
    ),
    {
      seed,
      numRuns: RUNS,
      // Who would receive was told only by lines that had been undone, and by the first base.
      examples: [
        [312478251, 157, 0.25510204081632654, [0], 1],
        [144809389, 109, 0.2, [3, 2], 1],
      ],
    },
  );
  expect(prunings).toBeGreaterThan(RUNS / 40);
  expect(afterPruning.get("cuts")).toBeGreaterThan(RUNS / 8);
  expect(afterPruning.get("gaps are older than what the log keeps")).toBeUndefined();
  console.log(`seed ${seed}: ${prunings} prunings, ${again} a second time, ${removed} blocks removed`);
  console.log(JSON.stringify([...afterPruning]));
});

test("cuts that leave closed connections out: the line from cuts is the line from all events, also after pruning", async () => {
  const ways = new Map<string, number>();
  let [forgotten, prunings] = [0, 0];
  const seed = Date.now() % 1_000_000_000;
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 2 ** 31 }),
      fc.integer({ min: 100, max: 400 }),
      fc.array(fc.nat(4), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 7 }),
      async (execution, steps, sizes, every) => {
        const run = history(execution, steps, true);
        if (run.forgotten === 0) return;
        forgotten += run.forgotten;
        const log = await memoryLog(run.events, sizes, true);
        const full = await readEvidence(log.blocks());
        const { processes } = full;
        for (let set = 0; set < 2 ** processes.length; set += 1) {
          const failed = processes.filter((_, process) => (set >> process) & 1);
          const options = { failed, dsm: "sequential", inTransit: "any" } as const;
          const cuts = await computeFromCuts([log], options);
          const way = cuts.line === undefined ? cuts.reason : "cuts";
          ways.set(way, (ways.get(way) ?? 0) + 1);
          if (cuts.line !== undefined) expect(told(cuts.line)).toEqual(told(computeLine(full, options)));
        }
        const base = await pruned(log, undefined, every);
        if (base === undefined) return;
        prunings += 1;
        await sameAnswers(full, base, log);
        const second = await pruned(log, base, 1);
        if (second !== undefined) await sameAnswers(full, second, log);
      },
    ),
    { seed, numRuns: CLOSING_RUNS },
  );
  console.log(`seed ${seed}: ${forgotten} forgotten, ${prunings} prunings, ${JSON.stringify([...ways])}`);
  expect(prunings).toBeGreaterThan(CLOSING_RUNS / 40);
  expect(ways.get("cuts") ?? 0).toBeGreaterThan(CLOSING_RUNS / 16);
});

test("an attached process stays attached after pruning: what another said of the outside is void", async () => {
  const at = (type: "send" | "receive", process: string, begin: number, end: number) =>
    ({ type, process, channel: "x", begin, end }) as const;
  const taken = (process: string, checkpoint: number): Event => {
    const [sent, received] = [new Map<string, number>(), new Map<string, number>()];
    (process === "a" ? sent : received).set("x", 5);
    return { type: "checkpoint", process, checkpoint, usable: true, cut: { sent, received } };
  };
  const events: Event[] = [
    { type: "outside", process: "a", channel: "x" },
    at("send", "a", 0, 5),
    { type: "gap", process: "b", reason: "attached" },
    at("receive", "b", 3, 5),
    taken("b", 1),
    taken("a", 1),
    taken("b", 2),
    taken("a", 2),
    at("send", "a", 5, 6),
    at("receive", "b", 5, 6),
    at("send", "a", 6, 8),
  ];
  const log = await memoryLog(events, [1]);
  const base = await pruned(log, undefined, 1);
  if (base === undefined) throw new Error("nothing was pruned");
  await sameAnswers(await readEvidence(log.blocks()), base, log);
});
