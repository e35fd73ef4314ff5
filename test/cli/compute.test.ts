/** `compute --from`: each row of interchange.md's tables, each restore point rule, each exit code, through the compiled command. */

import { spawnSync } from "node:child_process";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build, does, lines, main, run, runJson, scratch } from "./cli.ts";

const { dir, clean } = scratch();
beforeAll(build);
afterAll(clean);

const p = does("p");
const q = does("q");
const r = does("r");

/** The line as `process action checkpoint@position`, ranges as `channel from>to [begin,end)`. */
async function answer(events: readonly object[], args: readonly string[] = []) {
  const { code, value } = await runJson(["compute", "app", "--from", "-", ...args], lines(...events));
  const line = value.line.map((e) => `${e.process} ${e.action} ${e.checkpoint}@${e.position}`);
  const transit = value.inTransit.map((t) => `${t.channel} ${t.from}>${t.to} [${t.begin},${t.end})`);
  return { code, line, transit, value };
}

describe("restore points", () => {
  test.each<[string, object[], string[], string[]]>([
    ["a failed process without a checkpoint starts from scratch", [p.fault()], [], ["p initial 0@0"]],
    [
      "a checkpoint is restored where its line ends",
      [p.fault(), p.checkpoint(4), p.fault()],
      [],
      ["p restore 4@2"],
    ],
    ["also when it is the last line", [p.fault(), p.checkpoint(1)], [], ["p restore 1@2"]],
    [
      "an image that can't be restored is passed over",
      [p.checkpoint(1), p.checkpoint(2, { usable: false })],
      [],
      ["p restore 1@1"],
    ],
    [
      "what stands before a stable line is replayed",
      [p.checkpoint(1), p.fault(), p.stable(), p.fault()],
      [],
      ["p replay 1@3"],
    ],
    ["from the initial state, too", [p.fault(), p.fault(), p.stable()], [], ["p replay 0@3"]],
    [
      "a stable line before a checkpoint: the checkpoint as it is",
      [p.stable(), p.checkpoint(2)],
      [],
      ["p restore 2@2"],
    ],
    [
      "an unusable checkpoint is replayed over",
      [p.checkpoint(1), p.checkpoint(2, { usable: false }), p.stable()],
      [],
      ["p replay 1@3"],
    ],
    [
      "position of the unusable checkpoint itself",
      [p.fault(), p.stable(), p.checkpoint(2, { usable: false })],
      [],
      ["p replay 0@2"],
    ],
    ["a survivor goes on", [p.fault(), q.fault()], ["--failed", "p"], ["p initial 0@0", "q continue null@1"]],
    [
      "a survivor whose last line is a checkpoint goes on, too",
      [p.fault(), q.checkpoint(1)],
      ["--failed", "p"],
      ["p initial 0@0", "q continue null@1"],
    ],
  ])("%s", async (_, events, args, expected) => {
    const { code, line, value } = await answer(events, args);
    expect(line).toEqual(expected);
    expect([code, value.outcome]).toEqual([0, "clean"]);
  });

  test.each<[string, object[], string[], string[]]>([
    [
      "after a gap nothing is certain, not even a survivor's end",
      [q.fault(), p.fault(), p.gap(), p.checkpoint(1)],
      ["--failed", "q"],
      ["p initial 0@0", "q initial 0@0"],
    ],
    [
      "a checkpoint before the gap stands",
      [p.checkpoint(1), p.gap(), p.checkpoint(2)],
      [],
      ["p restore 1@1"],
    ],
    [
      "a checkpoint with a cut heals it",
      [p.gap(), p.checkpoint(1, { cut: {} }), p.fault()],
      [],
      ["p restore 1@2"],
    ],
    [
      "an unusable one with a cut heals, too: a survivor's end",
      [p.gap(), p.checkpoint(1, { usable: false, cut: {} }), p.fault(), q.fault()],
      ["--failed", "q"],
      ["p continue null@3", "q initial 0@0"],
    ],
    [
      "but it is no base itself",
      [p.fault(), p.gap(), p.checkpoint(1, { usable: false, cut: {} }), p.stable()],
      [],
      ["p replay 0@1"],
    ],
    [
      "a usable one after the healing is",
      [p.gap(), p.checkpoint(1, { usable: false, cut: {} }), p.checkpoint(2), p.fault(), p.stable()],
      [],
      ["p replay 2@5"],
    ],
    [
      "a stable line does not heal",
      [p.checkpoint(1), p.fault(), p.gap(), p.fault(), p.stable()],
      [],
      ["p replay 1@2"],
    ],
    [
      "a stable line after the gap still covers what stands before it",
      [p.fault(), p.gap(), p.stable()],
      [],
      ["p replay 0@1"],
    ],
    [
      "a second gap after a healed one",
      [p.gap(), p.checkpoint(1, { cut: {} }), p.fault(), p.gap(), p.stable()],
      [],
      ["p replay 1@3"],
    ],
  ])("gaps: %s", async (_, events, args, expected) => {
    const { code, line, value } = await answer(events, args);
    expect(line).toEqual(expected);
    const open = value.evidence.gaps > 0;
    expect([code, value.outcome]).toEqual(open ? [3, "tainted"] : [0, "clean"]);
    expect(value.evidence.gaps + value.evidence.healed).toBe(
      events.filter((line) => JSON.stringify(line).includes('"gap"')).length,
    );
  });
});

test("gaps and what they lost are counted; what a rollback undid is not", async () => {
  const { value } = await answer([p.gap(3), p.gap(), q.checkpoint(1), q.gap(9), q.rollback(1), r.gap(2)]);
  expect(value.evidence).toEqual({ gaps: 3, lost: 5, healed: 0 });
  const undone = await answer([p.gap(3), p.rollback(0), p.checkpoint(1)]);
  expect([undone.code, undone.value.outcome, undone.value.evidence]).toEqual([
    0,
    "clean",
    { gaps: 0, lost: 0, healed: 0 },
  ]);
});

describe("rollbacks", () => {
  test("positions go on after the rollback line", async () => {
    const events = [p.checkpoint(1), p.fault(), p.fault(), p.rollback(1), p.fault(), p.checkpoint(2)];
    expect((await answer(events)).line).toEqual(["p restore 2@4"]);
    expect((await answer([...events, q.fault()], ["--failed", "q"])).line).toEqual([
      "p continue null@4",
      "q initial 0@0",
    ]);
  });

  test("to the initial state; indices may be used again", async () => {
    const events = [p.checkpoint(1), p.fault(), p.rollback(0), p.fault(), p.checkpoint(1), p.fault()];
    expect((await answer(events)).line).toEqual(["p restore 1@3"]);
  });

  test("a stable line that was undone covers nothing", async () => {
    expect((await answer([p.checkpoint(1), p.fault(), p.stable(), p.rollback(1), p.fault()])).line).toEqual([
      "p restore 1@1",
    ]);
  });

  test("offsets are used again: the receiver of what is undone and not sent anew can't keep it", async () => {
    const before = [
      p.checkpoint(1),
      p.send("a", 0, 10),
      q.checkpoint(1),
      q.receive("a", 0, 10),
      q.checkpoint(2),
    ];
    const orphan = await answer([...before, p.rollback(1), p.send("a", 0, 4)], ["--failed", "p"]);
    expect(orphan.line).toEqual(["p restore 1@1", "q restore 1@1"]);
    const survivor = await answer(
      [...before, p.rollback(1), p.send("a", 0, 4), r.fault()],
      ["--failed", "r"],
    );
    expect(survivor.line).toEqual(["p continue null@3", "q restore 1@1", "r initial 0@0"]);
    expect(survivor.transit).toEqual(["a p>q [0,4)"]);
    const again = await answer([...before, p.rollback(1), p.send("a", 0, 12), r.fault()], ["--failed", "r"]);
    expect(again.line).toEqual(["p continue null@3", "q continue null@3", "r initial 0@0"]);
    expect(again.transit).toEqual(["a p>q [10,12)"]);
  });

  test("a receiver's undone receive is in transit again", async () => {
    const { line, transit } = await answer(
      [
        p.send("a", 0, 5),
        q.checkpoint(1),
        q.receive("a", 0, 5),
        q.rollback(1),
        q.receive("a", 0, 2),
        r.fault(),
      ],
      ["--failed", "r"],
    );
    expect(line.slice(0, 2)).toEqual(["p continue null@1", "q continue null@3"]);
    expect(transit).toEqual(["a p>q [2,5)"]);
  });
});

describe("messages", () => {
  test("an orphan rolls its receiver back, over several hops, and the witness tells the way", async () => {
    const { line, value } = await answer(
      [p.send("a", 0, 1), q.receive("a", 0, 1), q.send("b", 0, 1), r.receive("b", 0, 1)],
      ["--failed", "p"],
    );
    expect(line).toEqual(["p initial 0@0", "q initial 0@0", "r initial 0@0"]);
    expect(value.witnesses.map((w) => [w.process, w.because.map((link) => link.rule)])).toEqual([
      ["p", ["failed"]],
      ["q", ["failed", "orphan"]],
      ["r", ["failed", "orphan", "orphan"]],
    ]);
  });

  test("a partly received range: the line may stand in the middle", async () => {
    const { line, transit } = await answer([
      p.send("a", 0, 100),
      p.checkpoint(1),
      q.receive("a", 0, 40),
      q.checkpoint(1),
      q.receive("a", 40, 100),
    ]);
    expect(line).toEqual(["p restore 1@2", "q restore 1@2"]);
    expect(transit).toEqual(["a p>q [40,100)"]);
  });

  test("what nobody sent can't be kept by its receiver, survivor or not", async () => {
    const { code, line, value } = await answer(
      [q.checkpoint(1), q.receive("ghost", 3, 9), p.fault()],
      ["--failed", "p"],
    );
    expect(line).toEqual(["p initial 0@0", "q restore 1@1"]);
    expect([code, value.inTransit]).toEqual([0, []]);
    expect(value.witnesses[1]?.because[0]).toMatchObject({
      rule: "never-sent",
      channel: "ghost",
      begin: 3,
      end: 9,
    });
  });

  test("ranges in transit are maximal, sorted by channel then begin; to is null where nobody is known", async () => {
    const { transit } = await answer([
      p.send("b", 0, 3),
      p.send("b", 3, 7),
      p.send("b", 9, 10),
      p.send("a", 5, 6),
      p.checkpoint(1),
      q.receive("b", 1, 2),
      q.checkpoint(1),
    ]);
    expect(transit).toEqual(["a p>null [5,6)", "b p>q [0,1)", "b p>q [2,7)", "b p>q [9,10)"]);
  });

  test("empty ranges mean nothing: no orphan, no end of a channel; but they are lines", async () => {
    const { code, line, transit } = await answer(
      [p.send("a", 3, 3), q.receive("a", 8, 8), q.send("a", 1, 1), r.receive("a", 0, 0), p.send("a", 0, 1)],
      ["--failed", "r"],
    );
    expect(line).toEqual(["p continue null@2", "q continue null@2", "r initial 0@0"]);
    expect([code, transit]).toEqual([0, ["a p>null [0,1)"]]);
  });

  test("offsets up to 2^53-1", async () => {
    const top = Number.MAX_SAFE_INTEGER;
    const { transit } = await answer([p.send("a", top - 1, top), p.send("a", 0, 1), p.checkpoint(top)]);
    expect(transit).toEqual(["a p>null [0,1)", `a p>null [${top - 1},${top})`]);
  });

  test("lines of different processes interleave arbitrarily: the receive may stand before its send", async () => {
    const { line } = await answer([
      q.receive("a", 0, 1),
      q.checkpoint(1),
      p.send("a", 0, 1),
      p.checkpoint(1),
    ]);
    expect(line).toEqual(["p restore 1@2", "q restore 1@2"]);
  });
});

describe("cuts", () => {
  test("no event between checkpoints is needed", async () => {
    const events = [
      p.checkpoint(1, { cut: { sent: { a: 10 } } }),
      p.checkpoint(2, { cut: { sent: { a: 20 } } }),
      q.checkpoint(1, { cut: { received: { a: 10 } } }),
      q.checkpoint(2, { cut: { received: { a: 25 } } }),
    ];
    const { line, transit } = await answer(events);
    expect(line).toEqual(["p restore 2@2", "q restore 1@1"]);
    expect(transit).toEqual(["a p>q [10,20)"]);
  });

  test("what a gap lost before it counts by the cut", async () => {
    const { code, line } = await answer([
      p.send("a", 0, 4),
      p.gap(2),
      p.checkpoint(1, { cut: { sent: { a: 9 } } }),
      q.receive("a", 0, 9),
      q.checkpoint(1),
    ]);
    expect(line).toEqual(["p restore 1@3", "q restore 1@2"]);
    expect(code).toBe(0);
  });

  test("a receive that was lost counts by the cut, too", async () => {
    const { line } = await answer([
      p.checkpoint(1),
      p.send("a", 0, 9),
      q.gap(),
      q.checkpoint(1, { cut: { received: { a: 9 } } }),
    ]);
    expect(line).toEqual(["p restore 1@1", "q initial 0@0"]);
  });

  test("a channel without any event is known by its cuts alone; a receiver that stands at 0 is known", async () => {
    const { transit } = await answer([
      p.checkpoint(1, { cut: { sent: { a: 2, b: 0 }, received: {} } }),
      q.checkpoint(1, { cut: { received: { a: 0, b: 0 } } }),
    ]);
    expect(transit).toEqual(["a p>q [0,2)"]);
  });
});

describe("distributed shared memory", () => {
  const events = [
    p.checkpoint(1),
    p.copy("source", "m", 0, 1),
    p.invalidate("source", "m", 1, 2),
    q.copy("destination", "m", 0, 1),
    q.checkpoint(1),
    q.invalidate("destination", "m", 1, 2),
    q.checkpoint(2),
    q.fault("page name"),
  ];

  test("a copy is a message under both models", async () => {
    for (const dsm of ["sequential", "transfers"]) {
      const { line } = await answer(events, ["--dsm", dsm, "--failed", "p"]);
      expect(line).toEqual(["p restore 1@1", "q initial 0@0"]);
    }
  });

  test("an invalidate only under sequential", async () => {
    const copied = [p.copy("source", "m", 0, 1), p.checkpoint(1), ...events.slice(2)];
    expect((await answer(copied, ["--failed", "p"])).line).toEqual(["p restore 1@2", "q restore 1@2"]);
    const { line, transit } = await answer(copied, ["--failed", "p", "--dsm", "transfers"]);
    expect(line).toEqual(["p restore 1@2", "q continue null@5"]);
    expect(transit).toEqual([]);
  });

  test("an invalidate that nobody has received is in transit only under sequential", async () => {
    const sent = [p.invalidate("source", "m", 0, 1), p.checkpoint(1)];
    expect((await answer(sent)).transit).toEqual(["m p>null [0,1)"]);
    expect((await answer(sent, ["--dsm", "transfers"])).transit).toEqual([]);
  });
});

describe("--in-transit logged", () => {
  const logged = ["--in-transit", "logged"];

  test("what no stable line covers must be received inside the line", async () => {
    const events = [
      p.checkpoint(1),
      p.send("a", 0, 1),
      p.checkpoint(2),
      q.checkpoint(1),
      q.receive("a", 0, 1),
    ];
    expect((await answer(events)).line).toEqual(["p restore 2@3", "q restore 1@1"]);
    expect((await answer(events, logged)).line).toEqual(["p restore 1@1", "q restore 1@1"]);
  });

  test("what a stable line covers may be in transit", async () => {
    const events = [p.send("a", 0, 1), p.stable(), p.send("a", 1, 2), p.checkpoint(1), q.fault()];
    const { line, transit } = await answer(events, logged);
    expect(line).toEqual(["p replay 0@2", "q initial 0@0"]);
    expect(transit).toEqual(["a p>null [0,1)"]);
  });

  test("a stable line covers all before it, also what a gap hides and only a cut knows", async () => {
    const events = [p.gap(), p.checkpoint(1, { cut: { sent: { a: 9 } } }), p.stable(), p.fault(), q.fault()];
    const { line, transit } = await answer(events, logged);
    expect(line).toEqual(["p replay 1@3", "q initial 0@0"]);
    expect(transit).toEqual(["a p>null [0,9)"]);
    const uncovered = [p.gap(), p.stable(), p.checkpoint(1, { cut: { sent: { a: 9 } } }), q.fault()];
    expect((await answer(uncovered, logged)).line).toEqual(["p initial 0@0", "q initial 0@0"]);
  });

  test("never received, but the receiver goes on: it still waits in its kernel", async () => {
    const events = [p.send("a", 0, 2), q.receive("a", 0, 1), r.fault()];
    expect((await answer(events, [...logged, "--failed", "r"])).line).toEqual([
      "p continue null@1",
      "q continue null@1",
      "r initial 0@0",
    ]);
  });

  test("no receiver known: the sender can't keep it", async () => {
    const { line, value } = await answer(
      [p.checkpoint(1), p.send("a", 0, 2), r.fault()],
      [...logged, "--failed", "r"],
    );
    expect(line).toEqual(["p restore 1@1", "r initial 0@0"]);
    expect(value.witnesses[0]?.because[0]?.rule).toBe("unreplayable");
  });

  test("the receiver's rollback rolls the sender back", async () => {
    const events = [p.checkpoint(1), p.send("a", 0, 1), q.checkpoint(1), q.receive("a", 0, 1)];
    const { line, value } = await answer(events, [...logged, "--failed", "q"]);
    expect(line).toEqual(["p restore 1@1", "q restore 1@1"]);
    expect(value.witnesses[0]?.because.map((link) => link.rule)).toEqual(["failed", "unreplayable"]);
  });
});

describe("--failed", () => {
  const named = (name: string) => ({ type: "page-fault", process: name, page: 1, access: "write" });
  const events = [named("a"), named("b"), named("a,b"), named("c\u0007")];

  test("several names, at once or repeated", async () => {
    const expected = ["a initial 0@0", "a,b continue null@1", "b initial 0@0", "c\u0007 continue null@1"];
    expect(
      (
        await answer(
          events.filter((e) => e.process !== "a,b"),
          ["--failed", "a,b"],
        )
      ).line,
    ).toEqual(expected.filter((entry) => !entry.startsWith("a,b")));
    expect((await answer(events, ["--failed", "a", "--failed", "b"])).line).toEqual(expected);
  });

  test("a name that is a process as it stands is not split", async () => {
    expect((await answer(events, ["--failed", "a,b"])).line).toEqual([
      "a continue null@1",
      "a,b initial 0@0",
      "b continue null@1",
      "c\u0007 continue null@1",
    ]);
  });

  test.each([
    ["", "--failed has an empty name"],
    ["a,", "--failed has an empty name"],
    ["a,a", '--failed names "a" twice'],
    ["a,z", '--failed names "z", which is no process of the evidence'],
  ])("wrong: %j", async (names, message) => {
    const { code, value, stderr } = await runJson(
      ["compute", "--from", "-", "--failed", names],
      lines(...events),
    );
    expect([code, value.outcome, value.error?.message]).toEqual([2, "error", message]);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("\u0007");
  });
});

describe("bad input: exit code 2, file, line and field", () => {
  test.each<[string, string, string]>([
    ["broken JSON", '{"type":"stable","process":"p"}\n{"type":', "line 2: broken JSON"],
    ["no object", "[1]\n", "line 1: must be a JSON object"],
    ["an unknown type", '{"type":"sent","process":"p"}\n', 'line 1, field "type": unknown type "sent"'],
    ["no type", '{"process":"p"}\n', 'line 1, field "type": is missing'],
    ["no process", '{"type":"stable"}\n', 'line 1, field "process": is missing'],
    [
      "an empty process",
      '{"type":"stable","process":""}\n',
      'line 1, field "process": must be a non-empty string',
    ],
    [
      "a long process",
      lines(does("é".repeat(128)).stable()),
      'line 1, field "process": is longer than 255 bytes',
    ],
    [
      "no channel",
      '{"type":"send","process":"p","begin":0,"end":1}\n',
      'line 1, field "channel": is missing',
    ],
    ["an empty channel", lines(p.send("", 0, 1)), 'line 1, field "channel": must be a non-empty string'],
    ["a bad range", lines(p.send("a", 2, 1)), 'line 1, field "end": 1 is before begin 2'],
    ["a negative offset", lines(p.receive("a", -1, 1)), 'line 1, field "begin": must be an integer from 0'],
    ["a fraction", lines(p.receive("a", 0, 1.5)), 'line 1, field "end": must be an integer'],
    ["2^53", lines(p.send("a", 0, 2 ** 53)), 'line 1, field "end": must be an integer from 0 to 2^53-1'],
    [
      "a string for a number",
      '{"type":"send","process":"p","channel":"a","begin":"0","end":1}\n',
      'line 1, field "begin"',
    ],
    [
      "an unknown access",
      '{"type":"page-fault","process":"p","page":1,"access":"x"}\n',
      'line 1, field "access"',
    ],
    [
      "an unknown role",
      '{"type":"page-copy","process":"p","page":1,"role":"x","channel":"a","begin":0,"end":1}\n',
      'line 1, field "role"',
    ],
    ["no page", '{"type":"page-fault","process":"p","access":"read"}\n', 'line 1, field "page": is missing'],
    ["checkpoint 0", lines(p.checkpoint(0)), 'line 1, field "checkpoint": must be an integer from 1'],
    [
      "a checkpoint that does not rise",
      lines(p.checkpoint(3), q.checkpoint(1), p.checkpoint(3)),
      'line 3, field "checkpoint": 3 does not rise above 3',
    ],
    ["usable is no boolean", lines(p.checkpoint(1, { usable: 1 })), 'line 1, field "usable"'],
    ["a cut that is none", lines(p.checkpoint(1, { cut: [] })), 'line 1, field "cut"'],
    ["a cut's offset", lines(p.checkpoint(1, { cut: { sent: { a: -1 } } })), 'line 1, field "cut.sent.a"'],
    ["a rollback to nowhere", lines(p.checkpoint(1), p.rollback(2)), 'line 2, field "checkpoint"'],
    [
      "a rollback to an undone checkpoint",
      lines(p.checkpoint(1), p.rollback(0), p.rollback(1)),
      'line 3, field "checkpoint"',
    ],
    ["a negative loss", lines(p.gap(-1)), 'line 1, field "lost"'],
    [
      "two senders",
      lines(p.send("a", 0, 1), q.send("a", 1, 2)),
      'line 2, field "channel": process "q" sends [1, 2) on channel "a", but process "p"',
    ],
    [
      "two receivers",
      lines(p.receive("a", 0, 1), q.checkpoint(1, { cut: { received: { a: 4 } } })),
      'line 2, field "channel": process "q" receives [0, 4) on channel "a"',
    ],
    [
      "two senders, one of them undone",
      lines(p.send("a", 0, 1), p.rollback(0), q.send("a", 1, 2)),
      'line 3, field "channel"',
    ],
  ])("%s", async (_, text, message) => {
    const file = join(dir, "bad.jsonl");
    writeFileSync(file, text);
    const { code, value, stderr } = await runJson(["compute", "--from", file]);
    expect([code, value.outcome]).toEqual([2, "error"]);
    expect(value.error?.message).toContain(`${file}, ${message}`);
    expect(stderr).toContain(`${file}, ${message}`);
  });

  test("bytes that are not UTF-8", async () => {
    const file = join(dir, "latin1.jsonl");
    writeFileSync(file, Buffer.from([...Buffer.from('{"type":"stable","process":"'), 0xe9, 0x22, 0x7d, 10]));
    expect((await run(["compute", "--from", file])).stderr).toContain(`${file}, line 1: is not UTF-8`);
  });

  test("a file that is not there, a folder, no source, two sources, unknown flags and values", async () => {
    for (const args of [
      ["--from", join(dir, "nothing.jsonl")],
      ["--from", dir],
      [],
      ["--from", "-", "--log", dir],
      ["--from", "-", "--dsm", "causal"],
      ["--from", "-", "--in-transit", "some"],
      ["--from", "-", "--nonsense"],
      ["one", "two", "--from", "-"],
    ]) {
      const { code, value, stderr } = await runJson(["compute", ...args]);
      expect([args, code, value.outcome]).toEqual([args, 2, "error"]);
      expect(stderr).not.toBe("");
    }
  });
});

test("no process at all is refused", async () => {
  for (const text of ["", "\n \r\n\n"]) {
    const { code, value } = await runJson(["compute", "--from", "-"], text);
    expect([code, value.outcome, value.error?.code]).toEqual([4, "refused", "RL_REFUSED"]);
  }
});

describe("output", () => {
  test("the object has the fields of interchange.md in their order", async () => {
    const { value } = await answer([p.send("a", 0, 1), p.checkpoint(1), q.fault()], ["--failed", "p"]);
    expect(Object.keys(value).slice(0, 8)).toEqual([
      "application",
      "outcome",
      "line",
      "inTransit",
      "witnesses",
      "lostInputs",
      "unsayable",
      "evidence",
    ]);
    expect(value.application).toBe("app");
    expect(value.line.map((entry: object) => Object.entries(entry))).toEqual([
      [
        ["process", "p"],
        ["checkpoint", 1],
        ["position", 2],
        ["action", "restore"],
      ],
      [
        ["process", "q"],
        ["checkpoint", null],
        ["position", 1],
        ["action", "continue"],
      ],
    ]);
    expect(Object.entries(value.inTransit[0] ?? {})).toEqual([
      ["channel", "a"],
      ["from", "p"],
      ["to", null],
      ["begin", 0],
      ["end", 1],
    ]);
  });

  test("without an argument the application is the file's base name", async () => {
    const file = join(dir, "heat.jsonl");
    writeFileSync(file, lines(p.fault()));
    expect((await runJson(["compute", "--from", file])).value.application).toBe("heat.jsonl");
    expect((await runJson(["compute", "heat", "--from", file])).value.application).toBe("heat");
  });

  test("line is sorted by process, whatever the names are", async () => {
    const names = ["b", "a", "B", "10", "9", "__proto__", "é", "\u0000"];
    const { value } = await answer(names.map((name) => does(name).fault()));
    expect(value.line.map((entry) => entry.process)).toEqual([...names].sort());
  });

  test("unknown fields, time, node and blank lines change nothing", async () => {
    const plain = lines(p.send("a", 0, 1), p.checkpoint(1));
    const decorated = `${lines({ ...p.send("a", 0, 1), time: 1.7e18, node: "n", extra: { deep: [1] } })}\n\r\n${lines({ ...p.checkpoint(1), image: "/i", time: 5 })}`;
    const one = await run(["compute", "x", "--from", "-", "--json"], plain);
    const other = await run(["compute", "x", "--from", "-", "--json"], decorated.trimEnd());
    expect(other).toEqual(one);
  });

  test("the order of processes in the file changes nothing", async () => {
    const mine = [p.send("b", 0, 3), p.checkpoint(1), p.send("b", 3, 5)];
    const theirs = [q.receive("b", 0, 4), q.checkpoint(1)];
    const one = await run(["compute", "x", "--from", "-", "--json"], lines(...mine, ...theirs));
    const other = await run(["compute", "x", "--from", "-", "--json"], lines(...theirs, ...mine));
    expect(other).toEqual(one);
  });

  test("a long list is one object, too", async () => {
    const names = Array.from({ length: 1500 }, (_, k) => `p${k}`).sort();
    const { code, value } = await runJson(
      ["compute", "--from", "-"],
      lines(...names.map((n) => does(n).fault())),
    );
    expect(code).toBe(0);
    expect(value.line).toEqual(
      names.map((process) => ({ process, checkpoint: 0, position: 0, action: "initial" })),
    );
    expect(value.witnesses).toHaveLength(1500);
    expect(value.evidence).toEqual({ gaps: 0, lost: 0, healed: 0 });
  });

  test("names can't drive the terminal", async () => {
    const evil = does("\u001b[31mred\u202e\n");
    const text = lines(
      evil.send("c\u0007\u009b", 0, 1),
      evil.checkpoint(1),
      does("q").receive("x\u001b]0;t\u0007", 0, 1),
    );
    const { code, stdout } = await run(["compute", "a\u001b", "--from", "-", "--diagram"], text);
    expect(code).toBe(0);
    expect(stdout).not.toMatch(/[^\n\x20-\x7e]/);
    expect(stdout).toContain("\\x1b[31mred\\u202e\\n");
  });

  test("an opening of a connection that is on the way is no bytes that somebody must replay", async () => {
    const opening = lines(p.send("tcp:00000001-00000002/open", 0, 1), q.fault());
    const { stdout } = await run(["compute", "app", "--from", "-"], opening);
    const failed = await run(["compute", "app", "--from", "-", "--failed", "q"], opening);
    for (const said of [stdout, failed.stdout]) expect(said).not.toContain("must be replayed");
    expect(failed.stdout).toContain(
      "Nothing is in transit.\n1 opening or end of connections is on the way: that has no bytes to replay.\n",
    );
  });

  test("tables and diagram for people", async () => {
    const events = [
      p.send("a", 0, 10),
      p.checkpoint(1),
      p.send("a", 10, 12),
      q.receive("a", 0, 4),
      q.checkpoint(1),
      q.receive("a", 4, 12),
      q.gap(2),
    ];
    const { code, stdout, stderr } = await run(
      ["compute", "app", "--from", "-", "--diagram"],
      lines(...events),
    );
    expect([code, stderr]).toEqual([3, ""]);
    expect(stdout).toBe(
      `app: tainted, 2 of 2 processes rolled back; 1 gap in the evidence, 2 events known to be lost: the line is safe, maybe earlier than needed

PROCESS  ACTION   CHECKPOINT  POSITION
p        restore  1           2
q        restore  1           2

In transit: sent inside the line, not received inside it; must be replayed.
FROM  TO  BEGIN  END  PAYLOAD  CHANNEL
p     q   4      10   unknown  a

Why:
  p
    p failed
  q
    q failed

p  |--a>-b>-[1]-#.c>.....X
q  |---->a-[1]-#.>b.>c.?.X

# recovery line, .. undone, [n] checkpoint, (n) not usable, ? gap, X failed
a  p -> q  [0, 4) of a: kept
b  p -> q  [4, 10) of a: in transit
c  p -> q  [10, 12) of a: undone
`,
    );
  });

  test("a reader that goes away is no failure", () => {
    const text = lines(...Array.from({ length: 20_000 }, (_, k) => does(`p${k}`).fault()));
    const file = join(dir, "many.jsonl");
    writeFileSync(file, text);
    const command = `set -o pipefail; "${process.execPath}" "${main}" compute --from "${file}" --json | head -1`;
    const { status, stdout, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
    expect([status, stdout, stderr]).toEqual([0, "{\n", ""]);
  });

  test("an output without room is a failure, told in one sentence", () => {
    const file = join(dir, "one.jsonl");
    writeFileSync(file, lines(p.fault()));
    const command = `"${process.execPath}" "${main}" compute --from "${file}" > /dev/full`;
    const { status, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
    expect([status, stderr]).toEqual([
      1,
      "recovery-line: the output can't be written: ENOSPC: no space left on device, write\n",
    ]);
  });

  test("what the operating system refuses is no bug of ours: no stack trace, and a code for programs", async () => {
    const nowhere = join(dir, "dangling");
    symlinkSync(join(dir, "nowhere"), nowhere);
    const { code, value, stderr } = await runJson([
      "import",
      "app",
      "--from",
      "-",
      "--log",
      join(nowhere, "x"),
    ]);
    expect([code, value.error?.code, stderr]).toEqual([
      1,
      "RL_SYSTEM",
      expect.stringMatching(/^recovery-line: the operating system refused: E.*\nFree space.*\n$/),
    ]);
  });
});

test("help names every option and shows examples; it is quick", async () => {
  const { code, stdout } = await run(["compute", "--help"]);
  expect(code).toBe(0);
  for (const word of [
    "--log",
    "--failed",
    "--dsm",
    "--in-transit",
    "--from",
    "--json",
    "--diagram",
    "Examples:",
  ])
    expect(stdout).toContain(word);
});
