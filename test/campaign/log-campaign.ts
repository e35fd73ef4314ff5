/**
 * `npm run campaign:log -- --kill N --named N --power N --faults N --damage N --flips SIZE [--seed S]`: the log under kill -9 at random times and at every
 * named step, power cuts of an ext4 file system, a disk that fails and writes short, and damage. After each blow the log must hold all
 * that was acknowledged, whole commits only, and go on. Prints its figures.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { constants, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openLogReader, readLog } from "../../src/log/segment-reader.ts";
import { verifyLog } from "../../src/log/verify-log.ts";
import { readEvidence } from "../../src/logs/read-evidence.ts";
import { freePort, missing } from "../daemon/rig.ts";
import { EveryDamage, inWords } from "../damage/every-damage.ts";
import { Random } from "../reference/random.ts";
import { OVERFLOW, ROOMY, TalkingPrograms } from "./collect-scenario.ts";
import { type Killed, KillPoints, type Scenario } from "./kill-points.ts";
import { imageScenario, importScenario } from "./log-scenarios.ts";

const runs = (name: string): number => Number(process.env[`CAMPAIGN_${name}`] ?? 0);
const seed = Number(process.env["CAMPAIGN_SEED"] ?? Date.now() % 1_000_000);
const random = new Random(seed);
const rootDir = join(import.meta.dirname, "../..");
const scratch = mkdtempSync(join(tmpdir(), "recovery-line-campaign-"));
/** A package of its own, so that nobody rebuilds or removes it in the middle of hours. */
const home = join(scratch, "package");
const dist = join(home, "dist");
const tools = join(scratch, "tools");
/** Kills leave what the page cache holds: they need no disk. */
const fast = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "recovery-line-campaign-"));
/** Scenarios of the named steps; undefined: all. */
const chosen = process.env["CAMPAIGN_SCENARIOS"]?.split(",");
/** Names of steps to kill at. */
const wantedSteps = new RegExp(process.env["CAMPAIGN_STEPS"] ?? ".");
const LINES_A_ROUND = 41;

beforeAll(() => {
  mkdirSync(home);
  writeFileSync(join(home, "package.json"), '{ "type": "module" }\n');
  for (const name of ["node_modules", "native", "binding.gyp"])
    symlinkSync(join(rootDir, name), join(home, name));
  const addon = "build/Release/recovery_line.node";
  mkdirSync(join(home, dirname(addon)), { recursive: true });
  if (existsSync(join(rootDir, addon))) copyFileSync(join(rootDir, addon), join(home, addon));
  for (const name of ["during", "log-writer", "gc-writer", "import-writer", "collect-writer"])
    copyFileSync(join(import.meta.dirname, `${name}.mjs`), join(home, `${name}.mjs`));
  spawnSync("npx", ["--no-install", "tsc", "-p", "tsconfig.build.json", "--outDir", dist], { cwd: rootDir });
  expect(existsSync(join(dist, "log/event-log.js"))).toBe(true);
  shrinkLimits(join(dist, "model/limits.js"));
  mkdirSync(tools);
  const source = (name: string): string => join(import.meta.dirname, "c", name);
  expect(spawnSync("cc", ["-O1", "-o", join(tools, "power_cut"), source("power_cut.c")]).status).toBe(0);
  for (const name of ["faulty_disk", "kill_point"]) {
    const library = ["-O1", "-shared", "-fPIC", "-o", join(tools, `${name}.so`), source(`${name}.c`), "-ldl"];
    expect(spawnSync("cc", library).status).toBe(0);
  }
}, 300_000);
afterAll(() => {
  console.log(`\nseed ${seed}\n${figures.join("\n")}`);
  for (const folder of [scratch, fast]) rmSync(folder, { recursive: true, force: true });
});

/** In the package that is killed, little data meets all bounds. */
function shrinkLimits(file: string): void {
  const smaller = { LEVEL_WRITE_BUFFER_BYTES: 64 * 1024, IMPORT_BATCH_EVENTS: 64 };
  let text = readFileSync(file, "utf8");
  for (const [name, value] of Object.entries(smaller)) {
    expect(text).toMatch(new RegExp(`const ${name} = `));
    text = text.replace(new RegExp(`const ${name} = .*;`), `const ${name} = ${value};`);
  }
  writeFileSync(file, text);
}

interface Writer {
  readonly child: ChildProcess;
  /** Rounds acknowledged, as far as it said. */
  acknowledged(): number;
  said(): string;
  readonly ended: Promise<void>;
}

function write(dir: string, env: Record<string, string> = {}, ...pace: "brisk"[]): Writer {
  const args = [join(home, "log-writer.mjs"), dist, ...pace, dir];
  const child = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (text: Buffer) => {
    out += text.toString();
  });
  child.stderr.on("data", (text: Buffer) => {
    err += text.toString();
  });
  return {
    child,
    acknowledged: () => acknowledgedIn(out),
    said: () => out + err,
    ended: once(child, "close").then(() => undefined),
  };
}

/** Some lines after its start, and somewhere between two of them: also on a slow machine lives get equally far. */
async function atRandom({ child, ended, said }: Writer): Promise<void> {
  const lines = 1 + random.below(10);
  const far = new Promise<void>((resolve) => {
    child.stdout!.on("data", () => {
      if (said().split("\n").length > lines) resolve();
    });
  });
  await Promise.race([far, ended]);
  await new Promise((resolve) => setTimeout(resolve, random.below(6)));
}

const figures: string[] = [];

/** Says it now, and once more at the end. */
function report(line: string): void {
  figures.push(line);
  console.log(line);
}

function seconds(sinceMs: number): string {
  return `${((performance.now() - sinceMs) / 1000).toFixed(0)} s`;
}

function acknowledgedIn(said: string): number {
  const lines = said.split("\n").filter((line) => /^\d+$/.test(line));
  return Math.max(0, ...lines.map(Number));
}

/** Rounds in the log, all of them whole, none missing. Throws what is wrong. */
async function rounds(dir: string): Promise<number> {
  const reader = await openLogReader(dir);
  const stored = (reader.getState("rounds") as number | undefined) ?? 0;
  const heads = reader.heads();
  await reader.close();
  expect((await verifyLog(dir)).damages).toEqual([]);
  for (const process of ["a", "b"]) expect(heads.get(process)?.position ?? 0).toBe(stored * LINES_A_ROUND);
  const evidence = await readEvidence(readLog(dir));
  expect([...evidence.length]).toEqual(stored === 0 ? [] : [stored * LINES_A_ROUND, stored * LINES_A_ROUND]);
  return stored;
}

/**
 * What is there is what was acknowledged, or one round more that was under way; with `troubles`, as many more: a commit that failed may be
 * there whole, and the writer goes on behind it.
 */
async function check(dir: string, acknowledged: number, troubles = 0): Promise<number> {
  if (acknowledged === 0 && !existsSync(join(dir, "anchor"))) return 0;
  const stored = await rounds(dir).catch((error: { code?: string }) => {
    if (acknowledged === 0 && error.code === "RL_UNKNOWN_APP") return 0;
    throw error;
  });
  expect(stored).toBeGreaterThanOrEqual(acknowledged);
  expect(stored).toBeLessThanOrEqual(acknowledged + 1 + troubles);
  return stored;
}

const logScenario: Scenario<number> = {
  name: "log",
  program: [join(home, "log-writer.mjs"), dist, "brisk"],
  start: 0,
  check: (dir, before, said) =>
    check(dir, Math.max(before, acknowledgedIn(said)), said.split("trouble").length - 1),
  lines: 16,
};

test.skipIf(runs("KILL") === 0)(`${runs("KILL")} kills at random times, seed ${seed}`, async () => {
  const beganMs = performance.now();
  const dir = join(fast, "kill");
  let acknowledged = 0;
  for (let kill = 0; kill < runs("KILL"); kill += 1) {
    const writer = write(dir, {}, "brisk");
    await atRandom(writer);
    writer.child.kill("SIGKILL");
    await writer.ended;
    expect(writer.child.signalCode, writer.said()).toBe("SIGKILL");
    acknowledged = await check(dir, Math.max(acknowledged, writer.acknowledged()));
  }
  expect(acknowledged).toBeGreaterThan(0);
  report(
    `kill: ${runs("KILL")} kills, ${acknowledged} rounds of 2 × ${LINES_A_ROUND} events, none lost, none doubled; ${seconds(beganMs)}`,
  );
});

/** Kills at every step of one program; prints the figures of each step. Returns kills, steps, and kills elsewhere. */
async function killAtAll<State>(
  scenario: Scenario<State>,
  around: (folder: string, work: () => Promise<void>) => Promise<void> = (_, work) => work(),
): Promise<readonly [kills: number, steps: number, others: number]> {
  const beganMs = performance.now();
  const folder = join(fast, scenario.name);
  mkdirSync(folder);
  const points = new KillPoints(scenario, join(tools, "kill_point.so"), folder, random);
  let killed: Killed = { kills: new Map(), others: 0 };
  await around(points.folder, async () => {
    killed = await points.run(runs("NAMED"), wantedSteps, beganMs + (runs("SECONDS") || Infinity) * 1000);
  });
  for (const [name, count] of [...killed.kills].sort())
    console.log(`  ${String(count).padStart(5)}  ${scenario.name}  ${name}`);
  const kills = [...killed.kills.values()].reduce((sum, count) => sum + count, 0);
  const least = Math.min(...killed.kills.values());
  report(
    `named, ${scenario.name}: ${kills} kills at ${killed.kills.size} steps, at each at least ${least}; ${killed.others} elsewhere; ${seconds(beganMs)}`,
  );
  return [kills, killed.kills.size, killed.others];
}

async function killCollector(traffic: typeof ROOMY): Promise<readonly [number, number, number]> {
  if (missing !== undefined) {
    report(`named, ${traffic.name}: RL_NOT_SUPPORTED: ${missing.name}`);
    return [0, 0, 0];
  }
  const programs = new TalkingPrograms(home, dist, traffic);
  try {
    return await killAtAll(programs.scenario, async (folder, work) => {
      await programs.start(folder, await freePort());
      await work();
      report(`named, ${traffic.name}: ${await programs.finish(folder)}`);
    });
  } finally {
    await programs.remove();
  }
}

test.skipIf(runs("NAMED") === 0)(`kill -9 at each named step × ${runs("NAMED")}, seed ${seed}`, async () => {
  const all = new Map([
    ["collect", () => killCollector(ROOMY)],
    ["overflow", () => killCollector(OVERFLOW)],
    ["gc", () => killAtAll(imageScenario(home, dist))],
    ["import", () => killAtAll(importScenario(home, dist))],
    ["log", () => killAtAll(logScenario)],
  ]);
  let [kills, steps, others] = [0, 0, 0];
  for (const [name, run] of all) {
    if (chosen !== undefined && !chosen.includes(name)) continue;
    const figures = await run();
    kills += figures[0];
    steps += figures[1];
    others += figures[2];
  }
  report(`named: ${kills} kills at ${steps} named steps, ${others} elsewhere, none lost, none doubled`);
});

test.skipIf(runs("FAIL") === 0)(
  `EIO, ENOSPC and EINTR at each step that is a call of the file system × ${runs("FAIL")}`,
  async () => {
    const beganMs = performance.now();
    const folder = join(fast, "fail");
    mkdirSync(folder);
    const points = new KillPoints(logScenario, join(tools, "kill_point.so"), folder, random);
    const { EIO, ENOSPC, EINTR } = constants.errno;
    const failed = await points.failAtAll(runs("FAIL"), [EIO, ENOSPC, EINTR], wantedSteps);
    const count = [...failed.values()].reduce((sum, one) => sum + one, 0);
    report(
      `fail: ${count} lives, ${failed.size} steps failed by each error, none lost, none doubled; ${seconds(beganMs)}`,
    );
  },
);

test(`${runs("POWER")} power cuts, seed ${seed}`, async ({ skip }) => {
  if (runs("POWER") === 0) skip();
  const image = join(scratch, "disk.img");
  const mountPoint = join(scratch, "mnt");
  mkdirSync(mountPoint);
  const run = (program: string, ...args: string[]): boolean => spawnSync(program, args).status === 0;
  writeFileSync(image, "");
  const made = run("truncate", "-s", "96M", image) && run("mkfs.ext4", "-q", image);
  if (!made || !run("mount", "-o", "loop", image, mountPoint)) {
    console.log("power: RL_NOT_SUPPORTED: no loop device can be mounted here (needs root and a loop driver)");
    skip();
  }
  const dir = join(mountPoint, "app");
  const beganMs = performance.now();
  let acknowledged = 0;
  try {
    for (let cut = 0; cut < runs("POWER"); cut += 1) {
      const writer = write(dir, {}, "brisk");
      await atRandom(writer);
      expect(run(join(tools, "power_cut"), mountPoint)).toBe(true);
      await new Promise((resolve) => setTimeout(resolve, 10)); // it goes on against the dead disk
      writer.child.kill("SIGKILL");
      await writer.ended;
      expect(run("umount", mountPoint)).toBe(true);
      expect(run("mount", "-o", "loop", image, mountPoint)).toBe(true);
      acknowledged = await check(dir, Math.max(acknowledged, writer.acknowledged()));
    }
  } finally {
    run("umount", mountPoint);
  }
  expect(acknowledged).toBeGreaterThan(0);
  report(
    `power: ${runs("POWER")} cuts, ${acknowledged} rounds, none lost, none doubled; ${seconds(beganMs)}`,
  );
});

test.skipIf(runs("FAULTS") === 0)(
  `${runs("FAULTS")} lives on a disk that fails and writes short, seed ${seed}`,
  async () => {
    const dir = join(scratch, "faults");
    let [acknowledged, troubles] = [0, 0];
    for (let life = 0; life < runs("FAULTS"); life += 1) {
      const writer = write(dir, {
        LD_PRELOAD: join(tools, "faulty_disk.so"),
        FAULT_DIR: dir,
        FAULT_RATE: String(5 + random.below(200)),
        FAULT_SEED: String(random.below(1_000_000)),
      });
      await Promise.race([once(writer.child.stdout!, "data"), writer.ended]);
      await new Promise((resolve) => setTimeout(resolve, 200 + random.below(600)));
      writer.child.kill("SIGKILL");
      await writer.ended;
      expect(writer.child.signalCode, writer.said()).toBe("SIGKILL");
      const met = writer.said().split("trouble").length - 1;
      troubles += met;
      acknowledged = await check(dir, Math.max(acknowledged, writer.acknowledged()), met);
    }
    report(
      `faults: ${runs("FAULTS")} lives, ${troubles} times opened anew after EIO, ENOSPC or EINTR, ${acknowledged} rounds, none lost, none doubled`,
    );
  },
);

test.skipIf(runs("DAMAGE") === 0)(`${runs("DAMAGE")} damaged copies of a 1 MiB log`, () => {
  const env = {
    ...process.env,
    RECOVERY_LINE_DAMAGE_TRIALS: String(runs("DAMAGE")),
    RECOVERY_LINE_DAMAGE_SCALE: "16",
  };
  const { status, stdout } = spawnSync(
    "npx",
    ["--no-install", "vitest", "run", "test/unit/log-damage.test.ts"],
    { cwd: rootDir, env },
  );
  for (const line of stdout.toString().split("\n"))
    if (/flip|trunc|remov|silent|detected|bytes/i.test(line)) report(`damage: ${line}`);
  expect(status).toBe(0);
});

const flipsOf = process.env["CAMPAIGN_FLIPS"];

/** "1MiB", "64KiB" or a number of bytes. */
function bytesOf(size: string): number {
  const [, number, unit] = /^(\d+)(KiB|MiB)?$/.exec(size) ?? [];
  expect(number, `--flips ${size}`).toBeDefined();
  return Number(number) * (unit === "MiB" ? 1024 * 1024 : unit === "KiB" ? 1024 : 1);
}

/** "2/5": the second of five equal parts of `count`. */
function partOf(count: number): readonly [from: number, to: number] {
  const part = process.env["CAMPAIGN_PART"] ?? "1/1";
  const [, index, parts] = (/^(\d+)\/(\d+)$/.exec(part) ?? []).map(Number);
  expect(index! >= 1 && index! <= parts!, `--part ${part}`).toBe(true);
  return [Math.floor((count * (index! - 1)) / parts!), Math.floor((count * index!) / parts!)];
}

test.skipIf(flipsOf === undefined)(
  `every flip and truncation of a log of ${flipsOf}, seed ${seed}`,
  async () => {
    const beganMs = performance.now();
    const limit = Error.stackTraceLimit;
    Error.stackTraceLimit = 0; // millions of errors are caught
    const every = await EveryDamage.of(bytesOf(flipsOf!));
    try {
      const [from, to] = partOf(every.count);
      console.log(
        `flips: ${every.bytes} bytes in ${every.files.size} files, damages ${from} to ${to} of ${every.count}`,
      );
      console.log(`  process ${process.pid}: kill -STOP holds it, kill -CONT lets it go on`);
      let saidMs = performance.now();
      const figures = await every.run({
        from,
        to,
        sample: 5000,
        owned: 50_000,
        seed,
        progress: (done, soFar) => {
          if (performance.now() - saidMs < 60_000) return;
          saidMs = performance.now();
          console.log(`  ${done} of ${to - from}: ${inWords(soFar)}; ${seconds(beganMs)}`);
        },
      });
      report(`flips: damages ${from} to ${to} of ${every.count}: ${inWords(figures)}; ${seconds(beganMs)}`);
      expect(figures.failures).toEqual([]);
    } finally {
      Error.stackTraceLimit = limit;
      every.remove();
    }
  },
);
