import { expect } from "vitest";
import { RecoveryLineError } from "../../src/model/errors.ts";

/** What `work` throws, which must be an error of ours. */
export function wrongOf(work: () => unknown): RecoveryLineError {
  try {
    work();
  } catch (error) {
    if (error instanceof RecoveryLineError) return error;
    throw error;
  }
  expect.unreachable("it throws");
}
