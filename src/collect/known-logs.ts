/**
 * The logs that a home holds when a collector starts.
 *
 * One application's damaged log must not keep the others from being recorded: where nothing of that application runs, its
 * log is passed over, loudly. It stays closed until somebody registers a process of it, and that fails for as long as the
 * log can't be opened. Where something of it runs, nobody could record it, and going on would hide that.
 */

import { readdir } from "node:fs/promises";
import { lockedBy } from "../host/wait-for-lock.ts";
import type { UnreadableLog } from "../model/collector-answers.ts";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { LOG_FREE_MS } from "../model/limits.ts";
import { isAppName } from "../model/names.ts";
import type { AppLog } from "./app-log.ts";

interface KnownLogs {
  readonly home: string;
  make(name: string): AppLog;
  /** True if processes of the application are there now. */
  runs(app: string): boolean;
  skipped(log: UnreadableLog): void;
  /** Somebody reads the log of an application that runs, as the error tells; it is waited for. */
  waits(why: RecoveryLineError): void;
  /** Nothing of the application runs; its log is closed then. */
  ended(app: AppLog): void;
}

/** The logs with live processes, open. Throws what opening one throws whose application runs. */
export async function* openKnownLogs({
  home,
  make,
  runs,
  skipped,
  waits,
  ended,
}: KnownLogs): AsyncGenerator<AppLog> {
  const deadlineMs = performance.now() + LOG_FREE_MS;
  for (const entry of await readdir(home, { withFileTypes: true })) {
    if (!entry.isDirectory() || !isAppName(entry.name)) continue;
    const app = make(entry.name);
    try {
      if (runs(app.name)) await openFree(app, deadlineMs, waits);
      else await app.open(false);
    } catch (error) {
      if (hasCode(error, "RL_UNKNOWN_APP")) continue; // its maker died before the first commit, or it is something else
      if (!(error instanceof RecoveryLineError)) throw error;
      if (runs(app.name)) throw whileItRuns(app.name, error);
      skipped({ app: app.name, code: error.code, message: error.message });
      continue;
    }
    if (app.hasLive) yield app;
    else {
      ended(app);
      await app.close();
    }
  }
}

/** A command that reads the log of a home without a collector lets go of it once it is done. */
async function openFree(app: AppLog, deadlineMs: number, waits: KnownLogs["waits"]): Promise<void> {
  try {
    await app.open(false);
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    waits(error);
    await lockedBy(deadlineMs, () => app.open(false));
  }
}

function whileItRuns(app: string, error: RecoveryLineError): RecoveryLineError {
  return new RecoveryLineError(
    error.code,
    `${error.message}; processes of ${app} are running, and nobody could record them`,
    `End them, or move the log away. ${error.advice}`,
    error,
  );
}
