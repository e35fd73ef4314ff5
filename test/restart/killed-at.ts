/** Kills -9 of a restart at named steps of its work on the disk (test/campaign/c/kill_point.c names them). */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { packageRoot } from "../../src/native/binding.ts";
import { main as CLI } from "../built.ts";
import type { Ended, Rig } from "../daemon/rig.ts";

/** The library that kills. */
export function killPoints(rig: Rig): string {
  const library = rig.path("kill_point.so");
  const source = join(packageRoot(), "test/campaign/c/kill_point.c");
  execFileSync("cc", ["-shared", "-fPIC", "-o", library, source, "-ldl"]);
  return library;
}

/** `restart`, killed at a point; its path begins at the folder that the home lies in. */
export async function restartKilledAt(
  rig: Rig,
  library: string,
  point: string,
  nth = 1,
  ...args: string[]
): Promise<Ended & { signal: string | null }> {
  const env = {
    ...process.env,
    RECOVERY_LINE_HOME: rig.home,
    LD_PRELOAD: library,
    KILL_DIR: dirname(rig.home),
    KILL_NAME: point,
    KILL_NTH: String(nth),
  };
  const child = spawn(process.execPath, [CLI, "restart", rig.app, ...args], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (text: Buffer) => {
    out += text.toString();
  });
  child.stderr.on("data", (text: Buffer) => {
    err += text.toString();
  });
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  return { code, signal, out, err };
}

/** As kill_point.c writes paths. */
export function kind(path: string): string {
  return path.replaceAll(/\d+/g, "N");
}
