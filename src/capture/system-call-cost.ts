/** What the hook on system calls costs everybody on this machine, measured on the spot. */
import { call, native, type UserfaultHandle } from "../native/binding.ts";

/** getppid(2) without and with the hook, in ns a call: medians of interleaved rounds. */
export interface SystemCallCost {
  readonly withoutNs: number;
  readonly withNs: number;
  readonly rounds: number;
  readonly callsARound: number;
}

/**
 * Loads the hook and takes it out again `rounds` times; it records nobody meanwhile. Throws RL_NO_RIGHTS, RL_NOT_SUPPORTED.
 * Where a collector with --dsm runs on this machine its hook is in both figures.
 */
export function systemCallCost(rounds: number, callsARound: number): SystemCallCost {
  const addon = native();
  const without: number[] = [];
  const withHook: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    without.push(addon.timeSystemCall(callsARound));
    const hook: UserfaultHandle = call("hook on system calls", () => addon.userfaultOpen(undefined));
    try {
      withHook.push(addon.timeSystemCall(callsARound));
    } finally {
      addon.userfaultClose(hook);
    }
  }
  return { withoutNs: median(without), withNs: median(withHook), rounds, callsARound };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[sorted.length >> 1]! + sorted[(sorted.length - 1) >> 1]!) / 2;
}
