/** ShiViz logs become messages with exactly the happened-before relation of their vector clocks. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { insertCheckpoints } from "../../src/analysis/importers/insert-checkpoints.ts";
import { readShivizTrace, ShivizMessages } from "../../src/analysis/importers/shiviz.ts";
import { readShivizLog, type ShivizEvent, shivizPattern } from "../../src/analysis/importers/shiviz-log.ts";
import { computeLine } from "../../src/engine/compute.ts";
import { readEventEvidence } from "../../src/engine/read-evidence.ts";
import type { Event } from "../../src/model/event.ts";

const golden = join(import.meta.dirname, "..", "golden");

async function* bytesOf(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
}

async function read(text: string, pattern?: RegExp): Promise<Event[]> {
  return collect(readShivizTrace(() => bytesOf(text), "x.log", pattern));
}

/** Which events reach which, over program order and the messages that lines on channels say: bit sets, by brute force. */
function reachable(lines: readonly (readonly Event[])[]): Uint8Array[] {
  const before: Set<number>[] = lines.map(() => new Set());
  const last = new Map<string, number>();
  const sentBy = new Map<string, number>();
  const key = (event: Event): string => ("begin" in event ? `${event.channel} ${event.begin}` : "");
  lines.forEach((events, at) => {
    for (const event of events) {
      const previous = last.get(event.process);
      if (previous !== undefined && previous !== at) before[at]?.add(previous);
      last.set(event.process, at);
      if (event.type === "send") sentBy.set(key(event), at);
    }
  });
  lines.forEach((events, at) => {
    for (const event of events)
      if (event.type === "receive") {
        const sender = sentBy.get(key(event));
        expect(sender).toBeDefined();
        before[at]?.add(sender as number);
      }
  });
  const reached: (Uint8Array | undefined)[] = lines.map(() => undefined);
  const visit = (at: number): Uint8Array => {
    const known = reached[at];
    if (known !== undefined) return known;
    const set = new Uint8Array(lines.length);
    for (const earlier of before[at] as Set<number>) {
      visit(earlier).forEach((bit, k) => {
        if (bit === 1) set[k] = 1;
      });
      set[earlier] = 1;
    }
    reached[at] = set;
    return set;
  };
  return lines.map((_, at) => visit(at));
}

/** Compares both relations for all ordered pairs; returns the number of pairs that are ordered. */
async function sameRelation(text: string, pattern?: RegExp): Promise<{ events: number; ordered: number }> {
  const events = await collect(readShivizLog(bytesOf(text), "x.log", pattern));
  const messages = new ShivizMessages();
  for (const event of events) messages.add(event);
  messages.seal();
  const lines = events.map((event) => messages.linesOf(event));
  expect(await read(text, pattern)).toEqual(lines.flat());
  const derived = reachable(lines);
  let ordered = 0;
  events.forEach((later, j) => {
    events.forEach((earlier, i) => {
      const told = happenedBefore(earlier, later);
      if (told !== (derived[j]?.[i] === 1))
        expect.fail(
          `${earlier.host}:${earlier.own} -> ${later.host}:${later.own}: the clocks say ${told}, messages ${!told}`,
        );
      ordered += told ? 1 : 0;
    });
  });
  return { events: events.length, ordered };
}

function happenedBefore(earlier: ShivizEvent, later: ShivizEvent): boolean {
  if (earlier.host === later.host) return earlier.own < later.own;
  return (later.others.get(earlier.host) ?? 0) >= earlier.own;
}

/** The traces stand beside the checkout where the project is developed; elsewhere only our own logs can be read. */
const traces = join(dirname(join(import.meta.dirname, "..", "..")), "shared", "traces");

describe("the relation of the imported messages equals that of the clocks, for all pairs of events", () => {
  for (const [name, events] of [
    ["chord.log", 1235],
    ["reliable-broadcast.log", 116],
    ["simpledb.log", 509],
  ] as const)
    test(name, async (context) => {
      if (!existsSync(traces)) context.skip(`RL_NOT_SUPPORTED: no folder ${join("..", "shared", "traces")}`);
      const found = await sameRelation(readFileSync(join(traces, name), "utf8"));
      expect(found.events).toBe(events);
      expect(found.ordered).toBeGreaterThan(events);
    });

  test("two lines an event, a host's lines swapped", async () => {
    const text = readFileSync(join(golden, "shiviz-two-lines.log"), "utf8");
    expect(await sameRelation(text)).toEqual({ events: 12, ordered: 36 });
  });

  test("one line an event", async () => {
    const text = readFileSync(join(golden, "shiviz-one-line.log"), "utf8");
    expect(await sameRelation(text)).toEqual({ events: 5, ordered: 10 });
  });

  test("random executions", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(3), fc.nat(3)), { maxLength: 40 }), async (steps) => {
        const text = executionLog(steps);
        await sameRelation(`z {"z":1}\n${text}`);
      }),
      { numRuns: 300 },
    );
  });
});

/** Host a does something, and where b differs it first hears all that b did so far. */
function executionLog(steps: readonly (readonly [number, number])[]): string {
  const clocks = [0, 1, 2, 3].map(() => [0, 0, 0, 0]);
  return steps
    .map(([a, b]) => {
      const clock = clocks[a] as number[];
      if (a !== b)
        (clocks[b] as number[]).forEach((component, k) => {
          clock[k] = Math.max(clock[k] as number, component);
        });
      clock[a] = (clock[a] as number) + 1;
      return `h${a} {${clock.flatMap((n, k) => (n > 0 ? [`"h${k}":${n}`] : [])).join(",")}}\nsome text\n`;
    })
    .join("");
}

test("messages are the direct ones, counted per pair of hosts; an event without any keeps its place", async () => {
  const text = readFileSync(join(golden, "shiviz-two-lines.log"), "utf8");
  const events = await read(text);
  const brief = events.map((event) =>
    event.type === "send" || event.type === "receive"
      ? `${event.process} ${event.type} ${event.channel.slice(7)} ${event.begin}-${event.end}`
      : event.type,
  );
  expect(brief).toEqual([
    "alice send alice 0-0",
    "bob send bob 0-0",
    "alice send alice->bob 0-1",
    "alice send alice->carol 0-1",
    "bob receive alice->bob 0-1",
    "carol send carol 0-0",
    "carol receive alice->carol 0-1",
    "bob send bob->carol 0-1",
    "carol receive bob->carol 0-1",
    "carol send carol->alice 0-1",
    "alice receive carol->alice 0-1",
    "dave send dave 0-0",
    "dave send dave 0-0",
  ]);
});

test("with checkpoints inserted the line is computed from a ShiViz log", async () => {
  const text = readFileSync(join(golden, "shiviz-one-line.log"), "utf8");
  const batches = (async function* () {
    for await (const event of insertCheckpoints(
      readShivizTrace(() => bytesOf(text), "x.log"),
      { every: 1 },
    ))
      yield [event];
  })();
  const evidence = await readEventEvidence(batches);
  const { line } = computeLine(evidence, { failed: ["n0"], dsm: "sequential", inTransit: "any" });
  expect(line.map(({ process, checkpoint, action }) => `${process} ${action} ${checkpoint}`)).toEqual([
    "n0 restore 3",
    "n1 continue null",
    "n2 continue null",
  ]);
});

test("a pattern of the user's", async () => {
  const pattern = shivizPattern("^(?<clock>\\{[^}]*\\}) by (?<host>\\w+):");
  const text = '{"a":1} by a: x\n{"a":1,"b":1} by b: y\nnoise\n';
  expect(await sameRelation(text, pattern)).toEqual({ events: 2, ordered: 1 });
  expect(() => shivizPattern("(?<host>.*)")).toThrow(SyntaxError);
});

describe("wrong logs are named with line and field", () => {
  for (const [what, text, message] of [
    ["no clock at all", "hello\n", /x\.log, line 1: no line holds a vector clock/],
    ["broken JSON", 'a {"a":1,}\n', /line 1, field "clock": broken JSON/],
    ["not an integer", 'a {"a":1.5}\n', /line 1, field "clock\.a": must be an integer/],
    ["no own component", 'a {"b":1}\n', /line 1, field "clock": lacks the component of its own host "a"/],
    ["an event twice", 'a {"a":1}\na {"a":1}\n', /line 2, field "clock\.a": a second event 1/],
    [
      "an event missing",
      'a {"a":1}\na {"a":3}\n',
      /line 2, field "clock\.a": is 3, but the log lacks event 2/,
    ],
    [
      "an unknown event",
      'a {"a":1,"b":2}\nb {"b":1}\n',
      /line 1, field "clock\.b": names event 2, but the log has 1/,
    ],
    ["an unknown host", 'a {"a":1,"b":2}\n', /line 1, field "clock\.b": names event 2, but the log has 0/],
    [
      "a fall",
      'b {"b":1}\nb {"b":2}\na {"a":1,"b":2}\na {"a":2,"b":1}\n',
      /line 4, field "clock\.b": 1 falls behind 2/,
    ],
    ["a fall to nothing", 'b {"b":1}\na {"a":1,"b":1}\na {"a":2}\n', /line 3, field "clock\.b": is 0, was 1/],
    [
      "a cycle",
      'a {"a":1,"b":1}\nb {"b":1,"a":1}\n',
      /line [12], field "clock\.[ab]": event 1 of this host knows of this event/,
    ],
    [
      "knowledge not passed on",
      'c {"c":1}\nb {"b":1,"c":1}\na {"a":1,"b":1}\n',
      /line 3, field "clock\.b": event 1 of this host knew event 1 of "c", this clock does not/,
    ],
  ] as const)
    test(what, async () => {
      await expect(read(text)).rejects.toMatchObject({
        code: "RL_BAD_INPUT",
        message: expect.stringMatching(message),
      });
    });
});
