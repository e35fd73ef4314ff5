/**
 * What collections leave of an application's images, by process: `<home>/<app>/gc/kept.json`, written before the first image goes. Of the
 * checkpoints up to `upTo` only these have theirs still; any other image that the log names and the disk lacks is damage (`verify`).
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../host/replace-file.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { type Evidence, HAS_IMAGE } from "../model/evidence-layout.ts";
import { type CollectPlan, checkpointKey } from "./gc.ts";

export interface Kept {
  /** Index of the newest checkpoint that a collection knew. */
  readonly upTo: number;
  /** Indices of checkpoints, rising. */
  readonly images: readonly number[];
}

/** By process. */
export type KeptImages = ReadonlyMap<string, Kept>;

const keptPath = (dir: string): string => join(dir, "gc", "kept.json");

/** Images of checkpoints in effect that don't go with this plan. */
export function keptBy({ obsolete }: CollectPlan, { processes, segments }: Evidence): KeptImages {
  const { start, index, flags } = segments;
  const goes = new Set(obsolete.map(checkpointKey));
  const kept = (process: string, number: number): Kept => {
    const images: number[] = [];
    const [from, to] = [start[number] as number, start[number + 1] as number];
    for (let s = from; s < to; s += 1) {
      const checkpoint = index[s] as number;
      if (((flags[s] as number) & HAS_IMAGE) !== 0 && !goes.has(checkpointKey({ process, checkpoint })))
        images.push(checkpoint);
    }
    return { upTo: index[to - 1] as number, images };
  };
  return new Map(processes.map((process, number) => [process, kept(process, number)]));
}

/** Nothing where nothing was ever collected. Throws RL_CORRUPT_LOG. */
export async function readKept(dir: string): Promise<KeptImages> {
  const text = await readFile(keptPath(dir), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  const kept = text === undefined ? new Map() : parsed(text);
  if (kept !== undefined) return kept;
  throw new RecoveryLineError(
    "RL_CORRUPT_LOG",
    `${keptPath(dir)} does not say which images collections have left`,
    "`recovery-line gc --apply` writes it anew.",
  );
}

/** What went once does not come back, whatever a later collection would keep. The caller holds the lock of the collection. */
export async function noteKept(dir: string, now: KeptImages): Promise<void> {
  const noted = new Map(await readKept(dir).catch(() => new Map<string, Kept>()));
  for (const [process, { upTo, images }] of now) {
    const before = noted.get(process) ?? { upTo: 0, images: [] };
    noted.set(process, {
      upTo: Math.max(upTo, before.upTo),
      images: images.filter((index) => index > before.upTo || before.images.includes(index)),
    });
  }
  await replaceFile(keptPath(dir), `${JSON.stringify({ format: 1, kept: [...noted] })}\n`);
}

/** Whether a collection may have removed this image. */
export function mayBeGone(kept: KeptImages, process: string, checkpoint: number): boolean {
  const known = kept.get(process);
  return known !== undefined && checkpoint <= known.upTo && !known.images.includes(checkpoint);
}

function parsed(text: string): KeptImages | undefined {
  try {
    const { format, kept } = JSON.parse(text) as { format?: unknown; kept?: [string, Kept][] };
    const whole =
      format === 1 &&
      kept?.every(
        ([process, { upTo, images }]) =>
          typeof process === "string" && [upTo, ...images].every((index) => Number.isSafeInteger(index)),
      );
    return whole ? new Map(kept) : undefined;
  } catch {
    return undefined;
  }
}
