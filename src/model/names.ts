/** Names of applications and processes where they become part of a path or a cgroup. Names inside imported events are free text. */

/** 1 to 64 characters; no path can be climbed with it, and nothing hidden or taken for an option. */
export const PATH_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** What lies in a home beside the applications' logs; `.new`: what takes its place (host/replace-file.ts). */
export const HOME_FILES = {
  collectorLock: "collector.lock",
  collectorSocket: "collector.sock",
  session: "collector.session",
  newSession: "collector.session.new",
  ringsLock: "rings.lock",
  ringsSocket: "rings.sock",
} as const;

const RESERVED: ReadonlySet<string> = new Set(Object.values(HOME_FILES));

/** The kernel's files in a cgroup: its core's, and those of its controllers, now or in a later kernel. */
const CGROUP_FILE = /^(?:cgroup|cpu|cpuset|memory|io|irq|pids|hugetlb|rdma|misc|dmem|perf_event|debug)\./;

/** True if it can name an application's log. */
export function isAppName(name: string): boolean {
  return PATH_NAME.test(name) && !isHomeFile(name);
}

/** True for a name that one of our own files has in every home. */
export function isHomeFile(name: string): boolean {
  return RESERVED.has(name);
}

/** True for a name that no cgroup should have: a file of the kernel's has it, or may have it one day. */
export function isCgroupFile(name: string): boolean {
  return CGROUP_FILE.test(name);
}
