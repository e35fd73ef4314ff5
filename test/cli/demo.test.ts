import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { beforeAll, expect, test } from "vitest";
import { captureTrouble } from "../../src/demo/demo-recorded.ts";
import { sized } from "../size.ts";
import { build, main, run } from "./cli.ts";

const trouble = captureTrouble();

beforeAll(build);

function removeLog(stdout: string): void {
  const folder = new RegExp(`${tmpdir()}/recovery-line-demo-\\w{6}`).exec(stdout)?.[0];
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
}

/** Other tests' collectors record at the same time. */
const BESIDE = /records on this machine already, through /;
/** What is said of a checkpoint that the demo counts as refused at its moment, with the advice below it. */
const REFUSED = /^recovery-line: (?:no checkpoint of |criu: ).*\n(?:(?!recovery-line: ).+\n)?/gm;

test.skipIf(trouble !== undefined)(
  `the live demo ends with a line for the victim and for the whole machine ${trouble ?? ""}`,
  async () => {
    const { code, stdout, stderr } = await run(["demo", "--seconds", sized("3", "1"), "--seed", "4"]);
    const refused = stdout.includes(" more were refused at their moment");
    const said = refused ? stderr.replaceAll(REFUSED, "") : stderr;
    const warned = said.split("\n").filter((line) => !BESIDE.test(line));
    expect([code, warned.join("\n")]).toEqual([0, ""]);
    // How many checkpoints fit into the time decides how many numbers are drawn before the victim's.
    const victim = /^5\. SIGKILL for ([\w-]+)\.$/m.exec(stdout)?.[1];
    expect(stdout).toMatch(new RegExp(`${victim} +restore +\\d`));
    expect(stdout).not.toMatch(/ initial +0/);
    expect(stdout).toMatch(
      new RegExp(
        `^Seen: 4 checkpoints together .*; ${victim} killed: .* lines clean and verified; .* bytes from the client outside .*\\.$`,
        "m",
      ),
    );
    expect(stdout).toContain("The log is in ");
    removeLog(stdout);
  },
  120_000,
);

test.skipIf(process.getuid?.() !== 0)("without rights the demo shows the recorded log and says so", () => {
  // Root without the rights in question: another user might not even be allowed to read this checkout.
  const powerless = ["--bounding-set=-sys_admin,-bpf,-perfmon", process.execPath, main, "demo"];
  const { status, stdout } = spawnSync("setpriv", powerless, { encoding: "utf8" });
  expect(stdout).toContain("NOT LIVE: nothing can be captured here");
  expect(stdout).toMatch(/nats-2 +restore +6 +4121/);
  expect(stdout).toMatch(/subscriber +restore +4 +1351/);
  expect(status).toBe(0);
  removeLog(stdout);
});
