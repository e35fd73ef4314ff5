/**
 * Cuts that name what exists and, once, what has ended: connections open and close at random, the log completes each cut
 * (log/complete-cut.ts), and the line from cuts is the line from all events.
 */
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { computeFromCuts } from "../../src/compute/compute-from-cuts.ts";
import { parseBlock } from "../../src/format/block-header.ts";
import { isUnit } from "../../src/log/complete-cut.ts";
import type { Cut, Event } from "../../src/model/event.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { MemoryLog } from "../unit/memory-log.ts";
import { numRuns, pick } from "./cases.ts";
import { evidenceOf } from "./laws-executions.ts";

const rules = { dsm: "sequential", inTransit: "any" } as const;

/** One end of a connection: what it sends on and receives on, and how far. */
interface End {
  readonly process: string;
  readonly sends: string;
  readonly receives: string;
  sent: number;
  received: number;
  seen: number;
  /** Its other end; undefined: not recorded. */
  peer: End | undefined;
  /** Peer of whom? What has been sent to it by somebody who is not recorded. */
  strange: number;
  open: boolean;
}

class Machine {
  readonly log = new MemoryLog(true);
  readonly events: Event[] = [];
  /** But the first of each process, and not while the log is read on the side; and those of them that cover. */
  cuts = 0;
  covering = 0;
  readonly names: readonly string[];
  readonly #random: Random;
  readonly #strangers: boolean;
  readonly #restarts: boolean;
  readonly #rarely: number;
  readonly #calm: boolean;
  /** Steps for which what reads on the side gets its turn. */
  #reads = 0;
  #ends: End[] = [];
  #connections = 0;
  readonly #index = new Map<string, number>();
  readonly #accepts: { readonly name: string; readonly end: End }[] = [];
  readonly #closes: { readonly name: string; readonly end: End }[] = [];

  /** `rarely`: so many checkpoints less, and after the log was opened anew there is time to read it. `calm`: hardly a connection comes or goes. */
  constructor(random: Random, strangers: boolean, rarely = 1, calm = false) {
    this.#calm = calm;
    this.#random = random;
    this.#strangers = strangers;
    this.#rarely = rarely;
    this.#restarts = random.oneIn(4);
    this.names = ["a", "b", "c", "d"].slice(0, 2 + random.below(3));
  }

  async #append(event: Event): Promise<void> {
    this.events.push(event);
    await this.log.appendEvent(event);
  }

  async step(): Promise<void> {
    if (this.#reads > 0) {
      this.#reads -= 1;
      await sleep(1);
    }
    const random = this.#random;
    const end = this.#ends.length > 0 ? random.pick(this.#ends) : undefined;
    const dice = random.below(24);
    if (this.#calm && this.#ends.length > 3 && (dice < 3 || (dice >= 15 && dice < 18)) && !random.oneIn(60))
      return;
    if (end === undefined || dice < 3) return this.#connect();
    if (dice < 9) return this.#send(end);
    if (dice < 14) return this.#receive(end);
    if (dice < 15) return this.#peek(end);
    if (dice < 18) return this.#close(end);
    if (dice < 20) return this.#meet();
    if (dice < 23) return random.oneIn(this.#rarely) ? this.#checkpoint(random.pick(this.names)) : undefined;
    if (random.oneIn(this.#rarely > 1 ? 40 : 4)) {
      this.log.reopen();
      if (this.#rarely > 1) this.#reads = 150;
    }
    if (this.#restarts && random.oneIn(3)) await this.#restart();
  }

  async #connect(): Promise<void> {
    const random = this.#random;
    const process = random.pick(this.names);
    this.#connections += 1;
    const number = this.#connections.toString(16).padStart(8, "0");
    const [forth, back] = [`tcp:${number}-ffffffff`, `tcp:ffffffff-${number}`];
    const make = (name: string, sends: string, receives: string): End => ({
      process: name,
      sends,
      receives,
      sent: 0,
      received: 0,
      seen: 0,
      peer: undefined,
      strange: 0,
      open: true,
    });
    const end = make(process, forth, back);
    this.#ends.push(end);
    await this.#append({ type: "send", process, channel: `${forth}/open`, begin: 0, end: 1 });
    if (this.#strangers && random.oneIn(12)) {
      end.strange = random.below(5);
      return;
    }
    end.peer = make(random.pick(this.names), back, forth);
    end.peer.peer = end;
    this.#ends.push(end.peer);
    this.#accepts.push({ name: `${forth}/open`, end: end.peer });
  }

  /** What is on its way to somebody who is still there comes, now or later. */
  async #meet(): Promise<void> {
    const list = this.#random.oneIn(2) ? this.#accepts : this.#closes;
    const [first] = list.splice(this.#random.below(Math.max(1, list.length)), 1);
    if (first?.end.open !== true) return;
    await this.#append({
      type: "receive",
      process: first.end.process,
      channel: first.name,
      begin: 0,
      end: 1,
    });
  }

  async #send(end: End): Promise<void> {
    const begin = end.sent;
    end.sent += 1 + this.#random.below(3);
    await this.#append({ type: "send", process: end.process, channel: end.sends, begin, end: end.sent });
  }

  async #receive(end: End): Promise<void> {
    const begin = end.received;
    const all = end.peer === undefined ? end.strange : end.peer.sent;
    if (all === begin) return;
    end.received = begin + 1 + this.#random.below(all - begin);
    end.seen = Math.max(end.seen, end.received);
    await this.#append({
      type: "receive",
      process: end.process,
      channel: end.receives,
      begin,
      end: end.received,
    });
  }

  async #peek(end: End): Promise<void> {
    if (end.peer === undefined || end.peer.sent <= end.seen) return;
    const begin = end.seen;
    end.seen = end.peer.sent;
    await this.#append({ type: "peek", process: end.process, channel: end.receives, begin, end: end.seen });
  }

  async #close(end: End): Promise<void> {
    this.#ends = this.#ends.filter((one) => one !== end);
    end.open = false;
    const name = `${end.sends}/end`;
    await this.#append({ type: "send", process: end.process, channel: name, begin: 0, end: 1 });
    if (end.peer?.open) this.#closes.push({ name, end: end.peer });
  }

  async #checkpoint(process: string): Promise<void> {
    const checkpoint = (this.#index.get(process) ?? 0) + 1;
    this.#index.set(process, checkpoint);
    const own = this.#ends.filter((end) => end.process === process);
    const kernel: Cut = {
      sent: new Map(own.flatMap(({ sends, sent }) => (sent > 0 ? [[sends, sent] as const] : []))),
      received: new Map(
        own.flatMap(({ receives, received }) => (received > 0 ? [[receives, received] as const] : [])),
      ),
      seen: new Map(
        own.flatMap(({ receives, received, seen }) => (seen > received ? [[receives, seen] as const] : [])),
      ),
    };
    const cut = await this.log.completeCut(process, kernel);
    await this.#append({ type: "checkpoint", process, checkpoint, usable: !this.#random.oneIn(8), cut });
    if (this.#reads > 0 || checkpoint === 1) return; // nobody reads for a process that has taken none
    this.cuts += 1;
    if ((await this.log.block(this.log.lastChain)).header.covers) this.covering += 1;
  }

  /** Some fail; all that the line takes back goes back, and every connection is gone. */
  async #restart(): Promise<void> {
    const failed = this.names.filter(
      (name) => this.events.some(({ process }) => process === name) && this.#random.oneIn(2),
    );
    if (failed.length === 0) return;
    const { line } = computeLine(evidenceOf(this.events, []), { ...rules, failed });
    for (const { process, action, checkpoint } of line)
      if (action !== "continue")
        await this.#append({ type: "rollback", process, checkpoint: checkpoint ?? 0 });
    for (const end of this.#ends) end.open = false;
    this.#ends = [];
    this.#accepts.length = 0;
    this.#closes.length = 0;
  }
}

const withoutUnits = ({ line, inTransit, outcome, evidence }: RecoveryLine) => ({
  line,
  inTransit: inTransit.filter(({ channel }) => !isUnit(channel)),
  outcome,
  evidence,
});

for (const strangers of [false, true])
  test(`connections come and go${strangers ? ", some with strangers" : ""}: cuts give the line that all events give`, async () => {
    let [fromCuts, all, ended] = [0, 0, 0];
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.nat(15), async (seed, mask) => {
        const random = new Random(seed);
        const machine = new Machine(random, strangers);
        for (let step = 50 + random.below(600); step > 0; step -= 1) await machine.step();
        const { events, log } = machine;
        const failed = pick([...new Set(events.map(({ process }) => process))].sort(), mask);
        fc.pre(events.length > 0);
        all += 1;
        const found = await computeFromCuts([log], { ...rules, failed });
        if (found.line === undefined) return;
        fromCuts += 1;
        expect(withoutUnits(found.line)).toEqual(
          withoutUnits(computeLine(evidenceOf(events, []), { ...rules, failed })),
        );
        for (const event of events) {
          if (event.type === "send" && event.channel.endsWith("/end")) ended += 1;
        }
      }),
      { numRuns: numRuns * sized(1, 0.5) },
    );
    console.log(`${fromCuts} of ${all} lines from cuts`);
    expect(fromCuts / all).toBeGreaterThan(strangers ? 0.3 : 0.6);
    expect(ended).toBeGreaterThan(0);
  });

/** Rows of the log that hold cuts, and how many of them cover. */
function cutsOf(log: MemoryLog): { cuts: number; covering: number } {
  const headers = [...log.bytes.values()].map((bytes) => parseBlock(bytes).header);
  const withCut = headers.filter(({ hasCut }) => hasCut);
  return { cuts: withCut.length, covering: withCut.filter(({ covers }) => covers).length };
}

test("rare checkpoints and a log that is opened anew: what was before is read on the side, and cuts cover again", async () => {
  let [cuts, covering] = [0, 0];
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.nat(15), async (seed, mask) => {
      const random = new Random(seed);
      const machine = new Machine(random, false, 30, random.oneIn(2));
      for (let step = 3000; step > 0; step -= 1) await machine.step();
      const { events, log } = machine;
      const failed = pick([...new Set(events.map(({ process }) => process))].sort(), mask);
      const found = await computeFromCuts([log], { ...rules, failed });
      if (found.line !== undefined)
        expect(withoutUnits(found.line)).toEqual(
          withoutUnits(computeLine(evidenceOf(events, []), { ...rules, failed })),
        );
      cuts += machine.cuts;
      covering += machine.covering;
    }),
    { numRuns: numRuns * sized(0.2, 0.02) },
  );
  console.log(`${covering} of ${cuts} cuts cover`);
  // 0.96 in the mean, but some machines are at 0.2: four of them are below 0.7 once in 250 times, below 0.4 once in 400 000.
  expect(covering / cuts).toBeGreaterThan(sized(0.7, 0.4));
});

test("a process that went back writes much before its next checkpoint: its cut covers", async () => {
  for (const mayForget of [false, true]) {
    const log = new MemoryLog(mayForget);
    const send = (begin: number) =>
      log.appendEvent({ type: "send", process: "a", channel: "ab", begin, end: begin + 1 });
    const checkpoint = (number: number, sent: number) => {
      const cut = { sent: new Map([["ab", sent]]), received: new Map() };
      return log.appendEvent({ type: "checkpoint", process: "a", checkpoint: number, usable: true, cut });
    };
    await send(0);
    await checkpoint(1, 1);
    await send(1);
    await log.appendEvent({ type: "rollback", process: "a", checkpoint: 1 });
    for (let sent = 1; sent <= 200; sent += 1) await send(sent);
    await checkpoint(2, 201);
    expect(cutsOf(log)).toEqual({ cuts: 2, covering: 2 });
  }
});

test("a cut that could not be completed as the log was just opened anew covers nothing, and what it left out is named by the next", async () => {
  const log = new MemoryLog(true);
  const events: Event[] = [];
  const append = async (event: Event) => {
    events.push(event);
    await log.appendEvent(event);
  };
  const [forth, stable] = ["tcp:00000001-ffffffff", "tcp:00000002-fffffffe"];
  const whole = async (process: string, channel: string, end: number, type: "send" | "receive") =>
    append({ type, process, channel, begin: 0, end });
  let sent = 0;
  const goOn = async (): Promise<void> => {
    sent += 1;
    await append({ type: "send", process: "p", channel: stable, begin: sent - 1, end: sent });
  };
  const checkpoint = async (process: string, number: number, kernel: Cut): Promise<boolean | undefined> => {
    const cut = await log.completeCut(process, kernel);
    await append({ type: "checkpoint", process, checkpoint: number, usable: true, cut });
    return (await log.block(log.lastChain)).header.covers;
  };
  const ofP = (): Cut => ({ sent: new Map([[stable, sent]]), received: new Map() });

  expect(await checkpoint("q", 1, { sent: new Map(), received: new Map() })).toBe(true);
  await goOn();
  for (const [channel, end] of [
    [`${forth}/open`, 1],
    [forth, 10],
    [`${forth}/end`, 1],
  ] as const) {
    await whole("q", channel, end, "send");
    await whole("p", channel, end, "receive");
  }
  expect(await checkpoint("p", 1, ofP())).toBe(true); // names what has ended
  for (let left = 200; left > 0; left -= 1) await goOn();
  log.reopen();
  await goOn();
  expect(await checkpoint("p", 2, ofP())).toBe(false);
  let number = 2;
  for (let covers: boolean | undefined = false; covers !== true; number += 1) {
    await sleep(5);
    await goOn();
    covers = await checkpoint("p", number + 1, ofP());
  }
  const newest = events.at(-1);
  expect(newest?.type === "checkpoint" && newest.cut?.received.get(forth)).toBe(10);

  await whole("r", stable, sent, "receive");
  expect(await checkpoint("r", 1, { sent: new Map(), received: new Map([[stable, sent]]) })).toBe(true);
  const options = { ...rules, failed: ["q"] };
  const { line } = computeLine(evidenceOf(events, []), options);
  expect(line.map(({ process, action }) => `${process} ${action}`)).toEqual([
    "p initial",
    "q restore",
    "r initial",
  ]);
  const found = await computeFromCuts([log], options);
  expect(found.line?.line ?? line).toEqual(line); // or the events must tell
});
