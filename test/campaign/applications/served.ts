/**
 * Real servers in five rounds of checkpoint, load, kill -9 of a random process, restart. A client outside counts what it was told is done:
 * of its numbers 1, 2, 3, … those told before the checkpoint are there after the restart, each once, and none that was asked for after it.
 */
import { AssertionError } from "node:assert";
import { setTimeout as sleep } from "node:timers/promises";
import { seeded } from "../../../src/demo/seeded.ts";
import { type Rig, until } from "../../daemon/rig.ts";

export interface Served {
  /** Of its processes, as they are recorded. */
  readonly names: readonly string[];
  start(): Promise<void>;
  /** Has one number put in; resolves when told that it is done. Rejects where no answer came. */
  put(number: number): Promise<void>;
  /** The numbers that are there, in order, as it tells itself; also looks whether all else of its state agrees with them. */
  numbers(): Promise<readonly number[]>;
  /** Its own checker. Throws where that finds anything. */
  check(): Promise<void>;
  /** How many there are by now, of one that goes on by itself. */
  reached?(): Promise<number>;
  /** It has gone on after the restart before it is asked: what came after the line must be right by itself. */
  readonly goesOn?: true;
  /** What can be looked at only when it is over. */
  end?(): Promise<void>;
}

const ROUNDS = 5;
/** To see whether the whole process ends with one of its own. */
const DEATH_MS = 3000;
const ANSWER_MS = 60_000;

export interface Told {
  readonly outcome: "exact" | "refused" | "failed" | "wrong";
  readonly detail: string;
  readonly restartMs: readonly number[];
}

export async function fiveRounds(rig: Rig, seed: number, app: Served): Promise<Told> {
  const random = seeded(seed);
  const restartMs: number[] = [];
  const killed: string[] = [];
  await rig.collect();
  await app.start();
  const client = new Client(app);
  for (let round = 0; round < ROUNDS; round += 1) {
    await client.load(5 + random(20));
    const within = await client.during(() => rig.json("checkpoint", rig.app, "--coordinated"));
    await client.load(5 + random(20));
    const victim = await killOne(rig, app.names, random);
    killed.push(victim.what);
    const { code, out, err } = await rig.cli("restart", rig.app, ...victim.failed, "--json");
    if (code !== 0)
      return {
        outcome: code === 4 ? "refused" : "failed",
        detail: `${victim.what}: ${out}${err}`,
        restartMs,
      };
    restartMs.push((JSON.parse(out) as { phasesMs: { total: number } }).phasesMs.total);
    const wrong = await client.judge(within);
    if (wrong !== undefined)
      return { outcome: "wrong", detail: `after ${killed.join(", ")}: ${wrong}`, restartMs };
    await app.check();
  }
  await app.end?.();
  return { outcome: "exact", detail: `killed: ${killed.join(", ")}`, restartMs };
}

interface Within {
  /** Told done before the checkpoint. */
  readonly least: number;
  /** Asked for before it had ended. */
  readonly most: number;
}

class Client {
  readonly #app: Served;
  #last = 0;

  constructor(app: Served) {
    this.#app = app;
  }

  async load(count: number): Promise<void> {
    for (let done = 0; done < count; done += 1) {
      await this.#app.put(this.#last + 1);
      this.#last += 1;
    }
  }

  /** Goes on asking while `work` runs. */
  async during(work: () => Promise<unknown>): Promise<Within> {
    const least = this.#last;
    const over = new AbortController();
    const loop = (async () => {
      while (!over.signal.aborted) await this.load(1);
    })();
    try {
      await work();
    } finally {
      over.abort();
      await loop;
    }
    const reached = (await this.#app.reached?.()) ?? 0;
    return {
      least,
      most: this.#app.goesOn === true ? Number.POSITIVE_INFINITY : Math.max(reached, this.#last),
    };
  }

  /** What is wrong with what is there; undefined: nothing. */
  async judge({ least, most }: Within): Promise<string | undefined> {
    let there: readonly number[] | undefined;
    await until(
      "it answers after the restart",
      async () => {
        there = await this.#app.numbers().catch((error: unknown) => {
          if (error instanceof AssertionError) throw error;
          return undefined;
        });
        return there !== undefined;
      },
      ANSWER_MS,
    );
    const hole = there!.findIndex((number, at) => number !== at + 1);
    if (hole >= 0) return `number ${there![hole]} stands in place ${hole + 1} of ${there!.length}`;
    if (there!.length < least || there!.length > most)
      return `${there!.length} numbers are there, and ${least} were told before the checkpoint, ${most} asked for before its end`;
    this.#last = there!.length;
    return undefined;
  }
}

/** One task of one of them. Where the rest of it goes on without, it has failed all the same, and that has to be said. */
async function killOne(
  rig: Rig,
  names: readonly string[],
  random: (limit: number) => number,
): Promise<{ what: string; failed: string[] }> {
  const name = names[random(names.length)]!;
  const cgroup = rig.cgroup(name);
  const pids = [...cgroup.pids()];
  const at = random(pids.length);
  process.kill(pids[at]!, "SIGKILL");
  const deadlineMs = Date.now() + DEATH_MS;
  while (cgroup.populated && Date.now() < deadlineMs) await sleep(20);
  const what = `${at + 1} of ${pids.length} of ${name}`;
  return cgroup.populated
    ? { what: `${what}, the rest went on`, failed: ["--failed", name] }
    : { what, failed: [] };
}
