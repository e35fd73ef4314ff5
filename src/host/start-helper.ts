/** The programs of native/wait that bring a command into its cgroup before its first instruction. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { RecoveryLineError } from "../model/errors.ts";
import { packageRoot } from "../native/binding.ts";

/** The helper's own words (native/wait/become.h): io_uring_setup answers ENOSYS; a namespace of its own for System V IPC. */
export const NO_IO_URING = "--no-io-uring";
export const OWN_IPC = "--own-ipc";

/** Its path. `wait` stays and leaves behind how the command ended. Throws RL_NOT_SUPPORTED where it is not built. */
export function startHelper(name: "wait" | "enter"): string {
  const path = join(packageRoot(), `build/Release/recovery-line-${name}`);
  if (existsSync(path)) return path;
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `not supported here: ${path} is not built, and commands are started by it`,
    "Build it: npm rebuild, in the package's folder.",
  );
}
