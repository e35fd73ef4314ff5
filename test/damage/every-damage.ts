/** Every single flipped bit and every truncation of a home's files, each judged in memory, a sample of them also the public way. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { Random } from "../reference/random.ts";
import { readFiles, writeHome } from "./home.ts";
import { HomeJudge, type Verdict } from "./judge.ts";
import { PublicWay } from "./public-way.ts";

/** Bit `at` of the file flipped, or the file cut to `at` bytes. */
interface Damage {
  readonly path: string;
  readonly kind: "bit" | "cut";
  readonly at: number;
}

/** How many damages of each kind were what. */
interface Tally {
  detected: number;
  harmless: number;
}

export interface Figures {
  readonly bit: Tally;
  readonly cut: Tally;
  /** Judged the public way, too, and by an owner. */
  sampled: number;
  owned: number;
  /** Silent damage, wrong errors, and where the judges disagree: file, place, verdicts. At most MAX_FAILURES. */
  readonly failures: string[];
}

export interface Part {
  /** Of the damages, by number; default all. */
  readonly from?: number;
  readonly to?: number;
  /** One of so many, from a place that the seed draws; default 1. */
  readonly step?: number;
  /** One of so many goes the public way, one of so many to an owner; 0: none. */
  readonly sample: number;
  readonly owned: number;
  readonly seed: number;
  /** Called about once in `PROGRESS` damages. */
  readonly progress?: (done: number, figures: Figures) => void;
}

const MAX_FAILURES = 100;
const PROGRESS = 10_000;

export class EveryDamage {
  readonly home: string;
  readonly files: ReadonlyMap<string, Buffer>;
  readonly judge: HomeJudge;
  readonly #public: PublicWay;

  private constructor(home: string, files: ReadonlyMap<string, Buffer>, judge: HomeJudge, way: PublicWay) {
    this.home = home;
    this.files = files;
    this.judge = judge;
    this.#public = way;
  }

  /** Of a new home of about that size, in memory where there is room. */
  static async of(bytes: number): Promise<EveryDamage> {
    const root = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
    const home = mkdtempSync(join(root, "recovery-line-every-"));
    await writeHome(home, bytes);
    const files = readFiles(home);
    return new EveryDamage(home, files, await HomeJudge.of(files), await PublicWay.of(home, files));
  }

  remove(): void {
    rmSync(this.home, { recursive: true, force: true });
  }

  /** Of all files. */
  get bytes(): number {
    return [...this.files.values()].reduce((sum, { length }) => sum + length, 0);
  }

  /** Eight bits and one shorter length a byte. */
  get count(): number {
    return this.bytes * 9;
  }

  /** All damages have a number: file by file, bits first. */
  at(number: number): Damage {
    let rest = number;
    for (const [path, { length }] of this.files) {
      if (rest < length * 8) return { path, kind: "bit", at: rest };
      if (rest < length * 9) return { path, kind: "cut", at: rest - length * 8 };
      rest -= length * 9;
    }
    throw new RangeError(`damage ${number} of ${this.count}`);
  }

  async run({ from = 0, to = this.count, step = 1, sample, owned, seed, progress }: Part): Promise<Figures> {
    const random = new Random(seed);
    const tally = (): Tally => ({ detected: 0, harmless: 0 });
    const figures: Figures = { bit: tally(), cut: tally(), sampled: 0, owned: 0, failures: [] };
    let done = 0;
    for (let number = from + random.below(step); number < to; number += step) {
      done += 1;
      const damage = this.at(number);
      const toPublic = sample > 0 && random.oneIn(sample);
      const toOwner = owned > 0 && random.oneIn(owned);
      await this.#withDamage(damage, (bytes) => this.#trial(damage, bytes, figures, toPublic, toOwner));
      if (done % PROGRESS !== 0) continue;
      progress?.(done, figures);
      await setImmediate(); // timers and output of whoever waits
    }
    return figures;
  }

  /** A flipped bit is flipped back afterwards: nothing is copied. */
  async #withDamage({ path, kind, at }: Damage, work: (bytes: Buffer) => Promise<void>): Promise<void> {
    const whole = this.files.get(path)!;
    if (kind === "cut") return await work(whole.subarray(0, at));
    whole[at >> 3]! ^= 1 << (at & 7);
    try {
      await work(whole);
    } finally {
      whole[at >> 3]! ^= 1 << (at & 7);
    }
  }

  async #trial(
    { path, kind, at }: Damage,
    bytes: Buffer,
    figures: Figures,
    toPublic: boolean,
    toOwner: boolean,
  ): Promise<void> {
    const fail = (what: string): void => {
      if (figures.failures.length < MAX_FAILURES) figures.failures.push(`${path} ${kind} ${at}: ${what}`);
    };
    const verdict = await this.judge.judge(path, bytes);
    if (isFine(verdict)) figures[kind][verdict] += 1;
    else fail(verdict);
    if (toPublic) {
      figures.sampled += 1;
      const found = await this.#public.judge(path, Buffer.from(bytes));
      if (found !== verdict) fail(`in memory ${verdict}, the public way ${found}`);
    }
    if (toOwner) {
      figures.owned += 1;
      const found = await this.#public.judgeOwned(path, Buffer.from(bytes));
      if (found !== verdict) fail(`a reader: ${verdict}, an owner: ${found}`);
    }
  }
}

function isFine(verdict: Verdict): verdict is "detected" | "harmless" {
  return verdict === "detected" || verdict === "harmless";
}

/** In words, for people. */
export function inWords({ bit, cut, sampled, owned, failures }: Figures): string {
  const one = ({ detected, harmless }: Tally): string => `${detected} detected, ${harmless} harmless`;
  return `${bit.detected + bit.harmless} flips: ${one(bit)}; ${cut.detected + cut.harmless} truncations: ${one(cut)}; silent ${failures.length}; ${sampled} of them also the public way, ${owned} by an owner: all the same`;
}
