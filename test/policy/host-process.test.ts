/** A policy's process: it answers as the interpreter does, and every way in which it can fail ends it with the fault that the design names. */
import { readFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { POLICY_WALL_LIMIT_MS } from "../../src/model/limits.ts";
import { buildPolicy } from "../../src/policy/build.ts";
import { PolicyProcess } from "../../src/policy/host-process.ts";
import {
  BadAnswer,
  instructionsOf,
  Lines,
  MAX_LINE_BYTES,
  type Request,
  readAnswer,
} from "../../src/policy/host-protocol.ts";

const { component } = buildPolicy(
  "test.xml",
  `<policy xmlns="urn:recovery-line:policy:1" name="test" version="1">
  <title>Counts, and holds all still</title>
  <parameter name="interval" type="duration" default="1 min"/>
  <state name="beats" type="number" initial="0" each="node"/>
  <on event="beat">
    <set name="beats" value="beats + 1"/>
    <if test="self.age ge interval"><checkpoint/></if>
    <tell who="node" value="beats"/>
  </on>
  <on event="beat" each="node">
    <synchronize who="all" within="interval / 0"><checkpoint/><note text="together"/></synchronize>
  </on>
</policy>`,
);
const request: Request = {
  sequence: 1,
  epoch: 7,
  event: "beat",
  each: "process",
  parameters: [30],
  rows: [
    [[10], [0]],
    [[31], [0]],
  ],
};
const READY = `import { Socket } from "node:net"; const s = new Socket({ fd: 3 }); let n = 0;
s.on("data", () => { if (n++ === 0) s.write('{"ready":true}\\n'); else act(); });`;

const running: PolicyProcess[] = [];
afterEach(async () => {
  for (const one of running.splice(0)) await one.close();
});
async function started(act?: string): Promise<PolicyProcess> {
  const made = await PolicyProcess.start(component, act === undefined ? undefined : `${READY}\n${act}`);
  running.push(made);
  return made;
}

test("it answers as the interpreter does: actions by the host's own component, what a row sets for the node the next one sees", async () => {
  const process = await started();
  const { rows, epoch } = await process.ask(request);
  expect(epoch).toBe(7);
  expect(rows.map(({ state }) => [...state])).toEqual([[1], [2]]);
  expect(rows.map(({ actions }) => actions.map((one) => one.do))).toEqual([["tell"], ["checkpoint", "tell"]]);
  const node = await process.ask({ ...request, each: "node", rows: [[[0], [2]]] });
  expect(node.rows[0]!.actions).toMatchObject([
    {
      do: "synchronize",
      who: "all",
      within: Number.POSITIVE_INFINITY,
      body: [{ do: "checkpoint" }, { do: "note" }],
    },
  ]);
});

describe("faults", () => {
  const endless = "const act = () => { for (;;); };";
  const rows = request.rows.map(() => [[], [0]]);
  const late = `const act = () => {
    for (let used = process.cpuUsage(); used.user + used.system < 8e5; used = process.cpuUsage());
    s.write('${JSON.stringify({ sequence: 1, epoch: 7, rows })}\\n');
  };`;
  /** Below an eighth of a processor its wall time is up first. */
  const LOOPS = /250 ms of its own time|within 2000 ms/;
  const cases: readonly (readonly [string, string, string, RegExp])[] = [
    ["an endless loop", endless, "hang", LOOPS],
    ["much work before an answer", late, "hang", LOOPS],
    ["silence", "const act = () => undefined;", "hang", /within 2000 ms/],
    ["a throw", "const act = () => { throw new Error('no more'); };", "crash", /no more/],
    ["an exit", "const act = () => process.exit(3);", "crash", /exit code 3/],
    ["no JSON", 'const act = () => s.write("hello\\n");', "bad-answer", /no JSON/],
    [
      "another epoch",
      `const act = () => s.write('{"sequence":1,"epoch":6,"rows":[]}\\n');`,
      "bad-answer",
      /another request/,
    ],
    [
      "an action that is none",
      `const act = () => s.write('{"sequence":1,"epoch":7,"rows":[[[[99]],[0]],[[],[0]]]}\\n');`,
      "bad-answer",
      /99 is no action/,
    ],
    [
      "a line without end",
      `const act = () => s.write("x".repeat(${MAX_LINE_BYTES + 1}));`,
      "bad-answer",
      /longer than/,
    ],
    [
      "hoarding",
      "const act = () => { const all = []; for (;;) all.push(new Array(1e5).fill({})); };",
      "crash|hang",
      /SIG|exit|own time|within 2000 ms/,
    ],
    [
      "a file",
      `const act = async () => (await import("node:fs")).readFileSync("/etc/passwd");`,
      "crash",
      /restricted|denied/i,
    ],
    [
      "a child",
      `const act = async () => (await import("node:child_process")).execFileSync("/bin/true");`,
      "crash",
      /restricted|denied/i,
    ],
    ["code from a string", `const act = () => new Function("return 1")();`, "crash", /disallowed/],
  ];
  for (const [name, act, fault, message] of cases)
    test(name, async () => {
      const process = await started(act);
      const thrown = await process.ask(request).catch((error: unknown) => error);
      expect(thrown).toMatchObject({
        fault: expect.stringMatching(new RegExp(`^(${fault})$`)),
        message: expect.stringMatching(message),
      });
      expect(process.running).toBe(false);
      await expect(process.ask(request)).rejects.toBe(thrown);
    });
});

test("an answer that is there counts, however long nobody has read it", async () => {
  const policy = await started(
    `const act = () => s.end('{"sequence":1,"epoch":7,"rows":[[[],[0]],[[],[0]]]}\\n', () => process.exit());`,
  );
  const answer = policy.ask(request);
  await Promise.resolve(); // the request is written
  const stat = () => readFileSync(`/proc/${policy.pid}/stat`, "utf8");
  // This process stands still, its event loop does not turn: until the answer is there and the limit is passed.
  for (let ms = 0; ms <= POLICY_WALL_LIMIT_MS || (ms < 20_000 && !stat().includes(") Z ")); ms += 50)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  expect((await answer).epoch).toBe(7);
});

test("lines come in any pieces", () => {
  const lines = new Lines();
  expect(lines.take(Buffer.from("a"))).toEqual([]);
  expect(lines.take(Buffer.from("b\nc\n\nd"))).toEqual(["ab", "c", ""]);
  expect(lines.take(Buffer.from("\n"))).toEqual(["d"]);
});

describe("answers that are refused", () => {
  const rows = (first: unknown, state: unknown = [0]): string =>
    JSON.stringify({
      sequence: 1,
      epoch: 7,
      rows: [
        [first, state],
        [[], [0]],
      ],
    });
  const cases: readonly (readonly [string, string])[] = [
    ["null", "null"],
    ["too few rows", JSON.stringify({ sequence: 1, epoch: 7, rows: [] })],
    ["a statement that is no action", rows([[0]])],
    ["an action of another handler", rows([[5]])],
    ["an action twice", rows([[2], [2]])],
    ["an action with parts of another", rows([[2, 5]])],
    ["a tell without a value", rows([[3]])],
    ["a state too long", rows([], [0, 0])],
    ["a state that is text", rows([], ["9"])],
  ];
  for (const [name, line] of cases)
    test(name, () => {
      expect(() => readAnswer(line, request, component, instructionsOf(component))).toThrow(BadAnswer);
    });
});
