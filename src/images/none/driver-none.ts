/** Only the cut: for programs that bring their own state back. There is no image, so nothing can be restored from one. */
import { RecoveryLineError } from "../../model/errors.ts";
import type { CheckpointDriver } from "../driver.ts";

export const noneDriver: CheckpointDriver = {
  name: "none",
  version: "1",
  images: false,
  holdsConnections: false,
  holdsPipes: false,
  look: () => undefined,
  dump: async () => ({}),
  restore: async () => {
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      "a checkpoint of driver none has no image to restore",
      "The program must bring its own state back.",
    );
  },
};
