/** A home that is reached through a symbolic link in a folder that others can write: whoever put the link there would choose what we read and write. */
import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { main as CLI } from "../built.ts";

const folder = mkdtempSync(join(tmpdir(), "foreign-link-"));
const home = join(folder, "home");
const link = join(folder, "open", "link");
mkdirSync(home, { mode: 0o700 });
mkdirSync(join(folder, "open"));
chmodSync(join(folder, "open"), 0o1777);
symlinkSync(home, link);
afterAll(() => rmSync(folder, { recursive: true }));

function told(command: string): Promise<string> {
  const env = { ...process.env, RECOVERY_LINE_HOME: link };
  return new Promise((resolve) => {
    execFile(process.execPath, [CLI, ...command.split(" ")], { env, timeout: 100_000 }, (error, out, err) =>
      resolve(`${error?.code ?? 0} ${out}${err}`),
    );
  });
}

/** Every command that reads or writes a home, with arguments that are well. */
const COMMANDS = [
  ...["compute a", "explain a p", "failures a", "cut a --containing p:1", "zcycles a", "graph a"],
  ...["import a --from /dev/null", "export a", "verify a", "gc a", "sdk-events a", "status", "data a p"],
  ...["run a p -- true", "checkpoint a", "restart a", "collect", "collect-rings", "leaving"],
  ...["policy list", "policy show a", "policy log a", "policy plug a periodic", "policy unplug a"],
  "policy compare a periodic",
];

test("every command refuses it, names the link, and has touched nothing", async () => {
  const waiting = [...COMMANDS];
  const wrong: string[] = [];
  const work = async () => {
    for (let command = waiting.shift(); command !== undefined; command = waiting.shift()) {
      const said = await told(command);
      if (!said.startsWith("1 ") || !said.includes(`through the symbolic link ${link}`))
        wrong.push(`${command}: ${said.slice(0, 200)}`);
    }
  };
  await Promise.all([work(), work(), work()]);
  expect(wrong).toEqual([]);
  expect(readdirSync(home)).toEqual([]);
}, 200_000);
