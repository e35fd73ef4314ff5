import { setTimeout as sleep } from "node:timers/promises";
import { hasCode } from "../model/errors.ts";

const LOOK_MS = 20;

/** What `take` returns once it does not throw RL_LOCKED any more. Throws that at the deadline, and whatever else it throws. */
export async function lockedBy<T>(deadlineMs: number, take: () => T | Promise<T>): Promise<T> {
  for (;;)
    try {
      return await take();
    } catch (error) {
      if (!hasCode(error, "RL_LOCKED") || performance.now() >= deadlineMs) throw error;
      await sleep(LOOK_MS);
    }
}
