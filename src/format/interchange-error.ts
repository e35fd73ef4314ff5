import { type ErrorCode, RecoveryLineError } from "../model/errors.ts";

/** Where a line stands, for messages. Lines count from 1; 0 stands for "not from a file". */
export interface InputPlace {
  readonly file: string;
  readonly line: number;
}

const SHOWN_CHARACTERS = 80;
const ADVICE = "Nothing was imported. Correct the line; the format is described in interchange.md.";

/** Bad input by file, line and field; `field` is absent where the line as a whole is wrong. */
export function badInput(
  place: InputPlace,
  field: string | undefined,
  what: string,
  code: ErrorCode = "RL_BAD_INPUT",
): RecoveryLineError {
  const at = field === undefined ? "" : `, field ${quoted(field)}`;
  return new RecoveryLineError(code, `${place.file}, line ${place.line}${at}: ${what}`, ADVICE);
}

/** A value as JSON, cut where it gets long. */
export function quoted(value: unknown): string {
  const text = typeof value === "object" && value !== null ? describeObject(value) : JSON.stringify(value);
  return shortened(text ?? "nothing");
}

export function shortened(text: string): string {
  return text.length <= SHOWN_CHARACTERS ? text : `${text.slice(0, SHOWN_CHARACTERS)}…`;
}

function describeObject(value: object): string {
  return Array.isArray(value) ? "an array" : "an object";
}
