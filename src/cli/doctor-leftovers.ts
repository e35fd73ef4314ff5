/** What `doctor` tells of leftovers of dead programs, and `doctor --sweep` removes. */

import { printable, printableSentence } from "../model/printable.ts";
import { table } from "../terminal/print.ts";

interface LeftBehind {
  readonly kind: string;
  readonly name: string;
  readonly why: string;
  /** removed: it is gone · removable: --sweep would · kept: somebody has to decide · failed: `why` says what stood against it. */
  readonly state: "removed" | "removable" | "kept" | "failed";
}

/** Looks, and with `sweep` removes. */
export async function leftBehind(home: string, sweep: boolean): Promise<LeftBehind[]> {
  const { leftovers } = await import("../daemon/leftovers.ts");
  const told: LeftBehind[] = [];
  for (const { kind, name, why, remove } of await leftovers(home)) {
    const one = { kind, name, why };
    if (remove === undefined) told.push({ ...one, state: "kept" });
    else if (!sweep) told.push({ ...one, state: "removable" });
    else told.push(await removed(one, remove));
  }
  return told;
}

async function removed(one: Omit<LeftBehind, "state">, remove: () => Promise<void>): Promise<LeftBehind> {
  try {
    await remove();
    return { ...one, state: "removed" };
  } catch (error) {
    return { ...one, state: "failed", why: `${(error as Error).message}.` };
  }
}

/** Empty where nothing was left. */
export function leftoverReport(left: readonly LeftBehind[]): string {
  if (left.length === 0) return "";
  const rows = left.map(({ kind, name, state, why }) => [
    kind,
    printable(name),
    state,
    printableSentence(why),
  ]);
  const advice = left.some(({ state }) => state === "removable")
    ? "doctor --sweep removes what is removable.\n"
    : "";
  return `${table(["left behind", "where", "state", "why"], rows)}${advice}\n`;
}
