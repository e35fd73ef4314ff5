/** Checkpoints by a program's own command: at a moment at which nobody talks to it, found by trying. */
import { readFileSync } from "node:fs";
import type { ProcessCgroup } from "../host/cgroups.ts";
import { whileFrozen } from "../host/freeze.ts";
import { atSomeMoment } from "../images/driver.ts";
import { type Hook, HookDriver } from "../images/hook/driver-hook.ts";
import { RecoveryLineError } from "../model/errors.ts";
import {
  type CheckpointOptions,
  type CheckpointResult,
  type CheckpointTarget,
  checkpointTogether,
} from "./checkpoint.ts";

/**
 * All peers stand still meanwhile, so that nothing new arrives; the process itself runs only while its command does. A moment with an
 * open connection, or in which bytes moved, is given up and another one tried. Throws RL_DRIVER after MOMENT_TRIES, and what
 * `checkpointTogether` throws.
 */
export async function checkpointByHook(
  target: CheckpointTarget,
  hook: Hook,
  peers: readonly ProcessCgroup[],
  options: Omit<CheckpointOptions, "driver">,
): Promise<CheckpointResult> {
  const driver = new HookDriver(hook);
  const numbers = new Map<string, number>();
  const [result] = await atSomeMoment(() =>
    whileFrozen(peers, () => checkpointTogether([target], { ...options, driver, numbers })),
  );
  return result!;
}

/**
 * Hooks by process from a JSON file: `{"db": {"checkpoint": "…", "restore": "…", "cwd": "/…"}}`. Throws RL_USAGE, naming file and field.
 */
export function readHooks(file: string): Map<string, Hook> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw usage(file, (cause as Error).message, cause);
  }
  if (!isObject(value)) throw usage(file, "it holds no JSON object");
  return new Map(Object.entries(value).map(([process, hook]) => [process, hookOf(file, process, hook)]));
}

function hookOf(file: string, process: string, value: unknown): Hook {
  if (!isObject(value)) throw usage(file, `"${process}" is no object`);
  for (const field of Object.keys(value))
    if (!["checkpoint", "restore", "cwd"].includes(field))
      throw usage(file, `"${process}" has an unknown field "${field}"`);
  const text = (field: string): string => {
    const found = value[field];
    if (typeof found === "string" && found !== "") return found;
    throw usage(file, `"${process}": the field "${field}" is no command`);
  };
  const hook = { checkpoint: text("checkpoint"), restore: text("restore") };
  if (value["cwd"] === undefined) return hook;
  if (!text("cwd").startsWith("/")) throw usage(file, `"${process}": cwd is no absolute path`);
  return { ...hook, cwd: text("cwd") };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function usage(file: string, why: string, cause?: unknown): RecoveryLineError {
  return new RecoveryLineError(
    "RL_USAGE",
    `hooks file ${file}: ${why}`,
    '{"process": {"checkpoint": "command", "restore": "command"}}',
    cause,
  );
}
