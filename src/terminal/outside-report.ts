/** What a line undoes of the outside world, for people: bytes by process and channel. Nothing where there is nothing. */

import { printable } from "../model/printable.ts";
import type { OutsideRange } from "../model/recovery-line.ts";
import { table } from "./print.ts";

export interface OutsideLists {
  readonly lostInputs: readonly OutsideRange[];
  readonly unsayable: readonly OutsideRange[];
}

/** Rows of a table, count; --json prints all. */
const MAX_ROWS = 1000;

export function outsideText({ lostInputs, unsayable }: OutsideLists): string {
  return [
    section(
      "Lost inputs: received from outside behind the line; nobody sends them again by itself.",
      lostInputs,
    ),
    section("Unsayable outputs: sent outside behind the line, and known there.", unsayable),
  ]
    .filter((part) => part !== "")
    .join("\n");
}

export function bytesOf(ranges: readonly OutsideRange[]): number {
  return ranges.reduce((sum, { begin, end }) => sum + end - begin, 0);
}

/** Ranges of one channel follow each other. */
function section(head: string, ranges: readonly OutsideRange[]): string {
  if (ranges.length === 0) return "";
  const sums: { process: string; channel: string; bytes: number }[] = [];
  for (const { process, channel, begin, end } of ranges) {
    const last = sums.at(-1);
    if (last?.channel === channel) last.bytes += end - begin;
    else sums.push({ process, channel, bytes: end - begin });
  }
  const rows = sums
    .slice(0, MAX_ROWS)
    .map(({ process, channel, bytes }) => [printable(process), String(bytes), printable(channel)]);
  const hidden = sums.length - rows.length;
  const more = hidden > 0 ? `... and ${hidden} more channels; --json prints all\n` : "";
  return `${head}\n${table(["PROCESS", "BYTES", "CHANNEL"], rows)}${more}`;
}
