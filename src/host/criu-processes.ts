/** Which processes are CRIU, whoever started them, and whom they work on. */
import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";

/** Some process of this machine is CRIU. */
export function criuRuns(): boolean {
  return criuProcesses().length > 0;
}

/** Ids of processes that are CRIU. */
export function criuProcesses(): string[] {
  return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && isCriu(pid));
}

/** By its command line: started by a loader it is not the first word. `--driver criu` is none. */
export function isCriu(pid: string | number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1")
      .split("\0")
      .some((word, at) => basename(word) === "criu" && (at === 0 || word.includes("/")));
  } catch {
    return false; // it has ended
  }
}

/** Who traces one of a process's threads. */
export function tracerOf(pid: number): number | undefined {
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const status = readFileSync(`/proc/${pid}/task/${task}/status`, "utf8");
      const tracer = Number(/^TracerPid:\s*(\d+)/m.exec(status)?.[1] ?? 0);
      if (tracer > 0) return tracer;
    }
  } catch {} // it has ended
  return undefined;
}
