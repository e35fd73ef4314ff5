/** The parts of the collector that its objects share. */

import type { CollectPump } from "./collect-pump.ts";
import type { Drain } from "./drain.ts";
import type { OpenApps } from "./open-apps.ts";
import type { Turns } from "./turns.ts";

export interface Shared {
  readonly turns: Turns;
  readonly pump: CollectPump;
  readonly apps: OpenApps;
  readonly drain: Drain;
  /** The loop looks at once. */
  wake(): void;
}
