import { execFileSync } from "node:child_process";

const LIMIT_MS = 20_000;
const MAX_ANSWER_BYTES = 2 ** 26;

/** What a program prints; undefined where it is not there, fails, or does not end within `limitMs`. */
export function answerOf(program: string, args: readonly string[], limitMs = LIMIT_MS): string | undefined {
  try {
    return execFileSync(program, args, {
      stdio: ["ignore", "pipe", "ignore"],
      timeout: limitMs,
      maxBuffer: MAX_ANSWER_BYTES,
    })
      .toString()
      .trim();
  } catch {
    return undefined;
  }
}
