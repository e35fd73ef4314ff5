/**
 * `<home>/<app>/policy.log`: what policies of an application were and did, one JSON object a line. Bounded: a full file becomes `policy.log.1`,
 * and the one before that goes. Notes, not evidence: nothing rests on them, and a line that a crash cut off is left out.
 */
import { appendFileSync, existsSync, readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { POLICY_LOG_BYTES } from "../model/limits.ts";
import type { PolicyLogLine } from "../model/plugged-policy.ts";

const NAME = "policy.log";

export class PolicyLog {
  readonly #file: string;
  #bytes: number;

  constructor(folder: string) {
    this.#file = join(folder, NAME);
    this.#bytes = statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** A disk that can't be written loses notes, nothing else. */
  write(line: PolicyLogLine): void {
    const text = `${JSON.stringify(line)}\n`;
    try {
      if (this.#bytes > 0 && this.#bytes + text.length > POLICY_LOG_BYTES) {
        renameSync(this.#file, `${this.#file}.1`);
        this.#bytes = 0;
      }
      appendFileSync(this.#file, text, { mode: 0o600 });
      this.#bytes += Buffer.byteLength(text);
    } catch {}
  }
}

/** True where a policy was ever plugged: a hint for whoever looks for policies. */
export function hasPolicyLog(folder: string): boolean {
  return existsSync(join(folder, NAME));
}

/** Oldest first; empty where no policy was ever plugged. */
export function readPolicyLog(folder: string): PolicyLogLine[] {
  const lines: PolicyLogLine[] = [];
  for (const name of [`${NAME}.1`, NAME]) {
    const file = join(folder, name);
    if (existsSync(file)) lines.push(...readFileSync(file, "utf8").split("\n").flatMap(parsed));
  }
  return lines;
}

function parsed(text: string): PolicyLogLine[] {
  try {
    return text === "" ? [] : [JSON.parse(text) as PolicyLogLine];
  } catch {
    return [];
  }
}
