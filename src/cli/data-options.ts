/** `--data` and `--data-limit`, of the commands that take them. */
import { integerOption } from "./numbers.ts";

export interface DataFlags {
  readonly data?: readonly string[];
  readonly dataLimit?: number;
}

/** For commander: an option that may be given several times. */
export function another(folder: string, before: readonly string[] = []): string[] {
  return [...before, folder];
}

export function dataLimit(text: string): number {
  return integerOption("--data-limit", text, 0, Number.MAX_SAFE_INTEGER);
}
