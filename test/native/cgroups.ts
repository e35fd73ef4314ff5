/** Process cgroups of a test: `<cgroup2 root>/<name>-<pid>/<process>`, at level 2. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from "node:fs";

function cgroup2Root(): string {
  for (const line of readFileSync("/proc/mounts", "utf8").split("\n")) {
    const [, path, type] = line.split(" ");
    if (type === "cgroup2" && path !== undefined) return path;
  }
  throw new Error("no cgroup2 here");
}

/** What tests of dead processes left in a folder: `<name>-<pid>`, where names of tests begin with one of these. */
export function leftovers(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /^(rl|ring|bench|recovery-line-test)-.*\d$/.test(name))
    .filter((name) => !existsSync(`/proc/${/\d+$/.exec(name)?.[0]}`))
    .map((name) => `${folder}/${name}`);
}

/** Ends what still runs in the cgroups of a test that was killed, and removes them as far as they are empty by then. */
function removeLeftovers(root: string): void {
  for (const folder of leftovers(root)) {
    writeFileSync(`${folder}/cgroup.kill`, "1");
    const below = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    for (const path of [...below.map(({ name }) => `${folder}/${name}`), folder]) {
      try {
        rmdirSync(path);
      } catch {
        // Its processes are still dying: the next test removes it.
      }
    }
  }
}

export class TestCgroups {
  /** Depth of the process cgroups below the cgroup2 root. */
  readonly level = 2;
  readonly #folder: string;
  readonly #processes: string[] = [];

  constructor(name: string) {
    const root = cgroup2Root();
    removeLeftovers(root);
    this.#folder = `${root}/${name}-${process.pid}`;
    mkdirSync(this.#folder);
  }

  /** Makes the cgroup of a process; returns its id. */
  make(process: string): number {
    const path = `${this.#folder}/${process}`;
    mkdirSync(path);
    this.#processes.push(path);
    return statSync(path).ino;
  }

  path(process: string): string {
    return `${this.#folder}/${process}`;
  }

  /** Starts a program inside the cgroup of a process: it is there before its first instruction. */
  spawn(process: string, command: string, args: readonly string[]): ChildProcess {
    const script = 'echo $$ > "$0" && exec "$@"';
    const procs = `${this.#folder}/${process}/cgroup.procs`;
    return spawn("sh", ["-c", script, procs, command, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  }

  /** Removes the cgroups; their processes must be gone (waits up to 2 s for the last to be reaped). */
  async remove(): Promise<void> {
    for (const path of [...this.#processes.toReversed(), this.#folder]) {
      for (let attempt = 0; ; attempt += 1) {
        try {
          rmdirSync(path);
          break;
        } catch (error) {
          if (attempt === 100) throw error;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    }
  }
}
