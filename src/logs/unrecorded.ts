/**
 * Processes of a log that go on (or went on) without being written down: the log says that they are recorded, and no collector holds it, or
 * the one that does can't write it.
 *
 * What they did since stands in the kernel's ring, if anywhere. So the end of their log is not their end, and no line may let them
 * continue from it: a message they received meanwhile from a process that goes back would be an orphan. They can stand at what is on
 * record only, as failed processes do. The same is true of entities whose memory rings nobody took to their end.
 */

import { counted, printable } from "../model/printable.ts";
import type { StoredProcess } from "../model/stored-process.ts";

/** From the state of a log that no collector holds (keys: `collect/app-log.ts`). Imported logs have none. */
export function unrecordedIn(log: { getState(key: string): unknown }): string[] {
  const names = (log.getState("processes") ?? []) as readonly string[];
  const rings = (log.getState("rings") ?? []) as readonly string[];
  const live = names.filter(
    (name) => (log.getState(`process/${name}`) as StoredProcess | undefined)?.live === true,
  );
  return [...new Set([...live, ...rings])];
}

/** `failed` and those that can't continue either. Undefined (everybody failed) stays. */
export function withUnrecorded(
  failed: readonly string[] | undefined,
  unrecorded: readonly string[],
): readonly string[] | undefined {
  return failed === undefined ? undefined : [...new Set([...failed, ...unrecorded])];
}

/** The unrecorded ones that count as failed though nobody said so. */
export function countedAsFailed(
  failed: readonly string[] | undefined,
  unrecorded: readonly string[],
): string[] {
  return failed === undefined ? [] : unrecorded.filter((name) => !failed.includes(name)).sort();
}

const SHOWN = 20;

/** For people: whose end is unknown, and what to do. */
export function unrecordedText(names: readonly string[]): string {
  if (names.length === 0) return "";
  const shown = names.slice(0, SHOWN).map(printable).join(", ");
  const more = names.length > SHOWN ? `, … (${counted(names.length, "process", "processes")})` : "";
  return (
    `No collector records ${shown}${more} now: what happened there after the end of the log is unknown, so no line may keep it.\n` +
    "Start the collector (it takes up what the kernel's ring still holds), or give its log room where it can't be written, and compute again.\n"
  );
}
