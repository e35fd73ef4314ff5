/** Builds native/dsm for tests and starts its kernels. */
import { execFile, execFileSync } from "node:child_process";
import { promisify } from "node:util";
import { packageRoot } from "../../src/native/binding.ts";

/** Makes the library and the kernels; returns their folder. */
export function makeDsm(sanitize?: string): string {
  const flags = sanitize === undefined ? [] : [`SANITIZE=${sanitize}`];
  execFileSync("make", ["-s", "-C", `${packageRoot()}/native/dsm`, ...flags]);
  return `${packageRoot()}/build/dsm${sanitize === undefined ? "" : `-${sanitize.replaceAll(",", "-")}`}`;
}

export interface KernelResult {
  readonly kernel: string;
  readonly processes: number;
  readonly correct: boolean;
  readonly seconds: number;
  readonly copiesReceived: number;
  readonly invalidations: number;
  readonly records: number;
  readonly recordsLost: number;
}

/** Runs a kernel to its end; throws where it exits with anything but 0. */
export async function runKernel(folder: string, ...words: readonly string[]): Promise<KernelResult> {
  const { stdout } = await promisify(execFile)(`${folder}/dsm-kernels`, words, { timeout: 50_000 });
  return JSON.parse(stdout.trim().split("\n").at(-1) as string) as KernelResult;
}
