/**
 * kill -9 at every named step of a program's work on the disk (c/kill_point.c names them), as often as asked, and a check after each.
 *
 * First the steps are found: a life from nothing that is not killed, then lives that go on from where another was killed, since what
 * they clear up has steps of its own. For each name the folder in which a life met it is kept; every kill begins from a copy of that folder,
 * or, every third one, from what the last kill left.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "../reference/random.ts";

/** A program that is killed. `State`: what must be in the folder by what the program has said. */
export interface Scenario<State> {
  readonly name: string;
  /** Its arguments for node; the folder it works in comes last. */
  readonly program: readonly string[];
  readonly start: State;
  /** Throws where the folder does not hold what it must; what is there may be more. `said`: by the life that was killed. */
  check(dir: string, before: State, said: string): Promise<State>;
  /** A life that has said so many lines will not meet the step any more. */
  readonly lines: number;
  /** The folder is only half of what it lives on (the kernel's ring is the other): every life goes on where the last one ended. */
  readonly chained?: boolean;
}

/** Lives in a row that do not meet a step, count. */
const MAX_MISSES = 3;

interface Life {
  /** It killed itself at the step; false: it was ended from here. */
  readonly met: boolean;
  readonly said: string;
  /** Names of the steps it came by, with repetitions. */
  readonly steps: readonly string[];
}

interface Step<State> {
  /** Copy of the folder in which a life met it; undefined: there was none. */
  readonly folder: string | undefined;
  readonly state: State;
  /** Times that life met it. */
  readonly times: number;
}

export interface Killed {
  /** Kills at each name, count. */
  readonly kills: ReadonlyMap<string, number>;
  /** Kills from outside: of lives that did not meet their step again. */
  readonly others: number;
}

export class KillPoints<State> {
  readonly #scenario: Scenario<State>;
  readonly #library: string;
  readonly #scratch: string;
  readonly #random: Random;
  readonly #steps = new Map<string, Step<State>>();
  readonly #kills = new Map<string, number>();
  readonly #misses = new Map<string, number>();
  #others = 0;
  #folders = 0;
  /** The folder that lives work in; its path is the same for all of them. */
  readonly #root: string;
  #state: State;

  constructor(scenario: Scenario<State>, library: string, scratch: string, random: Random) {
    this.#scenario = scenario;
    this.#library = library;
    this.#scratch = scratch;
    this.#random = random;
    this.#root = join(scratch, "life");
    mkdirSync(this.#root);
    this.#state = scenario.start;
  }

  /** The folder that lives work in. */
  get folder(): string {
    return join(this.#root, "app");
  }

  /** Finds steps by rows of lives, then kills `times` times at each that is wanted, or until `untilMs` (performance.now()). Throws what the check throws, naming the step. */
  async run(times: number, wanted: RegExp, untilMs = Number.POSITIVE_INFINITY): Promise<Killed> {
    const chains = this.#scenario.chained ? 2 : 6;
    const inTime = (): boolean => performance.now() < untilMs;
    for (let chain = 0; chain < chains && inTime(); chain += 1) await this.#explore(inTime);
    for (let time = 0; time < times; time += 1)
      for (const name of [...this.#steps.keys()]) if (wanted.test(name) && inTime()) await this.#killAt(name);
    return { kills: this.#kills, others: this.#others };
  }

  /**
   * Lets each step that writes, syncs, renames, opens or removes fail with each of the errors, `times` times; the program must get over it,
   * and what it acknowledges then must be there. (A file system without locks is refused: RL_NOT_SUPPORTED.) Returns how often which error was met, by step.
   */
  async failAtAll(
    times: number,
    errors: readonly number[],
    wanted: RegExp,
  ): Promise<ReadonlyMap<string, number>> {
    for (let chain = 0; chain < 6; chain += 1) await this.#explore();
    const failed = new Map<string, number>();
    for (const [name, step] of this.#steps) {
      if (!/^(\w+: )?before (?!lock)\w+ \//.test(name) || !wanted.test(name)) continue;
      for (const error of errors)
        for (let time = 0; time < times; time += 1) {
          this.#restore(step);
          const met = await this.#live(name, 1 + this.#random.below(Math.min(step.times, 5)), error);
          if (met) failed.set(name, (failed.get(name) ?? 0) + 1);
        }
    }
    return failed;
  }

  async #explore(inTime: () => boolean = () => true): Promise<void> {
    this.#restore(undefined);
    for (let life = 0; life < 12 && inTime(); life += 1) {
      const names = [...this.#steps.keys()];
      const name = life === 0 ? undefined : names[this.#random.below(names.length)];
      await this.#live(name, 1);
    }
  }

  async #killAt(name: string): Promise<void> {
    const step = this.#steps.get(name)!;
    if (this.#scenario.chained) return this.#killInChain(name, step);
    if (this.#random.below(3) > 0) this.#restore(step);
    if (await this.#live(name, 1 + this.#random.below(Math.min(step.times, 5)))) return;
    this.#restore(step);
    await this.#live(name, 1);
  }

  /** A step that lives seldom meet (the first one's) is given up after a few. */
  async #killInChain(name: string, step: Step<State>): Promise<void> {
    const misses = this.#misses.get(name) ?? 0;
    if (misses >= MAX_MISSES) return;
    const nth = 1 + this.#random.below(Math.min(step.times, 5));
    const met = (await this.#live(name, nth)) || (nth > 1 && (await this.#live(name, 1)));
    this.#misses.set(name, met ? 0 : misses + 1);
  }

  #restore(step: Step<State> | undefined): void {
    if (this.#scenario.chained) return;
    rmSync(this.#root, { recursive: true, force: true });
    mkdirSync(this.#root);
    if (step?.folder !== undefined) cpSync(step.folder, this.#root, { recursive: true });
    this.#state = step?.state ?? this.#scenario.start;
  }

  /** One life, and the check after it. True if it was killed at the step. */
  async #live(name: string | undefined, nth: number, error?: number): Promise<boolean> {
    const before = this.#state;
    const copy = this.#scenario.chained ? undefined : join(this.#scratch, `start-${this.#folders}`);
    if (copy !== undefined) cpSync(this.#root, copy, { recursive: true });
    const life = await this.#spawn(name, nth, error);
    const learned = this.#learn(life.steps, copy, before);
    if (learned) this.#folders += 1;
    else if (copy !== undefined) rmSync(copy, { recursive: true });
    if (life.met) this.#kills.set(name!, (this.#kills.get(name!) ?? 0) + 1);
    else this.#others += 1;
    try {
      this.#state = await this.#scenario.check(this.folder, before, life.said);
    } catch (cause) {
      const how = error === undefined ? "killed" : `error ${error}`;
      throw new Error(`${this.#scenario.name}: ${how} at "${name}", time ${nth}: ${life.said.slice(-500)}`, {
        cause,
      });
    }
    return life.met;
  }

  /** True if there were new ones. */
  #learn(steps: readonly string[], folder: string | undefined, state: State): boolean {
    const times = new Map<string, number>();
    for (const step of steps) times.set(step, (times.get(step) ?? 0) + 1);
    let learned = false;
    for (const [name, count] of times) {
      if (this.#steps.has(name)) continue;
      this.#steps.set(name, { folder, state, times: count });
      learned = true;
    }
    return learned;
  }

  async #spawn(name: string | undefined, nth: number, error?: number): Promise<Life> {
    const log = join(this.#scratch, "steps");
    rmSync(log, { force: true });
    const env = {
      ...process.env,
      LD_PRELOAD: this.#library,
      KILL_DIR: this.#root,
      KILL_LOG: log,
      ...(name === undefined ? {} : { KILL_NAME: name, KILL_NTH: String(nth) }),
      ...(error === undefined ? {} : { FAIL_ERRNO: String(error) }),
    };
    const child = spawn(process.execPath, [...this.#scenario.program, this.folder], {
      stdio: ["ignore", "pipe", "pipe"],
      env,
    });
    let [out, err, ended] = ["", "", false];
    child.stderr.on("data", (text: Buffer) => {
      err += text.toString();
    });
    child.stdout.on("data", (text: Buffer) => {
      out += text.toString();
      if (ended || out.split("\n").length <= this.#scenario.lines) return;
      ended = true;
      child.kill("SIGKILL");
    });
    await once(child, "close");
    if (child.signalCode !== "SIGKILL")
      throw new Error(`${this.#scenario.name}: ended by itself at "${name}": ${out}${err}`);
    const steps = existsSync(log) ? readFileSync(log, "utf8").split("\n").slice(0, -1) : [];
    return { met: name !== undefined && err.includes(`${name}\n`), said: out, steps };
  }
}
