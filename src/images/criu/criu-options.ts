/**
 * CRIU's options that a process may be given (`run --criu-options`): what can't bring back a wrong state. `link-remap` is none: the names
 * that it makes go again when the program goes on after the dump, and no restore finds them.
 */
import { RecoveryLineError } from "../../model/errors.ts";

export interface CriuOptions {
  /** Files without a name any more go into the image up to this size. */
  readonly ghostLimitBytes: number;
}

/** CRIU's own default. */
const GHOST_LIMIT_BYTES = 1 << 20;
/** More would be copied while the process stands still than data may be. */
const MAX_GHOST_BYTES = 1 << 30;
const UNITS = new Map([
  ["", 1],
  ["K", 1 << 10],
  ["M", 1 << 20],
  ["G", 1 << 30],
]);

/** Words as `run` keeps them. Throws RL_USAGE, naming the word. */
export function criuOptions(words: readonly string[]): CriuOptions {
  return words.reduce<CriuOptions>(withWord, { ghostLimitBytes: GHOST_LIMIT_BYTES });
}

function withWord(options: CriuOptions, word: string): CriuOptions {
  const [, count, unit] = /^ghost-limit=(\d+)([KMG]?)$/.exec(word) ?? [];
  const ghostLimitBytes = Number(count) * UNITS.get(unit ?? "")!;
  if (ghostLimitBytes > 0 && ghostLimitBytes <= MAX_GHOST_BYTES) return { ...options, ghostLimitBytes };
  throw new RecoveryLineError(
    "RL_USAGE",
    `--criu-options: ${JSON.stringify(word)} is not an option that can be given`,
    `Known: ghost-limit=SIZE (such as 64M, at most ${MAX_GHOST_BYTES >> 30}G).`,
  );
}

/** For dump and restore alike. */
export function criuArguments({ ghostLimitBytes }: CriuOptions): string[] {
  return ghostLimitBytes === GHOST_LIMIT_BYTES ? [] : ["--ghost-limit", String(ghostLimitBytes)];
}
