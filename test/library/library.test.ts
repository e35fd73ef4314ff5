/** `import … from "recovery-line"`: the examples of docs/library.md as they stand, and a packed tarball in an empty project without a compiler. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";

const ROOT = packageRoot();
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "recovery-line-library-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Each example with what it prints. */
const examples = [
  ...readFileSync(join(ROOT, "docs/library.md"), "utf8").matchAll(
    /```js\n([\s\S]*?)```\n+```text\n([\s\S]*?)```/g,
  ),
].map(([, code = "", printed = ""]) => ({ code, printed }));

function run(code: string, cwd: string): string {
  return execFileSync(process.execPath, ["--input-type=module", "-e", code], {
    cwd,
    encoding: "utf8",
    timeout: 60_000,
  });
}

test("docs/library.md has examples", () => {
  expect(examples.length).toBeGreaterThan(2);
});

test.each(examples.map(({ code, printed }, at) => [at + 1, code, printed] as const))(
  "example %i of docs/library.md prints what stands below it, and ends by itself",
  (_at, code, printed) => {
    expect(run(code, ROOT)).toBe(printed);
  },
);

test("a line that was tampered with is rejected, and errors bear their codes", () => {
  const code = `
    import { evidenceOf, hasCode, parseEvents, recoveryLine, verify } from "recovery-line";
    const events = ['{"type":"send","process":"a","channel":"ab","begin":0,"end":1}', '{"type":"receive","process":"b","channel":"ab","begin":0,"end":1}'];
    const evidence = await evidenceOf(parseEvents(events.join("\\n")));
    const line = recoveryLine(evidence, { failed: ["a"] });
    const wrong = { ...line, line: line.line.map((entry) => (entry.process === "b" ? { ...entry, action: "continue", checkpoint: null, position: 1 } : entry)) };
    const codeOf = async (f) => { try { await f(); return "nothing"; } catch (error) { return error.code; } };
    console.log(await codeOf(() => verify(evidence, wrong, { failed: ["a"] })));
    console.log(await codeOf(() => recoveryLine(evidence, { failed: ["c"] })));
    console.log(await codeOf(async () => evidenceOf(parseEvents("{]"))));
    try { await evidenceOf(parseEvents("{]", "mine.jsonl")); } catch (error) { console.log(hasCode(error, "RL_BAD_INPUT"), error.message.includes("mine.jsonl")); }
  `;
  expect(run(code, ROOT)).toBe("RL_REJECTED\nRL_UNKNOWN_PROCESS\nRL_BAD_INPUT\ntrue true\n");
});

test("what is no input, no list of names and no list of places is misuse, said as such; text, bytes and streams are read", () => {
  const code = `
    import { Readable } from "node:stream";
    import { consistentCut, evidenceOf, failureOf, parseEvents, readEvents, recoveryLine, verify } from "recovery-line";
    const text = '{"type":"checkpoint","process":"db","checkpoint":3}\\n';
    const evidence = await readEvents(text);
    for (const input of [text, Buffer.from(text), [Buffer.from(text)], Readable.from([Buffer.from(text)])])
      if ((await readEvents(input)).processes[0] !== "db") console.log("not read");
    const line = recoveryLine(evidence, { failed: ["db"] });
    const wrong = [
      () => readEvents(7), () => readEvents([text]), () => evidenceOf(parseEvents(Readable.from([text]))), () => readEvents(undefined),
      () => recoveryLine(evidence, { failed: "db" }), () => verify(evidence, line, { failed: "db" }), () => failureOf(evidence, { failed: "db" }),
      () => consistentCut(evidence, "db:3"), () => consistentCut(evidence, [["db", 3]]), () => consistentCut(evidence),
    ];
    for (const call of wrong)
      try { await call(); console.log("nothing"); } catch (error) { console.log(error.constructor.name, error.message); }
    console.log((await consistentCut(evidence, ["db:3"]))[0].checkpoint);
  `;
  const failed = 'TypeError failed is a list, such as ["db"]';
  const containing = 'TypeError containing is a list, such as ["P:3"]';
  const chunks = "TypeError input gives a string, not bytes (Uint8Array): a stream has no encoding set";
  const input = "TypeError input is text, a Uint8Array, or an iterable of these bytes";
  expect(run(code, ROOT).trim().split("\n")).toEqual([
    ...[input, chunks, chunks, input],
    ...[failed, failed, failed],
    ...[containing, containing, containing],
    "3",
  ]);
});

test("packed and installed in an empty project without a compiler it computes, and says that it can't capture", () => {
  const [packed] = JSON.parse(
    execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {
      cwd: ROOT,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }),
  ) as [{ filename: string; files: { path: string }[] }];
  expect(packed.files.map(({ path }) => path).filter((path) => /^(src|test|bench)\//.test(path))).toEqual([]);
  const project = join(folder, "project");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), '{"name":"empty","version":"1.0.0","type":"module"}');
  const tarball = join(folder, readdirSync(folder).find((name) => name.endsWith(".tgz")) as string);
  // No compiler: whoever is asked for one fails.
  const certificates = process.env["RL_TEST_CERTIFICATES"]; // of a registry behind a proxy (scripts/task.sh)
  const env = {
    ...process.env,
    CC: "/bin/false",
    CXX: "/bin/false",
    ...(certificates === undefined ? {} : { NODE_EXTRA_CA_CERTS: certificates }),
  };
  const installed = spawnSync("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline", tarball], {
    cwd: project,
    env,
    encoding: "utf8",
  });
  expect(installed.status, installed.stderr).toBe(0);
  expect(run(examples[0]?.code ?? "", project)).toBe(examples[0]?.printed);
  const events = join(project, "events.jsonl");
  writeFileSync(events, '{"type":"checkpoint","process":"p","checkpoint":1}\n');
  const command = join(project, "node_modules/.bin/recovery-line");
  const answer = execFileSync(command, ["compute", "--from", events, "--json"], { encoding: "utf8" });
  expect(JSON.parse(answer).outcome).toBe("clean");
  const collect = spawnSync(command, ["collect", "--log", join(project, "home")], {
    encoding: "utf8",
    timeout: 30_000,
  });
  expect([collect.status === 0, collect.stderr.includes("native addon is not built")]).toEqual([false, true]);
});
