/**
 * Every single flipped bit and every truncation of every file of a home of 64 KiB: detected or harmless, none silent. All of them take a
 * minute of one core (`npm run test:long`), `npm test` one of 17. `npm run campaign:log -- --flips 1MiB` does the same to a larger one.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { decodeAnchor, encodeAnchor } from "../../src/format/log-anchor.ts";
import { sized } from "../size.ts";
import { EveryDamage, inWords } from "./every-damage.ts";
import { readFiles } from "./home.ts";

const HOME_BYTES = 64 * 1024;
/** Of so many damages one goes the public way, too; of so many one meets an owner, who opens the log with LevelDB. */
const SAMPLE = sized(500, 200);
const OWNED = sized(5000, 2000);
/** Prime to the nine damages of a byte. */
const STEP = sized(1, 17);
const seed = Number(process.env["RECOVERY_LINE_SEED"] ?? Date.now() % 1_000_000);

let every: EveryDamage;
const stackTraceLimit = Error.stackTraceLimit;
beforeAll(async () => {
  Error.stackTraceLimit = 0; // half a million errors are caught
  every = await EveryDamage.of(HOME_BYTES);
});
afterAll(() => {
  Error.stackTraceLimit = stackTraceLimit;
  every.remove();
});

const LEVEL_RECORD_BLOCK_BYTES = 32 * 1024;

test("the home is of the size that is meant, and has files of all kinds", () => {
  const sizeOf = (path: string): number => every.files.get(path)!.length;
  const names = [...every.files.keys()];
  const some = (pattern: RegExp): string[] => names.filter((name) => pattern.test(name) && sizeOf(name) > 0);
  expect(every.bytes).toBeGreaterThan(HOME_BYTES);
  expect(every.bytes).toBeLessThan(HOME_BYTES * 1.2);
  expect(some(/anchor$/)).toHaveLength(2);
  expect(some(/whole.*\/CURRENT$/).length).toBeGreaterThan(2);
  expect(some(/MANIFEST-\d+$/).length).toBeGreaterThan(4);
  expect(some(/\.ldb$/).length).toBeGreaterThan(4);
  const walBytes = some(/\.log$/).map(sizeOf);
  expect(walBytes.length).toBeGreaterThan(4);
  expect(Math.max(...walBytes)).toBeGreaterThan(LEVEL_RECORD_BLOCK_BYTES); // records in more than one part
});

test("the judge can say no: another anchor that is whole in itself", async () => {
  for (const path of ["whole/anchor", "pruned/anchor"]) {
    const anchor = decodeAnchor(every.files.get(path)!);
    if (typeof anchor === "string") throw new Error(anchor);
    const other = encodeAnchor({ ...anchor, application: `${anchor.application}2` });
    expect(await every.judge.judge(path, Buffer.from(other))).toMatch(/^SILENT/);
  }
});

test(`bits and lengths, one of ${STEP}, seed ${seed}`, async () => {
  const figures = await every.run({ step: STEP, sample: SAMPLE, owned: OWNED, seed });
  console.log(`${every.bytes} bytes, seed ${seed}: ${inWords(figures)}`);
  expect(figures.failures).toEqual([]);
  const { bit, cut, sampled, owned } = figures;
  const judged = [bit, cut].map(({ detected, harmless }) => detected + harmless);
  const all = [every.bytes * 8, every.bytes].map((count) => count / STEP);
  for (const at of [0, 1]) expect(Math.abs(judged[at]! - all[at]!)).toBeLessThanOrEqual(every.files.size);
  expect(bit.detected).toBeGreaterThan(bit.harmless * 5);
  const [toPublic, toOwner] = [SAMPLE, OWNED].map((oneIn) => every.count / STEP / oneIn); // at random: few where not all is done
  expect(sampled).toBeGreaterThan(toPublic! - 5 * Math.sqrt(toPublic!));
  expect(owned).toBeGreaterThan(toOwner! - 4 * Math.sqrt(toOwner!));
  expect(readFiles(every.home)).toEqual(every.files); // readers have written nothing
}, 1_800_000);
