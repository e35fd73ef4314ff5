/**
 * Whom CRIU runs as while it takes an image. It asks the kernel for limits of each process (prlimit), which of other users' processes
 * takes CAP_SYS_RESOURCE. Where that is lacking, as in many containers, it runs as the program's own user, with all other rights.
 */
import { readFileSync } from "node:fs";
import { programName } from "../../host/process-tree.ts";
import { RecoveryLineError } from "../../model/errors.ts";

export interface User {
  readonly uid: number;
  readonly gid: number;
}

const CAP_SYS_RESOURCE = 24;

/** Undefined: as whoever we are. Throws RL_NOT_SUPPORTED for processes of several users without that right. */
export function dumpUser(pids: readonly number[]): User | undefined {
  const ours = statusOf("self");
  if (hasResourceRight(ours)) return undefined;
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
  return hasResourceRight(statusOf("self"));
}

function statusOf(pid: number | "self"): string {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return ""; // it has ended
  }
}

function capabilities(status: string): bigint {
  return BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
}

function hasResourceRight(status: string): boolean {
  return ((capabilities(status) >> BigInt(CAP_SYS_RESOURCE)) & 1n) === 1n;
}

/** Real, effective, saved, of the file system. */
function ids(status: string, field: "Uid" | "Gid"): number[] {
  const found = new RegExp(`^${field}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";
  return found.split(/\s+/).map(Number);
}

/** The words before a command that it then runs as, with all rights that we have. */
export function asUser({ uid, gid }: User): string[] {
  const effective = capabilities(statusOf("self"));
  const names = [...Array(64).keys()]
    .filter((bit) => ((effective >> BigInt(bit)) & 1n) === 1n)
    .map((bit) => `+cap_${bit}`)
    .join(",");
  const identity = [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"];
  return ["setpriv", ...identity, `--inh-caps=${names}`, `--ambient-caps=${names}`, "--"];
}
