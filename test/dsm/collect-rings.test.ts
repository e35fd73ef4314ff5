import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { makeDsm, runKernel } from "./dsm-build.ts";

const MAIN = join(packageRoot(), "dist/cli/main.js");

/** Page versions come through rings, log and export: the exact line needs no trace, and is nowhere earlier than the rough one. */
function exactFromLogAndExport(home: string): void {
  const answer = (words: readonly string[], input = "") =>
    JSON.parse(
      execFileSync(process.execPath, [MAIN, "compute", ...words, "--failed", "h1", "--json"], {
        encoding: "utf8",
        input,
      }),
    ) as { application: string; line: { process: string; position: number }[] };
  const text = execFileSync(process.execPath, [MAIN, "export", "heat", "--log", home], { encoding: "utf8" });
  expect(text).toMatch(/"type":"page-copy".*"version":[1-9]\d*,"writer":"p[01]","interval":\d+/);
  expect(text).toMatch(/"type":"receive".*"page":\d+,"version":\d+.*"owner":true/);
  const exact = answer(["heat", "--log", home, "--dsm", "exact"]);
  expect({ ...answer(["--from", "-", "--dsm", "exact"], text), application: "heat" }).toEqual(exact);
  const rough = answer(["heat", "--log", home, "--dsm", "transfers"]);
  exact.line.forEach(({ position }, n) => {
    expect(position).toBeGreaterThanOrEqual(rough.line[n]!.position);
  });
  const policy = spawnSync(process.execPath, [
    MAIN,
    "compute",
    "heat",
    "--log",
    home,
    "--dsm",
    "exact",
    "--in-transit",
    "logged",
  ]);
  expect([policy.status, policy.stderr.toString()]).toEqual([
    2,
    expect.stringContaining("--dsm exact does not go with --in-transit logged"),
  ]);
}

/** The log is closed soon after its last runtime has ended; until then it is locked. */
async function exportOnceClosed(home: string): Promise<string> {
  let text = "";
  const readable = () => {
    const { status, stdout } = spawnSync(process.execPath, [MAIN, "export", "heat", "--log", home]);
    text = stdout.toString();
    return status;
  };
  await expect.poll(readable, { timeout: 20_000 }).toBe(0);
  return text;
}

test("collect-rings records a program of the DSM, compute reads its log while it goes on", async () => {
  const kernels = makeDsm();
  const folder = mkdtempSync(join(tmpdir(), "collect-rings-"));
  const home = join(folder, "home");
  const images = join(folder, "images");
  mkdirSync(images);
  const collector = spawn(process.execPath, [MAIN, "collect-rings", "--log", home], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    let said = "";
    const ready = new Promise<void>((resolve) => {
      collector.stdout.on("data", (text) => {
        said += text;
        resolve();
      });
    });
    const ended = new Promise((resolve) => collector.once("exit", resolve));
    await ready;
    const socket = join(home, "rings.sock");
    expect(said).toBe(`taking memory rings at ${socket}\n`);
    const words = ["tsp", "--n", "9", "--processes", "2", "--every", "5", "--images", images];
    const result = await runKernel(kernels, ...words, "--collector", socket, "--application", "heat");
    expect(result).toMatchObject({ correct: true, recordsLost: 0 });
    await exportOnceClosed(home);
    const compute = [MAIN, "compute", "heat", "--log", home, "--failed", "p1,h1", "--json"];
    const answer = JSON.parse(execFileSync(process.execPath, compute, { encoding: "utf8" })) as {
      outcome: string;
      line: { process: string; action: string }[];
    };
    expect(answer.outcome).toBe("clean");
    expect(answer.line.map(({ process }) => process)).toEqual(["h0", "h1", "p0", "p1"]);
    expect(answer.line.find(({ process }) => process === "p1")!.action).not.toBe("continue");
    exactFromLogAndExport(home);
    collector.kill("SIGTERM");
    expect(await ended).toBe(0);
    expect(said).toMatch(/\d+ events recorded\n$/);
  } finally {
    collector.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
});

test("collect-rings killed: nobody whose end it did not see continues, and the next one says that events are missing", async () => {
  const kernels = makeDsm();
  const folder = mkdtempSync(join(tmpdir(), "collect-rings-"));
  const home = join(folder, "home");
  mkdirSync(join(folder, "images"));
  const collect = async () => {
    const child = spawn(process.execPath, [MAIN, "collect-rings", "--log", home], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    return child;
  };
  const where = [
    "--collector",
    join(home, "rings.sock"),
    "--application",
    "heat",
    "--images",
    join(folder, "images"),
  ];
  const common = ["--processes", "2", "--every", "5", ...where];
  const words = ["tsp", "--n", "9", ...common];
  const long = ["sor", "--n", "64", "--iterations", "1000", "--pause-us", "10000", ...common];
  const compute = (...more: string[]) => {
    const { status, stdout } = spawnSync(process.execPath, [
      MAIN,
      "compute",
      "heat",
      "--log",
      home,
      "--json",
      ...more,
    ]);
    return {
      status,
      ...(JSON.parse(stdout.toString()) as { line: { action: string }[]; unrecorded?: string[] }),
    };
  };
  let collector = await collect();
  try {
    const run = spawn(join(kernels, "dsm-kernels"), long, { stdio: "ignore" });
    const ended = once(run, "exit");
    await expect.poll(() => existsSync(join(folder, "images", "p1-2.json")), { timeout: 20_000 }).toBe(true);
    // A commit that began after that.
    const image = statSync(join(folder, "images", "p1-2.json")).mtimeMs;
    const committed = () => statSync(join(home, "heat", "anchor")).mtimeMs;
    await expect.poll(() => committed() - image, { timeout: 20_000 }).toBeGreaterThan(200);
    collector.kill("SIGKILL");
    expect(await ended).toEqual([70, null]);
    const dark = compute("--failed", "p1");
    expect([dark.status, dark.unrecorded]).toEqual([3, ["h0", "h1", "p0"]]);
    expect(dark.line.some(({ action }) => action === "continue")).toBe(false);
    collector = await collect();
    await runKernel(kernels, ...words);
    const text = await exportOnceClosed(home);
    for (const type of ["gap", "rollback"]) expect(text.split(`"type":"${type}"`)).toHaveLength(5);
    expect(compute("--failed", "p1,h1")).not.toHaveProperty("unrecorded");
  } finally {
    collector.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
});
