/** Exit codes, as interchange.md fixes them. */
import type { ErrorCode } from "../model/errors.ts";
import { RecoveryLineError } from "../model/errors.ts";
import type { Outcome } from "../model/recovery-line.ts";

export const EXIT = { clean: 0, other: 1, usage: 2, tainted: 3, refused: 4, corrupt: 5 } as const;

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  RL_USAGE: EXIT.usage,
  RL_BAD_INPUT: EXIT.usage,
  RL_CONTRADICTION: EXIT.usage,
  RL_UNKNOWN_APP: EXIT.usage,
  RL_UNKNOWN_PROCESS: EXIT.usage,
  RL_REFUSED: EXIT.refused,
  RL_CORRUPT_LOG: EXIT.corrupt,
  RL_BAD_BLOCK: EXIT.corrupt,
};

/** The exit code of whatever an action threw. */
export function exitCodeOf(error: unknown): number {
  return (error instanceof RecoveryLineError && BY_CODE[error.code]) || EXIT.other;
}

/** The exit code of a line that was printed. */
export function exitCodeOfOutcome(outcome: Outcome): number {
  return outcome === "clean" ? EXIT.clean : EXIT.tainted;
}

/** What `--json` prints as `outcome` next to an error. */
export function failureOutcome(exitCode: number): "refused" | "corrupt" | "error" {
  if (exitCode === EXIT.refused) return "refused";
  return exitCode === EXIT.corrupt ? "corrupt" : "error";
}

/** What the operating system refuses (no space, no right, no such file) is outside trouble, whoever let it through. */
export function outsideTrouble(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof RecoveryLineError) return error;
  const { syscall, code } = error as NodeJS.ErrnoException;
  if (syscall === undefined || code === undefined) return error;
  return new RecoveryLineError(
    "RL_SYSTEM",
    `the operating system refused: ${error.message}`,
    "Free space, correct the rights or the path, whatever it names, and call again.",
    error,
  );
}
