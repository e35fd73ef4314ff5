/**
 * What of the payload log no longer counts: undone at a restart, or pruned. `<app>/payload/forgotten`, a line an entry:
 * CRC-32 of the JSON as 8 hex digits, a space, the JSON. An entry speaks of bytes that stand before its place in the log, so bytes
 * that a restarted sender sends at the same offsets count again. Whoever appends holds the lock of the collection (collect-images.ts).
 */

import { constants } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { replaceFile, syncFolder } from "../host/replace-file.ts";

import { RecoveryLineError } from "../model/errors.ts";

/** A place in the log: every byte of an older segment, and of this segment before `position`, lies before it. */
export interface ForgottenPlace {
  readonly segment: number;
  readonly position: number;
}

export interface Forgotten extends ForgottenPlace {
  readonly channel: string;
  readonly begin: number;
  readonly end: number;
}

const NAME = "forgotten";
const LINE = /^([0-9a-f]{8}) (.*)$/;

/**
 * All entries, oldest first. Throws RL_CORRUPT_LOG where one is damaged: what it said must not count would count again. A last line
 * without its end was never acknowledged.
 */
export async function readForgotten(folder: string): Promise<Forgotten[]> {
  const text = await textOf(folder);
  const lines = text.split("\n");
  lines.pop();
  return lines.map((line, index) => {
    const [, checksum, json] = LINE.exec(line) ?? [];
    if (json !== undefined && hex(crc32(json)) === checksum) return JSON.parse(json) as Forgotten;
    throw new RecoveryLineError(
      "RL_CORRUPT_LOG",
      `${join(folder, NAME)}, line ${index + 1}, is damaged`,
      "No byte of this payload log can be trusted any more. Move its folder away; recording starts anew.",
    );
  });
}

/** Durable on return. */
export async function appendForgotten(folder: string, entries: readonly Forgotten[]): Promise<void> {
  if (entries.length === 0) return;
  const whole = wholeBytes(await textOf(folder));
  const file = await open(
    join(folder, NAME),
    constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW,
    0o600,
  );
  try {
    await file.truncate(whole); // what a crash left of a line
    await file.write(printed(entries), whole);
    await file.sync();
  } finally {
    await file.close();
  }
  await syncFolder(folder);
}

/** Puts these in place of all entries, as a whole or not at all. */
export async function rewriteForgotten(folder: string, entries: readonly Forgotten[]): Promise<void> {
  await replaceFile(join(folder, NAME), printed(entries), join(folder, `${NAME}.partial`));
}

async function textOf(folder: string): Promise<string> {
  return readFile(join(folder, NAME), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
}

const wholeBytes = (text: string): number => Buffer.byteLength(text.slice(0, text.lastIndexOf("\n") + 1));

function printed(entries: readonly Forgotten[]): string {
  return entries
    .map(({ channel, begin, end, segment, position }) => {
      const json = JSON.stringify({ channel, begin, end, segment, position });
      return `${hex(crc32(json))} ${json}\n`;
    })
    .join("");
}

const hex = (value: number): string => value.toString(16).padStart(8, "0");
