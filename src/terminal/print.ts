/** What goes to the terminal: escaped text, aligned tables, one JSON object, errors. */
import type { Writable } from "node:stream";

/** Columns padded to their widest cell; the last column is not padded. Cells must be printable already. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const width = head.map((cell, column) =>
    rows.reduce((widest, row) => Math.max(widest, (row[column] ?? "").length), cell.length),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === cells.length - 1 ? cell : cell.padEnd(width[column] as number)))
      .join("  ")
      .trimEnd();
  return [line(head), ...rows.map(line)].map((text) => `${text}\n`).join("");
}

/** Writes and waits until a full pipe has room again, so that no output piles up in memory. */
export async function write(text: string, stream: Writable = process.stdout): Promise<void> {
  if (text === "" || stream.write(text)) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      stream.off("drain", done);
      stream.off("close", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("close", done);
  });
}

/** A list with more elements is written one element a line, as it is made: an answer may be longer than the longest string. */
const INDENTED_ELEMENTS = 1000;
const JSON_PIECE_CHARACTERS = 256 * 1024;

/** Exactly one JSON object, on stdout. */
export async function writeJson(value: object): Promise<void> {
  let separator = "{\n";
  for (const [key, field] of Object.entries(value)) {
    if (field === undefined) continue;
    await write(`${separator}  ${JSON.stringify(key)}: `);
    if (Array.isArray(field) && field.length > INDENTED_ELEMENTS) await writeList(field);
    else await write(JSON.stringify(field, null, 2).replaceAll("\n", "\n  "));
    separator = ",\n";
  }
  await write(separator === "{\n" ? "{}\n" : "\n}\n");
}

async function writeList(elements: readonly unknown[]): Promise<void> {
  let text = "[";
  for (const [index, element] of elements.entries()) {
    text += `${index === 0 ? "" : ","}\n    ${JSON.stringify(element)}`;
    if (text.length < JSON_PIECE_CHARACTERS) continue;
    await write(text);
    text = "";
  }
  await write(`${text}\n  ]`);
}
