import { cpus, release, totalmem } from "node:os";

/** One measured figure beside its floor, both from the same run. */
export interface Figure {
  /** What was measured, with its unit. */
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** The floor: the least work that could possibly do the job (memcpy, a bare put loop, one pass over the edges). */
  readonly floor?: { readonly name: string; readonly value: number };
  /** The goal as a sentence, and whether this run met it. */
  readonly goal?: string;
  readonly met?: boolean;
}

/** The machine kind in one line: enough to compare runs, nothing that names a host. */
export function machine(): string {
  const [cpu] = cpus();
  return `${cpu?.model.trim() ?? "unknown CPU"}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release().split("-")[0]}, Node ${process.version}`;
}

function number(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3);
}

/** Prints a heading, the machine, and a line a figure: value, floor, ratio to the floor, goal. */
export function report(title: string, figures: readonly Figure[]): void {
  console.log(`# ${title}\n# ${machine()}`);
  for (const { name, value, unit, floor, goal, met } of figures) {
    const beside =
      floor === undefined
        ? ""
        : ` | floor ${floor.name}: ${number(floor.value)} ${unit} | ratio ${number(value / floor.value)}`;
    const verdict = goal === undefined ? "" : ` | goal ${goal}: ${met ? "met" : "NOT MET"}`;
    console.log(`${name}: ${number(value)} ${unit}${beside}${verdict}`);
  }
  console.log("");
}

/** Runs `work` `times` times and returns the median of its results: one slow run on a noisy machine decides nothing. */
export async function median(times: number, work: () => number | Promise<number>): Promise<number> {
  const results: number[] = [];
  for (let run = 0; run < times; run += 1) results.push(await work());
  return medianOf(results);
}

/** The middle one; NaN of nothing. */
export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
