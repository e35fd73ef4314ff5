/**
 * Whom CRIU runs as while it takes an image. It asks the kernel for limits of each process (prlimit), which of other users' processes
 * takes CAP_SYS_RESOURCE. Where that is lacking, as in many containers, it runs as the program's own user, with all other rights.
 */
import { readFileSync } from "node:fs";
import { capabilities, hasCapability } from "../../host/capabilities.ts";
import { programName } from "../../host/process-tree.ts";
import { RecoveryLineError } from "../../model/errors.ts";

export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** Undefined: as whoever we are. Throws RL_NOT_SUPPORTED for processes of several users without that right. */
export function dumpUser(pids: readonly number[]): User | undefined {
  if (mayImageOthers()) return undefined;
  const tasks = pids.map((pid) => ({ pid, status: statusOf(pid) })).filter(({ status }) => status !== "");
  const users = new Set(tasks.flatMap(({ status }) => ids(status, "Uid")));
  users.delete(process.geteuid!());
  if (users.size === 0) return undefined;
  const [first] = tasks;
  const all = new Set(tasks.flatMap(({ status }) => ids(status, "Uid")));
  const groups = new Set(tasks.flatMap(({ status }) => ids(status, "Gid")));
  if (all.size === 1 && groups.size === 1) return { uid: [...all][0]!, gid: [...groups][0]! };
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    `criu: not supported here: process ${first!.pid} (${programName(first!.pid)}) and those it started are of several users (${[...all].join(", ")}), and images of other users' processes take CAP_SYS_RESOURCE`,
    "Give the checkpoint that right, or run the whole program as one user.",
  );
}

/** True if processes of any user can be imaged from here. */
export function mayImageOthers(): boolean {
  return hasCapability("CAP_SYS_RESOURCE");
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return ""; // it has ended
  }
}

/** Real, effective, saved, of the file system. */
function ids(status: string, field: "Uid" | "Gid"): number[] {
  const found = new RegExp(`^${field}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";
  return found.split(/\s+/).map(Number);
}

/** The words before a command that it then runs as, with all rights that we have. */
export function asUser({ uid, gid }: User): string[] {
  const names = capabilities()
    .map((bit) => `+cap_${bit}`)
    .join(",");
  const identity = [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"];
  return ["setpriv", ...identity, `--inh-caps=${names}`, `--ambient-caps=${names}`, "--"];
}
