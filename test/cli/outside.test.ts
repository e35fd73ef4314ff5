/** The outside world, peeks, reasons and healed gaps as interchange.md has them, through the compiled command: from a file and from a log. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build, lines, run, runJson, scratch } from "./cli.ts";

const { dir, clean } = scratch();
beforeAll(build);
afterAll(clean);

const outside = { type: "outside", process: "web", channel: "curl->web" };
const request = { type: "receive", process: "web", channel: "curl->web", begin: 0, end: 10 };
const saved = { type: "checkpoint", process: "web", checkpoint: 1 };
const answer = { type: "send", process: "web", channel: "web->curl", begin: 0, end: 7 };
const batch = { type: "checkpoint", process: "batch", checkpoint: 1 };

const compute = (events: readonly object[], ...args: string[]) =>
  runJson(["compute", "app", "--from", "-", ...args], lines(...events));

describe("the outside world", () => {
  test("a request from outside costs nobody a checkpoint: web continues", async () => {
    const { value, code } = await compute([request, saved, batch, outside], "--failed", "batch");
    expect(code).toBe(0);
    expect(value.line).toEqual([
      { process: "batch", checkpoint: 1, position: 1, action: "restore" },
      { process: "web", checkpoint: null, position: 3, action: "continue" },
    ]);
    expect([value.lostInputs, value.unsayable]).toEqual([[], []]);
    const without = await compute([request, saved, batch], "--failed", "batch");
    expect(without.value.line[1]).toMatchObject({ process: "web", action: "initial" });
  });

  test("web failed: restored, its input and its output are listed, in the table, too, and none is in transit", async () => {
    const events = [
      outside,
      { ...outside, channel: "web->curl" },
      saved,
      request,
      answer,
      { ...request, begin: 20, end: 25 },
      batch,
    ];
    const { value, code } = await compute(events, "--failed", "web", "--in-transit", "logged");
    expect(code).toBe(0);
    expect(value.line[1]).toMatchObject({ process: "web", action: "restore", checkpoint: 1 });
    expect(value.inTransit).toEqual([]);
    expect(value.lostInputs).toEqual([
      { channel: "curl->web", process: "web", begin: 0, end: 10 },
      { channel: "curl->web", process: "web", begin: 20, end: 25 },
    ]);
    expect(value.unsayable).toEqual([{ channel: "web->curl", process: "web", begin: 0, end: 7 }]);
    const { stdout } = await run(["compute", "app", "--from", "-", "--failed", "web"], lines(...events));
    expect(stdout).toContain("PROCESS  BYTES  CHANNEL\nweb      15     curl->web\n");
    expect(stdout).toContain("PROCESS  BYTES  CHANNEL\nweb      7      web->curl\n");
    expect(stdout).not.toContain("connections");
    const quiet = await run(["compute", "app", "--from", "-", "--failed", "batch"], lines(...events));
    expect(quiet.stdout).not.toMatch(/Lost inputs|Unsayable/);
  });

  test("several connections of a process are summed; that one opened or ended is no byte", async () => {
    const channels = ["tcp:00000001-00000002", "tcp:00000003-00000004"] as const;
    const range = (type: string, channel: string, end: number) => ({
      ...{ type, process: "web", channel, begin: 0, end },
    });
    const names = channels.flatMap((name) => [name, `${name}/open`]);
    const events = [
      ...names.map((channel) => ({ ...outside, channel })),
      saved,
      ...channels.flatMap((name, at) => [
        range("receive", `${name}/open`, 1),
        range("receive", name, 10 * (at + 1)),
      ]),
    ];
    const { stdout } = await run(["compute", "app", "--from", "-", "--failed", "web"], lines(...events));
    expect(stdout).toContain(
      `PROCESS  BYTES  CHANNEL\nweb      10     ${channels[0]}\nweb      20     ${channels[1]}\nweb: 30 bytes on 2 connections\n`,
    );
    const failures = await run(["failures", "app", "--from", "-"], lines(...events));
    expect(failures.stdout).toMatch(/^web +1 of 1 .* 30 +0$/m);
  });

  test("explain and failures list them", async () => {
    const text = lines(outside, { ...outside, channel: "web->curl" }, saved, request, answer, batch);
    const lostInputs = [{ channel: "curl->web", process: "web", begin: 0, end: 10 }];
    const unsayable = [{ channel: "web->curl", process: "web", begin: 0, end: 7 }];
    const explained = await runJson(["explain", "web", "--from", "-", "--failed", "web"], text);
    expect(explained.value).toMatchObject({ lostInputs, unsayable });
    const failures = await runJson(["failures", "--from", "-"], text);
    expect(failures.value).toMatchObject({
      failures: [
        { failed: ["batch"], lostInputs: [], unsayable: [] },
        { failed: ["web"], lostInputs, unsayable },
      ],
      together: { lostInputs, unsayable },
    });
    const drawn = await run(["compute", "--from", "-", "--failed", "web", "--diagram"], text);
    expect(drawn.stdout).toContain("outside -> web  [0, 10) of curl->web: input");
    expect(drawn.stdout).toContain("web -> outside  [0, 7) of web->curl: output");
  });

  test.each([
    ["first", [outside, { ...request, process: "db" }]],
    ["last", [{ ...request, process: "db" }, outside]],
    ["a cut", [outside, { ...batch, cut: { sent: { "curl->web": 1 } } }]],
    ["another line that says so", [outside, { ...outside, process: "db" }]],
  ])(
    "a channel that is outside and has another process is bad input, both lines named: %s",
    async (_, events) => {
      const file = join(dir, "both.jsonl");
      writeFileSync(file, lines(...events));
      for (const command of ["import", "compute"]) {
        const args = command === "import" ? ["--log", join(dir, "none")] : [];
        const { code, stderr } = await run([command, "app", "--from", file, ...args]);
        expect(code).toBe(2);
        expect(stderr).toContain(`${file}, line 2`);
        expect(stderr).toContain(`(${file}, line 1)`);
      }
    },
  );

  test("a log keeps the lines: import, export, and the same answer; against a log the other line is named, too", async () => {
    const home = join(dir, "home");
    const events = [
      saved,
      request,
      outside,
      batch,
      { type: "peek", process: "web", channel: "a", begin: 0, end: 2 },
    ];
    expect((await run(["import", "app", "--from", "-", "--log", home], lines(...events))).code).toBe(0);
    const verified = await run(["verify", "app", "--log", home]);
    expect([verified.code, verified.stdout]).toEqual([0, expect.not.stringContaining("twice")]);
    const exported = await run(["export", "app", "--log", home]);
    const told = (text: string) =>
      text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
    expect(told(exported.stdout)).toEqual(expect.arrayContaining(events));
    const logged = await runJson(["compute", "app", "--log", home, "--failed", "web"]);
    const direct = await compute(events, "--failed", "web");
    expect(logged.value).toEqual(direct.value);
    const more = lines({ ...answer, process: "db", channel: "curl->web" });
    const refused = await run(["import", "app", "--from", "-", "--log", home], more);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("the log")]);
  });
});

test.each([
  ["process", { type: "outside", channel: "curl->web" }],
  ["process", { ...outside, process: "" }],
  ["channel", { type: "outside", process: "web" }],
  ["channel", { ...outside, channel: 7 }],
])("an outside line of nobody, or of nothing, is an error that names the field: %s", async (field, event) => {
  const { code, stderr } = await run(["compute", "--from", "-"], lines(saved, event));
  expect([code, stderr]).toEqual([2, expect.stringMatching(new RegExp(`line 2.*${field}`))]);
});

test("an outside line makes a process that no other line names known; who has none at all is an error", async () => {
  const { value } = await compute([saved, { ...outside, process: "db", channel: "a" }], "--failed", "web");
  expect(value.line).toMatchObject([{ process: "db", position: 1, action: "continue" }, { process: "web" }]);
  const { code, stderr } = await run(["compute", "--from", "-", "--failed", "nobody"], lines(saved, outside));
  expect([code, stderr]).toEqual([2, expect.stringContaining("nobody")]);
});

test("a cut that has seen less than it received is an error that names the field", async () => {
  const cut = { received: { a: 5 }, seen: { a: 4 } };
  const { code, stderr } = await run(["compute", "--from", "-"], lines({ ...saved, cut }));
  expect([code, stderr]).toEqual([
    2,
    expect.stringContaining('line 1, field "cut.seen.a": 4 is less than the 5'),
  ]);
});

test("what was looked at is remembered, and still in transit", async () => {
  const p = [
    { type: "checkpoint", process: "p", checkpoint: 1 },
    { type: "send", process: "p", channel: "a", begin: 0, end: 4 },
  ];
  const q = [
    { type: "checkpoint", process: "q", checkpoint: 1 },
    { type: "peek", process: "q", channel: "a", begin: 0, end: 2 },
    { type: "receive", process: "q", channel: "a", begin: 0, end: 1 },
  ];
  const sent = await compute([...p, ...q], "--failed", "p");
  expect(sent.value.line[1]).toMatchObject({ process: "q", action: "restore", checkpoint: 1 });
  expect(sent.value.witnesses[1]?.because[1]).toMatchObject({ rule: "orphan", position: 2, looked: true });
  const stays = await compute([...p, ...q, batch], "--failed", "batch");
  expect(stays.value.inTransit).toMatchObject([{ channel: "a", begin: 1, end: 4 }]);
  const cut = { sent: {}, received: {}, seen: { a: 2 } };
  const told = await compute(
    [...p, { type: "gap", process: "q", reason: "peek" }, { ...q[0], cut }],
    "--failed",
    "p",
  );
  expect(told.value.line[1]).toMatchObject({ process: "q", action: "initial" });
});

test("gaps have reasons, and are healed by a cut unless a rollback undoes it", async () => {
  const gap = { type: "gap", process: "p", lost: 2, reason: "udp" };
  const cut = { type: "checkpoint", process: "p", checkpoint: 2, cut: {} };
  const first = { type: "checkpoint", process: "p", checkpoint: 1 };
  const healed = await compute([first, gap, cut]);
  expect([healed.code, healed.value.outcome, healed.value.evidence]).toEqual([
    0,
    "clean",
    { gaps: 0, lost: 2, healed: 1 },
  ]);
  const undone = await compute([gap, cut, { type: "rollback", process: "p", checkpoint: 0 }, gap]);
  expect([undone.code, undone.value.evidence]).toEqual([3, { gaps: 1, lost: 2, healed: 0 }]);
  const bad = await run(["compute", "--from", "-"], lines({ ...gap, reason: 7 }));
  expect([bad.code, bad.stderr]).toEqual([2, expect.stringContaining('field "reason"')]);
});
