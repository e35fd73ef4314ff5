/** What a line undoes of the outside world, for people: bytes by process and connection. Nothing where there is nothing. */

import { channelOfUnit, isUnit } from "../log/complete-cut.ts";
import { counted, printable } from "../model/printable.ts";
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
    passedOnText(unsayable),
  ]
    .filter((part) => part !== "")
    .join("\n");
}

/** A peer may have passed on what is undone, to a process that keeps it: an orphan that no channel shows. */
function passedOnText(unsayable: readonly OutsideRange[]): string {
  const sentences = new Set(
    unsayable.map(({ process, peer = "?", passedOnTo = [] }) => {
      const [from, ...to] = [process, ...passedOnTo].map(printable) as [string, ...string[]];
      if (to.length === 0) return "";
      const names = to.join(", ");
      return `${names} may know what ${from} undoes: ${printable(peer)} took its outputs and has given data to ${names}. Where it passes them on, say --failed ${[from, ...to].join(",")}, or record it.\n`;
    }),
  );
  return [...sentences]
    .filter((sentence) => sentence !== "")
    .slice(0, MAX_ROWS)
    .join("");
}

export function bytesOf(ranges: readonly OutsideRange[]): number {
  return ranges.reduce((sum, range) => sum + bytesIn(range), 0);
}

/** That a connection opened or ended is no byte. */
function bytesIn({ channel, begin, end }: OutsideRange): number {
  return isUnit(channel) ? 0 : end - begin;
}

/** Of one direction of a connection. */
interface Sum {
  readonly process: string;
  readonly channel: string;
  peer: string;
  bytes: number;
}

/** Opening and ending are of their connection. */
function sumsOf(ranges: readonly OutsideRange[]): Sum[] {
  const sums = new Map<string, Sum>();
  for (const range of ranges) {
    const { process, peer = "" } = range;
    const channel = channelOfUnit(range.channel);
    const known = sums.get(channel) ?? { process, channel, peer, bytes: 0 };
    if (known.peer === "") known.peer = peer;
    known.bytes += bytesIn(range);
    sums.set(channel, known);
  }
  return [...sums.values()];
}

/** Of each process with more than one connection. */
function totals(sums: readonly Sum[]): string {
  const all = new Map<string, { bytes: number; connections: number }>();
  for (const { process, bytes } of sums) {
    const known = all.get(process) ?? { bytes: 0, connections: 0 };
    all.set(process, { bytes: known.bytes + bytes, connections: known.connections + 1 });
  }
  return [...all]
    .filter(([, { connections }]) => connections > 1)
    .map(
      ([process, { bytes, connections }]) =>
        `${printable(process)}: ${counted(bytes, "byte")} on ${counted(connections, "connection")}\n`,
    )
    .join("");
}

function section(head: string, ranges: readonly OutsideRange[]): string {
  if (ranges.length === 0) return "";
  const sums = sumsOf(ranges);
  const isNamed = sums.some(({ peer }) => peer !== "");
  const columns = ["PROCESS", "BYTES", "CHANNEL", ...(isNamed ? ["PEER"] : [])];
  const rows = sums
    .slice(0, MAX_ROWS)
    .map(({ process, channel, peer, bytes }) => [
      ...[printable(process), String(bytes), printable(channel)],
      ...(isNamed ? [peer === "" ? "?" : printable(peer)] : []),
    ]);
  const hidden = sums.length - rows.length;
  const more = hidden > 0 ? `... and ${hidden} more channels; --json prints all\n` : "";
  return `${head}\n${table(columns, rows)}${more}${totals(sums)}`;
}
