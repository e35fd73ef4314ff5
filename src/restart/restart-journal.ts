/**
 * What a restart has begun: `<home>/<app>/restart/journal.json`, durable before anything is killed, gone when all is done.
 *
 * `killing` … `recording`: the old processes are (being) killed, nothing new has run yet. Taken up again by starting over with the
 * processes named here as the failed ones. `thawing`: everything is there and recorded; it only has to be let go.
 */

import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ConnectionAddresses } from "../host/port-block.ts";
import { replaceFile, syncFolder } from "../host/replace-file.ts";
import type { ReplacedFile } from "../images/data/mapped-contents.ts";

import type { CheckpointName } from "./plan.ts";
import type { JournalTree } from "./restart-data.ts";

export type RestartPhase = "killing" | "restoring" | "recording" | "thawing";

export interface RestartJournal {
  readonly format: 1;
  readonly application: string;
  readonly phase: RestartPhase;
  /** Processes that are killed and come back, in the order in which they are let go. */
  readonly processes: readonly string[];
  /** Readiness rules of those that start from their commands. Absent: none, or a journal of an older version. */
  readonly ready?: Readonly<Record<string, string>>;
  /** As the call was told. */
  readonly keepSurvivors: boolean;
  readonly fallBack: boolean;
  /** What is overwritten in directory trees is kept after the restart. */
  readonly keepReplaced?: boolean;
  /** Files that may hold something else than at the checkpoint; absent: none. */
  readonly acceptFiles?: readonly string[];
  /** Where each of them goes back to (0: its start), and what it had sent by then, by channel. Absent: a journal of an older version. */
  readonly goesTo?: readonly CheckpointName[];
  readonly sent?: readonly { readonly channel: string; readonly from: number }[];
  /** Checkpoints whose images could not be restored. Absent: none. */
  readonly obstructed?: readonly CheckpointName[];
  /** Directory trees that are put back; what lies there may be a mixture. Absent: none, or a journal of an older version. */
  readonly trees?: readonly JournalTree[];
  /** Connections that come back without their other end and are reset before anybody runs. Absent: none, or as above. */
  readonly resets?: readonly ConnectionAddresses[];
  /** Files outside of them that were mapped, and are put back. Absent: none, or a journal of an older version. */
  readonly mapped?: readonly ReplacedFile[];
}

/** The folder of a restart under way; it also holds edited images. */
export function restartFolder(home: string, app: string): string {
  return join(home, app, "restart");
}

const NAME = "journal.json";

/** What a restart that was cut off had begun; undefined where there is none. */
export async function readJournal(folder: string): Promise<RestartJournal | undefined> {
  try {
    return JSON.parse(await readFile(join(folder, NAME), "utf8")) as RestartJournal; // renamed when it was whole
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Durable on return. */
export async function writeJournal(folder: string, journal: RestartJournal): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const text = `${JSON.stringify(journal, null, 1)}\n`;
  await replaceFile(join(folder, NAME), text, join(folder, `.${NAME}`));
}

/** Also removes what the restart had prepared. */
export async function removeJournal(folder: string): Promise<void> {
  await rm(join(folder, NAME), { force: true });
  await syncFolder(folder).catch(() => undefined); // it may never have been made
  await rm(folder, { recursive: true, force: true });
}
