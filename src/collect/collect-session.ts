/**
 * Numbers the collector's sessions of one home. An application whose log was away while a session ran missed records
 * that the ring has let go since; it finds that out by comparing its last session with this file.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { makeFolders } from "../host/make-folders.ts";
import { replaceFile } from "../host/replace-file.ts";
import { HOME_FILES } from "../model/names.ts";

const FILE = HOME_FILES.session;

/** The newest session that began with all applications of the home; 0 if none ever did. Makes the home, mode 0700. */
export async function lastSession(home: string): Promise<number> {
  makeFolders(home);
  const text = await readFile(join(home, FILE), "utf8").catch(() => "0");
  return Number.parseInt(text, 10) || 0;
}

/** Durable on return. */
export async function beginSession(home: string, session: number): Promise<void> {
  await replaceFile(join(home, FILE), `${session}\n`);
}
