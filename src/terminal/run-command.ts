/** Our own commands as child processes, shown as a user would type them: what the demos are made of. */
import { once } from "node:events";
import { spawn } from "../host/spawn.ts";
import { RecoveryLineError } from "../model/errors.ts";
import { compiledFile } from "../native/binding.ts";
import { EXIT } from "./exit-codes.ts";
import { write } from "./print.ts";

/** The program itself, to be run with this process's Node. */
export const MAIN = compiledFile("cli/main.js");

/** Prints the command line; words that would need quotes are left out. */
export function showCommand(args: readonly string[]): Promise<void> {
  return write(`$ recovery-line ${args.map((word) => (/[\s'"{]/.test(word) ? "'…'" : word)).join(" ")}\n`);
}

/** Shows and runs it, output on the terminal (or nowhere). Throws RL_DRIVER where it ends with another code than `allowed`. */
export async function runCommand(
  args: readonly string[],
  allowed: readonly number[] = [EXIT.clean, EXIT.tainted],
  output: "inherit" | "ignore" = "inherit",
): Promise<void> {
  await showCommand(args);
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", output, "inherit"] });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code === null || !allowed.includes(code)) throw commandFailed(args[0]!, code);
}

/** Shows and runs it; what it ends with is its answer: false where it could not do it. Throws RL_DRIVER where a signal ended it. */
export async function triedCommand(args: readonly string[]): Promise<boolean> {
  await showCommand(args);
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "inherit", "inherit"] });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code === null) throw commandFailed(args[0]!, code);
  return code === EXIT.clean;
}

/** Its answer with --json, unseen. Throws RL_DRIVER where it gives none. */
export async function askCommand<T>(args: readonly string[]): Promise<T> {
  const child = spawn(process.execPath, [MAIN, ...args, "--json"], { stdio: ["ignore", "pipe", "inherit"] });
  const parts: Buffer[] = [];
  child.stdout.on("data", (part: Buffer) => parts.push(part));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== EXIT.clean && code !== EXIT.tainted) throw commandFailed(args[0]!, code);
  return JSON.parse(Buffer.concat(parts).toString()) as T;
}

export function commandFailed(command: string, code: number | null): RecoveryLineError {
  return new RecoveryLineError(
    "RL_DRIVER",
    `recovery-line ${command} ended with ${code ?? "a signal"}`,
    "What it said stands above.",
  );
}
