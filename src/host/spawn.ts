import * as node from "node:child_process";
import { RecoveryLineError } from "../model/errors.ts";

/**
 * Node's `spawn`, but out of file descriptors: that returns a child without streams then, whose 'error' comes later and would end this
 * process, as nobody can have got as far as to listen for it. Throws RL_SYSTEM instead. All other failures are told by 'error'.
 */
export const spawn = ((program: string, args: readonly string[], options: node.SpawnOptions) => {
  const child = node.spawn(program, args, options);
  if ((child.stdio as unknown) !== undefined) return child;
  child.on("error", () => undefined);
  throw new RecoveryLineError(
    "RL_SYSTEM",
    `${program} can't be started: no file descriptor is left`,
    "Raise the limit of open files (ulimit -n, LimitNOFILE of the unit).",
  );
}) as typeof node.spawn;
