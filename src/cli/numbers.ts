/** Numbers on the command line. */
import { RecoveryLineError } from "../model/errors.ts";

/** A decimal integer within [least, greatest]. Throws RL_USAGE naming the option. */
export function integerOption(option: string, text: string, least: number, greatest: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= greatest) return value;
  throw new RecoveryLineError(
    "RL_USAGE",
    `${option} ${text}: an integer from ${least} to ${greatest} is expected`,
    "See --help.",
  );
}
