/** A log directory that somebody else could exchange: reached through a symbolic link that others can put elsewhere. */
import { lstatSync, readlinkSync, type Stats } from "node:fs";
import { dirname, resolve } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";
import { printable } from "../model/printable.ts";

const OTHERS_WRITE = 0o022;
/** As many as the kernel follows. */
const MAX_LINKS = 40;

/**
 * Throws RL_NO_RIGHTS where the way to `path` (absolute) leads through a link that stands in a folder which others can write, sticky or not:
 * they may have made it, and what is written would go where they want. What is not there yet has no links.
 */
export function requireNoForeignLink(path: string): void {
  let rest = partsOf(path);
  let at = "/";
  for (let links = 0; rest.length > 0; ) {
    const [name, ...behind] = rest;
    const here = resolve(at, name!);
    const stat = statOf(here);
    if (stat === undefined) return;
    rest = behind;
    if (!stat.isSymbolicLink()) {
      at = here;
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) return; // whoever opens it is told so
    requireOurFolder(path, here);
    const target = resolve(dirname(here), readlinkSync(here));
    rest = [...partsOf(target), ...behind];
    at = "/";
  }
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "");
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch {
    return undefined; // what can't be looked at can't be used either
  }
}

function requireOurFolder(path: string, link: string): void {
  const folder = dirname(link);
  const { mode, uid } = lstatSync(folder);
  if ((mode & OTHERS_WRITE) === 0 && (uid === 0 || uid === process.geteuid!())) return;
  throw new RecoveryLineError(
    "RL_NO_RIGHTS",
    `${printable(path)} is reached through the symbolic link ${printable(link)}, in a folder that others can write`,
    "They could make it lead elsewhere. Name the directory itself with --log.",
  );
}
