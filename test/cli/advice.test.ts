/** What a command advises is what helps: its words can be copied, and name what the caller has named. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { dataOf } from "../../src/cli/data-roots.ts";
import { shellWord } from "../../src/model/printable.ts";
import { build, main, run, scratch } from "./cli.ts";

const { dir, clean } = scratch();
beforeAll(build);
afterAll(clean);

const NOBODY = 65534;

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

test("parameters of a policy: --set is named, and hints name the parameter's own units", async () => {
  const plugged = await run(["policy", "plug", "shop", "periodic:interval=3s"]);
  expect(plugged).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("Write periodic --set interval=3s"),
  });
  const bare = await run(["policy", "plug", "shop", "periodic", "--set", "interval=3"]);
  expect(bare).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("Write it with its unit, such as 500ms, 2min."),
  });
  expect(bare.stderr).not.toContain("bound");
  const limit = await run([
    "run",
    "shop",
    "db",
    "--detach",
    "--hold-output",
    "--hold-limit",
    "abc",
    "--",
    "true",
  ]);
  expect(limit.code).toBe(2);
  expect(limit.stderr).toContain("--hold-limit abc");
  expect(limit.stderr).not.toContain("bound");
});

test("run with the command's own options in front of no --: told that it must stand there", async () => {
  const ran = await run(["run", "shop", "db", "redis-server", "--port", "7001"]);
  expect(ran.code).toBe(2);
  expect(ran.stderr).toBe(
    "error: unknown option '--port'\nOptions of the command itself stand behind `--`: recovery-line run APP PROCESS -- COMMAND …\n",
  );
});

test("--data that holds the log directory: the hint is about that", () => {
  const home = join(dir, "home");
  mkdirSync(home);
  for (const folder of ["/", home])
    expect(() => dataOf("p", { data: [folder] }, home)).toThrow(
      expect.objectContaining({
        code: "RL_USAGE",
        advice: expect.stringContaining("neither holds the log directory"),
      }),
    );
  expect(() => dataOf("p", { data: [join(dir, "none")] }, home)).toThrow(
    expect.objectContaining({ advice: "Name folders that are there." }),
  );
});

test("--help of commands with --log says its default", async () => {
  for (const command of [
    "collect",
    "run",
    "attach",
    "detach",
    "status",
    "import",
    "failures",
    "policy plug",
    "data",
  ]) {
    const { stdout } = await run([...command.split(" "), "--help"]);
    expect(stdout.replaceAll(/\s+/g, " "), command).toContain(
      "(default: $RECOVERY_LINE_HOME, else /var/lib/recovery-line for root, $XDG_STATE_HOME or ~/.local/state/recovery-line for others)",
    );
  }
  expect((await run(["collect", "--help"])).stdout.replaceAll(/\s+/g, " ")).toContain(
    "your own and mode 0700",
  );
});

test.skipIf(process.geteuid!() !== 0)(
  "another user's checkpoint in root's log directory: only root may",
  () => {
    const home = join(dir, "of-root");
    mkdirSync(home);
    execFileSync("chmod", ["711", dir, home]);
    const { status, stderr } = spawnSync(process.execPath, [main, "checkpoint", "shop", "--log", home], {
      uid: NOBODY,
      gid: NOBODY,
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([
      1,
      expect.stringContaining("belongs to root: only root may do this there"),
    ]);
  },
);
