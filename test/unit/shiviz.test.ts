/** ShiViz logs become messages with exactly the happened-before relation of their vector clocks. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { insertCheckpoints } from "../../src/import/insert-checkpoints.ts";
import { readShivizTrace, ShivizMessages } from "../../src/import/shiviz.ts";
import { shivizPattern } from "../../src/import/shiviz-layout.ts";
import { readShivizLog, type ShivizEvent } from "../../src/import/shiviz-log.ts";
import { readEventEvidence } from "../../src/logs/read-evidence.ts";
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

/** Host and own component of every event, sorted. */
async function ownEvents(text: string, pattern?: RegExp): Promise<string[]> {
  const events = await collect(readShivizLog(bytesOf(text), "x.log", pattern));
  return events.map(({ host, own }) => `${host} ${own}`).sort();
}

const WHOLE = 'a\nalice {"alice":1}\nb\nbob {"bob":1}\nc\nbob {"bob":2, "alice":1}\n';
const EVENTS = ["alice 1", "bob 1", "bob 2"];

describe("what is as good as the known layouts is read", () => {
  for (const [what, text] of [
    ["as it should be", WHOLE],
    ["leading spaces", WHOLE.replaceAll("bob {", "  bob {")],
    ["a tab between host and clock", WHOLE.replaceAll("bob {", "bob\t{")],
    ["CRLF", WHOLE.replaceAll("\n", "\r\n")],
    ["spaces at the end", WHOLE.replaceAll("}\n", "}  \n")],
    ["the last line's clock is whole, its newline is not there", WHOLE.trimEnd()],
    ["the text of the last event has no newline", `${WHOLE.slice(2)}done`],
    ["an empty line at the end", `${WHOLE}\n  `],
    ["texts with braces and JSON without integers", WHOLE.replaceAll("c\n", 'x = {"not":"a clock"} {\n')],
  ] as const)
    test(what, async () => expect(await ownEvents(text)).toEqual(EVENTS));

  test("Akka's layout without a text, CRLF", async () => {
    expect(await ownEvents('[x] [akka://R/user/n0] {"n0" : 1}\r\n')).toEqual(["n0 1"]);
  });
});

describe("a clock that fits no layout is refused by line, never taken for text", () => {
  for (const [what, text, message] of [
    ["cut off inside the clock", WHOLE.slice(0, -3), /line 6: .*looks like a vector clock/],
    ["cut off behind the brace", WHOLE.slice(0, WHOLE.lastIndexOf("{") + 1), /line 6: .*vector clock/],
    ["cut off inside a name", WHOLE.slice(0, WHOLE.lastIndexOf('bob"') + 2), /line 6: .*vector clock/],
    ["cut off behind the host", WHOLE.slice(0, WHOLE.lastIndexOf("{")), /line 6: may be an event/],
    ["cut off inside the host", `${WHOLE}bo`, /line 7: may be an event that was cut off/],
    [
      "cut off inside a new host, the texts stand before",
      `${WHOLE.slice(0, WHOLE.indexOf("c\n", 4))}ca`,
      /line 5: may be an event/,
    ],
    [
      "cut off inside a text, the texts stand before",
      `${WHOLE.slice(0, WHOLE.indexOf("c\n", 4))}c`,
      /line 5: may be an event/,
    ],
    [
      "cut off inside a new host, no texts",
      'alice {"alice":1}\nbob {"bob":1}\ncarol',
      /line 3: may be an event/,
    ],
    ["cut off behind the first clock", 'alice {"alice":1}\nbo', /line 2: may be an event/],
    ["a tail of NUL bytes", `${WHOLE}\0\0\0`, /line 7: holds NUL bytes/],
    ["a tail of NUL bytes, the texts stand behind", `${WHOLE.slice(2)}\0\0`, /line 6: holds NUL bytes/],
    ["NUL bytes in the midst of a file", WHOLE.replace("b\n", "\0\0\n"), /line 3: holds NUL bytes/],
    ["cut off in the midst of a file", `bob {"bob":1, "al\n${WHOLE}`, /line 1: .*vector clock/],
    ["two lines in one", 'bob {"bob":1} alice {"alice":1}\n', /line 1, field "clock": broken JSON/],
    ["text behind the clock", 'bob {"bob":1} hello\n', /line 1: .*"bob\\":1.*fits no known layout/],
    ["text before the clock", 'bob says {"bob":1}\n', /line 1: .*fits no known layout/],
    ["a clock over several lines", 'bob {\n  "bob": 1\n}\n', /line 1: .*fits no known layout/],
    ["no space", 'bob{"bob":1}\n', /line 1: .*fits no known layout/],
    ["a no-break space", '\u00a0bob {"bob":1}\n', /line 1: .*fits no known layout/],
    ["a lost brace", 'bob "bob":1}\n', /line 1: .*fits no known layout/],
    ["a second clock on Akka's line", '/n0] {"n0":1} x/n1] {"n1":1} y\n', /line 1: .*fits no known layout/],
    ["one host twice", 'bob {"bob":1, "bob":2}\n', /line 1, field "clock": names one host twice/],
    ["lines that end with CR alone", 'a\ralice {"alice":1}\rb\r', /line 1: .*vector clock/],
  ] as const)
    test(what, async () => {
      await expect(ownEvents(text)).rejects.toMatchObject({
        code: "RL_BAD_INPUT",
        message: expect.stringMatching(message),
        advice: expect.stringMatching(/Nothing was imported\..*shiviz\.md/),
      });
    });

  test("cut off after any byte: refused, or no event's line was begun", async () => {
    for (const name of ["shiviz-one-line.log", "shiviz-two-lines.log"]) {
      const text = readFileSync(join(golden, name), "utf8");
      for (let length = 0; length < text.length; length += 1) {
        const cut = text.slice(0, length);
        const whole = cut.match(/"\w+" ?: ?\d+\}/g)?.length ?? 0;
        const line = cut.slice(cut.lastIndexOf("\n") + 1);
        const full = text.slice(cut.lastIndexOf("\n") + 1).split("\n")[0] ?? "";
        const begun = /\d\}/.test(full) && line !== "" && !/\d\}/.test(line);
        const read = await ownEvents(cut).catch(() => undefined);
        if (begun) expect([name, length, read]).toEqual([name, length, undefined]);
        else if (read !== undefined) expect([name, length, read.length]).toEqual([name, length, whole]);
      }
    }
  });

  test("any byte lost or changed: refused, or every event is there", async () => {
    for (const name of ["shiviz-one-line.log", "shiviz-two-lines.log"]) {
      const text = readFileSync(join(golden, name), "utf8");
      const all = await ownEvents(text);
      for (let at = 0; at < text.length; at += 1)
        for (const other of ["", " ", "\t", "\n", "(", "x", '"']) {
          const read = await ownEvents(text.slice(0, at) + other + text.slice(at + 1)).catch(() => all);
          if (JSON.stringify(read) !== JSON.stringify(all)) expect.fail(`${name}, byte ${at}: ${other}`);
        }
    }
  });
});

describe("patterns over several lines, as ShiViz proposes them", () => {
  const AFTER = "(?<host>\\S*) (?<clock>{.*})\\n(?<event>.*)";
  const BEFORE = "(?<event>.*)\\n(?<host>\\S*) (?<clock>{.*})";
  const after = 'alice {"alice":1}\na\nbob {"bob":1}\nb\nbob {"bob":2, "alice":1}\nc\n';

  for (const [what, text, pattern] of [
    ["the text stands before", WHOLE, BEFORE],
    ["the text stands after", after, AFTER],
    ["with CRLF", after.replaceAll("\n", "\r\n"), AFTER],
    ["with a time, as TSViz", after.replaceAll(/^(?=\w+ \{)/gm, "17 "), `(?<timestamp>\\d+) ${AFTER}`],
    ["behind the pattern itself and an empty line", `${AFTER}\n\n${after}`, AFTER],
    ["what looks like a clock in an event's text", after.replace("c\n", 'got {"seq":5}\n'), AFTER],
    [
      "on one line",
      'alice "x" {"alice":1}\nbob "y" {"bob":1}\nbob "z" {"bob":2}',
      '(?<host>\\w+) "(?<event>.*)" (?<clock>\\{.*\\})',
    ],
  ] as const)
    test(what, async () => expect(await ownEvents(text, shivizPattern(pattern))).toEqual(EVENTS));

  for (const [what, text] of [
    ["the text stands after", `${AFTER}\n\n${after}`],
    ["the text stands before", `${BEFORE}\n\n${WHOLE}`],
    ["with CRLF", `${AFTER}\n\n${after}`.replaceAll("\n", "\r\n")],
    ["an event's text that looks like a clock", `${AFTER}\n\n${after.replace("c\n", 'a reply {"seq":5}\n')}`],
  ] as const)
    test(`the log's first line is the pattern: ${what}`, async () =>
      expect(await ownEvents(text)).toEqual(EVENTS));

  test("errors name the line of the clock", async () => {
    const text = after.replace('"bob":2', '"bob":3');
    await expect(read(text, shivizPattern(AFTER))).rejects.toThrow(/line 5, field "clock.bob": is 3/);
  });

  for (const [what, text, pattern, message] of [
    [
      "a clock that it doesn't match",
      `  ${WHOLE.replace("bob {", " bob {")}`,
      BEFORE,
      /line 4: .*does not match/,
    ],
    ["nothing that it matches", "hello\n", BEFORE, /line 1: no line holds a vector clock/],
    [
      "a clock that it takes for a text",
      'alice {"alice":1}\nbob {"bob":1}\n',
      AFTER,
      /line 1: the pattern takes an event of "bob"/,
    ],
    ["a last text cut off inside a clock", 'alice {"alice":1}\nbob {"bo', AFTER, /line 2: .*does not match/],
    ["cut off inside the clock", WHOLE.slice(0, -3), BEFORE, /line 6: .*does not match/],
    ["cut off before the clock", WHOLE.slice(0, WHOLE.lastIndexOf("{")), BEFORE, /line 6: may be an event/],
    ["the last text is missing", after.slice(0, -3), AFTER, /line 5: .*does not match/],
    ["no host", 'a\n {"alice":1}\n', BEFORE, /line 2, field "host"/],
    [
      "a first line that is no pattern",
      `(${AFTER}\n\n${after}`,
      undefined,
      /line 1: has host and clock but is no pattern/,
    ],
  ] as const)
    test(`refused: ${what}`, async () => {
      const known = pattern === undefined ? undefined : shivizPattern(pattern);
      await expect(ownEvents(text, known)).rejects.toMatchObject({
        code: "RL_BAD_INPUT",
        message: expect.stringMatching(message),
      });
    });
});
