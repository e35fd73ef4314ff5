/** The line from cuts is the line from all events, or it says that the events are needed. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { computeFromCuts } from "../../src/compute/compute-from-cuts.ts";
import type { Event } from "../../src/model/event.ts";
import { MAX_COVERAGE_NAMES } from "../../src/model/limits.ts";
import type { RecoveryLine } from "../../src/model/recovery-line.ts";
import { anyEvents, cases, namesOf, numRuns, pick, simulated } from "../property/cases.ts";
import { evidenceOf, execution } from "../property/laws-executions.ts";
import { singleLosses } from "../reference/lose.ts";
import { Random } from "../reference/random.ts";
import { memoryLog } from "./memory-log.ts";

const sizes = fc.array(fc.nat(4), { minLength: 1, maxLength: 6 });
const withoutWitnesses = ({ line, inTransit, outcome, evidence }: RecoveryLine) => ({
  line,
  inTransit,
  outcome,
  evidence,
});

/**
 * Processes that checkpoint between what they send and receive, so that one rollback pulls the next (Randell's domino), for some
 * hundred checkpoints; now and then all are quiet and the domino stops there.
 */
function dominoes(seed: number): Event[] {
  const random = new Random(seed);
  const names = ["a", "b", "c"].slice(0, 2 + random.below(2));
  const sent = new Map<string, number>();
  const received = new Map<string, number>();
  const checkpoints = new Map<string, number>();
  const events: Event[] = [];
  const checkpoint = (process: string): void => {
    const index = (checkpoints.get(process) ?? 0) + 1 + random.below(2);
    checkpoints.set(process, index);
    const own = (offsets: Map<string, number>, place: number) =>
      new Map([...offsets].filter(([channel]) => channel[place] === process));
    const cut = { sent: own(sent, 0), received: own(received, 1) };
    events.push({ type: "checkpoint", process, checkpoint: index, usable: !random.oneIn(6), cut });
  };
  const quiet = 10 + random.below(80);
  for (let step = 0; step < 300; step += 1) {
    const from = random.pick(names);
    const to = random.pick(names.filter((name) => name !== from));
    const channel = from + to;
    const begin = sent.get(channel) ?? 0;
    if (random.oneIn(3)) checkpoint(from);
    sent.set(channel, begin + 1);
    events.push({ type: "send", process: from, channel, begin, end: begin + 1 });
    if (random.oneIn(3)) checkpoint(to);
    if (!random.oneIn(20)) {
      const at = received.get(channel) ?? 0;
      events.push({ type: "receive", process: to, channel, begin: at, end: begin + 1 });
      received.set(channel, begin + 1);
    }
    if (random.oneIn(200)) events.push({ type: "gap", process: to });
    if (step % quiet === 0) for (const name of names) checkpoint(name);
  }
  return events;
}

/** True executions that cuts alone explain. */
const plain = { cuts: true, stable: false, pages: false, datagrams: false } as const;
const withCuts = fc.oneof(
  execution(60, { stable: false, cuts: true }),
  simulated(4, 60, { ...plain, rollbacks: false }),
  simulated(3, 60, { ...plain, rollbacks: true }),
);

async function sameLine(events: readonly Event[], cut: readonly number[], failed: readonly string[]) {
  const log = await memoryLog(events, cut);
  const options = { failed, dsm: "sequential", inTransit: "any" } as const;
  const found = await computeFromCuts([log], options);
  if (found.line === undefined) return found.reason;
  expect(withoutWitnesses(found.line)).toEqual(
    withoutWitnesses(computeLine(evidenceOf(events, []), options)),
  );
  return "cuts";
}

test("true executions with cuts: the line from cuts is the line from events, rollbacks and all", async () => {
  const ways = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(withCuts, sizes, fc.nat(15), async (events, cut, mask) => {
      fc.pre(events.length > 0);
      const way = await sameLine(events, cut, pick(namesOf(events), mask));
      ways.set(way, (ways.get(way) ?? 0) + 1);
    }),
    { numRuns: numRuns * 2 },
  );
  const total = [...ways.values()].reduce((sum, count) => sum + count, 0);
  expect((ways.get("cuts") ?? 0) / total, JSON.stringify([...ways])).toBeGreaterThan(0.5);
});

test("a domino is followed as far as it reaches, and no further", async () => {
  let [read, blocks, rolledBack] = [0, 0, 0];
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.nat(7), async (seed, mask) => {
      const events = dominoes(seed);
      const log = await memoryLog(events, [3]);
      const options = { failed: pick(["a", "b"], mask), dsm: "sequential", inTransit: "any" } as const;
      const found = await computeFromCuts([log], options);
      if (found.line === undefined) throw new Error(found.reason);
      expect(withoutWitnesses(found.line)).toEqual(
        withoutWitnesses(computeLine(evidenceOf(events, []), options)),
      );
      read += found.blocksRead;
      blocks += log.lastChain;
      if (found.line.line.some(({ checkpoint }) => checkpoint !== null && checkpoint < 100)) rolledBack += 1;
    }),
    { numRuns: Math.ceil(numRuns / 4) },
  );
  expect(rolledBack).toBeGreaterThan(0);
  expect(read).toBeLessThan(blocks / 2);
});

test("any evidence whatever: the line from cuts is the line from events, or there is none", async () => {
  await fc.assert(
    fc.asyncProperty(cases(anyEvents), sizes, async ({ events, options }, cut) => {
      const log = await memoryLog(events, cut);
      const found = await computeFromCuts([log], options);
      if (found.line !== undefined)
        expect(withoutWitnesses(found.line)).toEqual(
          withoutWitnesses(computeLine(evidenceOf(events, []), options)),
        );
    }),
    { numRuns: numRuns * 2 },
  );
});

test("every single lost event, declared by a gap: same line, same count of gaps", async () => {
  await fc.assert(
    fc.asyncProperty(simulated(3, 16, { ...plain, rollbacks: false }), sizes, async (truth, cut) => {
      for (const { events } of singleLosses(truth)) await sameLine(events, cut, namesOf(events));
    }),
    { numRuns: Math.ceil(numRuns / 10) },
  );
});

/**
 * A client makes one connection after the other to a server and checkpoints after each; then it is brought back to before the newest, whose other
 * end goes on. Who has received what stands on that one is told by undone lines alone.
 */
function broughtBack(connections: number): Event[] {
  const events: Event[] = [];
  const offsets = new Map<string, number>();
  for (let at = 1; at <= connections; at += 1) {
    const none = new Map<string, number>();
    const cut = { sent: none, received: new Map(offsets) };
    events.push({ type: "checkpoint", process: "client", checkpoint: at, usable: true, cut });
    for (let begin = 0; begin < 20; begin += 1) {
      const range = { channel: `sc${at}`, begin, end: begin + 1 };
      events.push({ type: "send", process: "server", ...range });
      events.push({ type: "receive", process: "client", ...range });
    }
    offsets.set(`sc${at}`, 20);
    const own = { sent: new Map(offsets), received: none };
    events.push({ type: "checkpoint", process: "server", checkpoint: at, usable: true, cut: own });
  }
  events.push({ type: "rollback", process: "client", checkpoint: connections });
  return events;
}

test("who has received what is in transit is told by lines that were undone: those of the newest rollback are read, no others", async () => {
  const events = broughtBack(60);
  const log = await memoryLog(events, [3]);
  const options = { failed: ["client"], dsm: "sequential", inTransit: "any" } as const;
  const found = await computeFromCuts([log], options);
  if (found.line === undefined) throw new Error(found.reason);
  expect(found.blocksRead).toBeLessThan(log.lastChain / 20);
  expect(withoutWitnesses(found.line)).toEqual(
    withoutWitnesses(computeLine(evidenceOf(events, []), options)),
  );
  expect(found.line.inTransit).toMatchObject([
    { channel: "sc60", from: "server", to: "client", begin: 0, end: 20 },
  ]);
});

const range = (type: "send" | "receive", process: string, channel: string, begin: number, end: number) =>
  ({ type, process, channel, begin, end }) as const;
const cutAt = (process: string, checkpoint: number, sent: object, received: object): Event => ({
  type: "checkpoint",
  process,
  checkpoint,
  usable: true,
  cut: { sent: new Map(Object.entries(sent)), received: new Map(Object.entries(received)) },
});

/** What cuts alone do not tell, by undone lines: an attached process voids `outside`, and who is told by a cut at offset 0 gives way to who received. */
const UNDONE: readonly (readonly [what: string, events: readonly Event[]])[] = [
  [
    "an attached server that is run anew was no stranger to its client",
    [
      { type: "outside", process: "a", channel: "y" },
      { type: "outside", process: "a", channel: "x" },
      range("send", "a", "x", 0, 3),
      { type: "gap", process: "b", reason: "attached" },
      cutAt("b", 1, { y: 0 }, { x: 3 }),
      range("send", "b", "y", 0, 5),
      range("receive", "a", "y", 0, 5),
      cutAt("a", 1, { x: 3 }, { y: 5 }),
      { type: "rollback", process: "b", checkpoint: 0 },
    ],
  ],
  [
    "a channel that one names at 0 and another has received from",
    [
      range("send", "c", "x", 0, 10),
      cutAt("a", 1, {}, { x: 0 }),
      range("receive", "b", "x", 0, 10),
      { type: "rollback", process: "b", checkpoint: 0 },
    ],
  ],
];

for (const [what, events] of UNDONE)
  test(`${what}: the line from cuts is that of all events, or there is none`, async () => {
    const log = await memoryLog(events, [1]);
    for (const failed of [[], ["a"], ["b"]]) {
      const options = { failed, dsm: "sequential", inTransit: "any" } as const;
      const { line } = await computeFromCuts([log], options);
      if (line !== undefined)
        expect(withoutWitnesses(line)).toEqual(
          withoutWitnesses(computeLine(evidenceOf(events, []), options)),
        );
    }
  });

/** p sends 5 bytes to q on a connection that is then closed; both checkpoint, and the collector forgets it. */
function closedConnection(): Event[] {
  const events: Event[] = [
    { type: "send", process: "p", channel: "c", begin: 0, end: 5 },
    { type: "receive", process: "q", channel: "c", begin: 0, end: 5 },
  ];
  const cut = (sent: number, received: number) => ({
    sent: new Map(sent > 0 ? [["c", sent]] : []),
    received: new Map(received > 0 ? [["c", received]] : []),
  });
  for (const process of ["p", "q"])
    events.push({
      type: "checkpoint",
      process,
      checkpoint: 1,
      usable: true,
      cut: process === "p" ? cut(5, 0) : cut(0, 5),
    });
  return events;
}

for (const first of ["p", "q"])
  test(`a channel that only ${first}'s newest cut leaves out: older cuts are read until they name it`, async () => {
    const events = closedConnection();
    const empty = { sent: new Map(), received: new Map() };
    for (const checkpoint of [2, 3, 4])
      events.push({ type: "checkpoint", process: first, checkpoint, usable: true, cut: empty });
    const log = await memoryLog(events, [1], true);
    for (const failed of [["p"], ["q"], ["p", "q"]]) {
      const options = { failed, dsm: "sequential", inTransit: "any" } as const;
      const found = await computeFromCuts([log], options);
      if (found.line === undefined) throw new Error(found.reason);
      const expected = computeLine(evidenceOf(events, []), options);
      expect(withoutWitnesses(found.line)).toEqual(withoutWitnesses(expected));
      expect(found.line.inTransit).toEqual([]);
      expect(found.line.line.some(({ action }) => action === "initial")).toBe(false);
    }
    const other = await memoryLog(events, [1]);
    const { line } = await computeFromCuts([other], { dsm: "sequential", inTransit: "any" });
    expect(line).toBeUndefined(); // who may not forget has a cut that does not cover
  });

/** A server's connections to outside: each got 10 bytes, gave 20, and was ended; then it talks with q, and both checkpoint. */
function busyServer(connections: number, named: ReadonlySet<number>): Event[] {
  const hex = (n: number): string => n.toString(16).padStart(8, "0");
  const events: Event[] = [];
  const process = "p";
  const [sent, received] = [new Map([["pq", 1]]), new Map<string, number>()];
  for (let n = 0; n < connections; n += 1) {
    const [sends, receives] = [`tcp:${hex(n)}-ffffffff`, `tcp:ffffffff-${hex(n)}`];
    const end = `${sends}/end`;
    events.push({ type: "receive", process, channel: receives, begin: 0, end: 10 });
    events.push({ type: "send", process, channel: sends, begin: 0, end: 20 });
    for (const channel of [sends, receives, end]) events.push({ type: "outside", process, channel });
    events.push({ type: "send", process, channel: end, begin: 0, end: 1 });
    if (!named.has(n)) continue;
    sent.set(sends, 20).set(end, 1);
    received.set(receives, 10);
  }
  events.push({ type: "send", process, channel: "pq", begin: 0, end: 1 });
  events.push({ type: "receive", process: "q", channel: "pq", begin: 0, end: 1 });
  events.push({ type: "checkpoint", process, checkpoint: 1, usable: true, cut: { sent, received } });
  const cut = { sent: new Map<string, number>(), received: new Map([["pq", 1]]) };
  events.push({ type: "checkpoint", process: "q", checkpoint: 1, usable: true, cut });
  return events;
}

test("a server keeps cuts that cover however many connections to outside it has ended, also while it lingers on the newest", async () => {
  const count = MAX_COVERAGE_NAMES / 2; // of three names each
  const options = { failed: ["p"], dsm: "sequential", inTransit: "any" } as const;
  for (const [named, way] of [
    [[count - 1], "cuts"], // it has ended its half, and the socket is still there
    [[7], "events"], // so has it there, but that is long ago, and forgotten
  ] as const) {
    const log = await memoryLog(busyServer(count, new Set(named)), [10_000], true);
    const found = await computeFromCuts([log], options);
    expect(found.line === undefined ? "events" : "cuts").toBe(way);
    if (found.line === undefined) continue;
    expect(found.line.outcome).toBe("clean");
    expect(found.line.line.map(({ process, checkpoint, action }) => [process, checkpoint, action])).toEqual([
      ["p", 1, "restore"],
      ["q", null, "continue"],
    ]);
  }
});
