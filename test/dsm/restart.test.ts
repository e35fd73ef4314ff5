/**
 * The DSM kernels, killed with SIGKILL and started again from the images that the engine's line names, until the result comes
 * out: it must be the sequential one. Every restart also checks received ≤ sent on every channel (native/dsm/restore.c), since
 * a right result alone proves nothing.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { compile } from "../native/c-build.ts";
import { Random } from "../reference/random.ts";
import { sized } from "../size.ts";
import { makeDsm } from "./dsm-build.ts";
import { Application, killed, PAUSE_US, result, survive } from "./survive.ts";

/** No seed begins after this, in ms: a slow machine tries fewer, and says so. */
const BUDGET_MS = 45_000;

interface Kernel {
  readonly words: string[];
  readonly seeds: number;
  /** Under AddressSanitizer and UBSan. */
  readonly watched: boolean;
}
const KERNELS: Record<string, Kernel> = {
  sor: { words: ["--n", "96", "--iterations", "40"], seeds: sized(10, 4), watched: false },
  matmul: { words: ["--n", "96"], seeds: sized(10, 4), watched: false },
  lu: { words: ["--n", "48"], seeds: sized(4, 3), watched: true },
  tsp: { words: ["--n", "9"], seeds: sized(4, 2), watched: true },
};

let fast = "";
let watched = "";
let folder = "";
beforeAll(() => {
  fast = join(makeDsm(), "dsm-kernels");
  watched = join(makeDsm("address,undefined"), "dsm-kernels");
  folder = mkdtempSync(join(tmpdir(), "dsm-restart-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function application(name: string, kernel: string): Application {
  const { words, watched: slow } = KERNELS[kernel]!;
  return new Application(join(folder, name), slow ? watched : fast, [kernel, ...words]);
}

/** One in npm test: their sequential results are compared in kernels.test.ts. */
test.each(sized(Object.keys(KERNELS), ["matmul"]))(
  "%s, killed and started again, equals its sequential run",
  async (kernel) => {
    const first = Date.now() % 1_000_000;
    const from = Date.now();
    const restarts: number[] = [];
    for (let seed = first; seed < first + KERNELS[kernel]!.seeds && Date.now() - from < BUDGET_MS; seed += 1)
      restarts.push(await survive(application(`${kernel}-${seed}`, kernel), seed));
    console.log(
      `${kernel}: seeds from ${first}, checkpoints that restarts began from: ${restarts.join(" ")}`,
    );
    // Else it would only show that a program can be started twice. One lock couples all processes of tsp: it falls far back.
    if (kernel !== "tsp")
      expect(restarts.filter((sum) => sum > 0).length).toBeGreaterThan(restarts.length / 2);
  },
  120_000,
);

test("a restart refuses what is no line, and images that are not what their manifests say", async () => {
  // More iterations than it comes to before it is killed, however late that is.
  const app = new Application(join(folder, "refused"), fast, ["sor", "--n", "96", "--iterations", "400"]);
  const tenth = join(app.folder, "images/p1-10.json");
  const saved = () => expect.poll(() => existsSync(tenth), { timeout: 20_000 }).toBe(true);
  expect(await killed(app.start("", "--pause-us", PAUSE_US), app.folder, 1, saved)).toBe(true);
  const { text, checkpoints } = await app.line();
  expect(checkpoints).toBeGreaterThan(6);
  const refusals = async (line: string): Promise<string> => {
    const { code, said } = await result(app.start(line));
    expect(code).toBe(70);
    return said;
  };
  const earlier = text.replace(/p1:(\d+)/, (_, index) => `p1:${Number(index) - 2}`);
  expect(await refusals(earlier)).toMatch(
    /this is no recovery line: (h\d received \d+ messages of p1|p1 has passed)/,
  );
  expect(await refusals(text.replace(/p1:\d+/, "p1:99999"))).toContain("image p1-99999 in");
  const image = join(app.folder, "images", `${/p2:\d+/.exec(text)![0].replace(":", "-")}.image`);
  const bytes = readFileSync(image);
  const random = new Random(Date.now() % 1_000_000);
  for (let flips = 0; flips < 8; flips += 1) {
    const damaged = Buffer.from(bytes);
    damaged[random.below(bytes.length)]! ^= 1 << random.below(8);
    writeFileSync(image, damaged);
    expect(await refusals(text)).toContain("it is not what its manifest says");
  }
  writeFileSync(image, bytes.subarray(0, bytes.length - 1));
  expect(await refusals(text)).toContain("it is not what its manifest says");
  writeFileSync(image, bytes);
  expect(await result(app.start(text))).toEqual({ code: 0, correct: true, said: "" });
}, 60_000);

test("a version that only a retained frame holds survives two failures without a checkpoint of its home between", () => {
  const images = join(folder, "retained");
  mkdirSync(images);
  const library = join(makeDsm("address,undefined"), "librecovery_dsm.a");
  const flags = [library, "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-lpthread"];
  const program = compile("dsm_retained", ["test/dsm/c/dsm_retained_test.c"], flags);
  const read = execFileSync(program, [images], { encoding: "utf8", timeout: 30_000 }).trim().split("\n");
  expect(read.sort()).toEqual(['{"rank":0,"read":42}', '{"rank":1,"read":42}']);
});
