/** Random small executions as JSON Lines: what `compute --json` answers against two judges; a sample through the compiled command. */
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { computeLine } from "../../src/compute/compute.ts";
import { printEvent, readEventBatches } from "../../src/format/interchange.ts";
import { readEventEvidence } from "../../src/logs/read-evidence.ts";
import type { Event } from "../../src/model/event.ts";
import type { DsmModel, InTransitPolicy, RecoveryLine } from "../../src/model/recovery-line.ts";
import { bruteForce } from "../reference/brute-force.ts";
import { randomLosses } from "../reference/lose.ts";
import { Random } from "../reference/random.ts";
import { randomSetting, simulate } from "../reference/simulate.ts";
import { sized } from "../size.ts";
import { build, run, runJson, scratch } from "./cli.ts";
import { type Line, type Verdict, verdict } from "./judge.ts";

const numRuns = Number(process.env["RL_PROPERTY_RUNS"] ?? sized(1500, 500));
const { dir, clean } = scratch();
beforeAll(build);
afterAll(clean);

interface Case {
  readonly seed: number;
  readonly events: readonly Event[];
  readonly text: string;
  readonly failed: readonly string[] | undefined;
  readonly dsm: DsmModel;
  readonly inTransit: InTransitPolicy;
}

/** Everything follows from the seed. Half of the executions lose evidence; datagrams only where nothing is lost (cuts don't cover them). */
function caseOf(seed: number): Case {
  const random = new Random(seed);
  const lossy = random.oneIn(2);
  const setting = randomSetting(random, 3, 18);
  const truth = simulate(seed, lossy ? { ...setting, datagrams: false } : setting);
  const names = [...new Set(truth.map(({ process }) => process))].sort();
  const all = random.oneIn(4);
  const dead = random.subset(names);
  const failed = all || dead.length === 0 ? undefined : dead;
  const isDead = (process: string): boolean => failed === undefined || failed.includes(process);
  const events = lossy ? randomLosses(truth, random, isDead).events : truth;
  return {
    seed,
    events,
    text: foreignText(events, random),
    failed,
    dsm: random.pick(["sequential", "transfers"]),
    inTransit: random.pick(["any", "logged"]),
  };
}

/** The same lines as some other program might write them: processes interleaved anew, fields in any order, defaults spelled out. */
function foreignText(events: readonly Event[], random: Random): string {
  const queues = [...new Set(events.map(({ process }) => process))].map((name) =>
    events.filter(({ process }) => process === name),
  );
  let text = random.oneIn(3) ? "\n" : "";
  while (queues.some((queue) => queue.length > 0)) {
    const event = random.pick(queues).shift();
    if (event === undefined) continue;
    const fields = Object.entries(JSON.parse(printEvent(event)));
    if (event.type === "checkpoint" && random.oneIn(2)) fields.push(["usable", event.usable]);
    if (random.oneIn(4)) fields.push(["x-unknown", { type: "gap", list: [1] }]);
    if (random.oneIn(4)) fields.push(["time", random.below(1000)]);
    text += `${JSON.stringify(Object.fromEntries(random.shuffle(fields)))}${random.oneIn(5) ? " \r" : ""}\n`;
  }
  return random.oneIn(2) ? text : text.trimEnd();
}

async function inProcess({ text, failed, dsm, inTransit }: Case): Promise<RecoveryLine> {
  const chunks = [Buffer.from(text)];
  const evidence = await readEventEvidence(readEventBatches(chunks, "x.jsonl"));
  return computeLine(evidence, { ...(failed === undefined ? {} : { failed }), dsm, inTransit });
}

function flagsOf({ failed, dsm, inTransit }: Case): string[] {
  const names = failed === undefined ? [] : ["--failed", failed.join(",")];
  return [...names, "--dsm", dsm, "--in-transit", inTransit];
}

/** Only what the judges judge. */
function judged(answer: Verdict | RecoveryLine): unknown {
  const { outcome, line, inTransit, lostInputs, unsayable, evidence } = answer;
  return { outcome, line, inTransit, lostInputs, unsayable, evidence };
}

function secondReading({ text, failed, dsm, inTransit }: Case): Verdict {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return verdict(
    lines.map((line) => JSON.parse(line) as Line),
    failed,
    dsm,
    inTransit,
  );
}

const seeds = fc
  .integer()
  .map(caseOf)
  .filter(({ events }) => events.length > 0);

test("the answer is that of the exhaustive judge", async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (one) => {
      const { failed, dsm, inTransit } = one;
      const answer = bruteForce(one.events, { ...(failed === undefined ? {} : { failed }), dsm, inTransit });
      expect(judged(await inProcess(one))).toEqual(judged(answer as RecoveryLine));
    }),
    { numRuns },
  );
});

test("the answer is that of a second reading of interchange.md", async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (one) => {
      expect(judged(await inProcess(one))).toEqual(judged(secondReading(one)));
    }),
    { numRuns },
  );
});

test("a sample through the compiled command: from the file, and from a log in two imports", async () => {
  const cases = fc.sample(seeds, sized(10, 4));
  for (const [index, one] of cases.entries()) {
    const told = `seed ${one.seed}`;
    const expected = { told, code: secondReading(one).outcome === "clean" ? 0 : 3, ...secondReading(one) };
    const direct = await runJson(["compute", "app", "--from", "-", ...flagsOf(one)], one.text);
    expect({ told, code: direct.code, ...(judged(direct.value as RecoveryLine) as object) }).toEqual(
      expected,
    );
    if (index % 3 > 0) continue;
    const home = join(dir, `home${index}`);
    const lines = one.text.split("\n");
    const half = lines.length >> 1;
    for (const part of [lines.slice(0, half), lines.slice(half)])
      expect(await run(["import", "app", "--from", "-", "--log", home], part.join("\n"))).toMatchObject({
        code: 0,
        stderr: "",
      });
    const logged = await runJson(["compute", "app", "--log", home, ...flagsOf(one)]);
    expect({ told, code: logged.code, ...(judged(logged.value as RecoveryLine) as object) }).toEqual(
      expected,
    );
  }
});
