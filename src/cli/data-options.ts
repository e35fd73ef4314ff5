/** `--data` and `--data-limit`, of the commands that take them. */
import { integerOption } from "./numbers.ts";

export interface DataFlags {
  readonly data?: readonly string[];
  readonly dataLimit?: number;
}

export function dataLimit(text: string): number {
  return integerOption("--data-limit", text, 0, Number.MAX_SAFE_INTEGER);
}
