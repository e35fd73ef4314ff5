/** States on disk: `checkpoint-<index>` beside the log, whole or not at all; its SHA-256 stands in the log. */

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../host/replace-file.ts";

export type SavedState = Uint8Array | JsonValue;
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

/** First byte of the file: what the rest is. */
const RAW = 0;
const JSON_TEXT = 1;

const STATE_FILE = /^checkpoint-(\d+)$/;

export function checkpointFile(index: number | ""): string {
  return `checkpoint-${index}`;
}

/** The file's bytes and their SHA-256. Throws TypeError for what JSON can't hold. */
export function encodeState(state: SavedState): { bytes: Buffer; sha256: string } {
  const raw = state instanceof Uint8Array;
  const text = raw ? undefined : JSON.stringify(state);
  if (!raw && text === undefined) throw new TypeError("a state is bytes or a JSON value");
  const bytes = Buffer.concat([Buffer.of(raw ? RAW : JSON_TEXT), raw ? state : Buffer.from(text!)]);
  return { bytes, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/** Durable under its name on return. */
export async function writeState(folder: string, index: number, bytes: Buffer): Promise<void> {
  await replaceFile(join(folder, checkpointFile(index)), bytes, join(folder, `.partial-${index}`));
}

/** The state, or undefined where the file is missing or not what the log says. */
export function readState(folder: string, index: number, sha256: string): SavedState | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(join(folder, checkpointFile(index)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  if (createHash("sha256").update(bytes).digest("hex") !== sha256) return undefined;
  const rest = bytes.subarray(1);
  return bytes[0] === RAW ? rest : (JSON.parse(rest.toString()) as JsonValue);
}

export function hasState(folder: string, index: number): boolean {
  return existsSync(join(folder, checkpointFile(index)));
}

/** Removes all up to one: a crash may have left others than the newest of these. */
export async function removeStates(folder: string, upTo: number): Promise<void> {
  const old = (await readdir(folder)).filter((name) => {
    const index = STATE_FILE.exec(name)?.[1];
    return index !== undefined && Number(index) <= upTo;
  });
  for (const name of old) await rm(join(folder, name), { force: true });
}
