/** One collector a home: an flock on `<home>/collector.lock`, whose text names the holder; and the home is for its owner only. */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { HOME_FILES } from "../model/names.ts";
import { call, native } from "../native/binding.ts";
import { makeFolders } from "./make-folders.ts";

/** Makes the home (0700) where it is missing. Throws RL_NO_RIGHTS, also where others may look into it. */
export function prepareHome(home: string): void {
  try {
    makeFolders(home);
  } catch (cause) {
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      `the log directory ${home} cannot be made: ${(cause as Error).message}`,
      "Name another one with --log.",
      cause,
    );
  }
  const { mode, uid } = statSync(home);
  if ((mode & 0o077) !== 0 || uid !== process.geteuid!())
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      `the log directory ${home} is open to other users: it must be mode 0700 and your own`,
      `chmod 700 ${home}, or name another one with --log.`,
    );
}

/** Becomes the home's only collector. Returns the function that lets go. Throws RL_LOCKED with the other one's name and pid. */
export function lockHome(home: string): () => void {
  const path = join(home, HOME_FILES.collectorLock);
  const addon = native();
  let fd: number;
  try {
    writeFileSync(path, "", { flag: "a", mode: 0o600 });
    fd = call(path, () => addon.lock(path));
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_LOCKED",
      `a collector of ${home} is running already: ${readFileSync(path, "utf8").trim() || "it is just starting"}`,
      "One collector owns a log directory. Stop the other one, or name another directory with --log.",
      error,
    );
  }
  writeFileSync(path, `recovery-line collect, process ${process.pid}\n`);
  return () => addon.unlock(fd);
}
