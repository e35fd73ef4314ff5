/**
 * Outside trouble: everything that can go wrong and is not a bug of ours.
 *
 * `code` is stable and for programs; `message` says what and where; `advice` says what to do.
 * Misuse of an API is a `TypeError`; a bug of ours is an `AssertionError` from `assert.ts`.
 */
export type ErrorCode =
  | "RL_USAGE" // wrong flags or arguments
  | "RL_BAD_INPUT" // an input file breaks interchange.md
  | "RL_BAD_RECORD" // bytes from a ring break the slot layout
  | "RL_BAD_BLOCK" // bytes of a log block break logs-format.md
  | "RL_CORRUPT_LOG" // the log's own integrity check failed
  | "RL_CONTRADICTION" // evidence that cannot all be true
  | "RL_UNKNOWN_APP"
  | "RL_UNKNOWN_PROCESS"
  | "RL_REFUSED" // evidence is missing: no safe answer exists
  | "RL_REJECTED" // the verifier rejected our own line: never printed
  | "RL_NOT_SUPPORTED" // this machine lacks it; message names the reason and the floor
  | "RL_VERSION" // the other side speaks another version of the protocol
  | "RL_NO_RIGHTS"
  | "RL_LOCKED" // another process owns it
  | "RL_NO_COLLECTOR"
  | "RL_LOG_WRITE" // disk full, I/O error
  | "RL_SYSTEM" // the operating system refused a call that nothing above knows more about
  | "RL_LIMIT" // a bound in limits.ts was reached
  | "RL_TIMEOUT"
  | "RL_DRIVER" // a checkpoint driver failed
  | "RL_WORKER" // a pool worker died
  | "RL_ATTACH"; // the attach helper of a collector without rights died

export class RecoveryLineError extends Error {
  override readonly name = "RecoveryLineError";
  readonly code: ErrorCode;
  readonly advice: string;

  constructor(code: ErrorCode, message: string, advice = "", cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.advice = advice;
  }
}

/** True for errors of ours with the given code. */
export function hasCode(error: unknown, code: ErrorCode): error is RecoveryLineError {
  return error instanceof RecoveryLineError && error.code === code;
}
