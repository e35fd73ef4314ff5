/** Which folders `--data` names, and how much of them may be copied while their process stands still. */
import { realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { DATA_LIMIT_BYTES } from "../images/data/save-tree.ts";
import { isBelowAny, refuseOverlaps } from "../images/data/tree-users.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { ProcessData } from "../model/stored-process.ts";
import type { DataFlags } from "./data-options.ts";

/**
 * Throws RL_USAGE for what is no folder, a limit without folders, and one that holds the log directory or lies in it; RL_REFUSED for two
 * of which one holds the other.
 */
export function dataOf(process: string, { data = [], dataLimit }: DataFlags, home: string): ProcessData {
  if (dataLimit !== undefined && data.length === 0)
    throw usage("--data-limit is for --data DIR", "Give both, or none.");
  const roots = data.map(realFolder);
  refuseOverlaps(roots.map((root) => ({ process, root })));
  const homeFolder = statSync(home, { throwIfNoEntry: false }) === undefined ? home : realpathSync(home);
  for (const root of roots)
    if (isBelowAny([root], homeFolder) || isBelowAny([homeFolder], root))
      throw usage(
        `--data ${root} and the log directory ${homeFolder} hold one another`,
        "Name a folder that neither holds the log directory nor lies in it: a restart puts back all that is below it.",
      );
  return { roots, limitBytes: dataLimit ?? DATA_LIMIT_BYTES };
}

function realFolder(folder: string): string {
  try {
    const real = realpathSync(resolve(folder));
    if (statSync(real).isDirectory()) return real;
  } catch (cause) {
    throw usage(`--data ${folder}: ${(cause as Error).message}`, "Name folders that are there.", cause);
  }
  throw usage(`--data ${folder} is no folder`, "Name folders.");
}

function usage(message: string, advice: string, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError("RL_USAGE", message, advice, cause);
}
