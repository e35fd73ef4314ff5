/** Terminals that processes have open: an image that holds one whose other end is elsewhere can't be restored. */
import { readdirSync } from "node:fs";
import { linkOf } from "./open-connections.ts";

const TERMINAL = /^\/dev\/(pts\/\d+|tty\w*|console)$/;

/** One of them; undefined where there is none, or its other end is among the processes. */
export function terminalOf(pids: readonly number[]): string | undefined {
  const paths = pids.flatMap(openPaths);
  return paths.some((path) => path.endsWith("ptmx")) ? undefined : paths.find((path) => TERMINAL.test(path));
}

function openPaths(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`)); // some may be closed meanwhile
  } catch {
    return []; // it has ended
  }
}
