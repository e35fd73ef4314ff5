/** A policy's text and places in it, and the one way to say what is wrong there. */
import { RecoveryLineError } from "../model/errors.ts";
import { firstWhere } from "../model/search.ts";
import { nearestWord } from "./nearest-word.ts";

export class PolicyText {
  readonly file: string;
  readonly text: string;
  readonly #lines: number[] = [0];

  constructor(file: string, text: string) {
    this.file = file;
    this.text = text;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) this.#lines.push(at + 1);
  }

  /** Line and column, both from 1; a column is a character. */
  place(offset: number): { line: number; column: number } {
    const line = firstWhere(1, this.#lines.length, (at) => (this.#lines[at] as number) > offset);
    const column = [...this.text.slice(this.#lines[line - 1], offset)].length + 1;
    return { line, column };
  }

  /** RL_BAD_INPUT at an offset. `allowed`: what may stand there; `word`: what does, for the nearest of them. */
  wrong(offset: number, what: string, allowed: readonly string[] = [], word?: string): RecoveryLineError {
    const { line, column } = this.place(offset);
    return wrongAt(this.file, line, column, what, allowed, word);
  }
}

const MAX_LISTED = 60;

export function wrongAt(
  file: string,
  line: number,
  column: number,
  what: string,
  allowed: readonly string[] = [],
  word?: string,
): RecoveryLineError {
  const near = word === undefined ? undefined : nearestWord(word, allowed);
  const advice = [
    near === undefined ? "" : `Did you mean ${near}?`,
    allowed.length === 0 ? "" : `Allowed here: ${allowed.slice(0, MAX_LISTED).join(", ")}.`,
  ];
  const text = advice.filter((part) => part !== "").join(" ");
  return new RecoveryLineError("RL_BAD_INPUT", `${file}:${line}:${column}: ${what}`, text);
}
