/** failures, zcycles, cut, explain and graph through the compiled command: what they print, and their exit codes. */
import { beforeAll, expect, test } from "vitest";
import { build, does, lines, run } from "./cli.ts";

beforeAll(build);

const p = does("p");
const q = does("q,r");
/** q,r's checkpoint 2 has received what p's volatile end sent. */
const events = lines(
  p.send("a", 0, 1),
  p.checkpoint(1),
  p.send("a", 1, 2),
  q.receive("a", 0, 1),
  q.checkpoint(1),
  q.receive("a", 1, 2),
  q.checkpoint(2),
);

const json = async (...args: string[]) => {
  const { code, stdout, stderr } = await run([...args, "--from", "-", "--json"], events);
  return { code, value: JSON.parse(stdout), stderr };
};

test("failures: one row a failure, what it would undo, and all together", async () => {
  const { code, value } = await json("failures");
  expect(code).toBe(0);
  expect(value).toMatchObject({
    application: "-",
    outcome: "clean",
    processes: 2,
    anyway: { breadth: 0, rolledBack: [] },
  });
  expect(value.failures).toEqual([
    {
      failed: ["p"],
      breadth: 2,
      depth: 2,
      unbounded: 0,
      events: 3,
      checkpoints: 1,
      lostInputs: [],
      unsayable: [],
      rolledBack: [
        { process: "p", checkpoint: 1, position: 2, action: "restore", events: 1, checkpoints: 0 },
        { process: "q,r", checkpoint: 1, position: 2, action: "restore", events: 2, checkpoints: 1 },
      ],
    },
    {
      failed: ["q,r"],
      breadth: 1,
      depth: 1,
      unbounded: 0,
      events: 0,
      checkpoints: 0,
      lostInputs: [],
      unsayable: [],
      rolledBack: [
        { process: "q,r", checkpoint: 2, position: 4, action: "restore", events: 0, checkpoints: 0 },
      ],
    },
  ]);
  expect(value.together).toMatchObject({ failed: ["p", "q,r"], breadth: 2, events: 3 });
  const one = await json("failures", "--failed", "q,r");
  expect(one.value.failures.length).toBe(1);
  expect(one.value.together).toMatchObject({ failed: ["q,r"], breadth: 1 });
  expect((await run(["failures", "--from", "-"], "")).code).toBe(4);
});

test("failures: a process without checkpoints goes to its start, and is not called past all checkpoints", async () => {
  const some = lines(does("p").fault(), q.checkpoint(1));
  const { stdout } = await run(["failures", "--from", "-"], some);
  expect(stdout).toMatch(/^FAILS +.*DEPTH +PAST ALL CHECKPOINTS\np +1 of 2 +1 +0 +1 +0$/m);
});

test("cut: members by checkpoint, position and end; names with commas; a refusal tells the chain", async () => {
  const greatest = await json("cut", "--containing", "q,r:1");
  expect(greatest.value).toMatchObject({
    which: "greatest",
    line: [{ process: "p", action: "continue" }, { position: 2 }],
  });
  const least = await json("cut", "--containing", "q,r:1", "--least");
  expect(least.value.line).toMatchObject([
    { process: "p", checkpoint: 1 },
    { process: "q,r", checkpoint: 1 },
  ]);
  const several = await json("cut", "--containing", "p:now,p@0");
  expect(several.code).toBe(2);
  const refused = await json("cut", "--containing", "p@2", "--containing", "q,r:2");
  expect(refused.code).toBe(4);
  expect(refused.value.error.code).toBe("RL_REFUSED");
  expect(refused.value.error.message).toMatch(/q,r received \[1, 2\) of channel a at its position 3/);
  for (const member of ["p", "p:2", "p@1", "p@9", "nobody:1", ""])
    expect((await json("cut", "--containing", member)).code, member).toBe(2);
});

test("cut: a position that is the end of a process stands for its end, unless it failed", async () => {
  expect((await json("cut", "--containing", "p@3")).value).toEqual(
    (await json("cut", "--containing", "p:now")).value,
  );
  expect((await json("cut", "--containing", "p@3", "--failed", "p")).code).toBe(4);
  expect((await json("cut", "--containing", "q,r@4", "--failed", "q,r")).value.line).toMatchObject([
    { process: "p" },
    { process: "q,r", checkpoint: 2 },
  ]);
});

test("cut: a member behind missing events is refused, not called wrong", async () => {
  const hidden = lines(
    p.gap(),
    p.checkpoint(1),
    p.send("a", 0, 1),
    p.stable(),
    p.checkpoint(2, { usable: false }),
  );
  const code = async (member: string) =>
    (await run(["cut", "--from", "-", "--containing", member], hidden)).code;
  expect(await Promise.all(["p:1", "p@3", "p@5", "p:now"].map(code))).toEqual([4, 4, 4, 4]);
  expect(await Promise.all(["p:2", "p:0"].map(code)), "unusable, and before the gap").toEqual([2, 3]);
  expect((await run(["cut", "--from", "-", "--containing", "p:1"], hidden)).stderr).toContain(
    "missing events",
  );
});

test("attached: failures and cut refuse where no line is, as compute does", async () => {
  const gap = { type: "gap", process: "a", reason: "attached" };
  const b = does("b");
  const behind = lines(gap, b.checkpoint(1));
  for (const command of [
    ["compute"],
    ["failures"],
    ["cut", "--containing", "b:1"],
    ["cut", "--containing", "b:1", "--least"],
    ["cut", "--containing", "a:0"],
  ]) {
    const { code, stdout, stderr } = await run([...command, "--from", "-"], behind);
    expect([code, stdout, stderr], command.join(" ")).toEqual([4, "", expect.stringContaining("before")]);
  }
  const a = does("a");
  const healed = lines(
    gap,
    a.checkpoint(1, { usable: false, cut: { sent: {}, received: {} } }),
    b.checkpoint(1),
  );
  const mixed = await run(["failures", "--from", "-"], healed);
  expect([mixed.code, mixed.stdout]).toEqual([0, expect.stringMatching(/^a +no line/m)]);
  expect(mixed.stdout).toContain("No line for a: a would have to go back to before it was recorded");
  expect((await run(["failures", "--from", "-", "--failed", "a"], healed)).code).toBe(4);
  const least = await run(["cut", "--from", "-", "--containing", "b:1", "--least", "--json"], healed);
  expect(JSON.parse(least.stdout).line).toMatchObject([
    { process: "a", action: "continue" },
    { process: "b" },
  ]);
});

test("explain: with an events file the only argument is the process", async () => {
  const { code, value } = await json("explain", "q,r", "--failed", "p");
  expect(code).toBe(0);
  expect(value).toMatchObject({ application: "-", process: "q,r", checkpoint: 1, undone: 2 });
  expect(value.sentences.length).toBe(2);
  expect((await json("explain", "p", "--failed", "q,r")).value).toMatchObject({
    action: "continue",
    because: [],
  });
  expect((await json("explain", "nobody")).code).toBe(2);
  expect((await json("explain")).code).toBe(2);
});

test("zcycles: who is no restore point is not judged, and not counted among those that are", async () => {
  const [one, two] = [does("p0"), does("p1")];
  const some = lines(one.gap(), one.checkpoint(1), two.checkpoint(1, { usable: false }), two.checkpoint(2));
  const { code, stdout } = await run(["zcycles", "--from", "-"], some);
  expect(code).toBe(3);
  expect(stdout).toBe(
    "-: 0 of 1 checkpoint useless\nNot judged: 1 can't be restored, 1 behind missing events\n",
  );
  const told = JSON.parse((await run(["zcycles", "--from", "-", "--json"], some)).stdout);
  expect(told).toMatchObject({ checkpoints: 1, notJudged: { unusable: 1, missingEvents: 1 } });
});

test("zcycles and graph; missing events taint them all", async () => {
  expect((await json("zcycles")).value).toEqual({
    application: "-",
    outcome: "clean",
    checkpoints: 3,
    notJudged: { unusable: 0, missingEvents: 0 },
    useless: [],
  });
  expect((await json("graph")).value.nodes.length).toBeGreaterThan(3);
  const dot = await run(["graph", "--from", "-"], events);
  expect(dot.stdout).toMatch(/^digraph recovery_line \{\n/);
  const tainted = events + lines(p.gap());
  for (const command of [
    ["zcycles"],
    ["graph"],
    ["failures"],
    ["cut", "--containing", "p:1"],
    ["explain", "p"],
    ["gc"],
  ])
    expect((await run([...command, "--from", "-"], tainted)).code, command[0]).toBe(3);
});
