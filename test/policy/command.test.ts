/** The commands as a user runs them: exit codes, places of errors, the same bytes each time. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { printEvent } from "../../src/format/interchange.ts";
import { build, run } from "../cli/cli.ts";
import { Random } from "../reference/random.ts";
import { randomExecution } from "./executions.ts";

let dir = "";
beforeAll(() => {
  build();
  dir = mkdtempSync(join(tmpdir(), "recovery-line-policy-"));
}, 120_000);
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const bad = join(import.meta.dirname, "bad", "typo-element.xml");

test("check: 0 for a good policy, 2 with file, line, column, advice for a bad one", async () => {
  const good = await run(["policy", "check", "policies/fdas.xml"]);
  expect([good.code, good.stderr]).toEqual([0, ""]);
  expect(good.stdout).toMatch(/^policies\/fdas\.xml: fdas 1, 4 statements, [0-9a-f]{16}\n/);
  expect(good.stdout).toContain("can't run on unmodified programs: event receiving, message.news\n");
  const wrong = await run(["policy", "check", bad]);
  expect([wrong.code, wrong.stdout]).toEqual([2, ""]);
  expect(wrong.stderr).toBe(
    `recovery-line: ${bad}:3:5: no element is called checkpont\n` +
      "Did you mean checkpoint? Allowed here: if, set, use, checkpoint, synchronize, restart, roll-back, log, tell, collect, note.\n",
  );
  const json = await run(["policy", "check", bad, "--json"]);
  expect(json.code).toBe(2);
  expect(JSON.parse(json.stdout)).toMatchObject({ outcome: "error", error: { code: "RL_BAD_INPUT" } });
  expect((await run(["policy", "check", join(dir, "none.xml")])).code).toBe(2);
});

test("build: component and lines, the same bytes each time; --print", async () => {
  const [one, two] = [join(dir, "one"), join(dir, "two")];
  for (const out of [one, two])
    expect((await run(["policy", "build", "bounded-loss", "-o", out])).code).toBe(0);
  for (const file of ["component.json", "lines.json"])
    expect(readFileSync(join(one, file)).equals(readFileSync(join(two, file)))).toBe(true);
  const printed = await run(["policy", "build", "bounded-loss", "--print"]);
  const copy = join(dir, "copy.xml");
  writeFileSync(copy, printed.stdout);
  expect((await run(["policy", "build", copy, "-o", two])).code).toBe(0);
  expect(readFileSync(join(two, "component.json")).equals(readFileSync(join(one, "component.json")))).toBe(
    true,
  );
  expect((await run(["policy", "build", "bounded-loss"])).code).toBe(2);
});

test("build: --print with --json is refused before anything is written", async () => {
  const out = join(dir, "refused");
  const both = await run(["policy", "build", "bounded-loss", "-o", out, "--print", "--json"]);
  expect([both.code, JSON.parse(both.stdout).error.code]).toEqual([2, "RL_USAGE"]);
  expect(existsSync(out)).toBe(false);
});

test("schema, palette, list", async () => {
  expect((await run(["policy", "schema"])).stdout).toMatch(/^<\?xml .*<\/xs:schema>\n$/s);
  expect(JSON.parse((await run(["policy", "palette", "--json"])).stdout)).toHaveProperty("facts");
  expect((await run(["policy", "list"])).stdout).toMatch(
    /^bounded-loss +Keeps what any failure would cost below a bound$/m,
  );
});

test("compare: a table that says what is a model, or one JSON object; 2 for what does not exist", async () => {
  const file = join(dir, "events.jsonl");
  writeFileSync(
    file,
    randomExecution(new Random(12), 4, 300)
      .map((event) => `${printEvent(event)}\n`)
      .join(""),
  );
  const args = ["policy", "compare", "--from", file, "periodic:interval=5s", "fdas:interval=5s"];
  const { code, stdout } = await run([...args, "--seeds", "2"]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^METRIC +POLICY +FROZEN PATTERN +DELAYS PUSHED ALONG$/m);
  expect(stdout).toMatch(/^checkpoints in no consistent cut +periodic:interval=5s +[1-9]/m);
  expect(stdout).toMatch(/^ +fdas:interval=5s +0 +0( +\?)?$/m);
  expect(stdout).toMatch(/^share of failures back past all checkpoints +periodic/m);
  expect(stdout).toContain("Model: a checkpoint holds its process still 0.1 s");
  const json = JSON.parse((await run([...args, "--json", "--cost", "1s", "--mtbf", "1 h"])).stdout);
  expect(json).toMatchObject({
    outcome: "clean",
    processes: 4,
    seeds: 3,
    model: { checkpoint: 1, mtbf: 3600 },
  });
  const wrong = await run(["policy", "compare", "--from", file, "perodic"]);
  expect([wrong.code, wrong.stderr.split("\n")[0]]).toEqual([
    2,
    "recovery-line: no shipped policy is called perodic; did you mean periodic?",
  ]);
  expect((await run([...args, "--cost", "0 s"])).code).toBe(2);
});

test("compare: an application's log gives what its events give", async () => {
  const file = join(dir, "app.jsonl");
  writeFileSync(
    file,
    randomExecution(new Random(8))
      .map((event) => `${printEvent(event)}\n`)
      .join(""),
  );
  const home = join(dir, "home");
  expect((await run(["import", "app", "--from", file, "--log", home])).code).toBe(0);
  const policies = ["staggered:interval=4s", "--seeds", "1", "--json"];
  const fromLog = await run(["policy", "compare", "app", "--log", home, ...policies]);
  const fromFile = await run(["policy", "compare", "--from", file, ...policies]);
  expect(JSON.parse(fromLog.stdout)).toEqual({ ...JSON.parse(fromFile.stdout), application: "app" });
});

test("compare: a log with gaps is refused, and tainted on request", async () => {
  const file = join(dir, "gaps.jsonl");
  const events = [...randomExecution(new Random(3)), { type: "gap", process: "p0" } as const];
  writeFileSync(file, events.map((event) => `${printEvent(event)}\n`).join(""));
  expect((await run(["policy", "compare", "--from", file, "periodic"])).code).toBe(4);
  expect((await run(["policy", "compare", "--from", file, "periodic", "--tainted"])).code).toBe(3);
});
