/** Which driver: the one that was asked for, or the best that works here. */

import type { Engine } from "../host/containers.ts";
import { CriuDriver } from "../images/criu/driver-criu.ts";
import { findCriu } from "../images/criu/driver-criu-find.ts";
import type { CheckpointDriver } from "../images/driver.ts";
import { noneDriver } from "../images/none/driver-none.ts";
import { RecoveryLineError } from "../model/errors.ts";

export type DriverName = "auto" | "criu" | Engine | "none";

export interface DriverChoice {
  readonly driver: CheckpointDriver;
  /** Why `auto` is content with less than an image; such checkpoints can't be restored. */
  readonly fallback?: string;
}

/** Few processes are containers: others wait for none of these modules. */
export async function findEngine(engine: Engine, stateFolder: string): Promise<DriverSearch> {
  if (engine === "docker") return (await import("../images/container/driver-docker-find.ts")).findDocker();
  return (await import("../images/container/driver-podman-find.ts")).findPodman(stateFolder);
}

interface DriverSearch {
  readonly found: CheckpointDriver | undefined;
  /** One sentence. */
  readonly reason: string;
}

/** For containers of an engine. Throws RL_NOT_SUPPORTED where an image was asked for and there can be none. */
export async function chooseContainerDriver(
  engine: Engine,
  name: DriverName,
  stateFolder: string,
): Promise<DriverChoice> {
  if (name === "none") return { driver: noneDriver };
  const { found, reason } = await findEngine(engine, stateFolder);
  if (found !== undefined) return { driver: found };
  if (name === "auto") return { driver: noneDriver, fallback: reason };
  throw new RecoveryLineError("RL_NOT_SUPPORTED", reason, "`recovery-line doctor` tells what is here.");
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
