/** Where a command's program is, by the same search as execvp's. */
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";

export interface FoundProgram {
  /** May be run; undefined: none may. */
  readonly program: string | undefined;
  /** Is there, and may not. */
  readonly other: string | undefined;
}

/** `searchPath`: the PATH it is started with; `cwd`: where. */
export function findProgram(name: string, searchPath: string, cwd: string): FoundProgram {
  const places = name.includes("/")
    ? [name]
    : searchPath.split(delimiter).map((folder) => join(folder, name));
  const found = places.map((place) => resolve(cwd, place));
  return { program: found.find(isProgram), other: found.find((place) => existsSync(place)) };
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
