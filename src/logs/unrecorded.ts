/**
 * Processes of a log that go on (or went on) without being written down: the log says that they are recorded, and no collector holds it.
 *
 * What they did since stands in the kernel's ring, if anywhere. So the end of their log is not their end, and no line may let them
 * continue from it: a message they received meanwhile from a process that goes back would be an orphan. They can stand at what is on
 * record only, as failed processes do. The same is true of entities whose memory rings nobody took to their end.
 */

import { hasCode } from "../model/errors.ts";
import { counted, printable } from "../model/printable.ts";
import type { StoredProcess } from "../model/stored-process.ts";
import { openLog } from "./app-blocks.ts";
import { appDirectory } from "./home.ts";

/** From the state of a log that no collector holds (keys: `collect/app-log.ts`). Imported logs have none. */
export function unrecordedIn(log: { getState(key: string): unknown }): string[] {
  const names = (log.getState("processes") ?? []) as readonly string[];
  const rings = (log.getState("rings") ?? []) as readonly string[];
  const live = names.filter(
    (name) => (log.getState(`process/${name}`) as StoredProcess | undefined)?.live === true,
  );
  return [...new Set([...live, ...rings])];
}

/** The same of an application in several homes. */
export async function unrecordedProcesses(homes: readonly string[], app: string): Promise<string[]> {
  const { connectCollector } = await import("../client/client.ts");
  const names: string[] = [];
  for (const home of homes) {
    const collector = await connectCollector(home);
    collector?.close();
    if (collector === undefined) names.push(...(await unrecordedOf(appDirectory(home, app))));
  }
  return names;
}

async function unrecordedOf(dir: string): Promise<string[]> {
  try {
    const reader = await openLog(dir);
    try {
      return unrecordedIn(reader);
    } finally {
      await reader.close();
    }
  } catch (error) {
    if (hasCode(error, "RL_UNKNOWN_APP")) return []; // told of already, or assumed lost
    throw error;
  }
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
    "Start the collector (it takes up what the kernel's ring still holds) and compute again.\n"
  );
}
