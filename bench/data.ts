// bench: data — how long a process stands still for 1 GiB of data of which 1 % changed since its last checkpoint.
import { execFileSync } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CriuDriver } from "../src/images/criu/driver-criu.ts";
import { findCriu } from "../src/images/criu/driver-criu-find.ts";
import { TreeExchange } from "../src/images/data/exchange-tree.ts";
import { TreeSave } from "../src/images/data/save-tree.ts";
import { openTree, verifyTree } from "../src/images/data/stored-tree.ts";
import { missing, type Rig, until, withBenchRig } from "../test/daemon/rig.ts";
import { type Figure, median, medianOf, report } from "./report.ts";

const TOTAL = 1 << 30;
const PAGE = 8192;
/** A copy counts as quiet if its file was left alone that long before (save-tree.ts), ms. */
const QUIET_MS = 2_100;
const ROUNDS = 3;

/** `changed` of the files, `pages` in each. */
interface Shape {
  readonly name: string;
  readonly files: number;
  readonly changed: number;
  readonly pages: number;
}

const SHAPES: readonly Shape[] = [
  { name: "1024 files of 1 MiB, 10 rewritten", files: 1024, changed: 10, pages: 128 },
  { name: "64 files of 16 MiB, 1 % of the pages of each", files: 64, changed: 64, pages: 20 },
  { name: "1 file of 1 GiB, 1 % of its pages", files: 1, changed: 1, pages: 1310 },
];

const bytes = randomFillSync(Buffer.alloc(1 << 20));

function fill(root: string, { files }: Shape): void {
  for (let at = 0; at < files; at += 1) {
    const file = openSync(join(root, `f${at}`), "wx");
    for (let done = 0; done < TOTAL / files; done += bytes.length) {
      bytes.writeUInt32LE(at + done, 0);
      writeSync(file, bytes);
    }
    closeSync(file);
  }
}

function change(root: string, { files, changed, pages }: Shape, round: number): void {
  const size = TOTAL / files;
  for (let at = 0; at < changed; at += 1) {
    const file = openSync(join(root, `f${(at + round * changed) % files}`), "r+");
    const step = Math.floor(size / pages / PAGE) * PAGE;
    for (let page = 0; page < pages; page += 1) {
      bytes.writeUInt32LE(round, page % 1000);
      writeSync(file, bytes, 0, PAGE, page * step);
    }
    closeSync(file);
  }
}

async function timed(work: () => unknown): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

async function measure(shape: Shape): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), "rl-bench-data-"));
  try {
    const root = join(folder, "root");
    mkdirSync(root);
    fill(root, shape);
    return await figures(shape, folder, root);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function figures(shape: Shape, folder: string, root: string): Promise<Figure[]> {
  execFileSync("sync", ["-f", folder]);
  const plain = await median(3, async () => {
    const ms = await timed(() => {
      execFileSync("cp", ["-a", root, join(folder, "copy")]);
      execFileSync("sync", ["-f", folder]);
    });
    rmSync(join(folder, "copy"), { recursive: true });
    return ms;
  });
  await sleep(QUIET_MS);
  let newest = await save(root, join(folder, "0"));
  const quiet: Saved[] = [];
  const busy: Saved[] = [];
  for (let round = 1; round <= 2 * ROUNDS; round += 1) {
    change(root, shape, round);
    await sleep(QUIET_MS);
    const isBusy = round > ROUNDS;
    const next = await save(root, join(folder, String(round)), newest, () => {
      if (isBusy) change(root, shape, round + 100);
    });
    rmSync(newest.tree.folder, { recursive: true });
    newest = next;
    (isBusy ? busy : quiet).push(next);
  }
  const verify = await timed(() => verifyTree(newest.tree));
  const exchange = await TreeExchange.stage(newest.tree, root, "x");
  const forward = await timed(() => exchange.forward());
  await exchange.back();
  const middle = (all: readonly Saved[], of: (one: Saved) => number): number =>
    all.map(of).sort((a, b) => a - b)[ROUNDS >> 1]!;
  const { name } = shape;
  const floor = { name: "cp -a and sync", value: plain };
  return [
    { name: `${name}: before the freeze`, value: middle(quiet, (one) => one.prepareMs), unit: "ms" },
    { name: `${name}: standing still`, value: middle(quiet, (one) => one.finishMs), unit: "ms", floor },
    {
      name: `${name}: standing still, 1 % more changed since copied`,
      value: middle(busy, (one) => one.finishMs),
      unit: "ms",
      floor,
    },
    { name: `${name}: of it copied`, value: middle(busy, (one) => one.frozenBytes) / 2 ** 20, unit: "MiB" },
    { name: `${name}: verify`, value: verify, unit: "ms" },
    { name: `${name}: exchange, once it is built`, value: forward, unit: "ms" },
  ];
}

interface Saved {
  readonly tree: ReturnType<typeof openTree>;
  readonly prepareMs: number;
  readonly finishMs: number;
  readonly frozenBytes: number;
}

async function save(
  root: string,
  folder: string,
  before?: Saved,
  between: () => void = () => undefined,
): Promise<Saved> {
  const options = before === undefined ? {} : { before: before.tree };
  const begin = performance.now();
  const phase = await TreeSave.prepare(root, folder, options);
  const prepareMs = performance.now() - begin;
  between();
  const from = performance.now();
  const { sha256, frozenBytes } = await phase.finish();
  const finishMs = performance.now() - from;
  return { tree: openTree(folder, sha256), prepareMs, finishMs, frozenBytes };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Bytes of its own that the process holds beside its data: the dump has to write something, too. */
const HEAP_BYTES = 64 << 20;
const HOLDS = `const held=require("crypto").randomBytes(${HEAP_BYTES});console.log("ready");setInterval(()=>{held[0]+=1},50)`;
/** Rounds that count: what else runs on the machine must not decide. */
const LIVE_ROUNDS = 7;
const MOST = 1.5;

/** A recorded process stands still for its image and its data, beside one without data, in turns. */
async function whole(rig: Rig, shape: Shape, at: number): Promise<Figure> {
  const root = rig.path(`root-${at}`);
  mkdirSync(root);
  fill(root, shape);
  const [bare, withData] = [`bare-${at}`, `data-${at}`];
  await begin(rig, bare, []);
  await begin(rig, withData, ["--data", root]);
  const frozen = { bare: [] as number[], data: [] as number[] };
  for (let round = 0; round <= LIVE_ROUNDS; round += 1) {
    change(root, shape, round + 200);
    await sleep(QUIET_MS);
    const [bareMs, dataMs] = [await frozenMs(rig, bare), await frozenMs(rig, withData)];
    if (round === 0) continue; // everything is new to the first
    frozen.bare.push(bareMs);
    frozen.data.push(dataMs);
  }
  for (const name of [bare, withData]) rig.cgroup(name).kill();
  rmSync(root, { recursive: true });
  const [value, floor] = [medianOf(frozen.data), medianOf(frozen.bare)];
  return {
    name: `${shape.name}: a process of ${HEAP_BYTES >> 20} MiB stands still for image and data`,
    value,
    unit: "ms",
    floor: { name: "for the image alone", value: floor },
    goal: `at most ${MOST} times the dump without data`,
    met: value <= MOST * floor,
  };
}

async function begin(rig: Rig, name: string, data: readonly string[]): Promise<void> {
  const output = ["--detach", "--output", rig.path(`${name}.out`)];
  const command = [process.execPath, "-e", HOLDS];
  const { code, err } = await rig.cli("run", rig.app, name, ...data, ...output, "--", ...command);
  if (code !== 0) throw new Error(`run ${name}: ${err}`);
  await until(`${name} is ready`, () => rig.output(name) !== "");
}

async function frozenMs(rig: Rig, name: string): Promise<number> {
  type Taken = { checkpoints: { frozenMs: number }[] };
  const { checkpoints } = await rig.json<Taken>("checkpoint", rig.app, name);
  return checkpoints[0]!.frozenMs;
}

async function live(): Promise<Figure[]> {
  const { found } = await findCriu();
  if (missing !== undefined || found === undefined || !(await new CriuDriver(found).check()).works) {
    console.log("# data of a recorded process: RL_NOT_SUPPORTED, no capture or no CRIU on this machine");
    return [];
  }
  const figures: Figure[] = [];
  await withBenchRig("bench-data", async (rig) => {
    await rig.collect();
    for (const [at, shape] of SHAPES.entries()) figures.push(await whole(rig, shape, at));
  });
  return figures;
}

const all: Figure[] = [];
if (!process.argv.includes("live")) for (const shape of SHAPES) all.push(...(await measure(shape)));
all.push(...(await live()));
report("data: 1 GiB saved at a checkpoint, 1 % changed since the last one", all);
