/** What stands in the way of commands that start again from their initial state, as finished jobs do whose work the line undoes. */
import { statSync } from "node:fs";
import { dirname } from "node:path";
import { findProgram } from "../host/find-program.ts";
import { isBelowAny } from "../images/data/tree-users.ts";
import type { StartRecipe } from "../model/stored-process.ts";

/** A sentence each. `roots`: folders that are put back. */
export function startObstacles(
  { command, cwd, env, output }: StartRecipe,
  roots: readonly string[],
): string[] {
  const isPut = (path: string): boolean => isBelowAny(roots, path);
  const folder = output === undefined ? cwd : dirname(output.path);
  return [
    ...(isPut(cwd) || isFolder(cwd)
      ? []
      : [`it has to start again in ${cwd}, which is no folder any more: put it back`]),
    ...(isPut(folder) || isFolder(folder) || folder === cwd
      ? []
      : [`its output goes to ${output!.path}, and there is no folder ${folder} any more: put it back`]),
    ...programObstacle(command[0]!, env["PATH"] ?? "", cwd, isPut),
  ];
}

function programObstacle(
  name: string,
  searchPath: string,
  cwd: string,
  isPut: (path: string) => boolean,
): string[] {
  const { program, other } = findProgram(name, searchPath, cwd);
  if (program !== undefined || (name.startsWith("/") && isPut(name))) return [];
  const why = other === undefined ? "is gone" : `may not be run any more (${other})`;
  return [`it has to start again, and its program ${name} ${why}: put it back`];
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
