/** Where logs live (docs/internals.md, "Names"): --log DIR, else $RECOVERY_LINE_HOME, else the system's or the user's state directory. */

import { statSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { requireNoForeignLink } from "../host/foreign-links.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { isCgroupFile, isHomeFile, PATH_NAME } from "../model/names.ts";

/**
 * The home directory of all logs, absolute. An empty $RECOVERY_LINE_HOME counts as unset; an empty --log is a variable of the caller's that
 * is unset, and would silently mean another log. Throws RL_USAGE for that, RL_NO_RIGHTS (foreign-links.ts).
 */
export function resolveHome(logOption?: string): string {
  const home = homeOf(logOption);
  requireNoForeignLink(home);
  return home;
}

function homeOf(logOption: string | undefined): string {
  if (logOption === "")
    throw new RecoveryLineError(
      "RL_USAGE",
      "--log has an empty name",
      "Name a directory; leave the option out for the default one.",
    );
  if (logOption !== undefined) return resolve(logOption);
  const home = process.env["RECOVERY_LINE_HOME"];
  if (home) return resolve(home);
  if (process.getuid?.() === 0) return "/var/lib/recovery-line";
  return join(process.env["XDG_STATE_HOME"] || join(homedir(), ".local", "state"), "recovery-line");
}

/** The same for commands that write there, or act on what stands there: a home of this user's, or none yet. Throws RL_NO_RIGHTS. */
export function ownHome(logOption?: string): string {
  const home = resolveHome(logOption);
  requireOwn(home);
  return home;
}

/** Throws RL_NO_RIGHTS for a home that belongs to somebody else (collect --user gives it away). */
export function requireOwn(home: string): void {
  const owner = statSync(home, { throwIfNoEntry: false })?.uid;
  if (owner === undefined || owner === process.geteuid!()) return;
  if (process.geteuid!() !== 0)
    throw new RecoveryLineError(
      "RL_NO_RIGHTS",
      `the log directory ${home} belongs to ${owner === 0 ? "root" : `user ${owner}`}: only ${owner === 0 ? "root" : "that user"} may do this there`,
      "Call it as that user, or name another directory with --log.",
    );
  throw new RecoveryLineError(
    "RL_NO_RIGHTS",
    `the log directory ${home} belongs to user ${owner}: root would act on what that user can write, images and commands to start among it`,
    "Checkpoint and restart are for a collector without --user; import and gc --apply as that user.",
  );
}

/** The name of an application or process becomes a directory: anything else than the pattern of README "Names" is wrong use. */
export function checkedAppName(
  name: string,
  what: "application" | "process" | "group" = "application",
): string {
  if (what === "application" && isHomeFile(name))
    throw reserved(name, what, "A file of the collector's has that name in every log directory.");
  if (PATH_NAME.test(name)) return name;
  throw new RecoveryLineError(
    "RL_USAGE",
    `${JSON.stringify(name)} is no ${what} name`,
    "A name starts with a letter or digit and has at most 64 letters, digits, '.', '_' or '-'.",
  );
}

/** The names of a process that gets a cgroup: `<app>/<process>`, where the kernel has files of its own. Throws RL_USAGE. */
export function checkCgroupNames(app: string, process: string): void {
  for (const [name, what] of [
    [checkedAppName(app), "application"],
    [checkedAppName(process, "process"), "process"],
  ] as const)
    if (isCgroupFile(name)) throw reserved(name, what, "The kernel's own files of a cgroup are named so.");
}

function reserved(name: string, what: string, why: string): RecoveryLineError {
  return new RecoveryLineError(
    "RL_USAGE",
    `${JSON.stringify(name)} is no ${what} name: it is reserved`,
    `${why} Take another name.`,
  );
}

/** The log directory of one application. Throws RL_USAGE for a name that is none, RL_NO_RIGHTS (foreign-links.ts). */
export function appDirectory(home: string, app: string): string {
  const directory = join(home, checkedAppName(app));
  requireNoForeignLink(directory);
  return directory;
}

/** The homes that `--log` names, or the default one. Throws RL_USAGE for one named twice. */
export function homesOf(log: readonly string[] | undefined): string[] {
  if (log === undefined) return [resolveHome()];
  const homes = log.map((dir) => resolveHome(dir));
  const twice = homes.find((home, at) => homes.indexOf(home) !== at);
  if (twice === undefined) return homes;
  throw new RecoveryLineError("RL_USAGE", `--log names ${resolve(twice)} twice`, "Name each directory once.");
}
