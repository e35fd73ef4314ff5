/**
 * Makes checkpoint images and removes the older ones, as `gc --apply` does: what it says is "made N", "removing A-B", "removed A-B".
 *
 *   node gc-writer.mjs DIST DIR
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { during, say } from "./during.mjs";

const [dist, dir] = process.argv.slice(2);
const images = await import(`${dist}/gc/collect-images.js`);
const { lockCollection } = await import(`${dist}/log/log-lock.js`);

const PROCESSES = ["a", "b"];
const KEPT = 2;

/** Whole under its own name, or not there. */
function make(process, checkpoint) {
  const folder = join(dir, "images", process);
  const unfinished = join(folder, `.new-${checkpoint}`);
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  for (const name of ["core", "pages"])
    writeFileSync(join(unfinished, name), `${process} ${checkpoint} ${name}`);
  renameSync(unfinished, join(folder, String(checkpoint)));
}

function stored(process) {
  const folder = join(dir, "images", process);
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return names.filter((name) => /^\d+$/.test(name)).map(Number);
}

for (;;) {
  const unlock = await during("gc lock", () => lockCollection(dir));
  await during("gc finish", () => images.finishRemoval(dir));
  for (let turn = 0; turn < 2; turn += 1) {
    const next = 1 + Math.min(...PROCESSES.map((process) => Math.max(0, ...stored(process))));
    await during("rig", () => {
      for (const process of PROCESSES) if (!stored(process).includes(next)) make(process, next);
    });
    say(`made ${next}`);
    const last = next - KEPT;
    const old = PROCESSES.flatMap((process) =>
      stored(process).flatMap((checkpoint) => (checkpoint <= last ? [{ process, checkpoint }] : [])),
    );
    say(`removing ${last}`);
    await during("gc remove", () => images.removeImages(dir, "app", old));
    say(`removed ${last}`);
  }
  unlock();
}
