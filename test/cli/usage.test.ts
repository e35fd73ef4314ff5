/** Options that would silently drop what somebody named: refused by name, with exit code 2. */
import { beforeAll, expect, test } from "vitest";
import { build, does, lines, run, runJson } from "./cli.ts";

beforeAll(build);

const events = lines(does("p").checkpoint(1));

test.each([
  ["compute", "--from", ["compute", "--from", "na.jsonl", "--from", "nb.jsonl"]],
  ["export", "--log", ["export", "app", "--log", "ma", "--log", "mb"]],
  ["verify", "--log", ["verify", "app", "--log", "ma", "--log", "mb"]],
  ["import", "--from", ["import", "app", "--from", "na.jsonl", "--from", "nb.jsonl"]],
  [
    "cut, choices",
    "--dsm",
    ["cut", "--from", "-", "--containing", "p:1", "--dsm", "sequential", "--dsm", "transfers"],
  ],
  [
    "policy build, inner command",
    "--output",
    ["policy", "build", "periodic", "-o", "/dev/null/a", "--output", "/dev/null/b"],
  ],
  [
    "policy compare, with a default",
    "--seeds",
    ["policy", "compare", "app", "periodic", "--seeds", "1", "--seeds=1"],
  ],
])("one value, given twice: %s", async (_, option, args) => {
  expect(await run(args, events)).toEqual({
    code: 2,
    stdout: "",
    stderr: expect.stringContaining(`${option} is given twice`),
  });
});

test("a wrong option and --json: one object on standard output", async () => {
  const { code, value } = await runJson(["verify", "app", "--log", "ma", "--log", "mb"]);
  expect([code, value.application, value.outcome, value.error?.code]).toEqual([2, null, "error", "RL_USAGE"]);
  expect((await runJson(["compute", "app", "--workers", "-1"])).value.error?.code).toBe("RL_USAGE");
});

test("options that collect may be repeated: --containing, --failed, --log of compute, --set of policy plug", async () => {
  const cut = [
    "cut",
    "--from",
    "-",
    "--containing",
    "p:1",
    "--containing",
    "q:1",
    "--failed",
    "p",
    "--failed",
    "q",
  ];
  expect((await run(cut, lines(does("p").checkpoint(1), does("q").checkpoint(1)))).code).toBe(0);
  const homes = await run(["compute", "app", "--log", "/nowhere/a", "--log", "/nowhere/b"]);
  expect(homes.stderr).not.toContain("twice");
  const plug = ["policy", "plug", "app", "periodic", "--set", "a=1", "--set", "b=1", "--log", "/nowhere/a"];
  expect((await run(plug)).stderr).not.toContain("twice");
});

test.each([
  ["compute", ["compute", "app", "--log", ""]],
  ["import", ["import", "app", "--from", "-", "--log", ""]],
  ["status", ["status", "app", "--log="]],
])("--log of an unset variable is no default directory: %s", async (_, args) => {
  expect(await run(args, events, { RECOVERY_LINE_HOME: "/dev/null/home" })).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("--log has an empty name"),
  });
});

test.each([["--nodes", "n1,n9"], ["--assume-lost"]])("compute --from with %s", async (...option) => {
  const { code, stderr } = await run(["compute", "--from", "-", ...option], events);
  expect([code, stderr]).toEqual([2, expect.stringContaining(`--from and ${option[0]} exclude each other`)]);
});
