/** The images that an application's log names, byte by byte against their checksums. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { decodeBlock } from "../format/block.ts";
import { openImage } from "../images/image-store.ts";
import type { LogReport } from "../log/verify-log.ts";
import { appBlocks } from "../logs/app-logs.ts";
import { appDirectory } from "../logs/home.ts";
import { hasCode } from "../model/errors.ts";

export interface ImageReport {
  /** That are stored, count. */
  readonly images: number;
  readonly damages: LogReport["damages"];
}

/** What `gc` has removed, or removes meanwhile, is no damage. */
export async function verifyImages(home: string, app: string): Promise<ImageReport> {
  const dir = appDirectory(home, app);
  const isStored = (reference: string): boolean =>
    reference.startsWith("images/") && existsSync(join(dir, reference.split("#")[0]!));
  const damages: LogReport["damages"][number][] = [];
  let images = 0;
  if (existsSync(join(dir, "images")))
    for (const [reference, place] of await referencesIn(home, app)) {
      if (!isStored(reference)) continue;
      images += 1;
      try {
        await openImage(home, app, reference);
      } catch (error) {
        if (!hasCode(error, "RL_REFUSED")) throw error;
        if (isStored(reference)) damages.push({ place, why: error.message });
      }
    }
  return { images, damages };
}

/** The image of each checkpoint of the log, and what to call it. */
async function referencesIn(home: string, app: string): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for await (const block of appBlocks(home, app))
    for (const event of decodeBlock(block).columns.extras.values())
      if (event.type === "checkpoint" && event.image !== undefined)
        found.set(event.image, `checkpoint ${event.checkpoint} of ${event.process}`);
  return found;
}
