/** `import`, `export`, `verify` and `compute` on logs, through the compiled command. */
import { execFileSync, spawn } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { IMPORT_BATCH_EVENTS } from "../../src/model/limits.ts";
import { build, does, lines, main, run, runJson, scratch } from "./cli.ts";

const { dir, clean } = scratch();
beforeAll(build);
afterAll(clean);

const p = does("p");
const q = does("q");
const golden = join(import.meta.dirname, "..", "golden");

let homes = 0;
function newHome(): string {
  homes += 1;
  return join(dir, `home${homes}`);
}

/** Every type and every optional field, with names that a terminal, a path or JSON could stumble over. */
const everything = [
  p.send("a", 0, 10),
  { ...p.send("a", 10, 10), time: 1.5, node: "n1" },
  q.receive("a", 0, 4),
  p.fault("page\u0000name"),
  { type: "page-fault", process: "p", page: 0, access: "write", node: "", time: 0 },
  p.copy("source", "m", 0, 1),
  q.copy("destination", "m", 0, 1),
  p.invalidate("source", "m", 1, 2),
  { ...q.invalidate("destination", "m", 1, 2), time: 1.7e18 },
  p.checkpoint(1, { image: "/some/where", cut: { sent: { a: 10, "10": 3, __proto__x: 1 }, received: {} } }),
  q.checkpoint(3, { usable: false, time: -5 }),
  q.checkpoint(7, { cut: { sent: {}, received: { a: 4 } } }),
  p.stable(),
  p.gap(),
  q.gap(0),
  q.gap(12),
  p.send("late", 5, Number.MAX_SAFE_INTEGER),
  p.rollback(1),
  q.rollback(0),
  does('\u001b[31m,\\"é😀').receive("late", 6, 7),
  does("r").gap(2),
];

function byProcess(text: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const line of text.split("\n").filter((one) => one !== "")) {
    const { process } = JSON.parse(line);
    found.set(process, [...(found.get(process) ?? []), line]);
  }
  return found;
}

test("import, export, import, export: nothing changes, undone lines included", async () => {
  const home = newHome();
  const text = lines(...everything);
  const imported = await runJson(["import", "heat", "--from", "-", "--log", home], text);
  expect(imported.code).toBe(0);
  expect(imported.value).toMatchObject({ application: "heat", events: everything.length, processes: 4 });
  const first = await run(["export", "heat", "--log", home]);
  expect(first.code).toBe(0);
  for (const [process, exported] of byProcess(first.stdout))
    expect(exported.map((line) => sorted(JSON.parse(line)))).toEqual(
      (byProcess(text).get(process) ?? []).map((line) => sorted(JSON.parse(line))),
    );
  expect(first.stdout.split("\n").length - 1).toBe(everything.length);
  const file = join(dir, "first.jsonl");
  expect((await run(["export", "heat", "--log", home, "--to", file])).code).toBe(0);
  expect(readFileSync(file, "utf8")).toBe(first.stdout);
  expect((await run(["import", "again", "--from", file, "--log", home])).code).toBe(0);
  expect((await run(["export", "again", "--log", home])).stdout).toBe(first.stdout);
});

/** Keys in order, so that only content counts. */
function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  return Object.entries(value)
    .map(([key, inner]) => [key, sorted(inner)])
    .sort();
}

test("compute from a log answers as from its file", async () => {
  const home = newHome();
  const text = lines(...everything);
  const file = join(dir, "events.jsonl");
  writeFileSync(file, text);
  await run(["import", "heat", "--from", file, "--log", home]);
  for (const args of [[], ["--failed", "p"], ["--dsm", "transfers", "--in-transit", "logged"]]) {
    const direct = await runJson(["compute", "heat", "--from", file, ...args]);
    const logged = await runJson(["compute", "heat", "--log", home, ...args]);
    expect(direct.code).toBe(3);
    expect(withoutReasons(logged)).toEqual(withoutReasons(direct));
    const events = await runJson(["compute", "heat", "--log", home, "--from-events", ...args]);
    expect(events).toEqual(direct);
  }
});

/** Cuts tell ranges where events tell single lines: who is rolled back is the same, the witness's words may differ. */
function withoutReasons({ code, value, stderr }: Awaited<ReturnType<typeof runJson>>): unknown {
  return { code, stderr, ...value, witnesses: value.witnesses.map(({ process }) => process) };
}

test("importing again appends, and the history goes on", async () => {
  const home = newHome();
  const append = (...events: object[]) =>
    runJson(["import", "heat", "--from", "-", "--log", home], lines(...events));
  await append(p.send("a", 0, 5), p.checkpoint(1), p.send("a", 5, 9));
  expect((await append(p.rollback(1), q.receive("a", 0, 5))).code).toBe(0);
  expect((await append(q.checkpoint(1), p.checkpoint(2))).value).toMatchObject({
    events: 2,
    processes: 2,
    channels: 1,
  });
  const { value } = await runJson(["compute", "heat", "--log", home]);
  expect(value.line).toMatchObject([
    { process: "p", checkpoint: 2, position: 4 },
    { process: "q", checkpoint: 1, position: 2 },
  ]);
});

describe("a wrong file: nothing is imported, no log is made, what there was is untouched", () => {
  const before = [p.checkpoint(2), p.send("a", 0, 1)];
  test.each<[string, object[], string]>([
    ["bad by itself", [q.stable(), { type: "nonsense", process: "q" }], 'line 2, field "type"'],
    [
      "bad after the log's history: the checkpoint",
      [q.stable(), p.checkpoint(2)],
      'line 2, field "checkpoint": 2 does not rise above 2',
    ],
    [
      "bad after the log's history: the sender",
      [q.stable(), q.send("a", 1, 2)],
      'line 2, field "channel": process "q" sends [1, 2) on channel "a", but process "p" sends on it too (the log)',
    ],
    ["bad after the log's history: the rollback", [p.rollback(1)], 'line 1, field "checkpoint"'],
  ])("%s", async (_, events, message) => {
    const home = newHome();
    const file = join(dir, "wrong.jsonl");
    await run(["import", "heat", "--from", "-", "--log", home], lines(...before));
    const exported = await run(["export", "heat", "--log", home]);
    writeFileSync(file, lines(...events));
    const { code, value, stderr } = await runJson(["import", "heat", "--from", file, "--log", home]);
    expect([code, value.outcome, value.application]).toEqual([2, "error", "heat"]);
    expect(value.error?.message).toContain(`${file}, ${message}`);
    expect(stderr).toContain("Nothing was imported");
    expect(await run(["export", "heat", "--log", home])).toEqual(exported);
    expect(readdirSync(home)).toEqual(["heat"]);
  });

  test("a new application", async () => {
    const home = newHome();
    const { code } = await run(["import", "heat", "--from", "-", "--log", home], '{"type":');
    expect(code).toBe(2);
    expect(readdirSync(home)).toEqual([]);
    expect((await runJson(["compute", "heat", "--log", home])).value.error?.code).toBe("RL_UNKNOWN_APP");
  });

  test("wrong use", async () => {
    const home = newHome();
    for (const args of [
      ["heat"],
      ["--from", "-"],
      ["../heat", "--from", "-"],
      [".hidden", "--from", "-"],
      ["heat", "--from", join(dir, "nothing")],
      ["heat", "--from", dir],
      ["heat", "--from", "-", "--format", "xml"],
      ["heat", "--from", "-", "--format", "shiviz"],
      ["heat", "--from", "-", "--checkpoint-every", "3"],
      [
        "heat",
        "--from",
        join(golden, "shiviz-one-line.log"),
        "--format",
        "shiviz",
        "--checkpoint-every",
        "0",
      ],
      ["heat", "--from", join(golden, "shiviz-one-line.log"), "--format", "shiviz", "--checkpoint-rate", "2"],
      ["heat", "--from", join(golden, "shiviz-one-line.log"), "--format", "shiviz", "--seed", "2"],
      ["heat", "--from", join(golden, "shiviz-one-line.log"), "--format", "shiviz", "--pattern", "("],
      ["heat", "--from", join(dir, "nothing"), "--format", "smpi"],
    ]) {
      const { code, value } = await runJson(["import", "--log", home, ...args]);
      expect([args, code, value.outcome]).toEqual([args, 2, "error"]);
    }
    expect(existsSync(home) ? readdirSync(home) : []).toEqual([]);
  });
});

test("an empty file is imported as no events; there is no line then", async () => {
  const home = newHome();
  expect((await runJson(["import", "heat", "--from", "-", "--log", home])).value).toMatchObject({
    events: 0,
  });
  expect((await runJson(["compute", "heat", "--log", home])).code).toBe(4);
  expect(await run(["export", "heat", "--log", home])).toEqual({ code: 0, stdout: "", stderr: "" });
  expect((await runJson(["verify", "heat", "--log", home])).code).toBe(0);
});

test("an export into a place that can't be written leaves nothing", async () => {
  const home = newHome();
  await run(["import", "heat", "--from", "-", "--log", home], lines(p.stable()));
  const { code, stderr } = await run([
    "export",
    "heat",
    "--log",
    home,
    "--to",
    join(dir, "no", "such", "file"),
  ]);
  expect([code, stderr]).toEqual([2, expect.stringContaining("can't write")]);
  const folder = join(dir, "folder");
  mkdirSync(folder);
  expect((await run(["export", "heat", "--log", home, "--to", folder])).code).toBe(2);
  expect(readdirSync(dir).filter((name) => name.includes(".part-"))).toEqual([]);
  expect((await run(["export", "nobody", "--log", home])).code).toBe(2);
});

test("an export into a device, a pipe or what a link leads to replaces none of them", async () => {
  const home = newHome();
  await run(["import", "heat", "--from", "-", "--log", home], lines(p.stable()));
  const whole = (await run(["export", "heat", "--log", home])).stdout;
  const [pipe, link, behind, dangling, none] = ["pipe", "link", "behind", "dangling", "none"].map((name) =>
    join(dir, name),
  ) as [string, string, string, string, string];
  execFileSync("mkfifo", [pipe]);
  writeFileSync(behind, "before");
  symlinkSync(behind, link);
  symlinkSync("/dev/null", none);
  symlinkSync(join(dir, "nothing yet"), dangling);
  const reader = spawn("cat", [pipe], { stdio: ["ignore", "pipe", "ignore"] });
  const read = text(reader.stdout);
  for (const to of [pipe, link, dangling, none])
    expect(await run(["export", "heat", "--log", home, "--to", to])).toMatchObject({ code: 0 });
  expect(await read).toBe(whole);
  expect([behind, dangling].map((path) => readFileSync(path, "utf8"))).toEqual([whole, whole]);
  expect(lstatSync(pipe).isFIFO()).toBe(true);
  expect([link, dangling, none].map((path) => lstatSync(path).isSymbolicLink())).toEqual([true, true, true]);
  expect(lstatSync("/dev/null").isCharacterDevice()).toBe(true);
});

test("the home comes from the environment where --log does not name it", async () => {
  const home = newHome();
  await run(["import", "heat", "--from", "-"], lines(p.checkpoint(1)), { RECOVERY_LINE_HOME: home });
  expect(statSync(join(home, "heat")).mode & 0o777).toBe(0o700);
  expect((await run(["compute", "heat"], "", { RECOVERY_LINE_HOME: home })).code).toBe(0);
});

describe("traces", () => {
  test("ShiViz", async () => {
    const home = newHome();
    const from = join(golden, "shiviz-two-lines.log");
    const { code, value } = await runJson([
      "import",
      "chord",
      "--from",
      from,
      "--format",
      "shiviz",
      "--checkpoint-every",
      "2",
      "--log",
      home,
    ]);
    expect([code, value]).toEqual([
      0,
      expect.objectContaining({ processes: 4, types: { send: 9, receive: 4, checkpoint: 6 } }),
    ]);
    expect((await run(["compute", "chord", "--log", home, "--failed", "bob"])).code).toBe(0);
    writeFileSync(join(dir, "odd.log"), '<1> {"a":1} of a\n');
    const pattern = ["--pattern", "(?<clock>\\{.*\\}) of (?<host>.*)$"];
    expect(
      (
        await runJson([
          "import",
          "odd",
          "--from",
          join(dir, "odd.log"),
          "--format",
          "shiviz",
          ...pattern,
          "--log",
          home,
        ])
      ).value,
    ).toMatchObject({ events: 1 });
  });

  test.each([
    ["cut off", 'a\nalice {"alice":1}\nb\nbob {"bob":1}\nc\nbob {"bob":2, "alice":1', "line 6"],
    ["text behind a clock", 'alice {"alice":1}\nbob {"bob":1, "alice":1} hears\n', "line 2"],
  ])("a ShiViz clock that fits no layout is no text: %s", async (_, text, place) => {
    const home = newHome();
    const from = join(dir, "silent.log");
    writeFileSync(from, text);
    const { code, value } = await runJson([
      "import",
      "s",
      "--from",
      from,
      "--format",
      "shiviz",
      "--log",
      home,
    ]);
    expect([code, value.error]).toEqual([
      2,
      {
        code: "RL_BAD_INPUT",
        message: expect.stringContaining(`${from}, ${place}: `),
        advice: expect.stringContaining("Nothing was imported."),
      },
    ]);
    expect(existsSync(home) ? readdirSync(home) : []).toEqual([]);
  });

  test.each([
    ["a leading space", 'a\nalice {"alice":1}\nb\n bob {"bob":1, "alice":1}\n'],
    ["a tab", 'a\nalice {"alice":1}\nb\nbob\t{"bob":1, "alice":1}\n'],
    [
      "a pattern of two lines",
      'a\nalice {"alice":1}\nb\nbob {"bob":1, "alice":1}',
      "(?<event>.*)\\n(?<host>\\S*) (?<clock>{.*})",
    ],
  ])(
    "a ShiViz log's receive is there, so the receiver goes back with the sender: %s",
    async (_, text, ...pattern) => {
      const home = newHome();
      const from = join(dir, "whole.log");
      writeFileSync(from, text);
      const flags = ["--format", "shiviz", "--log", home, ...pattern.flatMap((one) => ["--pattern", one])];
      expect((await runJson(["import", "s", "--from", from, ...flags])).value).toMatchObject({ events: 2 });
      const { value } = await runJson(["compute", "s", "--log", home, "--failed", "alice"]);
      expect(value.line.map(({ process, position }) => [process, position])).toEqual([
        ["alice", 0],
        ["bob", 0],
      ]);
    },
  );

  test("SMPI", async () => {
    const home = newHome();
    const from = join(dir, "ranks");
    mkdirSync(from);
    writeFileSync(join(from, "0.txt"), "0 send 1 0 8\n0 barrier\n");
    writeFileSync(join(from, "1.txt"), "1 recv 0 0 8\n1 barrier\n");
    const args = ["import", "mpi", "--from", from, "--format", "smpi", "--log", home];
    expect((await runJson([...args, "--checkpoint-rate", "1", "--seed", "3"])).value).toMatchObject({
      types: { send: 3, receive: 3, checkpoint: 6 },
    });
    writeFileSync(join(from, "1.txt"), "1 recv 0 0 8\n1 comm_split\n");
    const { code, stderr } = await run(["import", "mpi2", ...args.slice(2)]);
    expect([code, stderr]).toEqual([2, expect.stringContaining("1.txt:2: field 'action'")]);
  });
});

describe("several logs", () => {
  test("their processes make one line", async () => {
    const [one, other] = [newHome(), newHome()];
    await run(["import", "heat", "--from", "-", "--log", one], lines(p.send("a", 0, 5), p.checkpoint(1)));
    await run(
      ["import", "heat", "--from", "-", "--log", other],
      lines(q.receive("a", 0, 3), q.checkpoint(1)),
    );
    const { code, value } = await runJson(["compute", "heat", "--log", one, "--log", other]);
    expect(code).toBe(0);
    expect(value.inTransit).toEqual([{ channel: "a", from: "p", to: "q", begin: 3, end: 5 }]);
  });

  test("one that lacks the application is refused by name, or assumed lost", async () => {
    const [one, other] = [newHome(), newHome()];
    await run(["import", "heat", "--from", "-", "--log", one], lines(p.send("a", 0, 5), p.checkpoint(1)));
    const refused = await runJson(["compute", "heat", "--log", one, "--log", other]);
    expect([refused.code, refused.value.outcome]).toEqual([4, "refused"]);
    expect(refused.value.error?.message).toContain(other);
    const assumed = await runJson(["compute", "heat", "--log", one, "--log", other, "--assume-lost"]);
    expect([assumed.code, assumed.value.outcome]).toEqual([3, "tainted"]);
    expect(assumed.value).toMatchObject({ missingLogs: [other], line: [{ process: "p", checkpoint: 1 }] });
    expect((await run(["compute", "nobody", "--log", one, "--log", other])).code).toBe(2);
  });

  test("one named twice, and a process in both", async () => {
    const [one, other] = [newHome(), newHome()];
    for (const home of [one, other])
      await run(["import", "heat", "--from", "-", "--log", home], lines(p.stable()));
    expect((await runJson(["compute", "heat", "--log", one, "--log", one])).value.error?.code).toBe(
      "RL_USAGE",
    );
    const both = await runJson(["compute", "heat", "--log", one, "--log", other]);
    expect([both.code, both.value.error?.code]).toEqual([2, "RL_CONTRADICTION"]);
  });
});

describe("a large import, cut off", () => {
  const events = IMPORT_BATCH_EVENTS * 2 + 1000;
  const file = join(dir, "large.jsonl");
  beforeAll(() => {
    writeFileSync(file, "");
    for (let from = 0; from < events; from += 50_000) {
      const count = Math.min(50_000, events - from);
      appendFileSync(
        file,
        lines(...Array.from({ length: count }, (_, k) => p.send("a", from + k, from + k + 1))),
      );
    }
  });

  /** Kills an import of `file` at the first moment that `when` holds; false if it was done before that. */
  function killWhen(home: string, when: () => boolean): Promise<boolean> {
    return new Promise((resolve) => {
      const child = spawn(process.execPath, [main, "import", "heat", "--from", file, "--log", home]);
      const timer = setInterval(() => {
        if (when()) child.kill("SIGKILL");
      }, 1);
      child.on("close", (code) => {
        clearInterval(timer);
        resolve(code === null);
      });
    });
  }

  const journal = (home: string): boolean =>
    existsSync(join(home, "heat")) &&
    readdirSync(join(home, "heat")).some((name) => name.startsWith("import-"));
  const commits = (home: string): boolean =>
    journal(home) && readFileSync(join(home, "heat", "anchor"))[16] !== 0;

  test("before all of it was checked and staged: nothing is there", async () => {
    const home = newHome();
    await run(["import", "heat", "--from", "-", "--log", home], lines(q.stable()));
    const staged = (): boolean => readdirSync(home).some((name) => name.startsWith(".import-heat-"));
    expect(await killWhen(home, staged)).toBe(true);
    expect((await run(["export", "heat", "--log", home])).stdout).toBe(lines(q.stable()));
    expect((await run(["import", "heat", "--from", "-", "--log", home], lines(q.stable()))).code).toBe(0);
    expect(readdirSync(home)).toEqual(["heat"]);
  });

  test.each<[string, (home: string) => boolean]>([
    ["right after that", journal],
    ["between two commits", commits],
  ])("%s: all of it is there, exactly once", async (_, when) => {
    const home = newHome();
    expect(await killWhen(home, () => when(home))).toBe(true);
    expect(journal(home)).toBe(true);
    const { code, value } = await runJson(["compute", "heat", "--log", home]);
    expect([code, value.line]).toEqual([
      0,
      [{ process: "p", checkpoint: 0, position: 0, action: "initial" }],
    ]);
    expect(journal(home)).toBe(false);
    const exported = join(dir, "exported.jsonl");
    await run(["export", "heat", "--log", home, "--to", exported]);
    expect(readFileSync(exported).equals(readFileSync(file))).toBe(true);
    expect((await runJson(["verify", "heat", "--log", home])).value).toMatchObject({
      outcome: "clean",
      events,
    });
    rmSync(home, { recursive: true });
  });
});

describe("verify", () => {
  test("figures of a whole log", async () => {
    const home = newHome();
    await run(["import", "heat", "--from", "-", "--log", home], lines(...everything));
    const { code, value } = await runJson(["verify", "heat", "--log", home]);
    expect([code, value]).toEqual([
      0,
      expect.objectContaining({
        application: "heat",
        outcome: "clean",
        events: everything.length,
        processes: 4,
        damages: [],
      }),
    ]);
    expect((await run(["verify", "heat", "--log", home])).stdout).toMatch(
      /^heat: whole; 21 events of 4 processes in 4 blocks/,
    );
    expect((await run(["verify", "nobody", "--log", home])).code).toBe(2);
  });

  test("bytes sent twice are told, and tolerated", async () => {
    const home = newHome();
    await run(["import", "heat", "--from", "-", "--log", home], lines(p.send("a", 0, 5), p.send("a", 3, 8)));
    const { code, stdout } = await run(["verify", "heat", "--log", home]);
    expect([code, stdout]).toEqual([0, expect.stringContaining("p sent [3, 5) of a twice")]);
  });

  test("damage: exit code 5, the place named; compute and export say so, too", async () => {
    const home = newHome();
    await run(["import", "heat", "--from", "-", "--log", home], lines(...everything));
    const segment = join(home, "heat", "segments", "000001");
    const wal = readdirSync(segment).find(
      (name) => /\.(log|ldb)$/.test(name) && statSync(join(segment, name)).size > 500,
    );
    const path = join(segment, wal ?? "");
    const bytes = readFileSync(path);
    const at = Math.floor(bytes.length / 2);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    const { code, value } = await runJson(["verify", "heat", "--log", home]);
    expect([code, value.outcome]).toEqual([5, "corrupt"]);
    expect((await run(["verify", "heat", "--log", home])).stdout).toMatch(
      /^heat: DAMAGED[\s\S]*Damaged places:\n {2}\S/,
    );
    const computed = await runJson(["compute", "heat", "--log", home]);
    expect([computed.code, computed.value.outcome]).toEqual([5, "corrupt"]);
    expect((await run(["export", "heat", "--log", home])).code).toBe(5);
    const file = join(dir, "from-damaged.jsonl");
    expect((await run(["export", "heat", "--log", home, "--to", file])).code).toBe(5);
    expect(existsSync(file)).toBe(false);
    expect((await run(["import", "heat", "--from", "-", "--log", home], lines(p.stable()))).code).toBe(5);
  });
});

test("help of every command of ours has its options and an example", async () => {
  for (const command of ["import", "export", "verify"]) {
    const { code, stdout } = await run([command, "--help"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/--log <dir>[\s\S]*--json[\s\S]*Example/);
  }
});

test("an application can't be named as a file of the collector's; processes of imported logs have the names they like", async () => {
  const log = newHome();
  const file = join(dir, "names.jsonl");
  const [kernel, ours] = [does("cgroup.procs"), does("collector.lock")];
  writeFileSync(file, lines(kernel.send("a", 0, 4), ours.receive("a", 0, 4)));
  for (const name of ["collector.lock", "collector.sock", "collector.session", "rings.lock", "rings.sock"])
    expect(await run(["import", name, "--from", file, "--log", log])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(`"${name}" is no application name: it is reserved`),
    });
  expect(existsSync(log)).toBe(false);
  expect(await run(["import", "cpu.stat", "--from", file, "--log", log])).toMatchObject({ code: 0 });
  expect((await runJson(["compute", "cpu.stat", "--log", log])).value).toMatchObject({
    line: [{ process: "cgroup.procs" }, { process: "collector.lock" }],
  });
});
