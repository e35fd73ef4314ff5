/** Text that is safe to show, and counts in words. */

/**
 * Control characters, line separators, direction overrides and lone surrogates: whatever could move the cursor, colour the terminal
 * or make a name look like another one.
 */
export const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

export function escapeCharacter(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\t") return "\\t";
  const code = character.codePointAt(0) as number;
  return code < 0x100
    ? `\\x${code.toString(16).padStart(2, "0")}`
    : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** A name from evidence, safe to show. `\` itself is doubled so that no name can look like an escape. */
export function printable(text: string): string {
  return text.replaceAll("\\", "\\\\").replace(UNPRINTABLE, escapeCharacter);
}

/** A sentence of ours that may hold names: like `printable`, but backslashes stay single (our sentences quote names as JSON). */
export function printableSentence(text: string): string {
  return text.replace(UNPRINTABLE, escapeCharacter);
}

/** "1 process", "2 processes". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** One word of a command line that a person may copy, in quotes where a shell needs them. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
