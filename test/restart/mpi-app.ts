/** A job of Open MPI with Debian's flags as one recorded process: two ranks of test/native/c/mpi_rounds_helper.c. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { packageRoot } from "../../src/native/binding.ts";
import { type Rig, until } from "../daemon/rig.ts";
import { builtOnce } from "../native/c-build.ts";

/** Why no job can be run here; undefined where one can. */
export const mpiMissing = ["/usr/bin/mpirun", "/usr/bin/mpicc"].find((path) => !existsSync(path));

const RANKS = 2;
/** More than come before `stop`. */
const MOST_ROUNDS = 100_000;
const SUM_LIMIT = 1_000_003;

let built: string | undefined;

/** Built once: a job that starts finds the file whole. */
export function mpiRounds(): string {
  built ??= build();
  return built;
}

function build(): string {
  const source = `${packageRoot()}/test/native/c/mpi_rounds_helper.c`;
  return builtOnce("mpi_rounds", (made) => execFileSync("mpicc", ["-O1", "-Wall", "-o", made, source]));
}

/** What rank 0 prints when nothing ever fails: the sum of all ranks' numbers, round by round. */
export function expectedRounds(rounds: number, ranks = RANKS): string[] {
  const lines: string[] = [];
  for (let round = 1, total = 0; round <= rounds; round += 1) {
    total = (ranks * total + (round * ranks * (ranks + 1)) / 2) % SUM_LIMIT;
    lines.push(`${round} ${total}`);
  }
  return lines;
}

export class MpiJob {
  readonly #rig: Rig;
  readonly name: string;
  readonly #session: string | undefined;

  /** `ownSession`: its session directory is a folder of its data; else where Open MPI has it. */
  constructor(rig: Rig, name: string, ownSession = false) {
    this.#rig = rig;
    this.name = name;
    this.#session = ownSession ? rig.path(`${name}-session`) : undefined;
  }

  async start(): Promise<void> {
    if (this.#session !== undefined) mkdirSync(this.#session);
    const data = this.#session === undefined ? [] : ["--data", this.#session];
    const keep = ["--detach", "--output", this.#rig.path(`${this.name}.out`), ...data];
    const place = this.#session === undefined ? [] : ["env", `TMPDIR=${this.#session}`];
    const mpirun = [...place, "mpirun", "--allow-run-as-root", "-np", String(RANKS)];
    expect(
      await this.#rig.cli(
        "run",
        this.#rig.app,
        this.name,
        ...keep,
        "--",
        ...mpirun,
        mpiRounds(),
        `${MOST_ROUNDS}`,
        this.#stop,
      ),
    ).toMatchObject({ code: 0 });
  }

  /** Pids of the ranks: not of mpirun, nor of what it starts them with. */
  ranks(): number[] {
    return [...this.#rig.cgroup(this.name).pids()].filter(
      (pid) => readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "mpi_rounds",
    );
  }

  /** Lines that have come out whole. */
  lines(): string[] {
    return this.#rig.output(this.name).split("\n").slice(0, -1);
  }

  async reaches(more: number): Promise<void> {
    const goal = this.lines().length + more;
    await until(`${this.name} goes on`, () => this.lines().length >= goal);
  }

  get #stop(): string {
    return this.#rig.path(`${this.name}-stop`);
  }

  /** It ends with its next round. */
  stop(): void {
    writeFileSync(this.#stop, "");
  }

  get running(): boolean {
    return this.#rig.cgroup(this.name).populated;
  }
}
