/** One collector a home: an flock on `<home>/collector.lock`, whose text names the holder; and the home is for its owner only. */
import { closeSync, fstatSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import { HOME_FILES } from "../model/names.ts";
import { call, native } from "../native/binding.ts";
import { makeFolders } from "./make-folders.ts";

/** Makes the home (0700) where it is missing. Returns the folders that it has made. Throws RL_NO_RIGHTS, also where others may look into it. */
export function prepareHome(home: string): string[] {
  let made: string[];
  try {
    made = makeFolders(home);
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
  return made;
}

/**
 * Becomes the home's only collector. Returns the function that lets go; told that nothing has come of it, it removes the file if this call has
 * made it. Throws RL_LOCKED with the other one's name and pid.
 */
export function lockHome(home: string): (nothingCame: boolean) => void {
  const path = join(home, HOME_FILES.collectorLock);
  const addon = native();
  const made = makeFile(path);
  const fd = lockFile(home, path);
  writeFileSync(path, `recovery-line collect, process ${process.pid}\n`);
  return (nothingCame) => {
    if (nothingCame && made) rmSync(path, { force: true });
    addon.unlock(fd);
  };
}

/** False: it is there. */
function makeFile(path: string): boolean {
  try {
    closeSync(openSync(path, "wx", 0o600));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return false;
  }
}

/** Of the file that stands at `path`: another one's start that came to nothing may have removed the one before. */
function lockFile(home: string, path: string): number {
  try {
    for (;;) {
      writeFileSync(path, "", { flag: "a", mode: 0o600 });
      const fd = call(path, () => native().lock(path));
      if (fstatSync(fd).ino === statSync(path, { throwIfNoEntry: false })?.ino) return fd;
      native().unlock(fd);
    }
  } catch (error) {
    if (!hasCode(error, "RL_LOCKED")) throw error;
    throw new RecoveryLineError(
      "RL_LOCKED",
      `a collector of ${home} is running already: ${readFileSync(path, "utf8").trim() || "it is just starting"}`,
      "One collector owns a log directory. Stop the other one, or name another directory with --log.",
      error,
    );
  }
}
