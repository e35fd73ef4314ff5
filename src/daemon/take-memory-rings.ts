/** The collector takes memory rings of instrumented runtimes at `<home>/rings.sock` (0600; peers of root and its own user). */

import { type MemoryRings, openMemoryRings } from "../capture/memory-rings.ts";
import type { Collector } from "../collect/collect.ts";
import { RingTaker } from "../collect/ring-taker.ts";
import { RecoveryLineError } from "../model/errors.ts";

type Tell = (sentence: string) => void;

/**
 * Returns what ends it: takes what is there, then lets the runtimes go: they stop, their ends stay unknown.
 * Undefined, and a word to `onTrouble`, where somebody else (`collect-rings`) takes the rings of this home.
 */
export function takeMemoryRings(
  collector: Collector,
  home: string,
  onTrouble: Tell,
): (() => Promise<void>) | undefined {
  const rings = opened(home, onTrouble);
  if (rings === undefined) return undefined;
  const taker = new RingTaker(rings, collector);
  let stopping = false;
  const running = taker
    .run(() => {
      tellRefusals(rings, onTrouble);
      return stopping;
    })
    .catch((error: unknown) => onTrouble(`memory rings are taken no longer: ${(error as Error).message}`));
  return async () => {
    stopping = true;
    taker.hurry();
    await running;
    rings.close();
  };
}

function opened(home: string, onTrouble: Tell): MemoryRings | undefined {
  try {
    return openMemoryRings(home);
  } catch (error) {
    if (!(error instanceof RecoveryLineError)) throw error;
    onTrouble(`no memory rings are taken: ${error.message}`);
    return undefined;
  }
}

function tellRefusals(rings: MemoryRings, onTrouble: Tell): void {
  for (const { pid, error } of rings.takeRefusals())
    onTrouble(`process ${pid} with memory rings is turned away: ${error.message}`);
}
