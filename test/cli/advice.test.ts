/** What a command advises is what helps: its words can be copied, and name what the caller has named. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { shellWord } from "../../src/model/printable.ts";
import { build, run, scratch } from "./cli.ts";

const { dir, clean } = scratch();
beforeAll(build);
afterAll(clean);

test.each(["/plain/path-1.2", "a b", "mein log ü", "it's", "$HOME", "", "a;b"])(
  "%j is one word for a shell",
  (word) => {
    const echoed = execFileSync("/bin/sh", ["-c", `printf %s ${shellWord(word)}`], { encoding: "utf8" });
    expect(echoed).toBe(word);
  },
);

test("a missing collector: the command to start one names the log directory, quoted for a shell", async () => {
  const log = join(dir, "mein log ü");
  const missing = await run(["policy", "show", "shop", "--log", log]);
  expect(missing).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(`recovery-line collect --log '${log}'\n`),
  });
  const status = await run(["status", "--log", log]);
  expect(status).toMatchObject({
    code: 1,
    stdout: expect.stringContaining(`start one: recovery-line collect --log '${log}'\n`),
  });
  const plain = await run(["status"], "", { RECOVERY_LINE_HOME: log });
  expect(plain.stdout).toContain("start one: recovery-line collect\n");
});
