/** Every case of the C capture programs (test/native/c/capture_*.c), each a test of its own with real system calls. */
import { execFileSync, spawn } from "node:child_process";
import { once as happens } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { LONG, sized } from "../size.ts";

const SKIPPED = 77;
/** The program itself calls 90 s a hang, and says where (HANG_NS). */
const TIMEOUT_MS = 100_000;
/** Each is a process of its own with its own programs and cgroups, and mostly waits. */
const SLOW = { timeout: 1.1 * TIMEOUT_MS, concurrent: true };
const native = join(packageRoot(), "native");
const programs = readdirSync(join(packageRoot(), "test/native/c"))
  .filter((name) => name.startsWith("capture_") && name.endsWith(".c"))
  .map((name) => name.slice(0, -2));

/**
 * Every variant of the capture is forced in turn (native/loader/parts.c): what works in one and not in another is a fault, or is said. Of
 * the sockets' walk this kernel may load one alone: that is the one the first variant takes. Cases of the loader itself run once.
 */
const variants = ["", "life=trace,datagrams=trace", "progress=exit"];
const once = new Set(["capture_attach", "capture_rights", "capture_signals"]);
const onceCases = new Set(["descriptors"]);

/** The first variant runs all cases, each of the others one of so many, with the next run the next ones: so many runs do all. */
const SHARE = sized(1, 12);
const turn = Number(process.env["RL_CAPTURE_TURN"] ?? nextTurn()) % SHARE;
if (SHARE > 1) console.log(`variants but the first: one case of ${SHARE}, turn ${turn} (RL_CAPTURE_TURN)`);

/** One more than in the last run in this folder. */
function nextTurn(): number {
  const path = join(packageRoot(), ".stamps/capture-c-turn");
  const turn = existsSync(path) ? Number(readFileSync(path, "utf8")) + 1 : Date.now() % SHARE;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, String(turn));
  return turn;
}

/** Those that exercise every part of the loader run once more under the sanitizers. */
const sanitized = {
  capture_loss: ["full-ring", "descriptors", "half-made-instance", "records-while-closed"],
  capture_tcp: ["bulk", "many-connections"],
  capture_restore: ["restarted-end"],
  capture_attach: ["same-answers", "hostile-requests", "nonsense-answers"],
};
const SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all";

execFileSync("make", ["-s", "-C", native, ...programs.map((name) => `build/${name}`)], { stdio: "inherit" });

const cases = new Map(
  programs.map((program) => {
    const list = execFileSync(join(native, "build", program), ["--list"], { encoding: "utf8" });
    return [program, list.trim().split("\n")];
  }),
);

/** Programs with the cases that run in the variant. */
function casesIn(variant: string): [program: string, names: string[]][] {
  if (variant === "") return [...cases];
  let at = turn + variants.indexOf(variant);
  const isIts = (name: string): boolean => !onceCases.has(name) && at++ % SHARE === 0;
  return [...cases].flatMap(([program, names]) => {
    const some = once.has(program) ? [] : names.filter(isIts);
    return some.length > 0 ? [[program, some]] : [];
  });
}

/** Output goes to a file: what Node calls a pipe is a socket, a channel that the capture would see. */
const scratch = mkdtempSync(join(tmpdir(), "capture-c-"));
afterAll(() => rmSync(scratch, { recursive: true }));

async function run(
  build: string,
  program: string,
  name: string,
  variant: string,
): Promise<{ status: number | null; said: string }> {
  const path = join(scratch, `${program}-${name}-${variant}`);
  const out = openSync(path, "w");
  const child = spawn(join(native, build, program), [name], {
    stdio: ["ignore", out, out],
    timeout: TIMEOUT_MS,
    env: { ...process.env, ...(variant === "" ? {} : { RECOVERY_LINE_CAPTURE: variant }) },
  });
  closeSync(out);
  const [status] = (await happens(child, "exit")) as [number | null];
  return { status, said: readFileSync(path, "utf8").trim() };
}

async function passes(
  build: string,
  program: string,
  name: string,
  skip: (when: boolean, why: string) => void,
  variant = "",
): Promise<void> {
  const { status, said } = await run(build, program, name, variant);
  skip(status === SKIPPED, `RL_NOT_SUPPORTED: ${said}`);
  expect([status, said.split("\n").at(-1)], said).toEqual([0, "passed"]);
}

describe.each(variants)("variant '%s'", (variant) => {
  describe.each(casesIn(variant))("%s", (program, names) => {
    test.for(names)("%s", SLOW, (name, { skip }) => passes("build", program, name, skip, variant));
  });
});

describe.each(Object.entries(sanitized))("%s under ASan, UBSan and LSan", LONG, (program, names) => {
  beforeAll(() => {
    const env = { ...process.env, CFLAGS: `-O1 -g ${SANITIZERS}` };
    const target = `build/sanitized/${program}`;
    execFileSync("make", ["-s", "-C", native, "BUILD=build/sanitized", target], { env, stdio: "inherit" });
  });
  test.for(names)("%s", SLOW, (name, { skip }) => passes("build/sanitized", program, name, skip));
});
