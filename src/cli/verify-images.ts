/** The images that an application's log names, byte by byte against their checksums. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { decodeBlock } from "../format/block.ts";
import { mayBeGone, readKept } from "../gc/kept-images.ts";
import { openImage } from "../images/image-store.ts";
import type { LogReport } from "../log/verify-log.ts";
import { appBlocks } from "../logs/app-logs.ts";
import { appDirectory } from "../logs/home.ts";
import { hasCode } from "../model/errors.ts";
import { recordedIn } from "../terminal/process-life.ts";

export interface ImageReport {
  /** That are stored, count. */
  readonly images: number;
  readonly damages: LogReport["damages"];
}

/** What `gc` has removed, or removes meanwhile, is no damage, nor what no line can need as a rollback undid it; nor is what was never here, as the log was imported. */
export async function verifyImages(home: string, app: string): Promise<ImageReport> {
  const dir = appDirectory(home, app);
  const recorded = await recordedIn(home, app);
  if (recorded.size === 0 && !existsSync(join(dir, "images"))) return { images: 0, damages: [] };
  const isStored = (reference: string): boolean => existsSync(join(dir, reference.split("#")[0]!));
  const damages: LogReport["damages"][number][] = [];
  const gone: Named[] = [];
  let images = 0;
  for (const one of await namedIn(home, app)) {
    if (!isStored(one.reference)) {
      gone.push(one);
      continue;
    }
    images += 1;
    try {
      await openImage(home, app, one.reference);
    } catch (error) {
      if (!hasCode(error, "RL_REFUSED")) throw error;
      if (isStored(one.reference)) damages.push({ place: placeOf(one), why: error.message });
      else gone.push(one);
    }
  }
  return { images, damages: [...damages, ...(await missing(dir, recorded, gone))] };
}

/** Of what is not there: what should be. A collection leaves word before it removes anything. */
async function missing(
  dir: string,
  recorded: ReadonlySet<string>,
  gone: readonly Named[],
): Promise<LogReport["damages"]> {
  if (gone.length === 0) return [];
  const kept = await readKept(dir);
  return gone
    .filter(({ undone }) => !undone)
    .filter(({ process, checkpoint }) => recorded.has(process) && !mayBeGone(kept, process, checkpoint))
    .map((one) => ({
      place: placeOf(one),
      why: `its image ${join(dir, one.reference.split("#")[0]!)} is missing, and gc has not removed it`,
    }));
}

/** An image of ours that the log names. */
interface Named {
  readonly process: string;
  readonly checkpoint: number;
  readonly reference: string;
  /** By a rollback. */
  undone: boolean;
}

function placeOf({ process, checkpoint }: Named): string {
  return `checkpoint ${checkpoint} of ${process}`;
}

async function namedIn(home: string, app: string): Promise<readonly Named[]> {
  const found: Named[] = [];
  const inEffect = new Map<string, Named[]>();
  for await (const block of appBlocks(home, app))
    for (const event of decodeBlock(block).columns.extras.values()) {
      const { process } = event;
      const own = inEffect.get(process) ?? [];
      inEffect.set(process, own);
      if (event.type === "rollback")
        while ((own.at(-1)?.checkpoint ?? 0) > event.checkpoint) own.pop()!.undone = true;
      if (event.type !== "checkpoint" || !event.image?.startsWith("images/")) continue;
      const one = { process, checkpoint: event.checkpoint, reference: event.image, undone: false };
      found.push(one);
      own.push(one);
    }
  return found;
}
