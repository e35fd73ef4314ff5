/** What this machine can capture: a typed answer with reasons, never a crash. */
import { hasCode, RecoveryLineError } from "../model/errors.ts";
import type { CapturePart } from "../model/event-source.ts";
import { type NativePart, native } from "../native/binding.ts";

export interface Capability {
  /** "btf", "permission", "ring-buffer", "cgroup2" */
  readonly name: string;
  readonly supported: boolean;
  /** One sentence. */
  readonly reason: string;
}

/** Probes the kernel without leaving anything behind. Without the addon: one capability, "addon", not supported. */
export function kernelSupport(): readonly Capability[] {
  try {
    return [
      { name: "addon", supported: true, reason: "The native addon is loaded." },
      ...native()
        .probe()
        .map(({ name, supported, reason }) => ({ name, supported: supported !== 0, reason })),
    ];
  } catch (error) {
    if (!hasCode(error, "RL_NOT_SUPPORTED")) throw error;
    return [{ name: "addon", supported: false, reason: error.message }];
  }
}

export function partOf({ part, variant, inUse, usable, reason }: NativePart): CapturePart {
  return { part, variant, inUse: inUse !== 0, usable: usable !== 0, reason };
}

/** Every variant of every part of the capture, tried on this kernel; leaves nothing behind. None without the addon. */
export function captureParts(): readonly CapturePart[] {
  try {
    return native().parts(undefined).map(partOf);
  } catch (error) {
    if (!hasCode(error, "RL_NOT_SUPPORTED")) throw error;
    return [];
  }
}

/** Throws RL_NOT_SUPPORTED naming the first missing capability and its reason. */
export function requireSupport(...names: string[]): void {
  const found = kernelSupport();
  for (const name of ["addon", ...names]) {
    const capability = found.find((one) => one.name === name);
    if (capability?.supported) continue;
    throw new RecoveryLineError(
      "RL_NOT_SUPPORTED",
      `this machine lacks ${name}: ${capability?.reason ?? "not probed"}`,
      "`recovery-line doctor` tells each part's variants with the kernel's own answers; import, export and compute work without.",
    );
  }
}
