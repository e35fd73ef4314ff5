/**
 * Two processes that talk through a pipe (`a | b`) go back together, to checkpoints of one moment, with what stood in the pipe.
 * RECOVERY_LINE_PIPE_ROUNDS: kills, count.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect } from "vitest";
import { imagePipes } from "../../src/images/criu/criu-pipes.ts";
import { type Rig, until, withRig } from "../daemon/rig.ts";
import { LONG } from "../size.ts";
import { restartable } from "./restartable.ts";

const ROUNDS = Number(process.env["RECOVERY_LINE_PIPE_ROUNDS"] ?? 1);
const CLI = join(import.meta.dirname, "../../dist/cli/main.js");

const PIPE_BYTES = 16_384;
/** Faster than the consumer: the pipe is full, and it waits in the midst of a write. Sets the pipe's size (F_SETPIPE_SZ); ends when it is told to. */
const PRODUCER = `$SIG{TERM}=sub{$e=1};$|=1;fcntl(STDOUT,1031,${PIPE_BYTES}) or die;until($e){$n++;print "$n "."x"x($n%300)."\\n"}`;
/** Says each number whose line came whole, and when the pipe has ended. */
const CONSUMER = (seconds: number): string =>
  `$|=1;while(<STDIN>){/^(\\d+) (x*)$/ && length($2)==$1%300 ? print "$1\\n" : print "torn: $_";select(undef,undef,undef,${seconds})}print "end\\n"`;

interface Line {
  readonly outcome: string;
  readonly line: { readonly process: string; readonly action: string; readonly checkpoint: number | null }[];
}

/** Fills the pipe, waits until both have been seen, and has finished. */
const JOB = `$|=1;for(1..200){print "$_ ","x"x($_%300),"\\n"}sleep 2`;

/** As a user's shell lays it. */
function pipeline(rig: Rig, producer: string): Promise<unknown> {
  const run = (name: string, ...words: string[]): string =>
    [process.execPath, CLI, "run", rig.app, name, ...words].map((word) => `'${word}'`).join(" ");
  const w = run("w", "--", "perl", "-e", producer);
  const r = run(
    "r",
    "--output",
    rig.path("r.out"),
    "--",
    "perl",
    "-e",
    CONSUMER(producer === JOB ? 0.04 : 0.004),
  );
  const shell = spawn("sh", ["-c", `${w} | ${r}`], {
    env: { ...process.env, RECOVERY_LINE_HOME: rig.home },
    stdio: ["ignore", "ignore", "ignore"],
  });
  return once(shell, "close");
}

function said(rig: Rig): string[] {
  return rig.output("r").split("\n").slice(0, -1);
}

async function goesOn(rig: Rig): Promise<void> {
  const from = said(rig).length;
  await until("the consumer goes on", () => said(rig).length > from + 20);
}

/** By the consumer's own count: no number lost, doubled or torn. */
function expectExact(rig: Rig): void {
  const numbers = said(rig).filter((line) => line !== "end");
  expect(numbers).toEqual(numbers.map((_, at) => `${at + 1}`));
}

restartable(`a pipeline comes back with what stood in its pipe, whoever is killed: ${ROUNDS} times`, () =>
  withRig("tied", async (rig) => {
    await rig.collect();
    const ended = pipeline(rig, PRODUCER);
    await until("numbers come", () => said(rig).length > 20);
    for (let round = 1; round <= ROUNDS; round += 1) {
      const [victim, named] = round % 2 === 1 ? ["w", "r"] : ["r", "w"];
      const taken = await rig.cli("checkpoint", rig.app, named!, "--json");
      expect(taken.code, taken.err).toBe(0);
      const { checkpoints } = JSON.parse(taken.out) as { checkpoints: { process: string; cut: boolean }[] };
      expect(checkpoints.map(({ process, cut }) => [process, cut]).sort()).toEqual([
        ["r", true],
        ["w", true],
      ]);
      const [pipe] = imagePipes(join(rig.home, rig.app, "images/r", `${round}`, "files"));
      expect(pipe!.contents.length).toBeGreaterThan(0); // how much: as the consumer has just read, a half of it at once
      await goesOn(rig);
      for (const failed of ["r", "w"]) {
        const { outcome, line } = await rig.json<Line>("compute", rig.app, "--failed", failed);
        expect([outcome, ...line.map(({ process, checkpoint }) => [process, checkpoint])]).toEqual([
          "clean",
          ["r", round],
          ["w", round],
        ]);
      }
      rig.cgroup(victim!).kill();
      await until("it is dead", () => !rig.cgroup(victim!).populated);
      const restart = await rig.cli("restart", rig.app, "--failed", victim!);
      expect(restart.code, `${restart.out}${restart.err}`).toBe(0);
      await goesOn(rig);
      expectExact(rig);
    }
    const again = await rig.cli("checkpoint", rig.app, "--coordinated");
    expect(again.code, again.err).toBe(0);
    const [pipe] = imagePipes(join(rig.home, rig.app, "images/r", `${ROUNDS + 1}`, "files"));
    expect(pipe!.size, "the new one is as large").toBe(PIPE_BYTES);
    expect((await rig.cli("verify", rig.app)).code).toBe(0);
    await ended; // of those that were killed
    process.kill(rig.cgroup("w").pids()[0]!, "SIGTERM");
    await until("the pipe ends for the consumer, too", () => said(rig).at(-1) === "end");
    expectExact(rig);
  }),
);

restartable(
  "what a finished writer left in the pipe comes back with its reader, and the writer stays finished",
  LONG,
  () =>
    withRig("finished", async (rig) => {
      await rig.collect();
      const ended = pipeline(rig, JOB);
      await until("the writer has finished", () => said(rig).length > 0 && !rig.cgroup("w").populated);
      const taken = await rig.json<{ checkpoints: object[] }>("checkpoint", rig.app);
      expect(taken.checkpoints).toMatchObject([{ process: "r", cut: true }]);
      const [pipe] = imagePipes(join(rig.home, rig.app, "images/r/1/files"));
      expect(pipe!.contents.length).toBeGreaterThan(0);
      rig.cgroup("r").kill();
      const restart = await rig.cli("restart", rig.app, "--failed", "r");
      expect([restart.code, restart.out], restart.err).toEqual([0, expect.stringMatching(/^r +restore/m)]);
      expect(restart.out).toMatch(/^w +continue/m);
      await until("all is read", () => said(rig).at(-1) === "end");
      expect(said(rig)).toHaveLength(201);
      expectExact(rig);
      await ended;
    }),
);
