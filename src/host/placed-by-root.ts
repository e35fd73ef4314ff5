/** Where a folder stands: could anybody but root have put it there? */
import { lstatSync } from "node:fs";
import { dirname } from "node:path";

const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/**
 * True if only root can have made, moved or exchanged what `path` (absolute) names: every folder above it is root's own, none a link;
 * the nearest can't be written by others, the rest at most with the sticky bit, which protects what is root's in them.
 */
export function isPlacedByRoot(path: string): boolean {
  let nearest = true;
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const stat = lstatSync(folder, { throwIfNoEntry: false });
    if (stat === undefined || !stat.isDirectory() || stat.uid !== 0) return false;
    if ((stat.mode & OTHERS_WRITE) !== 0 && (nearest || (stat.mode & STICKY) === 0)) return false;
    if (folder === dirname(folder)) return true;
    nearest = false;
  }
}
