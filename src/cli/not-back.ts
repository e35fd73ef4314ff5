/** What came back and ended at once: a restart that only looks well ended. */

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { CollectorClient } from "../client/client.ts";
import { ProcessCgroup } from "../host/cgroups.ts";
import { END_WORD_MS } from "../model/limits.ts";
import { printable, printableSentence } from "../model/printable.ts";
import { type Life, lifeText, livesOf } from "../terminal/process-life.ts";

export interface NotBack {
  readonly process: string;
  readonly state: Life["state"];
  readonly exitCode?: number;
  readonly signal?: number;
  /** Of its --output. */
  readonly lastLines: readonly string[];
}

const LOOK_MS = 20;
/** What is not told then is said not to be known: an end that may have been a failure is no success. */
const TOLD_MS = 5 * END_WORD_MS;
const TAIL_BYTES = 2048;
const TAIL_LINES = 5;

/** Watches processes for a while; returns those that ended, and not with exit code 0 as far as anybody knows. */
export async function endedAtOnce(
  collector: CollectorClient,
  app: string,
  names: readonly string[],
  watchMs: number,
): Promise<NotBack[]> {
  const deadlineMs = performance.now() + watchMs;
  const lives = (name: string): boolean => new ProcessCgroup(app, name).populated;
  while (performance.now() < deadlineMs && names.some(lives)) await sleep(LOOK_MS);
  const ended = names.filter((name) => !lives(name));
  if (ended.length === 0) return [];
  await collector.drain();
  const found: NotBack[] = [];
  // Who waits for a process may say how it ended also when the collector has given up to wait for that.
  const told = await livesOf(
    async () => (await collector.processes()).filter((one) => one.app === app && ended.includes(one.process)),
    TOLD_MS,
    () => true,
  );
  for (const [{ process }, { state, exitCode, signal }] of told) {
    if (state !== "failed" && state !== "killed" && state !== "exited") continue;
    found.push({
      process,
      state,
      ...(exitCode === undefined ? {} : { exitCode }),
      ...(signal === undefined ? {} : { signal }),
      lastLines: lastLines((await collector.startRecipe(app, process))?.output?.path),
    });
  }
  return found;
}

function lastLines(path: string | undefined): string[] {
  if (path === undefined) return [];
  try {
    const file = openSync(path, "r");
    try {
      const { size } = fstatSync(file);
      const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES));
      readSync(file, bytes, 0, bytes.length, size - bytes.length);
      return bytes
        .toString()
        .split("\n")
        .filter((line) => line !== "")
        .slice(-TAIL_LINES);
    } finally {
      closeSync(file);
    }
  } catch {
    return []; // it is gone, or may not be read
  }
}

export function notBackText(found: readonly NotBack[]): string {
  return found
    .map(({ process, lastLines: lines, ...life }) => {
      const said = lines.length === 0 ? "" : `; its last lines: ${lines.map(printableSentence).join(" | ")}`;
      const how = life.state === "exited" ? "nobody knows how" : lifeText({ ...life, left: [] });
      return `recovery-line: ${printable(process)} is not back, it ended at once: ${how}${said}\n`;
    })
    .join("");
}

export function notReadyText(names: readonly string[]): string {
  return names
    .map((name) => `recovery-line: ${printable(name)} did not become ready, as its --ready says\n`)
    .join("");
}
