/** Which driver: the one that was asked for, or the best that works here. */
import { RecoveryLineError } from "../model/errors.ts";
import type { CheckpointDriver } from "./driver.ts";
import { CriuDriver } from "./driver-criu.ts";
import { findCriu } from "./driver-criu-find.ts";
import { noneDriver } from "./driver-none.ts";

export type DriverName = "auto" | "criu" | "none";

export interface DriverChoice {
  readonly driver: CheckpointDriver;
  /** Why `auto` is content with less than an image; such checkpoints can't be restored. */
  readonly fallback?: string;
}

/** Throws RL_NOT_SUPPORTED where CRIU was asked for and none will do. */
export async function chooseDriver(name: DriverName, stateFolder: string): Promise<DriverChoice> {
  if (name === "none") return { driver: noneDriver };
  const search = await findCriu(stateFolder);
  if (search.found !== undefined) return { driver: new CriuDriver(search.found) };
  if (name === "auto") return { driver: noneDriver, fallback: search.reason };
  throw new RecoveryLineError(
    "RL_NOT_SUPPORTED",
    search.reason,
    "scripts/get-criu.sh fetches one into a private folder; RECOVERY_LINE_CRIU names another.",
  );
}
